"""How long a model runner takes for a step: alone, and with the next one started behind it."""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import torch

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


def time_decode(
    runner: ModelRunner, steps: SyntheticSteps, rows: Iterable[Row], num_steps: int
) -> StepTime:
    """Time steps in which all rows decode.

    Args:
        runner: The model.
        steps: Makes the steps; its room must hold 2 * num_steps + 3 tokens.
        rows: The batch before the first of them.
        num_steps: Timed steps of each kind.
    """
    _one(runner, steps.join(list(rows)))
    for _ in range(2):
        _one(runner, steps.repeat())
    alone = [_one(runner, steps.repeat()) for _ in range(num_steps)]
    pipelined = _pipelined(runner, steps, num_steps)
    _one(runner, steps.leave())
    return StepTime(
        median(total for total, _ in alone), median(host for _, host in alone), pipelined
    )


def time_shape(
    runner: ModelRunner, steps: SyntheticSteps, rows: Iterable[Row], repeats: int
) -> StepTime:
    """Time one step of any shape; every repeat has new requests of that shape."""
    rows = list(rows)
    _one(runner, steps.join(rows))
    alone = [_one(runner, steps.join(rows)) for _ in range(repeats)]
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


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
