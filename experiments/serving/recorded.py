"""Records what a served engine is asked and what it decides, for `python -m experiments.parity`.

Knows where a recording is written and what a recorded core must not be asked. What is recorded,
`engine.core_recorder` knows.
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from engine.core_recorder import RecordedCore
from engine.errors import InputError
from engine.served_core import ServedCore
from experiments.run_folder import RECORDING
from workbench.errors import ConfigError
from workbench.recording import RecordingWriter


def recorded(served: ServedCore, recording: RecordingWriter, folder: Path) -> ServedCore:
    """The same core, recorded until it is shut down.

    Args:
        served: Fresh.
        recording: Of its settings.
        folder: Gets a folder 0 with the recording; where there is one, 1, and so on.

    Raises:
        ConfigError: Nothing can be written there.
    """
    core = RecordedCore(served.core, recording)
    own = _own_folder(folder)
    return replace(
        served,
        core=core,
        calls={**served.calls, "reset_prefix_cache": _refuse},
        shutdown=_writing(core, own / RECORDING, served.shutdown),
    )


def _own_folder(folder: Path) -> Path:
    """A new folder: a core that is started again must not write over the one before."""
    for number in count():
        own = folder / str(number)
        try:
            own.mkdir(parents=True)
        except FileExistsError as error:
            if not own.is_dir():
                raise ConfigError(f"--record {folder}: {error.strerror}; name a folder") from error
        except OSError as error:
            raise ConfigError(
                f"--record {folder}: {error.strerror}; name a folder that can be written to"
            ) from error
        else:
            return own
    raise AssertionError("numbers do not end")


def _writing(core: RecordedCore, file: Path, end: Callable[[], None]) -> Callable[[], None]:
    def write_and_end() -> None:
        try:
            file.write_bytes(core.close())
        finally:
            end()

    return write_and_end


def _refuse(*args: Any) -> None:
    raise InputError(
        "the run is recorded, and a recording does not tell of it: serve without --record"
    )
