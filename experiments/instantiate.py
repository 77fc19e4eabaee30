"""Objects from config nodes that name their class in `_target_`, with the checks Hydra leaves out.

Knows signatures and annotations. A parameter that the class does not have, or whose value is not of
the annotated type or no finite number, is refused by its full name before anything is built. So is
a class that is none of the kind its place needs.
"""

import difflib
import functools
import inspect
import math
import re
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from experiments.targets import locate
from workbench.errors import ConfigError, WorkbenchError

HYDRA_KEYS = frozenset({"_target_", "_convert_", "_partial_", "_recursive_", "_args_"})


def build(node: DictConfig, where: str, expected: type | None = None, **arguments: Any) -> Any:
    """What `_target_` returns for the node's values and these arguments.

    Raises ConfigError naming `where.parameter` for an unknown, missing or ill-typed parameter, and
    for an object that is no `expected`; errors of the class itself pass through, with the full name
    of the parameter they begin with.
    """
    return factory(node, where, expected, given=arguments.keys())(**arguments)


def factory(
    node: DictConfig, where: str, expected: type | None = None, given: Collection[str] = ()
) -> Any:
    """A callable that makes a new object with the node's values at each call. Errors: see `build`.

    `given` names the arguments that the caller will pass, so they count as present.
    """
    plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    values = cast(dict[str, Any], plain) if isinstance(plain, dict) else {}
    if "_target_" not in values:
        raise ConfigError(f"{where} has no _target_: name the class to build, or choose an option")
    _check_finite(values, where)
    if expected is not None:
        _check_kind(where, values["_target_"], expected)
    check(values, where, given)
    return functools.partial(_make, node, where, expected)


def _make(node: DictConfig, where: str, expected: type | None, **arguments: Any) -> Any:
    # nested nodes are built again for each object, so that no two share their state; the arguments
    # come after Hydra is through, which would turn dataclasses into dicts
    try:
        made = instantiate(node, _partial_=True, _convert_="all")(**arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, WorkbenchError):
            raise _named(cause, _place(str(error), where), node, where) from cause
        raise ConfigError(f"{where}: {cause or error}") from error
    except WorkbenchError as error:
        raise _named(error, where, node, where) from error
    if expected is not None and not isinstance(made, expected):
        raise ConfigError(_wrong_kind(f"{where}._target_={node._target_}", type(made), expected))
    return made


def _place(text: str, where: str) -> str:
    """The full name of the node that Hydra's message is about."""
    found = re.search(r"full_key: (\S+)", text)
    if found is None or found[1] == where or found[1].startswith(f"{where}."):
        return found[1] if found else where
    return f"{where}.{found[1]}"  # the node is no part of a larger config


def _named(error: WorkbenchError, place: str, node: DictConfig, where: str) -> WorkbenchError:
    """The error with the full name of the parameter that its message begins with, if it does."""
    text = str(error)
    inner = node if place == where else OmegaConf.select(node, place.removeprefix(f"{where}."))
    name = re.match(r"\w+(?==| is | must )", text)
    if name is None or not isinstance(inner, DictConfig) or "_target_" not in inner:
        return error
    if name[0] not in parameter_names(str(inner._target_)):
        return error
    return type(error)(f"{place}.{text}")


def _wrong_kind(what: str, got: type, *expected: type) -> str:
    wanted = " or ".join(f"{kind.__module__}.{kind.__qualname__}" for kind in expected)
    group = what.partition("._target_")[0]
    return f"{what}: it makes a {got.__name__}, and {group} needs a {wanted}: name one of that kind"


def check(values: Mapping[str, Any], where: str, given: Collection[str] = ()) -> None:
    """Raises ConfigError unless the values fit the signature of their `_target_`, at any depth."""
    target = _target(str(values["_target_"]), where)
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):
        return
    hints = _hints(target)
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    for name, value in values.items():
        if name in HYDRA_KEYS:
            continue
        if name not in parameters and not open_ended:
            raise ConfigError(_unknown(where, name, values["_target_"], list(parameters)))
        if name in hints:
            _check_value(f"{where}.{name}", value, hints[name])
    _check_complete(parameters, values, given, where)
    for name, value in values.items():
        for path, inner in _nodes(value, f"{where}.{name}"):
            check(inner, path)


