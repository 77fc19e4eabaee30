"""Both worlds beside each other, as numbers: errors, ranking of policies, coverage of the bands.

Knows summaries and tables of requests. It runs nothing and draws nothing.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from experiments.uncertainty import intervals

COUNTED = ("requests", "finished", "duration_s", "output_tokens_per_s", "preemptions",
           "prefix_hit_rate", "steps", "kv_usage_max", "batch_size_mean")  # fmt: skip
COVERED = (
    "output_tokens_per_s",
    *(
        f"{name}_{part}"
        for name in ("ttft_s", "tpot_s", "e2e_s")
        for part in ("mean", "p50", "p99")
    ),
)
# what a policy is chosen for; True: more is better
RANKED = {
    "output_tokens_per_s": True,
    "ttft_s_mean": False,
    "ttft_s_p99": False,
    "tpot_s_mean": False,
    "tpot_s_p99": False,
    "e2e_s_mean": False,
}
# the worlds of a case
ENGINE, SIMULATOR, AT_ITS_SPEED = "engine", "simulator", "simulator_at_its_speed"
TIE = 0.03  # policies that were measured to be as close are neither before nor behind
# key of the errors, number of a summary, limit, name
GOALS = (
    ("output_tokens_per_s_error", "output_tokens_per_s", 0.03, "throughput"),
    ("ttft_mean_error", "ttft_s_mean", 0.05, "TTFT mean"),
    ("tpot_mean_error", "tpot_s_mean", 0.05, "TPOT mean"),
    ("ttft_p99_error", "ttft_s_p99", 0.10, "TTFT p99"),
    ("tpot_p99_error", "tpot_s_p99", 0.10, "TPOT p99"),
    ("e2e_p99_error", "e2e_s_p99", 0.10, "E2E p99"),
)


def case_result(
    identity: Mapping[str, Any],
    engine: Any,
    simulated: Any,
    corrected: Any,
    drawn: Sequence[Mapping[str, Any]],
    level: float,
) -> dict[str, Any]:
    """Everything about one run.

    Args:
        identity: Load, policy, and what was seen beside the run.
        engine: The run.
        simulated: What the simulator says of it.
        corrected: The same at the speed that the machine was measured to have.
        drawn: Summaries of the simulation with errors drawn.
        level: Of the band.
    """
    return {
        **identity,
        ENGINE: headlines(engine.summary),
        SIMULATOR: headlines(simulated.summary),
        AT_ITS_SPEED: headlines(corrected.summary),
        "errors": dict(simulated.errors),
        "errors_at_its_speed": dict(corrected.errors),
        "extrapolated_steps": simulated.extrapolated_steps,
        "bands": bands(engine.summary, drawn, level),
    }


def headlines(summary: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a run that are compared."""
    latencies = [
        f"{name}_{part}"
        for name in ("ttft_s", "tpot_s", "e2e_s", "queue_s")
        for part in ("mean", "p50", "p90", "p95", "p99")
    ]
    return {name: summary.get(name) for name in (*COUNTED, *latencies)}


def bands(
    measured: Mapping[str, Any], drawn: Sequence[Mapping[str, Any]], level: float
) -> dict[str, dict[str, Any]]:
    """Low, high and measured of each number of `COVERED`, and whether it lies inside."""
    found = intervals(drawn, level, COVERED)
    told = {}
    for name in COVERED:
        low, high, value = found.get(f"{name}_low"), found.get(f"{name}_high"), measured.get(name)
        if low is None or high is None or value is None:
            continue
        told[name] = {"low": low, "high": high, "measured": value, "inside": low <= value <= high}
    return told


