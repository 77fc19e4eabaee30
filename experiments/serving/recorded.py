"""Records what a served engine is asked and what it decides, for `python -m experiments.parity`.

It is written as it goes: a recording of a process that was killed can be read up to there. Knows
where a recording is written and what a recorded core must not be asked. What is recorded,
`engine.core_recorder` knows.
"""

import logging
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
from workbench.recording import RecordingSink, RecordingWriter

logger = logging.getLogger(__name__)


class RecordingFile:
    """A file that is written to for as long as it can be; nobody who writes to it ever fails.

    Args:
        path: Of a new file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        # what the system has been handed stays when this process is killed
        self._file = path.open("xb", buffering=0)

    def write(self, data: bytes) -> None:
        """Write; what cannot be written is lost, and so is all that follows."""
        left = memoryview(data)
        try:
            while left and not self._file.closed:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.close()
            self._tell(error)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """Nothing more comes."""
        try:
            self._file.close()
        except OSError as error:
            # network file systems may say only now that they have no space
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        logger.error(
            "%s cannot be written on (%s): the recording ends here, and the server goes on",
            self._path,
            error.strerror,
        )


def recorded(
    served: ServedCore, make_writer: Callable[[RecordingSink], RecordingWriter], folder: Path
) -> ServedCore:
    """The same core, recorded until it is shut down.

    Args:
        served: Fresh.
        make_writer: Begins a recording of its settings in a file.
        folder: Gets a folder 0 with the recording; where there is one, 1, and so on.

    Raises:
        ConfigError: Nothing can be written there.
    """
    file = RecordingFile(_own_folder(folder) / RECORDING)
    core = RecordedCore(served.core, make_writer(file))
    return replace(
        served,
        core=core,
        calls={**served.calls, "reset_prefix_cache": _refuse},
        shutdown=_ending(core, file, served.shutdown),
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


def _ending(core: RecordedCore, file: RecordingFile, end: Callable[[], None]) -> Callable[[], None]:
    def end_both() -> None:
        try:
            core.close()
            file.close()
        finally:
            end()

    return end_both


def _refuse(*args: Any) -> None:
    raise InputError(
        "the run is recorded, and a recording does not tell of it: serve without --record"
    )
