"""Step times as they were recorded: the n-th step of a replica takes as long as its n-th row.

Knows a column of durations. It does not look at the shape of a step, so it is right only for a run
that takes the recorded decisions.
"""

from copy import copy
from pathlib import Path

import numpy as np

from simulator.cost_models.base import CostModel
from workbench.errors import ConfigError, CostModelError
from workbench.step_profile import StepShape

Durations = dict[int, list[float]]


class ReplayCostModel(CostModel):
    """Replays a file of recorded steps; every replica of a run replays its own rows.

    Args:
        path: Parquet or CSV with a row a step, in order, e.g. the steps.parquet of a run. A column
            `replica` tells the replicas apart; without it all rows are those of replica 0.
        replica: Rows of one recorded replica, for a run of one; None: each replica its own.
        column: Column of seconds.

    Raises:
        ConfigError: The file is missing, lacks the column or the replica, or holds a duration that
            is not a finite number of at least 0.
    """

    is_repeatable = False
    is_replay = True

    def __init__(self, path: str, replica: int | None = None, column: str = "duration_s") -> None:
        self._path = path
        self._recorded = _read(Path(path), column)
        self._only = replica
        self._replay(replica or 0)

    def _replay(self, replica: int) -> None:
        if replica not in self._recorded:
            raise ConfigError(
                f"recorded steps {self._path} have no row of replica {replica} (have"
                f" {sorted(self._recorded)}): set cluster.replicas to the number recorded"
            )
        self._replica = replica
        self._durations = self._recorded[replica]
        self._next = 0

    def for_replica(self, number: int) -> "ReplayCostModel":
        """A replay of that replica's rows, from the first one on; see CostModel."""
        if self._only is not None and number:
            raise ConfigError(
                f"cost_model.replica={self._only} names the rows of one replica, and the run has"
                " more: leave it null to replay each replica's own, or set cluster.replicas=1"
            )
        replay = copy(self)
        replay._replay(number if self._only is None else self._only)
        return replay

    @property
    def num_steps(self) -> int:
        """Recorded steps of this replica."""
        return len(self._durations)

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


def _read(path: Path, column: str) -> Durations:
    """Durations by replica, in the order of the file."""
    import pandas as pd

    if not path.is_file():
        raise ConfigError(f"cost_model.path={path} does not exist: give a steps.parquet or a CSV")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (ValueError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"cost_model.path={path} cannot be read as a table: {reason}") from None
    if column not in frame:
        raise ConfigError(
            f"recorded steps {path} lack the column {column}: have {', '.join(frame.columns)}"
        )
    durations = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(durations >= 0) | ~np.isfinite(durations))
    if len(wrong):
        raise ConfigError(
            f"recorded steps {path} hold {frame[column].iloc[int(wrong[0])]!r} as {column} of step"
            f" {int(wrong[0])}: durations are numbers of at least 0"
        )
    if "replica" not in frame:
        return {0: durations.tolist()} if len(durations) else {}
    replicas = pd.to_numeric(frame["replica"], errors="coerce").to_numpy(dtype=np.float64)
    if np.isnan(replicas).any():
        step = int(np.flatnonzero(np.isnan(replicas))[0])
        raise ConfigError(
            f"recorded steps {path} hold {frame['replica'].iloc[step]!r} as replica of step {step}:"
            " replicas are numbered from 0"
        )
    return {int(n): durations[replicas == n].tolist() for n in np.unique(replicas)}
