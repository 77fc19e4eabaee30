"""A random world: requests, limits and policies drawn by hypothesis, run through an engine core.

The model is a toy: a step takes as long as its tokens, and every row that owes a token gives one.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import strategies as st

from simulator.token_source import DraftTokenSource, LengthTokenSource, TokenSource
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.kv_cache.block_hash import KnownBlockHashes
from workbench.kv_cache.eviction import EvictionPolicy, FIFOEviction, LFUEviction, LRUEviction
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.batch_policy import (
    BatchPolicy,
    PrefillFirstBatching,
    SarathiBatching,
    StaticBatching,
    UnifiedBatching,
)
from workbench.scheduler.length_predictor import LengthPredictor
from workbench.scheduler.preemption import (
    LastAdmitted,
    LeastProgress,
    LowestPriority,
    MostBlocks,
    VictimPolicy,
)
from workbench.scheduler.queues.earliest_deadline import EarliestDeadlineQueue
from workbench.scheduler.queues.fair_share import FairShareQueue
from workbench.scheduler.queues.shortest_job_first import ShortestJobFirstQueue
from workbench.scheduler.request_queue import FCFSQueue, PriorityQueue, RequestQueue
from workbench.scheduler.scheduler import Scheduler

QUEUES: dict[str, Callable[[], RequestQueue]] = {
    "fcfs": FCFSQueue,
    "priority": PriorityQueue,
    "sjf": lambda: ShortestJobFirstQueue(LengthPredictor(relative_error=0.5, seed=1)),
    "edf": lambda: EarliestDeadlineQueue(default_slack_s=30.0),
    "fair": FairShareQueue,
}
VICTIMS: dict[str, Callable[[], VictimPolicy]] = {
    "last": LastAdmitted,
    "priority": LowestPriority,
    "progress": LeastProgress,
    "blocks": MostBlocks,
}
BATCH_POLICIES: dict[str, Callable[[], BatchPolicy]] = {
    "unified": UnifiedBatching,
    "prefill_first": PrefillFirstBatching,
    "sarathi": lambda: SarathiBatching(chunk_size=24),
    "static": StaticBatching,
}
EVICTIONS: dict[str, Callable[[], EvictionPolicy]] = {
    "lru": LRUEviction,
    "fifo": FIFOEviction,
    "lfu": LFUEviction,
}
MAX_STEPS = 3_000


@dataclass(frozen=True)
class World:
    """Everything that decides a run."""

    scheduler: dict[str, Any]
    cache: dict[str, Any]
    num_blocks: int
    depth: int
    queue: str
    victim: str
    batch_policy: str
    eviction: str
    requests: tuple[dict[str, Any], ...]
    aborts: tuple[tuple[int, int], ...]
    acceptance_rate: float


@dataclass
class Run:
    """What a run left behind."""

    outputs: list[dict[str, Any]] = field(default_factory=list)
    finished: list[tuple[str, str | None, int, tuple[float, ...]]] = field(default_factory=list)
    scheduled_tokens: int = 0


class RecordingExecutor:
    """Notes every step's decisions; a pending result is the answer itself."""

    def __init__(self, source: TokenSource) -> None:
        self.outputs: list[SchedulerOutput] = []
        self._source = source
        self._answer = ModelRunnerOutput()

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self.outputs.append(scheduler_output)
        self._answer = self._source.sample(scheduler_output)

    def sample_tokens(self, grammar_output: Any) -> ModelRunnerOutput:
        return self._answer


def draw_requests(draw: st.DrawFn, max_model_len: int) -> tuple[dict[str, Any], ...]:
    """Requests, some of which share prefixes, and some of which are too long."""
    return tuple(
        {
            "arrival_step": draw(st.integers(0, 25)),
            "prompt": draw(st.integers(1, max_model_len + 2)),
            "output": draw(st.integers(1, 30)),
            "priority": draw(st.integers(0, 2)),
            "client": draw(st.sampled_from("abc")),
            "deadline": draw(st.sampled_from([None, 5.0, 40.0])),
            "group": draw(st.integers(0, 2)),
            "shared": draw(st.integers(0, 12)),
        }
        for _ in range(draw(st.integers(1, 14)))
    )


