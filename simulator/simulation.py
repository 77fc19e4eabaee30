"""A whole simulated run: a workload goes through a router to replicas until all of it has ended."""

import math
from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np
import simpy

from simulator.cluster import ClusterConfig, Policies, check_pipeline, cost_models_of
from simulator.cost_models.base import CostModel
from simulator.environment import SimulationEnvironment
from simulator.executor import SimulatedExecutor
from simulator.lock_step import LockStep, LockStepExecutor
from simulator.replica import Replica
from simulator.request_factory import RequestFactory, RoutedRequest
from simulator.token_source import DraftTokenSource, LengthTokenSource, TokenSource
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.errors import ConfigError, CostModelError
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.metrics import UNFINISHED, RequestRecord, RunResult, RunStoppedError, StepLog
from workbench.request import Request
from workbench.router import Router
from workbench.scheduler.scheduler import Scheduler
from workbench.workload.base import Workload, WorkloadRequest

PROGRESS_EVERY = 256
__all__ = ["ClusterConfig", "Policies", "Simulation"]


class Simulation:
    """One run, to be run once.

    Args:
        workload: The requests.
        scheduler_config, cache_config, cluster_config: Settings; `max_model_len` must be set.
        num_blocks: Usable KV blocks of a replica.
        cost_model: Prices the steps of every replica, or one cost model a replica.
        router: Chooses the replica of a request.
        policies: What decides on a replica.
        num_host_blocks: Host blocks of a replica, for preemption by swapping.
        pipeline_parallel_size: Stages of a replica's pipeline.
        seed: Seed of the run's own draws (draft acceptance).
        use_cohort: See Scheduler.
        decode_ahead: Run steps that only decode in a row (see DecodeAhead). It changes no result.
    """

    def __init__(
        self,
        *,
        workload: Workload,
        scheduler_config: SchedulerConfig,
        cache_config: CacheConfig,
        num_blocks: int,
        cost_model: CostModel | Sequence[CostModel],
        router: Router,
        cluster_config: ClusterConfig | None = None,
        policies: Policies | None = None,
        num_host_blocks: int = 0,
        pipeline_parallel_size: int = 1,
        seed: int = 0,
        use_cohort: bool = True,
        decode_ahead: bool = True,
    ) -> None:
        self.env = SimulationEnvironment()
        self._workload = workload
        self._scheduler_config = scheduler_config
        self._cache_config = cache_config
        self._factory = RequestFactory(cache_config)
        self._router = router
        self._policies = policies or Policies()
        self._num_blocks = num_blocks
        self._num_host_blocks = num_host_blocks
        self._num_stages = pipeline_parallel_size
        self._use_cohort = use_cohort
        self._cluster = cluster_config or ClusterConfig()
        self._decode_ahead = decode_ahead
        self._next_arrival_time = 0.0
        self._steps = StepLog()
        self._records: list[RequestRecord] = []
        self._ignored: list[str] = []
        self._replica_of: dict[Request, int] = {}
        self._place_of: dict[str, int] = {}
        self._num_arrived = 0
        self._progress: Callable[[int, int, float], None] | None = None
        check_pipeline(scheduler_config, pipeline_parallel_size, self._cluster.lock_step)
        self._group: LockStep | None = None
        self.replicas = self._make_replicas(cost_model, seed)

    def _make_replicas(
        self, cost_model: CostModel | Sequence[CostModel], seed: int
    ) -> list[Replica]:
        cluster = self._cluster
        num_drafts = self._scheduler_config.num_speculative_tokens
        models = cost_models_of(cost_model, cluster, num_drafts)
        if cluster.lock_step:
            self._group = LockStep(self.env, models[0], cluster.replicas)
        children = np.random.SeedSequence(seed).spawn(cluster.replicas)
        return [
            self._make_replica(number, model, self._token_source(int(child.generate_state(1)[0])))
            for number, (model, child) in enumerate(zip(models, children, strict=True))
        ]

    def _token_source(self, seed: int) -> TokenSource:
        num_drafts = self._scheduler_config.num_speculative_tokens
        if not num_drafts:
            return LengthTokenSource()
        return DraftTokenSource(num_drafts, self._cluster.acceptance_rate, seed)

    def _make_replica(self, number: int, cost_model: CostModel, source: TokenSource) -> Replica:
        policies = self._policies.make()
        self._tell_future(policies["eviction"])
        depth = max(self._num_stages, 2 if self._scheduler_config.async_scheduling else 1)
        scheduler = Scheduler(
            self._scheduler_config,
            self._cache_config,
            self._num_blocks,
            num_host_blocks=self._num_host_blocks,
            max_concurrent_batches=depth,
            use_cohort=self._use_cohort,
            **policies,
        )
        executor = self._executor(number, cost_model, source)
        clock = self._clock
        core = (
            EngineCore(scheduler, executor, clock)
            if depth == 1
            else PipelinedEngineCore(scheduler, executor, clock, depth)
        )
        if self._group is not None:
            self._group.join(lambda: core.has_work)
        next_arrival = self._next_arrival if self._decode_ahead else None
        return Replica(self.env, core, executor, self._on_finish, next_arrival)

    def _executor(
        self, number: int, cost_model: CostModel, source: TokenSource
    ) -> SimulatedExecutor:
        if self._group is not None:
            return LockStepExecutor(self.env, cost_model, source, self._steps, number, self._group)
        return SimulatedExecutor(
            self.env,
            cost_model,
            source,
            self._steps,
            number,
            self._num_stages,
            overlaps_host=self._scheduler_config.async_scheduling,
        )

    def _tell_future(self, eviction: EvictionPolicy | None) -> None:
        """Tell an oracle which requests will come, and when."""
        if eviction is None or not eviction.needs_future:
            return
        name = type(eviction).__name__
        if self._cluster.replicas > 1:
            raise ConfigError(
                f"{name} must know which requests a replica will get, and "
                f"{self._cluster.replicas} replicas share them: set cluster.replicas=1, "
                "or choose eviction=lru"
            )
        if not self._workload.is_open_loop:
            raise ConfigError(
                f"{name} must know all requests beforehand, and this workload sets some off by the "
                "end of others: choose a trace or an open-loop workload, or eviction=lru"
            )
        keys = self._factory.prompt_keys
        items = enumerate(self._workload.initial())
        eviction.set_future([(item.arrival_time, keys(item, i)) for i, item in items])

    def _next_arrival(self) -> float:
        """No request arrives before this time, seconds."""
        if self._workload.is_open_loop:
            return self._next_arrival_time
        # Any event may set off a request: the end of one on another replica, a think time.
        return self.env.peek()

    def _clock(self) -> float:
        return self.env.now

    def run(self, progress: Callable[[int, int, float], None] | None = None) -> RunResult:
        """Run until every request has ended.

        Args:
            progress: Called now and then with (finished requests, requests, simulated seconds).

        Raises:
            RunStoppedError: The cost model cannot price a step. It brings what was served so far.
        """
        self._progress = progress
        self.env.process(self._arrivals(self._workload.initial()))
        try:
            self.env.run()
        except CostModelError as error:
            raise RunStoppedError(str(error), self._result(stopped=True)) from error
        return self._result()

    def _result(self, stopped: bool = False) -> RunResult:
        self._report_progress()
        self._steps.sort()
        self._records.sort(key=lambda record: self._place_of[record.request_id])
        why = f"the run was stopped at {self.env.now:g} s" if stopped else None
        unfinished = [r for r in self._replica_of if not r.is_finished]
        self._records += [self._record(request, why) for request in unfinished]
        return RunResult(self._records, self._steps, self.env.now, self._counters(), self._ignored)

    def _arrivals(self, requests: Iterable[WorkloadRequest]) -> Generator[simpy.Event, None, None]:
        env = self.env
        for item in requests:
            if item.arrival_time > env.now:
                self._next_arrival_time = item.arrival_time
                yield env.timeout_at(item.arrival_time)
            self._arrive(item)
        self._next_arrival_time = math.inf

    def _arrive(self, item: WorkloadRequest) -> None:
        request = self._factory.request(item, self._num_arrived)
        self._place_of[item.request_id] = self._num_arrived
        self._num_arrived += 1
        number = 0
        if len(self.replicas) > 1:
            number = self._router.route(RoutedRequest(item, request), self.replicas, self.env.now)
        self._replica_of[request] = number
        self.replicas[number].add_request(request)

    def _on_finish(self, request: Request) -> None:
        scheduler = self.replicas[self._replica_of[request]].core.scheduler
        detail = scheduler.why_ended(request)
        if request.finish_reason == "ignored":
            self._ignored.append(str(detail))
        self._records.append(self._record(request, detail))
        del self._replica_of[request]
        if len(self._records) % PROGRESS_EVERY == 0:
            self._report_progress()
        follow_ups = self._workload.after_finish(request.request_id, self.env.now)
        if follow_ups:
            self.env.process(self._arrivals(follow_ups))

    def _record(self, request: Request, detail: str | None = None) -> RequestRecord:
        return RequestRecord(
            request.request_id,
            self._replica_of[request],
            request.arrival_time,
            request.first_scheduled_time,
            self.env.now if request.is_finished else None,
            request.num_prompt_tokens,
            request.num_output_tokens,
            request.num_cached_tokens,
            request.num_preemptions,
            request.finish_reason or UNFINISHED,
            np.frombuffer(request.token_times, dtype=np.float64),
            request.client_id,
            request.priority,
            detail,
        )

    def _report_progress(self) -> None:
        if self._progress is not None:
            self._progress(len(self._records), self._workload.num_requests, self.env.now)

    def _counters(self) -> dict[str, float]:
        schedulers = [replica.core.scheduler for replica in self.replicas]
        managers = [scheduler.kv_cache_manager for scheduler in schedulers]
        return {
            "preemptions": sum(scheduler.num_preemptions for scheduler in schedulers),
            "prefix_queries_tokens": sum(manager.num_queried_tokens for manager in managers),
            "prefix_hit_tokens": sum(manager.num_hit_tokens for manager in managers),
            "extrapolated_steps": sum(r.executor.num_extrapolated for r in self.replicas),
        }
