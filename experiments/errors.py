"""How far a simulation is from what was measured: one arithmetic for every comparison.

Knows two tables of requests with the columns of ``requests.parquet`` (missing times are NaN). It
knows no file and no chart. An error is ``simulated / measured - 1``: positive where the simulation
is too slow. Requests are matched by their ids.

Statistics cover the requests that have the latency on both sides, so that one request that only
one side finished does not shift a percentile; such requests are counted. TPOT is the mean gap
between the tokens of a request: from the gaps where both tables hold them, else from the first
token and the finish.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from workbench.errors import ConfigError

Floats = NDArray[np.float64]

LATENCIES = ("ttft", "tpot", "e2e")
PERCENTILES = (50, 90, 95, 99)
NEEDED = (
    "request_id", "arrival_s", "first_scheduled_s", "first_token_s", "finish_s",
    "prompt_tokens", "output_tokens",
)  # fmt: skip


def latency_errors(measured: pd.DataFrame, simulated: pd.DataFrame) -> dict[str, float]:
    """Errors of latencies, throughput and queue time, ready for JSON except for NaN.

    Keys: ``e2e_mape``, ``ttft_mape``, ``tpot_mape`` (mean of the absolute relative errors over
    requests); for ttft, tpot and e2e ``NAME_mean_error`` and ``NAME_p50_error``, ``p90``, ``p95``,
    ``p99``; ``output_tokens_per_s_error``, ``queue_mean_error`` and ``queue_mean_error_s`` (a queue
    of microseconds has no meaningful ratio); counts ``requests_matched``,
    ``requests_only_measured``, ``requests_only_simulated``, ``finished_only_measured`` and
    ``finished_only_simulated``. A value that cannot be computed is NaN.

    Raises:
        ConfigError: A column is missing, or an id occurs twice.
    """
    measured, simulated = _indexed(measured, "measured"), _indexed(simulated, "simulated")
    common = measured.index.intersection(simulated.index)
    errors = _latencies(measured.loc[common], simulated.loc[common])
    errors["output_tokens_per_s_error"] = _ratio(_throughput(simulated), _throughput(measured))
    finished = measured.loc[common, "finish_s"].notna()
    finished_simulated = simulated.loc[common, "finish_s"].notna()
    return errors | {
        "requests_matched": len(common),
        "requests_only_measured": len(measured) - len(common),
        "requests_only_simulated": len(simulated) - len(common),
        "finished_only_measured": int((finished & ~finished_simulated).sum()),
        "finished_only_simulated": int((finished_simulated & ~finished).sum()),
    }


def means(told: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean of each number of several summaries; what is none, or not in all, is left out."""
    found = {}
    for name in told[0]:
        values = [one.get(name) for one in told]
        if all(isinstance(value, int | float) for value in values):
            found[name] = float(np.mean(np.array(values, dtype=np.float64)))
    return found


def request_latencies(requests: pd.DataFrame) -> pd.DataFrame:
    """Seconds of ``ttft``, ``tpot``, ``e2e`` and ``queue`` of every request; NaN where it has none.

    The rows are those of ``requests``, which has at least the columns ``NEEDED``.
    """
    times = {name: requests[name].to_numpy(dtype=np.float64) for name in NEEDED[1:]}
    return pd.DataFrame(
        {
            "ttft": times["first_token_s"] - times["arrival_s"],
            "tpot": _tpot(requests, times),
            "e2e": times["finish_s"] - times["arrival_s"],
            "queue": times["first_scheduled_s"] - times["arrival_s"],
        },
        index=requests.index,
    )


def _tpot(requests: pd.DataFrame, times: Mapping[str, Floats]) -> Floats:
    if "itl_s" in requests:
        return np.array([_mean(np.asarray(gaps, dtype=np.float64)) for gaps in requests["itl_s"]])
    gaps = times["output_tokens"] - 1
    out = np.full(len(requests), np.nan)
    some = gaps > 0
    out[some] = (times["finish_s"] - times["first_token_s"])[some] / gaps[some]
    return out


def _indexed(requests: pd.DataFrame, side: str) -> pd.DataFrame:
    missing = [name for name in NEEDED if name not in requests]
    if missing:
        raise ConfigError(
            f"the {side} requests lack the column {missing[0]}: they need {', '.join(NEEDED)}"
        )
    twice = requests["request_id"][requests["request_id"].duplicated()]
    if len(twice):
        raise ConfigError(f"the {side} requests hold the id {twice.iloc[0]!r} twice")
    return requests.set_index("request_id")


def _latencies(measured: pd.DataFrame, simulated: pd.DataFrame) -> dict[str, float]:
    """Errors over the same requests in the same order."""
    with_gaps = "itl_s" in measured and "itl_s" in simulated
    sides = [
        request_latencies(side if with_gaps else side.drop(columns="itl_s", errors="ignore"))
        for side in (measured, simulated)
    ]
    columns = {}
    for name in (*LATENCIES, "queue"):
        real, model = (side[name].to_numpy(dtype=np.float64) for side in sides)
        both = ~(np.isnan(real) | np.isnan(model))
        columns[name] = real[both], model[both]
    errors = {}
    for name in ("e2e", "ttft", "tpot"):
        real, model = columns[name]
        positive = real > 0
        apart = np.abs(model[positive] / real[positive] - 1)
        errors[f"{name}_mape"] = _mean(apart)
    for name in LATENCIES:
        real, model = columns[name]
        errors[f"{name}_mean_error"] = _ratio(_mean(model), _mean(real))
        for share in PERCENTILES:
            errors[f"{name}_p{share}_error"] = _ratio(
                _percentile(model, share), _percentile(real, share)
            )
    real, model = columns["queue"]
    errors["queue_mean_error"] = _ratio(_mean(model), _mean(real))
    errors["queue_mean_error_s"] = _mean(model) - _mean(real)
    return errors


def _throughput(requests: pd.DataFrame) -> float:
    """Output tokens of the finished requests a second, first arrival to last finish."""
    done = requests[requests["finish_s"].notna()]
    if done.empty:
        return float("nan")
    span = float(done["finish_s"].max() - requests["arrival_s"].min())
    return float(done["output_tokens"].sum()) / span if span > 0 else float("nan")


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _percentile(values: Floats, share: float) -> float:
    return float(np.percentile(values, share)) if len(values) else float("nan")


def _ratio(simulated: float, measured: float) -> float:
    """The signed error; NaN where there is nothing to compare with."""
    return simulated / measured - 1 if measured else float("nan")
