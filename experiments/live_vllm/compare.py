"""A live run and its simulation: the same requests, sent at the same moments.

Knows how a served phase becomes tables, and how the simulator repeats it: requests reach the engine
after the front end's delay, steps take what the calibration says, tokens reach the client after the
front end's second delay. Times are seconds since the first request was sent.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from experiments.errors import latency_errors, means
from experiments.live_vllm.calibrate import LiveCalibration
from experiments.live_vllm.client import Answer
from experiments.live_vllm.front_end import FrontEnd
from experiments.live_vllm.replay import Difference, ServerSettings
from experiments.live_vllm.session import Served
from experiments.tables import requests_frame, steps_frame
from simulator.calibration import Calibration
from simulator.cost_models.calibrated import CalibratedPrices
from simulator.simulation import Simulation
from workbench.metrics import RequestRecord, RunResult
from workbench.router import RoundRobin
from workbench.workload.base import ListWorkload, WorkloadRequest

Array = NDArray[Any]
REQUEST_TIMES = ("arrival_s", "first_scheduled_s", "first_token_s", "finish_s")


@dataclass(frozen=True, slots=True)
class Side:
    """One world's run: frames of its requests, at the client's, and of its steps; its counters."""

    requests: pd.DataFrame
    steps: pd.DataFrame
    counters: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class LoadResult:
    """A load in both worlds.

    Attributes:
        name: Of the load.
        rate: Requests a second that were sent.
        share: Of what the server can do.
        measured: vLLM's side.
        draws: The simulator's, one for each draw of the steps' noise.
        errors: See `latency_errors`; means over all draws.
        errors_at_its_pace: The same of a simulation whose steps are scaled, second by second, to
            how fast the machine was: what remains is not the machine's mood.
        is_probed: Whether fixed work told that, of which the run knows nothing; otherwise the run's
            own steps told it, and what comes of it is no prediction.
        num_steps, num_equal: The server's steps, and those that the workbench decides alike.
        difference: The first that it does not.
        others: CPUs that others used in the most disturbed part; None: not known.
    """

    name: str
    rate: float
    share: float
    measured: Side
    draws: Sequence[Side]
    errors: dict[str, float]
    errors_at_its_pace: dict[str, float]
    is_probed: bool
    num_steps: int
    num_equal: int
    difference: Difference | None
    others: float | None

    @property
    def simulated(self) -> Side:
        """The first draw, for charts and counts."""
        return self.draws[0]


def simulate(
    items: Sequence[WorkloadRequest],
    settings: ServerSettings,
    prices: CalibratedPrices,
) -> RunResult:
    """Requests that reach an engine at their arrival times."""
    simulation = Simulation(
        workload=ListWorkload(sorted(items, key=lambda item: item.arrival_time)),
        scheduler_config=settings.scheduler,
        cache_config=settings.cache,
        num_blocks=settings.num_blocks,
        cost_model=prices,
        router=RoundRobin(),
    )
    return simulation.run()


def is_probed(served: Served, calibration: Calibration) -> bool:
    """Whether fixed work told the machine's pace, in the calibration and beside this part."""
    return calibration.pace.is_known and any(step.pace for step in served.phase.steps)


def at_its_pace(served: Served, calibration: Calibration, noise: int) -> CalibratedPrices:
    """Prices for how fast the machine was in each second of a part.

    As fixed work tells; where there was none, as the steps tell: measured over predicted time, in
    which their noise is.
    """
    steps = served.phase.steps
    seconds = served.phase.log.start_s.astype(int).clip(0)
    if is_probed(served, calibration):
        told = np.array([step.pace > 0 for step in steps])
        paces = np.array([step.pace for step in steps])
        each = _each_second(seconds[told], paces[told], np.ones(int(told.sum())))
        return CalibratedPrices(calibration, pace=each, noise=noise)
    measured = np.array([step.seconds for step in steps])
    predicted = np.array([calibration.mean_s(step.shape) for step in steps])
    return CalibratedPrices(calibration, slowdown=_each_second(seconds, measured, predicted))


def _each_second(seconds: Array, values: Array, weights: Array) -> list[float]:
    """Sum of values over sum of weights in each second; where is nothing, as around it."""
    totals = np.bincount(seconds, weights=weights)
    seen = np.flatnonzero(totals)
    found = np.bincount(seconds, weights=values)[seen] / totals[seen]
    return [float(value) for value in np.interp(np.arange(len(totals)), seen, found)]


def capacity(
    items: Sequence[WorkloadRequest], settings: ServerSettings, calibration: Calibration
) -> float:
    """Requests a second that the server can do at most: all of them sent at once, simulated."""
    at_once = [replace(item, arrival_time=0.0) for item in items]
    return len(items) / simulate(at_once, settings, CalibratedPrices(calibration)).duration_s


