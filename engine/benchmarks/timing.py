"""How long a model runner takes for a step: alone, and with the next one started behind it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch.profiler import ProfilerActivity, profile

from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.model_runner import ModelRunner
from workbench.outputs import SchedulerOutput


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds a step, medians.

    Attributes:
        alone_s: From the decision to the tokens on the host, one step at a time.
        host_s: The part of it until everything has been launched. On a CPU that is all of it.
        pipelined_s: A step, where the next one is started before the last has returned.
    """

    alone_s: float
    host_s: float
    pipelined_s: float


@dataclass(frozen=True, slots=True)
class Timeline:
    """What a device did in steps that were started early.

    Attributes:
        replay_over_kernels: From a step's first kernel to the end of its last, over the time in
            which any of them ran.
        host_gap_us: Microseconds that the device idles between two steps, median.
    """

    replay_over_kernels: float
    host_gap_us: float


def time_decode(
    runner: ModelRunner,
    steps: SyntheticSteps,
    rows: Iterable[Row],
    num_steps: int,
    is_pipelined: bool = True,
) -> StepTime:
    """Time steps in which all rows decode.

    Args:
        runner: The model.
        steps: Makes the steps; its room must hold 2 * num_steps + 4 tokens.
        rows: The batch before the first of them.
        num_steps: Timed steps of each kind.
        is_pipelined: Whether steps with the next one behind them are timed as well; if not, their
            time is said to be that of steps alone.
    """
    _one(runner, steps.join(list(rows)))
    for _ in range(2):
        _one(runner, steps.repeat())
    alone = [_one(runner, steps.repeat()) for _ in range(num_steps)]
    total = median(total for total, _ in alone)
    pipelined = _pipelined(runner, steps, num_steps) if is_pipelined else total
    _one(runner, steps.leave())
    return StepTime(total, median(host for _, host in alone), pipelined)


def time_shape(
    runner: ModelRunner,
    steps: SyntheticSteps,
    decodes: Iterable[Row],
    chunks: Iterable[Row],
    repeats: int,
) -> StepTime:
    """Time one step of any shape.

    Args:
        runner: The model.
        steps: Makes the steps; its room must hold repeats + 1 tokens.
        decodes: Rows that stay and decode on.
        chunks: Rows of several tokens, at least one; every repeat has new ones, as a prompt chunk
            comes to a batch that decodes.
        repeats: Timed steps.
    """
    decodes, chunks = list(decodes), list(chunks)
    _one(runner, steps.join([*decodes, *chunks]))
    alone = [_one(runner, steps.renew(chunks)) for _ in range(repeats)]
    _one(runner, steps.leave())
    total = median(seconds for seconds, _ in alone)
    return StepTime(total, median(host for _, host in alone), total)


def _one(runner: ModelRunner, output: SchedulerOutput) -> tuple[float, float]:
    _wait()
    start = time.perf_counter()
    runner.execute_model(output)
    pending = runner.sample_tokens(None)
    host = time.perf_counter() - start
    pending.result()
    return time.perf_counter() - start, host


def _pipelined(runner: ModelRunner, steps: SyntheticSteps, num_steps: int) -> float:
    runner.execute_model(steps.repeat())
    pending = runner.sample_tokens(None)
    _wait()
    start = time.perf_counter()
    for _ in range(num_steps):
        runner.execute_model(steps.repeat())
        following = runner.sample_tokens(None)
        pending.result()
        pending = following
    pending.result()
    return (time.perf_counter() - start) / num_steps


def decode_timeline(
    runner: ModelRunner, steps: SyntheticSteps, rows: Iterable[Row], num_steps: int = 8
) -> Timeline | None:
    """What torch's profiler sees of a few decode steps; None without a GPU or the right to profile.

    A profiler may slow down what is launched after it: time first.

    Args:
        runner, rows: As in `time_decode`.
        steps: Its room must hold num_steps + 3 tokens.
        num_steps: Steps to look at.
    """
    _one(runner, steps.join(list(rows)))
    _one(runner, steps.repeat())
    # on a CPU there is nothing to see, but every line of this is tried
    has_gpu = torch.cuda.is_available()
    activity = ProfilerActivity.CUDA if has_gpu else ProfilerActivity.CPU
    try:
        with profile(activities=[activity]) as profiler:
            _pipelined(runner, steps, num_steps - 1)
            _wait()
        spans = [
            (event.time_range.start, event.time_range.end)
            for event in profiler.events() or ()
            if event.device_type.name == "CUDA"
        ]
    except RuntimeError:
        spans = []
    _one(runner, steps.leave())
    return timeline(spans, num_steps)


def timeline(spans: Sequence[tuple[float, float]], num_steps: int) -> Timeline | None:
    """Steps and pauses of a device's work; None where there is too little of it.

    Args:
        spans: Start and end of everything that the device did, in microseconds.
        num_steps: Steps. Between them are the longest pauses.
    """
    if len(spans) < num_steps or num_steps < 2:
        return None
    ordered = sorted(spans)
    pauses, busy, end = [], 0.0, ordered[0][0]
    for start, stop in ordered:
        pauses.append(max(start - end, 0.0))
        busy += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    between = sorted(pauses)[-(num_steps - 1) :]
    whole = end - ordered[0][0] - sum(between)
    return Timeline(whole / busy, median(between))


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
