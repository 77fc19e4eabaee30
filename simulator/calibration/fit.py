"""From measured steps to a calibration.

Relative errors count, since short and long steps both matter, and single steps that something else
on the machine has held up must not bend the prices. Steps of a source that begins with "grid" were
designed and timed alone, those of "first" were served by an idle engine: neither has the host in
it. Those of any other source are recordings in the order of time, and tell how steps and runs
scatter. Sources that end alike, "grid/2" and "run/2", are of one round, in which
the machine was about equally fast.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from simulator.calibration.calibration import Calibration
from simulator.calibration.jitter import Jitter
from simulator.calibration.least_squares import nonnegative_least_squares
from simulator.calibration.machine_pace import MachinePace
from simulator.calibration.residuals import FOLDS, folds_of, told
from simulator.calibration.terms import (
    COUNTS,
    CURVED,
    LEVELS_OFF,
    Curve,
    Prices,
    count_matrix,
    curve_nodes,
    curved_matrix,
    distinct_context,
    piece_matrix,
)
from workbench.errors import ConfigError
from workbench.step_profile import MeasuredStep

Array = NDArray[np.float64]
GRID, FIRST = "grid", "first"
FEWEST = 8  # steps
ROUNDS = 16
PACE_ROUNDS = 2
OUTLIER = 1.5  # times the median error; further away a step counts in proportion less
HOST_COUNTS = ("step", "decodes", "chunks", "samples")
SMALLEST = 1e-12
# where both have something to say of a step; a recording holds few large steps, the grid has them
GRID_SAY = 0.25
# what must be seen of sharing before it gets a price: a part of the steps, and of the keys in them
SHARING, SHARED_KEYS = 0.03, 0.2


def fit(steps: Sequence[MeasuredStep], facts: Mapping[str, Any] | None = None) -> Calibration:
    """Fit prices to steps.

    The device's prices are fitted to `seconds - host_s` of all steps, the host's to `host_s` of
    those that have one: a step that was timed alone, without a scheduler, says nothing of the host.

    Args:
        steps: At least 8.
        facts: What was measured, where and when; kept in the calibration.

    Raises:
        ConfigError: Too few steps.
    """
    if len(steps) < FEWEST:
        raise ConfigError(f"{len(steps)} measured steps are too few to fit: give at least {FEWEST}")
    pace = _pace(steps)
    even = [pace.at_typical(step) for step in steps]
    model = _model(even)
    runs = _recordings(steps)
    # whoever simulates does not know the machine's pace: it is a part of how far a run is off
    even_runs = _recordings(even)
    left_out = {source: _without(even, source) for source in runs if len(runs) > 1}
    noise = _jitter(model, left_out, runs, steps)
    at_pace = _jitter(model, left_out, even_runs, even) if pace.is_known else noise
    served = [step for run in even_runs.values() for step in run] or even
    return Calibration(
        model.device,
        model.host,
        noise,
        _largest(steps),
        _residuals(model, even),
        {"steps": _numbers(steps), **(facts or {})},
        pace,
        _mean_factor(model, served, has_prompts=False),
        _mean_factor(model, served, has_prompts=True),
        at_pace,
    )


def _mean_factor(model: Calibration, steps: Sequence[MeasuredStep], has_prompts: bool) -> float:
    """Time of the steps of a kind over that of typical ones; of all, where the kind is rare."""
    some = [step for step in steps if bool(step.shape.prefills) == has_prompts]
    counted = some if len(some) >= FEWEST else steps
    ratios = _log_ratios(model, counted)
    seconds = np.array([step.seconds for step in counted])
    return float(seconds.sum() / (seconds / np.exp(ratios)).sum())


def _pace(steps: Sequence[MeasuredStep]) -> MachinePace:
    """How these steps follow the pace of the machine, where it was told.

    Found twice: prices that know nothing of it take some of it for what shapes cost.
    """
    pace = MachinePace()
    if not any(step.pace for step in steps):
        return pace
    runs = list(_recordings(steps).values())
    for _ in range(PACE_ROUNDS):
        model = _model([pace.at_typical(step) for step in steps])
        pace = MachinePace.of(runs, [_log_ratios(model, run) for run in runs])
    return pace


def _jitter(
    model: Calibration,
    left_out: Mapping[str, Calibration],
    runs: Mapping[str, Sequence[MeasuredStep]],
    steps: Sequence[MeasuredStep],
) -> Jitter:
    """How steps scatter around a model, and runs around models that were fitted without them."""
    means = [
        float(np.median(_log_ratios(other, runs[source]))) for source, other in left_out.items()
    ]
    each = list(runs.values()) or [steps]
    kinds = [np.array([bool(step.shape.prefills) for step in run]) for run in each]
    return Jitter.of([_log_ratios(model, run) for run in each], kinds, means)


def kind_of(step: MeasuredStep) -> str:
    """What a step's source begins with."""
    return step.source.partition("/")[0]


