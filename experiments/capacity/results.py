"""The capacities of all configurations of a sweep in one table, with what they cost.

Knows the folders that `job` writes, and prices. Computes costs and which points no other point
beats; every latency and rate was written by the search.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from experiments.capacity.job import PROBES
from experiments.compare import collect_runs

HOUR = 3600.0
MILLION = 1e6
CAPACITY_CSV = "capacity.csv"
AVERAGED = (
    "rate_per_s", "rate_per_gpu_per_s", "output_tokens_per_s", "cost_per_million_output_tokens",
)  # fmt: skip
COLUMNS = (
    "configuration", "status", "rate_per_s", "arrivals", "gpus", "rate_per_gpu_per_s",
    "output_tokens_per_s", "total_tokens_per_s", "price_per_gpu_hour", "cost_per_hour",
    "cost_per_million_output_tokens", "cost_per_million_tokens",
)  # fmt: skip


@dataclass(frozen=True)
class Capacities:
    """The results of a sweep.

    Attributes:
        table: A row a configuration that has ended, in the order of what varies; `label` names
            it, `group` does so without the seed.
        failed: Those without a result: label, status, error.
        probes: Every simulation: `label`, the columns of `probes.csv`, `cost` in dollars for a
            million output tokens.
        varying: The overrides in which they differ.
    """

    table: pd.DataFrame
    failed: pd.DataFrame
    probes: pd.DataFrame
    varying: list[str]

    @property
    def over_seeds(self) -> pd.DataFrame:
        """A row a configuration, whatever its seeds: `label`, the means of `AVERAGED`, the lowest
        and the highest of each as `NAME_low` and `NAME_high`, `seeds` how many there were."""
        rows = []
        for group, part in self.table.groupby("group", sort=False) if len(self.table) else ():
            first = part.iloc[0]
            row = {"label": group, "seeds": len(part), "arrivals": first["arrivals"],
                   "gpus": first["gpus"], "limited_by": _said(part["limited_by"])}  # fmt: skip
            for name in AVERAGED:
                values = pd.to_numeric(part[name], errors="coerce")
                row |= {name: values.mean(), f"{name}_low": values.min(),
                        f"{name}_high": values.max()}  # fmt: skip
            rows.append(row)
        return pd.DataFrame(rows)

    @property
    def objectives(self) -> dict[str, float]:
        """The limits that all configurations share, by name."""
        limits = {name: self.table[f"limit_{name}"].unique() for name in self.limited}
        return {
            name: float(values[0])
            for name, values in limits.items()
            if len(values) == 1 and pd.notna(values[0])
        }

    @property
    def limited(self) -> list[str]:
        """What any configuration has a limit for, by name."""
        names = [str(c) for c in self.table if str(c).startswith("limit_")]
        return [name.removeprefix("limit_") for name in names if self.table[name].notna().any()]


def read_capacities(folder: Path, prices: Mapping[str, float]) -> Capacities:
    """Reads what the configurations below a folder left. Raises WorkbenchError if there is none."""
    sweep = collect_runs(folder)
    table = _with_costs(sweep.runs, prices)
    probes = [_probes(folder / str(row["run"]), row) for row in table.to_dict("records")]
    return Capacities(
        table,
        sweep.failed,
        pd.concat([p for p in probes if len(p)], ignore_index=True) if probes else pd.DataFrame(),
        sweep.varying,
    )


def _said(words: pd.Series) -> str:
    return " or ".join(dict.fromkeys(str(word) for word in words.dropna() if str(word)))


def _without_seed(label: str) -> str:
    """A label without its seed: the same for runs that differ in nothing else."""
    parts = [part for part in label.split(", ") if not part.startswith("seed=")]
    return ", ".join(parts) or "default"


def _with_costs(runs: pd.DataFrame, prices: Mapping[str, float]) -> pd.DataFrame:
    if runs.empty:
        return runs.rename(columns={"label": "configuration"})
    table = runs.rename(columns={"label": "configuration"})
    price = table["hardware_name"].map({k: float(v) for k, v in prices.items() if v is not None})
    hourly = price * table["gpus"]
    found = pd.to_numeric(table["rate_per_s"]) > 0
    costs = pd.DataFrame(
        {
            "rate_per_gpu_per_s": table["rate_per_s"] / table["gpus"],
            "price_per_gpu_hour": price,
            "cost_per_hour": hourly,
            "cost_per_million_output_tokens": _cost(hourly, table["output_tokens_per_s"], found),
            "cost_per_million_tokens": _cost(hourly, table["total_tokens_per_s"], found),
        }
    )
    names = {"label": table["configuration"], "group": table["configuration"].map(_without_seed)}
    return table.assign(**{str(name): costs[name] for name in costs}, **names)


def _cost(hourly: pd.Series, tokens_per_s: pd.Series, found: pd.Series) -> pd.Series:
    rate = pd.to_numeric(tokens_per_s, errors="coerce").where(found)
    return hourly / HOUR / rate * MILLION


def _probes(folder: Path, row: Mapping[str, object]) -> pd.DataFrame:
    path = folder / PROBES
    if not path.is_file():
        return pd.DataFrame()
    probes = pd.read_csv(path)
    hourly = pd.Series(float(str(row["cost_per_hour"])), index=probes.index)
    tokens = probes["output_tokens_per_s"] * float(str(row["ranks"]))
    cost = _cost(hourly, tokens, tokens > 0)
    return probes.assign(label=row["label"], cost=cost)


def csv_table(capacities: Capacities) -> pd.DataFrame:
    """The rows of `capacity.csv`: the main columns first, and those that failed at the end."""
    table = capacities.table.drop(columns=["label", "group"], errors="ignore")
    failed = capacities.failed.rename(columns={"label": "configuration"})
    both = pd.concat([frame.convert_dtypes() for frame in (table, failed)], ignore_index=True)
    first = [c for c in (*COLUMNS[:1], *capacities.varying, *COLUMNS[1:]) if c in both]
    ordered = list(dict.fromkeys(first))
    return both[[*ordered, *(c for c in both if c not in ordered)]]


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points that no other one beats in both coordinates, less being better.

    In order of the first coordinate; of equal points the first one counts. NaN is never on it.
    """
    order = sorted(
        (i for i, (x, y) in enumerate(points) if not (np.isnan(x) or np.isnan(y))),
        key=lambda i: (points[i][0], points[i][1], i),
    )
    front: list[int] = []
    for i in order:
        if not front or points[i][1] < points[front[-1]][1]:
            front.append(i)
    return front
