"""Settings of a command that is not a run: `NAME.FIELD=VALUE` beside the overrides of a run.

Knows how a command line is parted: the command's own settings (one frozen dataclass), the folder of
its results, and what is left for Hydra to compose the run's config from.
"""

import time
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml

from workbench.errors import ConfigError

T = TypeVar("T")
FOLDER = "hydra.run.dir"


def part_command_line(
    arguments: Sequence[str], name: str, settings: type[T]
) -> tuple[T, Path, list[str]]:
    """(the command's settings, its folder, the overrides of the run).

    Raises:
        ConfigError: A setting that the command does not have, or a value that it refuses.
    """
    folder = new_folder()
    own: dict[str, Any] = {}
    rest = []
    known = [field.name for field in fields(cast(Any, settings))]
    for argument in arguments:
        key, separator, value = argument.partition("=")
        if separator and key == FOLDER:
            folder = Path(value)
        elif separator and key.startswith(f"{name}."):
            field = key.removeprefix(f"{name}.")
            if field not in known:
                raise ConfigError(f"{argument}: {name} has: {', '.join(known)}")
            own[field] = read_value(argument, value)
        else:
            rest.append(argument)
    try:
        return settings(**own), folder, rest
    except ConfigError as error:
        raise ConfigError(f"{name}.{error}") from error


def new_folder() -> Path:
    """Where results go that no folder was named for."""
    return Path(time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))


def read_value(argument: str, text: str) -> Any:
    """The value of a setting as YAML understands it; a list becomes a tuple.

    Raises:
        ConfigError: It is no YAML.
    """
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{argument}: the value cannot be read") from None
    return tuple(value) if isinstance(value, list) else value


def written_value(value: Any) -> str:
    """The text that `read_value` understands so."""
    text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("\n...\n").rstrip("\n")
