"""Random worlds on a core whose model is a script, recorded as an engine's runs are.

Scheduler, KV cache, policies and recorder are the real ones; only the forward pass is left out. The
host is uneven: its clock moves by odd amounts and sometimes not at all.
"""

from collections.abc import Iterator
from random import Random
from typing import Any

from engine.core_recorder import RecordedCore
from simulator.cluster import Policies
from tests.workbench.random_world import (
    BATCH_POLICIES,
    EVICTIONS,
    MAX_STEPS,
    QUEUES,
    VICTIMS,
    World,
)
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.recording import RecordedSettings, RecordingWriter
from workbench.request import Request
from workbench.sampling_params import SamplingParams
from workbench.scheduler.scheduler import Scheduler

VOCABULARY = 50
STOP_TOKENS = frozenset([7, 11])
FAILURE_RATE = 0.004


class UnevenClock:
    """Seconds that pass between two readings: none, microseconds, or a stall."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now = 0.0

    def __call__(self) -> float:
        if self._random.random() < 0.8:
            self._now += self._random.choice((1e-6, 3e-4, 0.1)) * self._random.random()
        return self._now


class ScriptedModel:
    """An executor that samples tokens by chance, verifies and proposes drafts, and may fail.

    Args:
        random: Of the tokens.
        num_drafts: Most drafts proposed after a sampled token.
        acceptance_rate: Of drafts.
    """

    def __init__(self, random: Random, num_drafts: int, acceptance_rate: float) -> None:
        self._random = random
        self._num_drafts = num_drafts
        self._acceptance_rate = acceptance_rate
        self._computed: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._answer = ModelRunnerOutput()

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        for new in scheduler_output.scheduled_new_reqs:
            self._computed[new.request_id] = new.num_computed_tokens
            known = new.num_prompt_tokens + len(new.output_token_ids)
            self._known[new.request_id] = max(known, self._known.get(new.request_id, 0))
        rows = []
        answer = ModelRunnerOutput([], {}, {})
        for request_id, num_tokens in scheduler_output.num_scheduled_tokens.items():
            drafts = scheduler_output.scheduled_spec_decode_tokens.get(request_id, [])
            row = self._row(request_id, num_tokens, len(drafts))
            if row and self._random.random() < FAILURE_RATE:
                row = []
                answer.failed = {**answer.failed, request_id: "not a number"}
            elif row and self._num_drafts:
                proposed = self._tokens(self._random.randint(0, self._num_drafts))
                answer.draft_token_ids = {**answer.draft_token_ids, request_id: proposed}
            rows.append(row)
        answer.sampled_token_ids = rows
        self._answer = answer

    def sample_tokens(self, grammar_output: Any) -> ModelRunnerOutput:
        return self._answer

    def _row(self, request_id: str, num_tokens: int, num_drafts: int) -> list[int]:
        computed = self._computed[request_id] + num_tokens - num_drafts
        self._computed[request_id] = computed
        if computed < self._known[request_id]:
            return []
        num_accepted = 0
        while num_accepted < num_drafts and self._random.random() < self._acceptance_rate:
            num_accepted += 1
        self._computed[request_id] += num_accepted
        self._known[request_id] += 1 + num_accepted
        return self._tokens(1 + num_accepted)

    def _tokens(self, count: int) -> list[int]:
        return [self._random.randrange(VOCABULARY) for _ in range(count)]


def settings_of(world: World) -> RecordedSettings:
    """What the scheduler of a world is made of, its policies apart."""
    return RecordedSettings(
        scheduler=SchedulerConfig(**world.scheduler),
        cache=CacheConfig(**world.cache),
        num_blocks=world.num_blocks,
        num_host_blocks=world.num_blocks // 2,
        max_concurrent_batches=world.depth,
        forget_uncomputed_blocks=True,
    )


def policies_of(world: World) -> Policies:
    """What decides in a world."""
    return Policies(
        queue=QUEUES[world.queue],
        batch_policy=BATCH_POLICIES[world.batch_policy],
        victim_policy=VICTIMS[world.victim],
        eviction=EVICTIONS[world.eviction],
    )


def record(world: World, seed: int) -> bytes:
    """Run a world to its end; its recording."""
    random = Random(seed)
    settings, policies = settings_of(world), policies_of(world)
    assert policies.queue is not None
    assert policies.batch_policy is not None
    assert policies.victim_policy is not None
    assert policies.eviction is not None
    scheduler = Scheduler(
        settings.scheduler,
        settings.cache,
        settings.num_blocks,
        num_host_blocks=settings.num_host_blocks,
        queue=policies.queue(),
        victim_policy=policies.victim_policy(),
        batch_policy=policies.batch_policy(),
        eviction=policies.eviction(),
        max_concurrent_batches=settings.max_concurrent_batches,
        forget_uncomputed_blocks=settings.forget_uncomputed_blocks,
    )
    num_drafts = settings.scheduler.num_speculative_tokens
    model = ScriptedModel(random, num_drafts, world.acceptance_rate)
    clock = UnevenClock(random)
    extra = () if world.depth == 1 else (world.depth,)
    kind = EngineCore if world.depth == 1 else PipelinedEngineCore
    core = RecordedCore(kind(scheduler, model, clock, *extra), RecordingWriter(settings))
    requests = list(_requests(world, random, settings.cache))
    drive(core, world, requests)
    return core.close()


def drive(core: RecordedCore, world: World, requests: list[Request]) -> None:
    """Let requests come and be aborted between the steps, until nothing is left."""
    last_arrival = max(item["arrival_step"] for item in world.requests)
    for number in range(MAX_STEPS):
        for item, request in zip(world.requests, requests, strict=True):
            if item["arrival_step"] == number:
                request.arrival_time = core.clock()
                core.add_request(request)
        if aborted := [str(ordinal) for at, ordinal in world.aborts if at == number]:
            core.abort_requests(aborted)
        if core.has_work:
            step = core.step()
            try:
                step.send(next(step))
            except StopIteration:
                continue
        elif number > last_arrival:
            return
    raise AssertionError(f"no end after {MAX_STEPS} steps")


def _requests(world: World, random: Random, cache: CacheConfig) -> Iterator[Request]:
    """Requests whose first blocks are those of their group, up to their shared length."""
    beginnings = [[random.randrange(VOCABULARY) for _ in range(100)] for _ in range(3)]
    for ordinal, item in enumerate(world.requests):
        num_shared = min(item["shared"] * cache.block_size, item["prompt"], 100)
        prompt = beginnings[item["group"]][:num_shared]
        prompt = prompt + [random.randrange(VOCABULARY) for _ in range(item["prompt"] - num_shared)]
        request = Request(
            str(ordinal),
            len(prompt),
            item["output"],
            prompt_token_ids=prompt,
            stop_token_ids=STOP_TOKENS if ordinal % 4 == 0 else frozenset(),
            sampling_params=SamplingParams(temperature=0.5, seed=ordinal, logit_bias={3: 1.0}),
            priority=item["priority"],
            client_id=item["client"],
            deadline=item["deadline"],
            predicted_output_tokens=item["output"] // 2 if ordinal % 5 == 0 else None,
        )
        if cache.enable_prefix_caching and ordinal % 7:
            request.block_hashes = TokenBlockHashes(
                prompt, request.output_token_ids, cache.block_size, cache.prefix_caching_hash_algo
            )
        yield request
