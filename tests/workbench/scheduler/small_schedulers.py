"""Small schedulers for the tests: sane limits, and any of them replaced by name."""

from collections.abc import Sequence
from typing import Any

from workbench.config import CacheConfig, SchedulerConfig
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler

PARTS = (
    "queue",
    "batch_policy",
    "victim_policy",
    "eviction",
    "num_host_blocks",
    "use_cohort",
)


def make_scheduler(
    num_blocks: int = 100, cache: dict[str, Any] | None = None, **settings: Any
) -> Scheduler:
    """Settings by name; those in PARTS are the Scheduler's own arguments."""
    parts = {name: settings.pop(name) for name in PARTS if name in settings}
    limits: dict[str, Any] = {"max_model_len": 256, "max_num_batched_tokens": 64}
    return Scheduler(
        SchedulerConfig(**limits | settings),
        CacheConfig(**{"block_size": 4} | (cache or {})),
        num_blocks,
        **parts,
    )


def add(scheduler: Scheduler, *requests: Request) -> None:
    for request in requests:
        scheduler.add_request(request, request.arrival_time)


def step(scheduler: Scheduler, rows: Sequence[list[int]] | None = None) -> SchedulerOutput:
    """Schedule a step and take in its results: these tokens, or one without a name each."""
    output = scheduler.schedule(0.0)
    scheduler.update_from_output(output, ModelRunnerOutput(rows), 0.0)
    scheduler.check_integrity()
    return output


def run(scheduler: Scheduler) -> list[SchedulerOutput]:
    """Every step until nobody is left."""
    outputs = []
    while scheduler.has_requests:
        outputs.append(step(scheduler))
        assert len(outputs) < 1000
    return outputs
