"""Closed-loop operating points: a fixed number of users on one server, and their mean latencies.

Knows the columns of a table of points and how such points are measured. It does not know what a
step costs.

A point's users all start at once, and each sends its next request when its last one is answered,
until there were about ten requests a user. Two kinds of measurements are told apart by the column
`backend_version`:

* Points with a version come from the serving benchmark that aiconfigurator generates: lengths are
  exact, and the server's token budget is isl + users + 1500 (its rule for vLLM).
* The others draw both lengths from U(0.8, 1) of the named ones, with vLLM's budget of 8192.

Exact lengths matter: users whose answers are equally long stay together, so that their next prompts
come in a convoy and wait for one another.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from workbench.errors import ConfigError
from workbench.workload.base import RequestColumns
from workbench.workload.sessions import SessionWorkload

NEEDED = (
    "model_path", "system", "isl", "osl", "tp_size", "concurrency", "silicon_ttft_ms",
    "silicon_tpot_ms",
)  # fmt: skip
EXTRA_BUDGET, DEFAULT_BUDGET, SHORTEST = 1500, 8192, 0.8


@dataclass(frozen=True, slots=True)
class Point:
    """One operating point.

    Attributes:
        name: Its id, or its place in the table.
        model, system: Names of the model and of the GPU's tables.
        isl, osl: Tokens of a prompt and of an answer.
        users: Requests at once.
        precision: Of the weights: "bfloat16" or "fp8".
        version: Of vLLM; empty if it is not told.
        exact: Whether all lengths are equal.
        ttft_ms, tpot_ms: Measured means.
    """

    name: str
    model: str
    system: str
    isl: int
    osl: int
    users: int
    tensor_parallel_size: int
    precision: str
    version: str
    exact: bool
    ttft_ms: float
    tpot_ms: float

    @property
    def token_budget(self) -> int:
        """max_num_batched_tokens of the server."""
        return self.isl + self.users + EXTRA_BUDGET if self.exact else DEFAULT_BUDGET

    def workload(self, requests_per_user: int, seed: int) -> SessionWorkload:
        """The users' requests."""
        random = np.random.default_rng(seed)
        count = self.users * requests_per_user

        def lengths(longest: int) -> np.ndarray:
            shares = np.ones(count) if self.exact else random.uniform(SHORTEST, 1.0, count)
            return np.maximum(1, np.round(longest * shares)).astype(np.int64)

        columns = RequestColumns(
            arrival_times=np.zeros(count),
            num_prompt_tokens=lengths(self.isl),
            num_output_tokens=lengths(self.osl),
        )
        alone = np.zeros(count, dtype=np.int64)
        return SessionWorkload(columns, alone, np.zeros(self.users), np.zeros(count))


def read_points(file: Path) -> list[Point]:
    """Read a table of points.

    Raises:
        ConfigError: It is missing, lacks a column, or holds a row that is no point.
    """
    if not file.is_file():
        raise ConfigError(f"points={file} does not exist: give a CSV of operating points")
    try:
        table = pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise ConfigError(f"points={file} cannot be read as CSV: {error}") from None
    missing = [name for name in NEEDED if name not in table]
    if missing:
        raise ConfigError(f"points={file} lacks the column {missing[0]}; it needs {NEEDED}")
    if table.empty:
        raise ConfigError(f"points={file} holds no point")
    rows = table.to_dict("records")
    return [_point(row, f"points={file}, line {n}") for n, row in enumerate(rows, start=2)]


def _point(row: dict[str, object], place: str) -> Point:
    try:
        counts = {
            ours: _count(row[theirs])
            for ours, theirs in (
                ("isl", "isl"), ("osl", "osl"), ("users", "concurrency"),
                ("tensor_parallel_size", "tp_size"),
            )
        }  # fmt: skip
        ttft_ms, tpot_ms = (float(str(row[f"silicon_{name}_ms"])) for name in ("ttft", "tpot"))
        if not (0 < ttft_ms < math.inf and 0 < tpot_ms < math.inf):
            raise ValueError("a latency is not above 0")
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{place} is no point: {error}") from None
    version = _text(row.get("backend_version"))
    precision = "fp8" if _text(row.get("gemm_quant_mode")).startswith("fp8") else "bfloat16"
    return Point(
        name=_text(row.get("id")) or place.rpartition(" ")[2],
        model=_text(row["model_path"]),
        system=_text(row["system"]),
        precision=precision,
        version=version,
        exact=bool(version),
        ttft_ms=ttft_ms,
        tpot_ms=tpot_ms,
        **counts,
    )


def _count(value: object) -> int:
    number = float(str(value))
    if not (number >= 1 and number == int(number)):
        raise ValueError(f"{value!r} must be a whole number of at least 1")
    return int(number)


def _text(value: object) -> str:
    return "" if value is None or value != value else str(value)
