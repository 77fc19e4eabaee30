"""What MODEL stands for: a folder on disk, or a preset of the simulator.

Knows files and names. It reads no weights and decides nothing about a server.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from engine.tokenizer import has_tokenizer
from simulator.model_config import PRESETS
from workbench.errors import ConfigError

CONFIG = "config.json"
DEMO = "MODEL demo is a small random one"


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's facts come from.

    Attributes:
        name: As the user gave it.
        folder: Where config.json is.
        is_preset: Whether it ships with the project: sizes only, no weights and no tokenizer.
    """

    name: str
    folder: Path
    is_preset: bool

    @classmethod
    def of(cls, name: str) -> "ModelSource":
        """The source of that name; a folder comes before a preset of the same name.

        Raises:
            ConfigError: Neither, or a folder that holds no model.
        """
        folder = Path(name).expanduser()
        if folder.is_file() and folder.name == CONFIG:
            folder = folder.parent
        if folder.is_dir() and ((folder / CONFIG).is_file() or has_tokenizer(folder)):
            return cls(name, folder, False)
        if (PRESETS / name / CONFIG).is_file():
            return cls(name, PRESETS / name, True)
        if folder.is_dir():
            raise ConfigError(
                f"MODEL={name}: the folder has neither {CONFIG} nor a tokenizer: name the folder of"
                f" a checkpoint; {DEMO}"
            )
        raise ConfigError(_unknown(name))

    @property
    def has_config(self) -> bool:
        """Whether it says how large the model is."""
        return (self.folder / CONFIG).is_file()

    @property
    def has_tokenizer(self) -> bool:
        """Whether a tokenizer lies in the folder."""
        return has_tokenizer(self.folder)


def preset_names() -> list[str]:
    """Names of the models that ship with the project."""
    return sorted(entry.name for entry in PRESETS.iterdir() if (entry / CONFIG).is_file())


def _unknown(name: str) -> str:
    presets = preset_names()
    near = difflib.get_close_matches(name, presets, n=1)
    if near:
        return f"MODEL={name}: there is no such folder; did you mean the preset {near[0]}?"
    looks_remote = name.count("/") == 1 and not name.startswith(("/", ".", "~"))
    remote = "; nothing is downloaded" if looks_remote else ""
    return (
        f"MODEL={name}: there is no such folder{remote}: name one with a checkpoint ({DEMO}), or a"
        f" preset for --backend simulator ({', '.join(presets)})"
    )
