"""Small simulations for the tests: sane limits, and any of them replaced by name."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from simulator.cost_models.base import CostModel
from simulator.cost_models.linear import LinearCostModel
from simulator.simulation import ClusterConfig, Policies, Simulation
from workbench.config import CacheConfig, SchedulerConfig
from workbench.metrics import RunResult
from workbench.router import RoundRobin, Router
from workbench.scheduler.batch_policy import (
    BatchPolicy,
    PrefillFirstBatching,
    SarathiBatching,
    StaticBatching,
    UnifiedBatching,
)
from workbench.workload.base import ListWorkload, Workload, WorkloadRequest

BATCH_POLICIES: dict[str, Callable[[], BatchPolicy]] = {
    "unified": UnifiedBatching,
    "prefill_first": PrefillFirstBatching,
    "sarathi": lambda: SarathiBatching(chunk_size=64),
    "static": StaticBatching,
}
LINEAR = {
    "base_s": 2.0**-7,
    "per_token_s": 2.0**-14,
    "per_context_token_s": 2.0**-20,
    "per_request_s": 2.0**-12,
    "per_swap_block_s": 2.0**-12,
}


def linear_cost_model(slowdown: float = 1.0) -> LinearCostModel:
    """Every term of a step costs something, and all of it `slowdown` times as much."""
    return LinearCostModel(**{name: seconds * slowdown for name, seconds in LINEAR.items()})


def make_simulation(
    workload: Workload | Sequence[WorkloadRequest],
    cost_model: CostModel | Sequence[CostModel] | None = None,
    *,
    num_blocks: int = 10_000,
    scheduler: dict[str, Any] | None = None,
    cache: dict[str, Any] | None = None,
    cluster: ClusterConfig | None = None,
    policies: Policies | None = None,
    router: Router | None = None,
    **more: Any,
) -> Simulation:
    """A simulation of a list of requests (or a workload) with a few settings replaced."""
    if isinstance(workload, Sequence):
        workload = ListWorkload(workload)
    limits: dict[str, Any] = {"max_num_batched_tokens": 512, "max_model_len": 512}
    return Simulation(
        workload=workload,
        scheduler_config=SchedulerConfig(**limits | (scheduler or {})),
        cache_config=CacheConfig(**cache or {}),
        num_blocks=num_blocks,
        cost_model=cost_model or linear_cost_model(),
        cluster_config=cluster,
        router=router or RoundRobin(),
        policies=policies,
        **more,
    )


def simulate(*args: Any, **settings: Any) -> RunResult:
    """Make a simulation and run it."""
    return make_simulation(*args, **settings).run()


def random_requests(
    seed: int,
    count: int,
    rate: float | None = 20.0,
    prompts: tuple[int, int] = (1, 200),
    outputs: tuple[int, int] = (1, 100),
    num_groups: int = 0,
) -> list[WorkloadRequest]:
    """Uniform lengths, Poisson arrivals (all at 0 without a rate), shared prefixes by group."""
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1 / rate, count)) if rate else np.zeros(count)
    num_prompts = random.integers(*prompts, count, endpoint=True).tolist()
    num_outputs = random.integers(*outputs, count, endpoint=True).tolist()
    requests = []
    for i in range(count):
        hash_ids = None
        if num_groups:
            group = int(random.integers(num_groups))
            num_shared = int(random.integers(0, num_prompts[i] // 16 + 1))
            own = range(10_000 * (i + 1), 10_000 * (i + 1) + num_prompts[i] // 16 - num_shared)
            hash_ids = (*range(100 * group, 100 * group + num_shared), *own)
        requests.append(
            WorkloadRequest(
                str(i),
                float(arrivals[i]),
                num_prompts[i],
                num_outputs[i],
                hash_ids=hash_ids,
                hash_block_size=16 if num_groups else 0,
                priority=int(random.integers(3)),
                client_id=f"client{random.integers(3)}",
            )
        )
    return requests


class Follow:
    """Half of the requests arrive on their own; each of them sets off one of the other half."""

    is_open_loop = False

    def __init__(self, requests: Sequence[WorkloadRequest]) -> None:
        half = len(requests) // 2
        self._initial = requests[:half]
        self._next = {str(i): requests[half + i] for i in range(half)}

    @property
    def num_requests(self) -> int:
        return len(self._initial) + len(self._next)

    def initial(self) -> Sequence[WorkloadRequest]:
        return self._initial

    def after_finish(self, request_id: str, now: float) -> list[WorkloadRequest]:
        request = self._next.get(request_id)
        think_s = 0.01 * (int(request_id) % 3)
        return [] if request is None else [replace(request, arrival_time=now + think_s)]
