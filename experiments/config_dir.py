"""A folder of the user's own options beside `conf/`: --config-dir, as Hydra has it for runs.

Knows how Hydra is told of it where a config is composed without Hydra's command line.
"""

from pathlib import Path

from workbench.errors import ConfigError

FLAGS = ("--config-dir", "-cd")


def own_options(folder: str | Path) -> Path:
    """The folder, checked.

    Raises:
        ConfigError: There is none.
    """
    path = Path(folder).expanduser().absolute()
    if not path.is_dir():
        raise ConfigError(
            f"--config-dir {folder}: there is no such folder; name one that holds GROUP/OPTION.yaml"
        )
    return path


def as_override(folder: str | Path) -> str:
    """The override that lets a config be composed of its options, too. Errors: `own_options`."""
    quoted = str(own_options(folder)).replace("\\", "\\\\").replace("'", "\\'")
    return f"hydra.searchpath=['{quoted}']"