def draw_limits(draw: st.DrawFn, batch_policy: str, swap: bool, spec: int) -> dict[str, Any]:
    """Settings of the scheduler."""
    whole = BATCH_POLICIES[batch_policy]().whole_prompts
    max_model_len = draw(st.integers(20, 90))
    chunked = batch_policy == "sarathi" or draw(st.booleans())
    low = max_model_len if whole or not chunked else 4
    budget = draw(st.integers(low, low + 80))
    max_num_seqs = draw(st.integers(1, 8))
    return {
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max(budget, spec + 1),
        "max_model_len": max_model_len,
        "enable_chunked_prefill": chunked,
        "long_prefill_token_threshold": draw(st.sampled_from([0, 0, 7])) if chunked else 0,
        "long_prefill_token_threshold_adaptive": draw(st.booleans()),
        "scheduler_reserve_full_isl": draw(st.booleans()),
        "watermark": draw(st.sampled_from([0.0, 0.0, 0.2])),
        "max_num_active_seqs": draw(st.sampled_from([None, 1, max_num_seqs])),
        "prefill_schedule_interval": draw(st.sampled_from([1, 1, 3])),
        "num_speculative_tokens": spec,
        "preemption_mode": "swap" if swap else "recompute",
    }


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Worlds small enough to be crowded: few blocks, small budgets, shared prefixes, aborts."""
    batch_policy = draw(st.sampled_from(sorted(BATCH_POLICIES)))
    swap = draw(st.booleans()) and draw(st.booleans())
    window = None if swap else draw(st.sampled_from([None, None, None, 5, 16]))
    hybrid = window is not None and draw(st.booleans())
    spec = 0 if swap else draw(st.sampled_from([0, 0, 0, 1, 3]))
    stages = draw(st.sampled_from([1, 1, 1, 3]))
    is_async = stages == 1 and draw(st.booleans())
    limits = draw_limits(draw, batch_policy, swap, spec)
    requests = draw_requests(draw, limits["max_model_len"])
    return World(
        scheduler=limits | {"async_scheduling": is_async},
        cache={
            "block_size": draw(st.sampled_from([1, 4, 5])),
            "enable_prefix_caching": draw(st.booleans()),
            "sliding_window": None if hybrid else window,
            "hybrid_window": window if hybrid else None,
        },
        num_blocks=draw(st.integers(3, 60)),
        depth=2 if is_async else stages,
        queue=draw(st.sampled_from(sorted(QUEUES))),
        victim=draw(st.sampled_from(sorted(VICTIMS))),
        batch_policy=batch_policy,
        eviction=draw(st.sampled_from(sorted(EVICTIONS))),
        requests=requests,
        aborts=tuple(
            (draw(st.integers(0, 60)), draw(st.integers(0, len(requests) - 1)))
            for _ in range(draw(st.integers(0, 4)))
        ),
        acceptance_rate=draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


def make_scheduler(world: World, **switches: bool) -> Scheduler:
    """The scheduler of a world; `switches` as in Scheduler."""
    return Scheduler(
        SchedulerConfig(**world.scheduler),
        CacheConfig(**world.cache),
        world.num_blocks,
        num_host_blocks=world.num_blocks // 2,
        queue=QUEUES[world.queue](),
        victim_policy=VICTIMS[world.victim](),
        batch_policy=BATCH_POLICIES[world.batch_policy](),
        eviction=EVICTIONS[world.eviction](),
        max_concurrent_batches=world.depth,
        **switches,
    )


def make_request(world: World, ordinal: int, now: float) -> Request:
    """A request whose first blocks are those of its group, up to its shared length."""
    item = world.requests[ordinal]
    size = world.cache["block_size"]
    num_shared = min(item["shared"], item["prompt"] // size)
    keys = [1000 * item["group"] + i for i in range(num_shared)]
    return Request(
        str(ordinal),
        item["prompt"],
        item["output"],
        now,
        block_hashes=KnownBlockHashes(ordinal, keys, num_shared),
        priority=item["priority"],
        client_id=item["client"],
        deadline=item["deadline"],
    )


class WorldRun:
    """A world on its way to its end.

    Args:
        world: The world.
        switches: See Scheduler.
    """

    def __init__(self, world: World, **switches: bool) -> None:
        self._world = world
        self.scheduler = make_scheduler(world, **switches)
        spec = world.scheduler["num_speculative_tokens"]
        source = DraftTokenSource(spec, world.acceptance_rate, 0) if spec else LengthTokenSource()
        self._executor = RecordingExecutor(source)
        self._now = 0.0
        kind = EngineCore if world.depth == 1 else PipelinedEngineCore
        extra = () if world.depth == 1 else (world.depth,)
        self._core = kind(self.scheduler, self._executor, lambda: self._now, *extra)
        self.result = Run()

    def _end(self, request: Request) -> None:
        times = tuple(request.token_times)
        self.result.finished.append(
            (request.request_id, request.finish_reason, request.num_output_tokens, times)
        )

    def change(self, step: int) -> None:
        """Let requests arrive and be aborted."""
        for ordinal, item in enumerate(self._world.requests):
            if item["arrival_step"] == step:
                request = make_request(self._world, ordinal, self._now)
                if not self._core.add_request(request):
                    self._end(request)
        aborted = [str(ordinal) for at, ordinal in self._world.aborts if at == step]
        for request in self._core.abort_requests(aborted):
            self._end(request)

    def step(self) -> SchedulerOutput | None:
        """Take one step; its decisions, if it made any."""
        num_before = len(self._executor.outputs)
        generator = self._core.step()
        try:
            answer = next(generator)
            self._now += 1.0
            generator.send(answer)
            raise AssertionError("a step waited twice")
        except StopIteration as done:
            outputs = done.value
        for request in outputs.finished:
            self._end(request)
        if len(self._executor.outputs) == num_before:
            return None
        made = self._executor.outputs[num_before]
        self.result.outputs.append(made.as_dict())
        self.result.scheduled_tokens += made.total_num_scheduled_tokens
        return made

    def to_end(self, look: Callable[[Scheduler, SchedulerOutput | None], None] | None) -> None:
        """Take steps until every request has ended."""
        last_arrival = max(item["arrival_step"] for item in self._world.requests)
        for step in range(MAX_STEPS):
            self.change(step)
            if self._core.has_work:
                made = self.step()
                if look is not None:
                    look(self.scheduler, made)
            elif step > last_arrival:
                return
            else:
                self._now += 1.0
        raise AssertionError(f"no end after {MAX_STEPS} steps: a dead-lock or a livelock")


def run(
    world: World,
    look: Callable[[Scheduler, SchedulerOutput | None], None] | None = None,
    **switches: bool,
) -> Run:
    """Run a world to its end.

    Args:
        world: The world.
        look: Called after every step with the scheduler and the step's decisions, if it made any.
        switches: See Scheduler.
    """
    world_run = WorldRun(world, **switches)
    world_run.to_end(look)
    assert not world_run.scheduler.kv_cache_manager.num_used_blocks, "blocks leaked"
    world_run.scheduler.check_integrity()
    return world_run.result