def _check_value(name: str, value: Any, hint: Any) -> None:
    if not accepts(hint, value):
        raise ConfigError(f"{name}={value!r}: expected {describe(hint)}")
    if not isinstance(value, dict) or "_target_" not in value or value.get("_partial_"):
        return
    _check_kind(name, value["_target_"], hint)


def _check_kind(name: str, path: Any, hint: Any) -> None:
    """Refuses a class that is none of those an annotation allows; what a function makes is open."""
    target = _target(str(path), name)
    kinds = _classes(hint)
    if kinds and inspect.isclass(target) and not issubclass(target, kinds):
        raise ConfigError(_wrong_kind(f"{name}._target_={path}", target, *kinds))


def _classes(hint: Any) -> tuple[type, ...]:
    """The classes that an annotation allows; none where it allows what no class says."""
    union = get_origin(hint) in (Union, types.UnionType)
    kinds = [k for k in (get_args(hint) if union else (hint,)) if k is not types.NoneType]
    # a protocol with properties cannot be compared with a class, and Any is a class of its own
    if all(inspect.isclass(k) and not getattr(k, "_is_protocol", k is Any) for k in kinds):
        return tuple(kinds)
    return ()


def _check_complete(
    parameters: Mapping[str, inspect.Parameter],
    values: Mapping[str, Any],
    given: Collection[str],
    where: str,
) -> None:
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not optional and name not in values and name not in given:
            raise ConfigError(f"{where}.{name} is not set: give it, e.g. {where}.{name}=VALUE")


def _check_finite(value: Any, name: str) -> None:
    """Refuses NaN and infinity at any depth: no comparison with a limit would find a NaN."""
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name}={value}: expected a finite number")
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_finite(inner, f"{name}.{key}")
    if isinstance(value, list):
        for i, inner in enumerate(value):
            _check_finite(inner, f"{name}[{i}]")


def accepts(hint: Any, value: Any) -> bool:
    """Whether a plain value fits an annotation; what is not plain is the class's business."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        return any(accepts(part, value) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is types.NoneType:
        return value is None
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if hint in (bool, str):
        return isinstance(value, hint)
    if hint is Path:
        return isinstance(value, str)
    return True


def describe(hint: Any) -> str:
    """An annotation in words."""
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(describe(part) for part in get_args(hint))
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(hint))
    if hint is types.NoneType:
        return "null"
    return words.get(hint, getattr(hint, "__name__", str(hint)))


def parameter_names(path: str) -> set[str]:
    """Names of the parameters of a class or function; empty if it cannot be imported."""
    try:
        parameters = inspect.signature(locate(path)).parameters.values()
    except Exception:
        return set()
    return {p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)}


def _nodes(value: Any, path: str) -> list[tuple[str, Mapping[str, Any]]]:
    """The nearest nodes with a `_target_` in a value, each with its full name."""
    if isinstance(value, dict):
        if "_target_" in value:
            return [(path, value)]
        return [n for key, inner in value.items() for n in _nodes(inner, f"{path}.{key}")]
    if isinstance(value, list):
        return [n for i, inner in enumerate(value) for n in _nodes(inner, f"{path}[{i}]")]
    return []


def _target(path: str, where: str) -> Any:
    try:
        return locate(path)
    except ConfigError as error:
        raise ConfigError(f"{where}._target_={path}: {error}") from error


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    try:
        return get_type_hints(function)
    except (NameError, TypeError):
        return {}


def _unknown(where: str, name: str, target: str, parameters: list[str]) -> str:
    known = [p for p in parameters if p != "self"]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {where}.{close[0]}? " if close else ""
    listed = ", ".join(known) or "none"
    return f"{where}.{name}: there is no such parameter; {hint}{target} has: {listed}"
