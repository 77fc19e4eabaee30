"""Reads measured tables: every column that is missing and every time that is none is named.

Knows files and columns. It does not know what a column means.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from simulator.cost_models.grid import Array
from workbench.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd


def read_csv(file: Path, columns: tuple[str, ...]) -> list[Array]:
    """Columns of finite numbers of at least 0 from a CSV file of a profile.

    Raises:
        ConfigError: The file is missing or empty, lacks a column, or holds anything else.
    """
    import pandas as pd

    if not file.is_file():
        raise ConfigError(f"profile file {file} does not exist: give a complete profile folder")
    try:
        frame = pd.read_csv(file)
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"profile file {file} cannot be read as CSV: {reason}") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ConfigError(f"profile file {file} lacks the column {', '.join(missing)}")
    if frame.empty:
        raise ConfigError(f"profile file {file} is empty: give a complete profile folder")
    arrays = []
    for name in columns:
        try:
            values = frame[name].to_numpy(dtype=np.float64)
        except ValueError as error:
            message = f"profile file {file} holds a value that is no number: {error}"
            raise ConfigError(message) from None
        _check(values, name, file)
        arrays.append(values)
    return arrays


def read_names(file: Path, column: str) -> list[str]:
    """A column of text from a CSV file of a profile that `read_csv` has read.

    Raises:
        ConfigError: The column is missing.
    """
    import pandas as pd

    frame = pd.read_csv(file)
    if column not in frame:
        raise ConfigError(f"profile file {file} lacks the column {column}")
    return [str(name) for name in frame[column]]


def read_parquet(file: Path, columns: tuple[str, ...]) -> "pd.DataFrame":
    """A kernel table with at least these columns.

    Raises:
        ConfigError: It cannot be read, or lacks a column.
    """
    import pandas as pd

    try:
        frame = pd.read_parquet(file)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"kernel table {file} cannot be read as Parquet: {reason}") from None
    missing = [name for name in columns if name not in frame]
    if missing:
        raise ConfigError(f"kernel table {file} lacks the column {', '.join(missing)}")
    return frame


def read_times(frame: "pd.DataFrame", file: Path) -> Array:
    """Seconds from the column `latency`, in ms.

    Raises:
        ConfigError: A time that is not a finite number of at least 0.
    """
    seconds: Array = frame["latency"].to_numpy(dtype=np.float64) * 1e-3
    _check(seconds, "latency", file)
    return seconds


def _check(values: Array, name: str, file: Path) -> None:
    wrong = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(wrong):
        row = int(wrong[0])
        raise ConfigError(
            f"{file} holds {values[row]:g} as {name} in row {row}: it must be a finite number of"
            " at least 0"
        )
