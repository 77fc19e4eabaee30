"""MODEL=demo: the small random model, written when it is asked for the first time.

Knows where it lies and what writes it. It imports no torch: another process does.
"""

import subprocess
import sys
from pathlib import Path

from workbench.errors import ConfigError

NAME = "demo"
FOLDER = Path("outputs/demo_checkpoint")
MODULE = "engine.demo_checkpoint"


def demo_folder(folder: Path = FOLDER) -> Path:
    """The folder of the model; it is written if it is not there.

    Raises:
        ConfigError: It cannot be written here.
    """
    if (folder / "config.json").is_file():
        return folder
    print(f"note: writing a small random model to {folder}, once", file=sys.stderr)
    written = subprocess.run(
        [sys.executable, "-m", MODULE, str(folder)], capture_output=True, text=True, check=False
    )
    if written.returncode:
        lines = written.stderr.strip().splitlines() or [f"exit status {written.returncode}"]
        reason = lines[-1].removeprefix("error: ")
        raise ConfigError(
            f"MODEL={NAME} cannot be had: {reason}, or serve a preset with --backend simulator,"
            " e.g. llama3_8b"
        )
    return folder