def coverage(cases: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The share of measured values inside their bands, in all and by number."""
    by_name: dict[str, list[bool]] = {}
    for case in cases:
        for name, band in case["bands"].items():
            by_name.setdefault(name, []).append(bool(band["inside"]))
    everything = [inside for values in by_name.values() for inside in values]
    return {
        "all": float(np.mean(everything)) if everything else None,
        "number": len(everything),
        "by_number": {name: float(np.mean(values)) for name, values in by_name.items()},
    }


def rankings(cases: Sequence[Mapping[str, Any]], world: str = SIMULATOR) -> list[dict[str, Any]]:
    """For each load and each number of `RANKED`: the policies from best to worst in both worlds.

    Args:
        cases: The runs.
        world: The simulation that is compared.
    """
    found = []
    for load in dict.fromkeys(case["load"] for case in cases):
        mine = [case for case in cases if case["load"] == load]
        for name, more_is_better in RANKED.items():
            measured, simulated = _means(mine, ENGINE, name), _means(mine, world, name)
            if len(measured) < 2 or set(measured) != set(simulated):
                continue
            agree, pairs = _agreement(measured, simulated)
            found.append(
                {
                    "load": load,
                    "number": name,
                    "measured": sorted(measured, key=measured.__getitem__, reverse=more_is_better),
                    "simulated": sorted(
                        simulated, key=simulated.__getitem__, reverse=more_is_better
                    ),
                    "pairs": pairs,
                    "pairs_in_the_same_order": agree,
                }
            )
    return found


def _means(cases: Sequence[Mapping[str, Any]], world: str, name: str) -> dict[str, float]:
    """Of each policy, over its repetitions."""
    values: dict[str, list[float]] = {}
    for case in cases:
        if case[world].get(name) is not None:
            values.setdefault(case["policy"], []).append(float(case[world][name]))
    return {policy: float(np.mean(some)) for policy, some in values.items()}


def _agreement(measured: Mapping[str, float], simulated: Mapping[str, float]) -> tuple[int, int]:
    """(pairs of policies that are in the same order, pairs that were measured to differ)."""
    agree = pairs = 0
    for one, other in combinations(measured, 2):
        gap = measured[one] - measured[other]
        if abs(gap) <= TIE * max(abs(measured[one]), abs(measured[other])):
            continue
        pairs += 1
        agree += gap * (simulated[one] - simulated[other]) > 0
    return agree, pairs


def verdicts(cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The goals: mean and largest absolute error, and how many runs meet them.

    Of single runs, and of means over the repetitions of a load and policy, in which what the
    machine does from run to run cancels; each as predicted, and at the machine's speed.
    """
    told = []
    means, at_its_speed = errors_of_means(cases), errors_of_means(cases, AT_ITS_SPEED)
    for key, _, limit, name in GOALS:
        row: dict[str, Any] = {"goal": name, "limit": limit}
        for where in ("errors", "errors_at_its_speed"):
            row[where] = _verdict([case[where][key] for case in cases], limit)
        row["errors_of_means"] = _verdict([mean[key] for mean in means], limit)
        row["errors_of_means_at_its_speed"] = _verdict([mean[key] for mean in at_its_speed], limit)
        told.append(row)
    return told


def errors_of_means(
    cases: Sequence[Mapping[str, Any]], world: str = SIMULATOR
) -> list[dict[str, Any]]:
    """A row a load and policy: simulated over measured, less 1, of means over repetitions.

    None where a world lacks the number.

    Args:
        cases: The runs.
        world: The simulation that is compared.
    """
    found = []
    for load, policy in dict.fromkeys((case["load"], case["policy"]) for case in cases):
        same = [case for case in cases if (case["load"], case["policy"]) == (load, policy)]
        row = {"load": load, "policy": policy, "runs": len(same)}
        for key, number, _, _ in GOALS:
            measured = _means(same, ENGINE, number).get(policy)
            simulated = _means(same, world, number).get(policy)
            row[key] = simulated / measured - 1 if measured and simulated is not None else None
        found.append(row)
    return found


def _verdict(errors: Sequence[float | None], limit: float) -> dict[str, Any]:
    values = np.abs([error for error in errors if error is not None and error == error])
    return {
        "mean_absolute": float(values.mean()) if len(values) else None,
        "largest": float(values.max()) if len(values) else None,
        "runs_within": int((values <= limit).sum()),
        "runs": len(values),
    }