def is_designed(step: MeasuredStep) -> bool:
    """Whether the step was timed on purpose."""
    return kind_of(step) == GRID


def is_alone(step: MeasuredStep) -> bool:
    """Whether the step was timed from when the device got it, without the host."""
    return kind_of(step) in (GRID, FIRST)


def _model(steps: Sequence[MeasuredStep]) -> Calibration:
    """Prices with which the typical step of the middle recording is priced right."""
    device, host = _prices(steps)
    model = Calibration(device, host)
    centres = [float(np.median(_log_ratios(model, run))) for run in _recordings(steps).values()]
    if not centres:
        return model
    factor = float(np.exp(np.median(centres)))
    return Calibration(device.scaled(factor), host.scaled(factor))


def _prices(steps: Sequence[MeasuredStep]) -> tuple[Prices, Prices]:
    """(device, host) of some steps."""
    on_device = np.array([max(s.seconds - s.host_s, SMALLEST) for s in steps])
    device = _fit(steps, on_device, on_device, _told_counts(steps), CURVED)
    told = [s for s in steps if s.host_s > 0]
    if not told:
        return device, Prices({})
    host_s = np.array([s.host_s for s in told])
    # an error of the host's share matters as a part of the whole step
    whole = np.array([s.seconds for s in told])
    return device, _fit(told, host_s, whole, HOST_COUNTS)


def _told_counts(steps: Sequence[MeasuredStep]) -> Sequence[str]:
    """The counts that these steps can price: where few share keys, nearly all are distinct."""
    decodes = [s.shape for s in steps if s.shape.num_decodes > 1]
    sharing = [s for s in decodes if distinct_context(s) < (1.0 - SHARED_KEYS) * s.decode_context]
    if len(sharing) > max(SHARING * len(decodes), FEWEST):
        return COUNTS
    return [name for name in COUNTS if name != "distinct_context"]


def _fit(
    steps: Sequence[MeasuredStep],
    seconds: Array,
    scale: Array,
    names: Sequence[str],
    curved: Sequence[str] = (),
) -> Prices:
    """Prices that make (predicted - seconds) / scale small, outliers weighing less.

    A round has shapes that others have not, such as long contexts. If it was slow, they would seem
    dear: its pace is told from all its steps together, and taken out.
    """
    shapes = [s.shape for s in steps]
    columns = count_matrix(shapes)[:, [COUNTS.index(name) for name in names]]
    values = curved_matrix(shapes)
    nodes = {name: curve_nodes(name, values[:, CURVED.index(name)]) for name in curved}
    pieces = [piece_matrix(values[:, CURVED.index(name)], ends) for name, ends in nodes.items()]
    matrix = np.hstack([columns, *pieces])
    rounds = _rounds(steps)
    base = _balance(steps) / scale
    weights, pace = base, np.ones(len(steps))
    for _ in range(ROUNDS):
        found = nonnegative_least_squares(matrix * weights[:, None], seconds / pace * weights)
        predicted = matrix @ found
        pace = _paces(seconds, predicted, rounds)
        error = np.abs(predicted - seconds / pace) / scale
        limit = OUTLIER * max(float(np.median(error)), 1e-9)
        weights = base * np.sqrt(np.minimum(1.0, limit / np.maximum(error, SMALLEST)))
    return _prices_by_name(found.tolist(), names, nodes)


def _prices_by_name(
    found: list[float], names: Sequence[str], nodes: Mapping[str, tuple[float, ...]]
) -> Prices:
    """Prices by name, those that are 0 left out."""
    curves, place = {}, len(names)
    for name, ends in nodes.items():
        slopes = tuple(found[place : place + len(ends) - 1]) if ends else ()
        place += len(slopes)
        if any(slopes):
            if name in LEVELS_OFF:
                ends, slopes = (*ends, 2 * ends[-1]), (*slopes, 0.0)
            curves[name] = Curve(ends, slopes)
    return Prices({n: p for n, p in zip(names, found, strict=False) if p}, curves)


