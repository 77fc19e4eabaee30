"""A wall clock that a test moves, and small engine cores in scaled real time."""

from collections.abc import Sequence
from typing import Any

from simulator.cost_models.base import CostModel
from simulator.cost_models.linear import LinearCostModel
from simulator.drawn_tokens import DrawnTokens
from simulator.real_time import RealTimeExecutor
from simulator.scaled_clock import ScaledClock
from simulator.token_source import DraftTokenSource
from simulator.vocabulary import Vocabulary
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput
from workbench.request import Request
from workbench.sampling_params import SamplingParams
from workbench.scheduler.scheduler import Scheduler


class Wall:
    """Seconds of real time; sleeping moves them on, by `overshoot` too far."""

    def __init__(self, overshoot: float = 0.0) -> None:
        self.time = 100.0
        self.sleeps: list[float] = []
        self._overshoot = overshoot

    def __call__(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += seconds + self._overshoot


class World:
    """An engine core in scaled real time, driven as a server drives it."""

    def __init__(
        self,
        *,
        speed: float = 1.0,
        wall: Wall | None = None,
        cost_model: CostModel | None = None,
        vocabulary: Vocabulary | None = None,
        num_blocks: int = 200,
        host_s: float = 0.0,
        mean_output_tokens: float | None = None,
        acceptance_rate: float = 0.7,
        seed: int = 0,
        use_runs: bool = True,
        **scheduler: Any,
    ) -> None:
        config = SchedulerConfig(max_model_len=512, **scheduler)
        self.wall = wall or Wall()
        self.clock = ScaledClock(speed, self.wall, self.wall.sleep)
        self.told: list[str] = []
        num_drafts = config.num_speculative_tokens
        drafts = DraftTokenSource(num_drafts, acceptance_rate, seed) if num_drafts else None
        vocabulary = vocabulary or Vocabulary(size=1000, spoken=range(10, 60), eos_token_id=2)
        self.executor = RealTimeExecutor(
            self.clock,
            cost_model or LinearCostModel(base_s=0.01),
            DrawnTokens(vocabulary, seed, mean_output_tokens, drafts),
            overlaps_host=config.async_scheduling,
            tell=self.told.append,
        )
        scheduler_ = Scheduler(
            config, CacheConfig(), num_blocks, forget_uncomputed_blocks=True, use_runs=use_runs
        )
        kind = PipelinedEngineCore if config.async_scheduling else EngineCore
        self.core = core = kind(scheduler_, self.executor, self.clock)
        self.clock.watch(lambda: core.has_work)
        self._host_s = host_s
        self.model_outputs: list[ModelRunnerOutput] = []

    def add(
        self, request_id: str, prompt: Sequence[int] = range(20), max_tokens: int = 5, **params: Any
    ) -> Request:
        """Hand in a request that has just arrived."""
        sampling = SamplingParams(max_tokens=max_tokens, **params)
        request = Request(
            request_id,
            len(prompt),
            max_tokens,
            self.clock.from_wall(self.wall()),
            prompt_token_ids=list(prompt),
            sampling_params=sampling,
            stop_token_ids=frozenset() if params.get("ignore_eos") else frozenset({2}),
        )
        request.block_hashes = TokenBlockHashes(list(prompt), request.output_token_ids, 16)
        assert self.core.add_request(request)
        return request

    def step(self) -> EngineCoreOutputs:
        """One step; the host takes its time for it."""
        self.wall.time += self._host_s
        step = self.core.step()
        try:
            model_output = next(step).result()
            self.model_outputs.append(model_output)
            step.send(model_output)
        except StopIteration as done:
            outputs: EngineCoreOutputs = done.value
            return outputs
        raise AssertionError("a step waits once")

    def run(self) -> None:
        """Step until nothing is left to do."""
        for _ in range(10_000):
            if not self.core.has_work:
                return
            self.step()
        raise AssertionError("it does not end")
