"""Objects from config nodes that name their class in `_target_`, with the checks Hydra leaves out.

Knows signatures and annotations. A parameter that the class does not have, or whose value is not of
the annotated type, is refused by its full name before anything is built.
"""

import difflib
import functools
import inspect
import types
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Literal, Union, cast, get_args, get_origin, get_type_hints

from hydra.errors import InstantiationException
from hydra.utils import get_object, instantiate
from omegaconf import DictConfig, OmegaConf

from workbench.errors import ConfigError, WorkbenchError

HYDRA_KEYS = frozenset({"_target_", "_convert_", "_partial_", "_recursive_", "_args_"})


def build(node: DictConfig, where: str, **arguments: Any) -> Any:
    """What `_target_` returns for the node's values and these arguments.

    Raises ConfigError naming `where.parameter` for an unknown, missing or ill-typed parameter;
    errors of the class itself pass through.
    """
    return factory(node, where, given=arguments.keys())(**arguments)


def factory(node: DictConfig, where: str, given: Collection[str] = ()) -> Any:
    """A callable that makes a new object with the node's values at each call.

    `given` names the arguments that the caller will pass, so they count as present.
    """
    plain = OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    values = cast(dict[str, Any], plain) if isinstance(plain, dict) else {}
    if "_target_" not in values:
        raise ConfigError(f"{where} has no _target_: name the class to build, or choose an option")
    check(values, where, given)
    return functools.partial(_make, node, where)


def _make(node: DictConfig, where: str, **arguments: Any) -> Any:
    # nested nodes are built again for each object, so that no two share their state; the arguments
    # come after Hydra is through, which would turn dataclasses into dicts
    try:
        return instantiate(node, _partial_=True, _convert_="all")(**arguments)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, WorkbenchError):
            raise cause from None
        raise ConfigError(f"{where}: {cause or error}") from error


def check(values: Mapping[str, Any], where: str, given: Collection[str] = ()) -> None:
    """Raises ConfigError unless the values fit the signature of their `_target_`, at any depth."""
    for name, value in values.items():
        for path, inner in _nodes(value, f"{where}.{name}"):
            check(inner, path)
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
        if name in hints and not accepts(hints[name], value):
            raise ConfigError(f"{where}.{name}={value!r}: expected {describe(hints[name])}")
    for name, parameter in parameters.items():
        optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_KEYWORD,
            parameter.VAR_POSITIONAL,
        )
        if not optional and name not in values and name not in given:
            raise ConfigError(f"{where}.{name} is not set: give it, e.g. {where}.{name}=VALUE")


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
        parameters = inspect.signature(get_object(path)).parameters.values()
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
        return get_object(path)
    except Exception as error:
        raise ConfigError(f"{where}._target_={path}: cannot be imported ({error})") from error


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
