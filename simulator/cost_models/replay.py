"""Step times as they were recorded: the n-th step of a replica takes as long as its n-th row.

Knows a column of durations. It does not look at the shape of a step, so it is right only for a run
that takes the recorded decisions.
"""

from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import ConfigError, CostModelError
from workbench.step_profile import StepShape


class ReplayCostModel:
    """Replays a file of recorded steps, one instance a replica.

    Args:
        path: Parquet or CSV with a row a step, in order, e.g. the steps.parquet of a run.
        replica: Rows of which replica, where the file has a column `replica`.
        column: Column of seconds.
        model, hardware, parallel: Ignored.

    Raises:
        ConfigError: The file is missing, lacks the column or the replica, or holds a duration that
            is not a positive number.
    """

    def __init__(
        self,
        path: str,
        replica: int = 0,
        column: str = "duration_s",
        model: Any = None,
        hardware: Any = None,
        parallel: Any = None,
    ) -> None:
        del model, hardware, parallel
        self.num_extrapolated = 0
        self.is_repeatable = False
        self._path, self._replica = path, replica
        self._durations = _read(Path(path), replica, column)
        self._next = 0

    @property
    def num_steps(self) -> int:
        """Recorded steps of this replica."""
        return len(self._durations)

    def host_time(self, shape: StepShape) -> float:
        """0: no part of a step is the host's; see CostModel."""
        return 0.0

    def step_time(self, shape: StepShape) -> float:
        """Seconds of the next recorded step.

        Raises:
            CostModelError: All recorded steps are used up.
        """
        del shape
        if self._next >= len(self._durations):
            raise CostModelError(
                f"replica {self._replica} asks for step {self._next + 1} but {self._path} records"
                f" {len(self._durations)}: replay it with the workload and policies it was"
                " recorded with"
            )
        self._next += 1
        return self._durations[self._next - 1]


def _read(path: Path, replica: int, column: str) -> list[float]:
    import pandas as pd

    if not path.is_file():
        raise ConfigError(f"cost_model.path={path} does not exist: give a steps.parquet or a CSV")
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if column not in frame:
        raise ConfigError(
            f"recorded steps {path} lack the column {column}: have {', '.join(frame.columns)}"
        )
    if "replica" in frame:
        frame = frame[frame["replica"] == replica]
    durations = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    if not len(durations):
        raise ConfigError(f"recorded steps {path} have no row of replica {replica}")
    wrong = np.flatnonzero(~(durations >= 0) | ~np.isfinite(durations))
    if len(wrong):
        raise ConfigError(
            f"recorded steps {path} hold {frame[column].iloc[int(wrong[0])]!r} as {column} of step"
            f" {int(wrong[0])}: durations are numbers of at least 0"
        )
    return [float(duration) for duration in durations]