def _rounds(steps: Sequence[MeasuredStep]) -> list[NDArray[np.int64]]:
    """The places of the steps of each round."""
    names = np.array([step.source.rpartition("/")[2] for step in steps])
    return [np.flatnonzero(names == name) for name in np.unique(names)]


def _paces(seconds: Array, predicted: Array, rounds: Sequence[NDArray[np.int64]]) -> Array:
    """How much longer than those of the middle round typical steps of each step's round took."""
    ratios = np.log(np.maximum(seconds, SMALLEST) / np.maximum(predicted, SMALLEST))
    centres = [float(np.median(ratios[places])) for places in rounds]
    paces = np.ones(len(seconds))
    for places, centre in zip(rounds, centres, strict=True):
        paces[places] = np.exp(centre - np.median(centres))
    return paces


def _balance(steps: Sequence[MeasuredStep]) -> Array:
    """Square roots of weights.

    The grid has less say than what was recorded while serving. There, steps with prompts have as
    much say as the many more without: a request waits for one of them, and they take longer than
    the same step on the grid, which finds everything in the caches.
    """
    designed = np.array([is_designed(step) for step in steps])
    mixed = np.array([bool(step.shape.prefills) for step in steps])
    weights = np.zeros(len(steps))
    for kind, say in (
        (designed, GRID_SAY),
        (~designed & mixed, 0.5 * (1.0 - GRID_SAY)),
        (~designed & ~mixed, 0.5 * (1.0 - GRID_SAY)),
    ):
        weights[kind] = say / max(int(kind.sum()), 1)
    return np.asarray(np.sqrt(weights), dtype=np.float64)


def _recordings(steps: Sequence[MeasuredStep]) -> dict[str, list[MeasuredStep]]:
    """The steps of each source that was recorded in the order of time."""
    found: dict[str, list[MeasuredStep]] = {}
    for step in steps:
        if not is_alone(step):
            found.setdefault(step.source, []).append(step)
    return found


def _without(steps: Sequence[MeasuredStep], source: str) -> Calibration:
    """A model of all steps but those of a recording."""
    held = (source, source.replace(source.partition("/")[0], FIRST, 1))
    return _model([step for step in steps if step.source not in held])


def _log_ratios(model: Calibration, steps: Sequence[MeasuredStep]) -> Array:
    """log(measured / typical) of each step; a step timed alone has no host in it."""
    predicted = [
        model.device(s.shape) if is_alone(s) and not s.host_s else model.typical_s(s.shape)
        for s in steps
    ]
    measured = np.array([s.seconds for s in steps])
    return np.asarray(np.log(measured / np.maximum(predicted, SMALLEST)), dtype=np.float64)


def _residuals(model: Calibration, steps: Sequence[MeasuredStep]) -> dict[str, Any]:
    """Errors by kind: of the model, and of models fitted without the shape in question."""
    folds = folds_of(steps)
    inside, outside = _log_ratios(model, steps), np.full(len(steps), np.nan)
    for fold in range(FOLDS):
        held = folds == fold
        kept = [step for step, is_held in zip(steps, held, strict=True) if not is_held]
        if held.any() and len(kept) >= FEWEST:
            partly = _model(kept)
            some = [step for step, is_held in zip(steps, held, strict=True) if is_held]
            outside[held] = _log_ratios(partly, some)
    kinds = np.array([kind_of(step) for step in steps])
    return {
        str(kind) or "steps": {
            "in_sample": told(inside[kinds == kind]),
            "out_of_sample": told(outside[(kinds == kind) & ~np.isnan(outside)]),
        }
        for kind in np.unique(kinds)
    }


def _largest(steps: Sequence[MeasuredStep]) -> dict[str, float]:
    shapes = [step.shape for step in steps]
    table = np.hstack([count_matrix(shapes), curved_matrix(shapes)]).max(axis=0)
    found = {name: float(value) for name, value in zip((*COUNTS, *CURVED), table, strict=True)}
    del found["step"]
    return found


def _numbers(steps: Sequence[MeasuredStep]) -> dict[str, int]:
    kinds = [kind_of(step) or "steps" for step in steps]
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}
