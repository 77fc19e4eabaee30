"""The simulation against queueing theory: where a formula is known, the simulated means meet it.

A server with one slot is a single-server queue: a request holds it for as many steps as it has
output tokens. Slots of equal step time are several servers. A step time in proportion to the batch
is processor sharing. Bounds are confidence intervals over independent runs (Student's t, 99.9 %).
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from simulator.cost_models.base import CostModel
from simulator.cost_models.linear import ConstantCostModel, LinearCostModel
from simulator.simulation import ClusterConfig
from tests.simulator.small_runs import simulate
from workbench.metrics import RunResult, StepLog
from workbench.metrics.columns import RequestColumns
from workbench.router import RandomRouter
from workbench.step_profile import StepShape
from workbench.workload.base import WorkloadRequest

NUM_RUNS = 8
T_999 = 5.408  # two-sided, 7 degrees of freedom
ONE_SLOT = {"max_num_seqs": 1}
Floats = NDArray[np.float64]


class GivenServiceTimes(CostModel):
    """Each step takes the next of the given times."""

    is_repeatable = False

    def __init__(self, seconds: Sequence[float]) -> None:
        self._seconds = iter(seconds)

    def step_time(self, shape: StepShape) -> float:
        return next(self._seconds)


def poisson(random: np.random.Generator, rate: float, count: int) -> Floats:
    return np.cumsum(random.exponential(1 / rate, count))


def requests(arrivals: Floats, num_outputs: Sequence[int]) -> list[WorkloadRequest]:
    return [
        WorkloadRequest(f"{i:06d}", arrival, 1, num_output)
        for i, (arrival, num_output) in enumerate(zip(arrivals.tolist(), num_outputs, strict=True))
    ]


def waits(result: RunResult) -> Floats:
    return RequestColumns.from_records(result.records).queue_s


def sojourns(result: RunResult) -> Floats:
    return RequestColumns.from_records(result.records).e2e_s


def lindley(arrivals: Floats, services: Floats) -> Floats:
    """Waiting times of a first-come-first-served server (Lindley, 1952)."""
    out = np.zeros(len(arrivals))
    for i in range(1, len(arrivals)):
        gap = arrivals[i] - arrivals[i - 1]
        out[i] = max(0.0, out[i - 1] + services[i - 1] - gap)
    return out


def interval(run: Callable[[int], float]) -> tuple[float, float]:
    """Mean over independent runs, and half the width of its confidence interval."""
    means = np.array([run(seed) for seed in range(NUM_RUNS)])
    return float(means.mean()), T_999 * float(means.std(ddof=1)) / math.sqrt(NUM_RUNS)


def integral(steps: StepLog, column: Sequence[int] | NDArray[Any]) -> float:
    return sum(n * seconds for n, seconds in zip(column, steps.duration_s, strict=True))


def single_server(
    seed: int, utilization: float, distribution: str, count: int
) -> tuple[RunResult, Floats, Floats]:
    """One slot, one step a request; mean service time 1 s."""
    random = np.random.default_rng([seed, count])
    arrivals = poisson(random, utilization, count)
    services = random.exponential(1.0, count) if distribution == "M" else np.ones(count)
    result = simulate(
        requests(arrivals, [1] * count), GivenServiceTimes(services.tolist()), scheduler=ONE_SLOT
    )
    return result, arrivals, services


@pytest.mark.parametrize("distribution", ["M", "D"])
def test_waiting_time_of_a_single_server(distribution: str) -> None:
    utilization = 0.6

    def mean_wait(seed: int) -> float:
        result, arrivals, services = single_server(seed, utilization, distribution, 1500)
        # Not only the mean: every single wait is what Lindley's recursion says.
        np.testing.assert_allclose(waits(result), lindley(arrivals, services), atol=1e-6)
        return float(waits(result).mean())

    mean, half_width = interval(mean_wait)
    second_moment = 2.0 if distribution == "M" else 1.0  # E[S^2] for E[S] = 1
    formula = utilization * second_moment / (2 * (1 - utilization))  # Pollaczek, Khinchine
    assert half_width < 0.5 * formula
    assert abs(mean - formula) <= half_width


def test_waiting_time_with_geometric_answers() -> None:
    # A request of n tokens holds the slot for n steps of 10 ms: a discrete M/G/1 queue.
    step, mean_tokens, utilization = 0.01, 10.0, 0.6
    p = 1 / mean_tokens
    rate = utilization / (mean_tokens * step)

    def mean_wait(seed: int) -> float:
        random = np.random.default_rng([seed, 7])
        arrivals = poisson(random, rate, 1000)
        tokens = random.geometric(p, 1000).tolist()
        result = simulate(requests(arrivals, tokens), ConstantCostModel(step), scheduler=ONE_SLOT)
        services = step * np.array(tokens)
        np.testing.assert_allclose(waits(result), lindley(arrivals, services), atol=1e-6)
        return float(waits(result).mean())

    mean, half_width = interval(mean_wait)
    formula = rate * step**2 * (2 - p) / p**2 / (2 * (1 - utilization))
    assert half_width < 0.5 * formula
    assert abs(mean - formula) <= half_width


def test_waiting_time_of_several_slots() -> None:
    # M/M/c: the slots are servers, since a step takes as long whatever it holds.
    num_slots, step, mean_tokens, utilization = 4, 0.01, 16.0, 0.7
    service = step * mean_tokens
    rate = utilization * num_slots / service

    def mean_wait(seed: int) -> float:
        random = np.random.default_rng([seed, 11])
        tokens = random.geometric(1 / mean_tokens, 2200).tolist()
        result = simulate(
            requests(poisson(random, rate, 2200), tokens),
            ConstantCostModel(step),
            scheduler={"max_num_seqs": num_slots},
        )
        return float(waits(result).mean())

    mean, half_width = interval(mean_wait)
    load = utilization * num_slots
    terms = [load**k / math.factorial(k) for k in range(num_slots)]
    tail = load**num_slots / math.factorial(num_slots) / (1 - utilization)
    probability_of_waiting = tail / (sum(terms) + tail)  # Erlang C
    formula = probability_of_waiting * service / (num_slots * (1 - utilization))
    assert half_width < 0.5 * formula
    # Who arrives during a step waits for its end even if a slot is free: at most one step more.
    assert formula - half_width <= mean <= formula + step + half_width


@pytest.mark.parametrize("lengths", ["geometric", "fixed"])
def test_continuous_batching_is_processor_sharing(lengths: str) -> None:
    # A step as long as its batch is large gives each of n requests 1/n of the server. The mean
    # response time, E[S] / (1 - rho), does not depend on how lengths are distributed.
    token, mean_tokens, utilization = 0.01, 25, 0.6
    service = token * mean_tokens
    rate = utilization / service

    def mean_sojourn(seed: int) -> float:
        random = np.random.default_rng([seed, 13])
        arrivals = poisson(random, rate, 800)
        tokens = random.geometric(1 / mean_tokens, 800) if lengths == "geometric" else None
        result = simulate(
            requests(arrivals, [mean_tokens] * 800 if tokens is None else tokens.tolist()),
            LinearCostModel(per_request_s=token),
        )
        return float(sojourns(result).mean())

    mean, half_width = interval(mean_sojourn)
    formula = service / (1 - utilization)
    assert half_width < 0.3 * formula
    # Joining waits for the end of the step under way: on average less than one step of a batch.
    mean_batch = 1 / (1 - utilization)
    assert formula - half_width <= mean <= formula + 2 * token * mean_batch + half_width


def test_replicas_behind_a_random_router_are_independent_queues() -> None:
    num_replicas, utilization = 3, 0.6

    def run(seed: int) -> RunResult:
        random = np.random.default_rng([seed, 17])
        count = 1800
        arrivals = poisson(random, num_replicas * utilization, count)
        # One fake each: a replica draws the times of its own steps.
        models = [
            GivenServiceTimes(random.exponential(1.0, count).tolist()) for _ in range(num_replicas)
        ]
        return simulate(
            requests(arrivals, [1] * count),
            models,
            scheduler=ONE_SLOT,
            router=RandomRouter(seed=seed),
            cluster=ClusterConfig(replicas=num_replicas),
        )

    mean, half_width = interval(lambda seed: float(waits(run(seed)).mean()))
    formula = utilization / (1 - utilization)
    assert half_width < 0.5 * formula
    assert abs(mean - formula) <= half_width


def test_the_server_is_busy_as_much_as_it_is_asked_for() -> None:
    # Utilization law: busy share = throughput x mean service time.
    def busy_share(seed: int) -> float:
        result, _, services = single_server(seed, 0.6, "M", 600)
        busy = sum(result.steps.duration_s)
        assert busy == pytest.approx(services.sum())
        throughput = len(result.records) / result.duration_s
        assert busy / result.duration_s == pytest.approx(throughput * services.mean())
        return busy / result.duration_s

    mean, half_width = interval(busy_share)
    assert half_width < 0.1
    assert abs(mean - 0.6) <= half_width


@pytest.mark.parametrize("max_num_seqs", [1, 5, 256])
def test_littles_law_ties_the_log_of_steps_to_the_records(max_num_seqs: int) -> None:
    # L = lambda W, times the length of the run: the area under the number of requests, from the
    # steps, is the sum of the times they spent there, from the records.
    random = np.random.default_rng(19)
    arrivals = poisson(random, 2.0, 800)
    lengths = random.integers(1, 40, 800).tolist()
    result = simulate(
        requests(arrivals, lengths),
        LinearCostModel(base_s=0.005, per_request_s=0.005),
        scheduler={"max_num_seqs": max_num_seqs},
    )
    steps, records = result.steps, result.records
    in_service = (sojourns(result) - waits(result)).sum()
    assert integral(steps, steps.running) == pytest.approx(in_service)
    starts = np.array(steps.start_s)
    ends = starts + np.array(steps.duration_s)
    waiting = 0.0
    for record, wait in zip(records, waits(result).tolist(), strict=True):
        # A step shows who waits when it starts; who arrives later is seen by the next one.
        i = int(np.searchsorted(starts, record.arrival_s, side="right")) - 1
        seen_from = ends[i] if i >= 0 and ends[i] > record.arrival_s else record.arrival_s
        waiting += max(0.0, record.arrival_s + wait - seen_from)
    assert integral(steps, steps.waiting) == pytest.approx(waiting, abs=1e-9)
