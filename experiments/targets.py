"""What a dotted path in a `_target_` names: a class or a function of any module.

Knows how a path is looked up and how one that leads nowhere is told. It builds nothing.
"""

import difflib
from importlib import import_module
from types import ModuleType
from typing import Any

from workbench.errors import ConfigError


def locate(path: str) -> Any:
    """The object of that name, module and all: "package.module.Class".

    Raises:
        ConfigError: The module or the name in it is missing, or importing the module fails.
    """
    names = path.split(".")
    if not all(names):
        raise ConfigError("write MODULE.CLASS")
    found: Any = _module(names[0])
    for i, name in enumerate(names[1:], 1):
        if not hasattr(found, name) and not _is_submodule(found, ".".join(names[: i + 1])):
            raise ConfigError(_missing(found, ".".join(names[:i]), name))
        found = getattr(found, name)
    return found


def _module(name: str) -> ModuleType:
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise ConfigError(f"{name} imports {error.name}, which is not installed") from error
        raise ConfigError(
            f"there is no module {name!r}: name one of the working directory or of an installed"
            " package"
        ) from error
    except Exception as error:  # whatever a module of the user's own does when it is imported
        reason = " ".join(str(error).split())
        raise ConfigError(f"importing {name} fails: {type(error).__name__}: {reason}") from error


def _is_submodule(parent: Any, name: str) -> bool:
    """Whether a package holds this module, which is imported then."""
    if not hasattr(parent, "__path__"):
        return False
    try:
        _module(name)
    except ConfigError as error:
        cause = error.__cause__
        if isinstance(cause, ModuleNotFoundError) and cause.name == name:
            return False
        raise
    return True


def _missing(parent: Any, path: str, name: str) -> str:
    kind = "module " if isinstance(parent, ModuleType) else ""
    near = difflib.get_close_matches(name, dir(parent), n=1)
    hint = f"; did you mean {path}.{near[0]}?" if near else ""
    return f"{kind}{path} has no {name!r}{hint}"