def compare(
    name: str,
    share: float,
    parts: Sequence[Served],
    settings: ServerSettings,
    calibration: LiveCalibration,
    draws: range,
) -> LoadResult:
    """Both sides of a load, and how far they are apart; its parts stand one behind the other.

    Args:
        draws: Numbers of the draws of the steps' noise, each another one.
    """
    measured = _in_a_row([_measured(served) for served in parts])
    steps, front = calibration.steps, calibration.front_end
    has_pace = all(is_probed(served, steps) for served in parts)
    simulated, paced = list[Side](), list[Side]()
    for draw in draws:
        seeds = range(draw * len(parts), (draw + 1) * len(parts))
        plain = [CalibratedPrices(steps, noise=seed) for seed in seeds]
        simulated.append(_all_simulated(parts, settings, front, plain))
        if has_pace or not paced:  # the noise of steps that tell the pace themselves is in it
            known = [at_its_pace(p, steps, seed) for p, seed in zip(parts, seeds, strict=True)]
            paced.append(_all_simulated(parts, settings, front, known))
    differences = [served.phase.difference for served in parts]
    others = [served.others for served in parts if served.others is not None]
    return LoadResult(
        name,
        _rate(parts),
        share,
        measured,
        simulated,
        means([latency_errors(measured.requests, side.requests) for side in simulated]),
        means([latency_errors(measured.requests, side.requests) for side in paced]),
        has_pace,
        sum(served.phase.num_steps for served in parts),
        sum(served.phase.num_equal for served in parts),
        next(filter(None, differences), None),
        max(others, default=None),
    )


def _rate(parts: Sequence[Served]) -> float:
    """Requests a second that were sent, the time between parts not counted."""
    times = [list(served.sent_at.values()) for served in parts]
    return sum(len(sent) - 1 for sent in times) / sum(max(sent) - min(sent) for sent in times)


def _measured(served: Served) -> Side:
    origin = min(served.sent_at.values())
    engine = served.phase.records(origin)
    records = [_as_client_saw(a, engine[a.request_id], origin) for a in served.answers]
    counters = {
        "preemptions": sum(record.preemptions for record in records),
        "prefix_hit_tokens": sum(record.cached_tokens for record in records),
    }
    return Side(requests_frame(records), steps_frame(served.phase.log), counters)


def _as_client_saw(answer: Answer, engine: RequestRecord, origin: float) -> RequestRecord:
    times = np.array(answer.token_times) - origin
    finish = float(times[-1]) if len(times) else None
    return replace(
        engine,
        arrival_s=answer.sent_at - origin,
        finish_s=finish,
        finish_reason="length" if finish is not None else "error",
        output_tokens=len(times),
        token_times_s=times,
    )


def _all_simulated(
    parts: Sequence[Served],
    settings: ServerSettings,
    front: FrontEnd,
    prices: Sequence[CalibratedPrices],
) -> Side:
    each = zip(parts, prices, strict=True)
    return _in_a_row([_simulated(served, settings, front, price) for served, price in each])


def _simulated(
    served: Served, settings: ServerSettings, front: FrontEnd, prices: CalibratedPrices
) -> Side:
    origin = min(served.sent_at.values())
    sent = {name: at - origin for name, at in served.sent_at.items()}
    items = [
        replace(item, arrival_time=front.arrival(sent[item.request_id], item.num_prompt_tokens))
        for item in served.items
    ]
    result = simulate(items, settings, prices)
    records = front.seen_by_clients(result.records, sent)
    return Side(requests_frame(records), steps_frame(result.steps), result.counters)


def _in_a_row(parts: Sequence[Side]) -> Side:
    """One side's parts as one run: each begins when the one before it has ended."""
    requests, steps, now = [], [], 0.0
    for part in parts:
        times = {name: part.requests[name] + now for name in REQUEST_TIMES}
        requests.append(part.requests.assign(**times))
        steps.append(part.steps.assign(start_s=part.steps["start_s"] + now))
        now = float(times["finish_s"].max())
    names = parts[0].counters
    counters = {name: sum(part.counters[name] for part in parts) for name in names}
    return Side(
        pd.concat(requests, ignore_index=True), pd.concat(steps, ignore_index=True), counters
    )


def summary_of(result: LoadResult) -> dict[str, Any]:
    """A load's errors and facts in plain values."""
    extrapolated = result.simulated.counters.get("extrapolated_steps", 0)
    paced = {f"at_its_pace_{name}": error for name, error in result.errors_at_its_pace.items()}
    return (
        result.errors
        | {name: error for name, error in paced.items() if name.endswith("_error")}
        | {
            "rate": result.rate,
            "share_of_capacity": result.share,
            "steps": result.num_steps,
            "steps_decided_alike": result.num_equal,
            "simulated_steps": len(result.simulated.steps),
            "extrapolated_steps": extrapolated,
            "preemptions": result.measured.counters["preemptions"],
            "simulated_preemptions": result.simulated.counters["preemptions"],
            "prefix_hit_tokens": result.measured.counters["prefix_hit_tokens"],
            "simulated_prefix_hit_tokens": result.simulated.counters["prefix_hit_tokens"],
            "cpus_used_by_others": result.others,
            "pace_told_by": "fixed work" if result.is_probed else "steps",
        }
    )
