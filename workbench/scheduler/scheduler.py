"""The scheduler: hands out tokens, step by step, until every request has caught up.

There is no prefill phase and no decode phase. The scheduler names no policy: it asks the batch
policy how to form a step, the queue who is next and the victim policy who must go. It knows no
clock, no device and no text.
"""

from collections.abc import Callable, Iterable

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError, SchedulerError
from workbench.kv_cache.eviction import EvictionPolicy, LRUEviction
from workbench.kv_cache.host_cache import HostCache
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.admission_pass import AdmissionPass
from workbench.scheduler.batch import Batch
from workbench.scheduler.batch_builder import StepBuilder
from workbench.scheduler.batch_policy import BatchPolicy, UnifiedBatching
from workbench.scheduler.completion_pass import CompletionPass
from workbench.scheduler.decode_ahead import DecodeAhead
from workbench.scheduler.output_pass import OutputPass
from workbench.scheduler.preemption import LastAdmitted, LowestPriority, VictimPolicy
from workbench.scheduler.request_queue import FCFSQueue, PriorityQueue, RequestQueue
from workbench.scheduler.running_pass import RunningPass
from workbench.scheduler.state import SchedulerState
from workbench.step_profile import StepShape

MAX_IDLE_STEPS = 64


class Scheduler:
    """Decides every step which requests run, with how many tokens and in which blocks.

    Args:
        config: Limits and rules; `max_model_len` must be set.
        cache_config: The KV cache.
        num_blocks: Usable KV blocks.
        num_host_blocks: Host blocks for preemption by swapping.
        queue, victim_policy: Default: the pair that vLLM names `config.policy`.
        batch_policy: Default: vLLM v1's unified rule.
        eviction: Default: LRU in vLLM's order.
        max_concurrent_batches: Steps that may be in flight at once; 2 for asynchronous scheduling,
            the number of stages for pipeline parallelism.
        use_cohort: Keep plain decodes together (see DecodeCohort). It changes no decision; off,
            every request is visited in every step.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        cache_config: CacheConfig,
        num_blocks: int,
        *,
        num_host_blocks: int = 0,
        queue: RequestQueue | None = None,
        victim_policy: VictimPolicy | None = None,
        batch_policy: BatchPolicy | None = None,
        eviction: EvictionPolicy | None = None,
        max_concurrent_batches: int | None = None,
        use_cohort: bool = True,
    ) -> None:
        by_priority = config.policy == "priority"
        # An empty queue is false, and so is an eviction policy that holds no block.
        if queue is None:
            queue = PriorityQueue() if by_priority else FCFSQueue()
        victim_policy = victim_policy or (LowestPriority() if by_priority else LastAdmitted())
        self._batch_policy = batch_policy or UnifiedBatching()
        max_model_len = _check(config, cache_config, num_blocks, self._batch_policy)
        depth = max_concurrent_batches or (2 if config.async_scheduling else 1)
        self.kv_cache_manager = KVCacheManager(
            cache_config,
            num_blocks,
            max_model_len,
            max_in_flight_tokens=depth * config.max_num_batched_tokens,
            eviction=LRUEviction() if eviction is None else eviction,
            watermark=config.watermark,
        )
        swaps = config.preemption_mode == "swap"
        self.config = config
        self._state = SchedulerState(
            config,
            max_model_len,
            self.kv_cache_manager,
            HostCache(num_host_blocks) if swaps else None,
            queue,
            use_cohort=use_cohort
            and not config.num_speculative_tokens
            # Results one step late need placeholders; deeper pipelines leave gaps between decodes.
            and depth == (2 if config.async_scheduling else 1)
            # Late results fill blocks between two decodes, where an admission could find them.
            and (not config.async_scheduling or self._batch_policy.decodes_first),
        )
        self._queue_counts_service = type(queue).on_tokens is not RequestQueue.on_tokens
        victim_policy.bind(self.kv_cache_manager)
        self._running_pass = RunningPass(self._state, victim_policy)
        self._admission_pass = AdmissionPass(self._state)
        self._completion_pass = CompletionPass(self._state)
        self._output_pass = OutputPass(self._state)
        self._decode_ahead = DecodeAhead(self._state)
        self._may_decode_ahead = (
            self._batch_policy.repeats_decodes
            and self._state.use_cohort
            and depth == 1
            and not self._queue_counts_service
        )
        self._num_steps = 0
        self._num_arrivals = 0
        self._num_idle_steps = 0
        self._has_tried_to_admit = False
        self._prefill_capacity_bound = False

    @property
    def running(self) -> list[Request]:
        """Running requests in the order of their admission. Read only."""
        return self._state.running

    @property
    def waiting(self) -> RequestQueue:
        """Waiting requests."""
        return self._state.waiting

    @property
    def max_model_len(self) -> int:
        """Most tokens of a request."""
        return self._state.max_model_len

    @property
    def num_preemptions(self) -> int:
        """Preemptions so far."""
        return self._state.num_preemptions

    @property
    def num_unfinished_requests(self) -> int:
        """Requests that wait or run."""
        return len(self._state.requests)

    @property
    def has_requests(self) -> bool:
        """Whether a step has anything to do: requests, or ends that no step has reported yet."""
        return bool(self._state.requests or self._state.finished_req_ids)

    def add_request(self, request: Request, now: float) -> None:
        """Queue a request. One that can never run waits for ever: ask `why_ignored` first.

        Args:
            request: New.
            now: Seconds on the engine's clock.
        """
        state = self._state
        if request.request_id in state.requests:
            raise SchedulerError(f"request_id={request.request_id!r} is in use: choose another one")
        if request.last_scheduled_token >= self.max_model_len:
            request.last_scheduled_token = self.max_model_len - 1
        self._num_arrivals += 1
        request.arrival_index = self._num_arrivals
        state.requests[request.request_id] = request
        state.num_stoppable += bool(request.stop_token_ids)
        state.waiting.add(request, now)

    def why_ignored(self, request: Request) -> str | None:
        """Why this request can never run, in one line; None if it can."""
        num_tokens = request.num_prompt_tokens
        if num_tokens < 1 or request.max_tokens < 1:
            return (
                f"request {request.request_id!r} has num_prompt_tokens={num_tokens} and "
                f"max_tokens={request.max_tokens}: both must be at least 1"
            )
        if num_tokens >= self.max_model_len:
            return (
                f"request {request.request_id!r}: a prompt of {num_tokens} tokens and one output "
                f"token exceed max_model_len={self.max_model_len}: shorten it or raise the limit"
            )
        if not self.kv_cache_manager.fits_alone(request, num_tokens):
            cache = self.kv_cache_manager
            return (
                f"request {request.request_id!r}: a prompt of {num_tokens} tokens exceeds the "
                f"whole KV cache of {cache.pool.num_blocks} blocks of {cache.block_size} tokens: "
                "shorten it or give the cache more blocks"
            )
        return None

    def end_stuck_request(self, scheduler_output: SchedulerOutput) -> None:
        """End a request as an error if it has outgrown the whole KV cache.

        Args:
            scheduler_output: A step, just scheduled, that has no tokens.

        Raises:
            SchedulerError: Nothing has been scheduled for many steps, though somebody could run.
        """
        state = self._state
        for request_id in scheduler_output.preempted_req_ids:
            # The queue may put another one first, which would then be admitted instead, for ever.
            request = state.requests.get(request_id)
            if request and not self.kv_cache_manager.fits_alone(request, request.num_tokens):
                state.fail(request, self._why_outgrown(request))
        if any(step.output.total_num_scheduled_tokens for step in state.in_flight):
            return
        if not state.running and len(state.waiting):
            request = state.waiting.peek()
            if not self.kv_cache_manager.fits_alone(request, request.num_tokens):
                state.fail(request, self._why_outgrown(request))
                return
        if state.requests and not scheduler_output.preempted_req_ids:
            self._num_idle_steps += 1
            if self._num_idle_steps > MAX_IDLE_STEPS:
                if not state.running and self._has_tried_to_admit:
                    # The whole machine is idle and still it does not get in: it never will.
                    request = state.waiting.peek()
                    state.fail(request, self._why_outgrown(request))
                    self._num_idle_steps = 0
                    return
                raise SchedulerError(
                    f"{type(self._batch_policy).__name__} scheduled nothing in {MAX_IDLE_STEPS} "
                    f"steps while {len(state.running)} requests run and {len(state.waiting)} wait: "
                    "a batch policy must let somebody go on"
                )

    def _why_outgrown(self, request: Request) -> str:
        cache = self.kv_cache_manager
        return (
            f"{request.num_tokens} tokens do not fit the whole KV cache of {cache.pool.num_blocks} "
            f"blocks of {cache.block_size} tokens: give the cache more blocks, or the request "
            "fewer tokens"
        )

    def abort_requests(self, request_ids: Iterable[str]) -> list[Request]:
        """End requests at once, wherever they are; unknown and finished ids are passed over."""
        state = self._state
        aborted = []
        for request_id in request_ids:
            request = state.requests.get(request_id)
            if request is None:
                continue
            if request.status is RequestStatus.RUNNING:
                state.forget_running(request)
                state.running.remove(request)
            else:
                state.waiting.remove(request)
            request.status = RequestStatus.FINISHED_ABORTED
            state.release(request)
            aborted.append(request)
        return aborted

    def schedule(self, now: float) -> SchedulerOutput:
        """Decide one step.

        Args:
            now: Seconds on the engine's clock.
        """
        state = self._state
        output = SchedulerOutput(self._num_steps)
        self._num_steps += 1
        batch = Batch(output, self.config.max_num_batched_tokens)
        self._set_prefill_limits(batch)
        self._batch_policy.form_batch(
            StepBuilder(batch, now, state, self._running_pass, self._admit)
        )
        if self._queue_counts_service:
            _report_service(state, batch)
        self._completion_pass.run(batch)
        if output.total_num_scheduled_tokens:
            self._num_idle_steps = 0
            self._has_tried_to_admit = False
        output.finished_req_ids = state.finished_req_ids
        state.finished_req_ids = []
        return output

    def decode_ahead(
        self, now: float, horizon: float, step_time: Callable[[StepShape], float]
    ) -> DecodeAhead | None:
        """Run steps that only decode in a row (see DecodeAhead), between two ordinary steps.

        Args:
            now: Seconds; when the first of them starts.
            horizon: Seconds; nothing arrives before.
            step_time: Seconds of a step; equal for equal shapes.

        Returns:
            What was run, or None if the next step may hold anything else.
        """
        state = self._state
        if not self._may_decode_ahead or state.others or state.in_flight or not state.cohort.size:
            return None
        # The last step was a plain one on the same requests, so the policies would repeat it.
        if not self._completion_pass.last_step_was_plain or state.finished_req_ids:
            return None
        if len(state.waiting) and len(state.running) < self._admission_pass.max_active:
            return None
        ahead = self._decode_ahead
        ahead.run(now, horizon, step_time)
        num_steps = len(ahead.starts)
        self._num_steps += num_steps
        self._completion_pass.num_executed_steps += num_steps
        return ahead

    def update_from_output(
        self, scheduler_output: SchedulerOutput, model_output: ModelRunnerOutput, now: float
    ) -> EngineCoreOutputs:
        """Apply the results of the oldest step in flight.

        Args:
            scheduler_output: That step.
            model_output: What the model returned.
            now: Seconds on the engine's clock.
        """
        in_flight = self._state.in_flight
        if not in_flight or in_flight[0].output is not scheduler_output:
            raise SchedulerError(
                f"results of step {scheduler_output.step} came out of order: "
                "return every step once, oldest first"
            )
        for request_id, reason in model_output.failed.items():
            # Before the step leaves the line: it must learn who has left the cohort.
            request = self._state.requests.get(request_id)
            if request is not None:
                self._state.fail(request, reason)
        step = in_flight.popleft()
        outputs = self._output_pass.run(step, model_output, now)
        if self._state.failed:
            outputs.finished += self._state.failed
            self._state.failed = []
        if model_output.draft_token_ids:
            self._take_drafts(model_output)
        return outputs

    def _take_drafts(self, model_output: ModelRunnerOutput) -> None:
        if self.config.async_scheduling:
            return  # the device keeps its drafts; placeholders stand for them
        for request_id, token_ids in model_output.draft_token_ids.items():
            request = self._state.requests.get(request_id)
            if request is not None and request.status is RequestStatus.RUNNING:
                request.spec_token_ids = [] if request.is_prefill_chunk else token_ids

    def _set_prefill_limits(self, batch: Batch) -> None:
        state, config = self._state, self.config
        num_requests = len(state.running) + len(state.waiting)
        threshold = config.long_prefill_token_threshold if num_requests > 1 else 0
        if threshold and config.long_prefill_token_threshold_adaptive:
            threshold = max(threshold, config.max_num_batched_tokens // num_requests)
        batch.long_prefill_token_threshold = threshold
        interval = config.prefill_schedule_interval
        if interval > 1 and not self._prefill_capacity_bound:
            steps = self._completion_pass
            too_soon = steps.num_executed_steps + 1 - steps.last_prefill_step < interval
            batch.defer_prefills = too_soon and any(not r.is_prefill_chunk for r in state.running)

    def _admit(self, batch: Batch, now: float, whole_prompts: bool) -> None:
        state = self._state
        if len(state.waiting):
            self._has_tried_to_admit = True
            self._admission_pass.run(batch, now, whole_prompts)
        if not batch.defer_prefills:
            self._prefill_capacity_bound = len(state.waiting) > len(state.skipped)

    def check_integrity(self) -> None:
        """Raise AssertionError where the lists, the blocks and the counts disagree."""
        state = self._state
        assert len(state.running) <= self.config.max_num_seqs
        assert state.others == [r for r in state.running if r._cohort is None], "others out of step"
        members = [r for r in state.running if r._cohort is not None]
        assert state.cohort.size == len(members), "cohort size is wrong"
        assert state.cohort.context_tokens == sum(r.num_computed_tokens for r in members)
        waiting = list(state.waiting)
        assert len(waiting) == len(state.waiting)
        assert set(state.requests.values()) == {*state.running, *waiting}, "a request is lost"
        assert not set(waiting) & set(state.running), "a request waits and runs"
        self.kv_cache_manager.check_integrity(state.requests.values())
        if state.host_cache is not None:
            state.host_cache.check_integrity()


def _check(
    config: SchedulerConfig, cache_config: CacheConfig, num_blocks: int, batch_policy: BatchPolicy
) -> int:
    """Refuse settings that contradict each other; the model length."""
    max_model_len = config.max_model_len
    if max_model_len is None:
        raise ConfigError("max_model_len=None: set it, or take the model's max_position_embeddings")
    if num_blocks < 1:
        raise ConfigError(f"num_blocks={num_blocks}: the KV cache needs at least 1 block")
    whole = batch_policy.whole_prompts or not config.enable_chunked_prefill
    if whole and config.max_num_batched_tokens < max_model_len:
        raise ConfigError(
            f"max_num_batched_tokens={config.max_num_batched_tokens} is below "
            f"max_model_len={max_model_len}, but prompts are not chunked: raise the budget, lower "
            "max_model_len (scheduler=whole_prompts sets both), or chunk prompts "
            "(enable_chunked_prefill=true, batch_policy=unified)"
        )
    if batch_policy.splits_prompts and not config.enable_chunked_prefill:
        raise ConfigError(
            f"enable_chunked_prefill=false contradicts {type(batch_policy).__name__}, which splits "
            "prompts: set it to true, or choose another batch policy"
        )
    has_window = cache_config.sliding_window is not None or cache_config.hybrid_window is not None
    if has_window and config.preemption_mode == "swap":
        raise ConfigError(
            "preemption_mode=swap works with full attention only: unset sliding_window and "
            "hybrid_window, or use preemption_mode=recompute"
        )
    return max_model_len


def _report_service(state: SchedulerState, batch: Batch) -> None:
    """Tell a queue that shares by service what each running request gets in this step.

    Admissions were told at once: the next one of the same step must count them.
    """
    for request in state.running:
        ticks = 1 if batch.has_cohort and request._cohort is not None else 0
        num_tokens = batch.rows.get(request, ticks)
        if num_tokens and request not in batch.admitted:
            is_prompt = request.is_prefill_chunk
            prompt, output = (num_tokens, 0) if is_prompt else (0, num_tokens)
            state.waiting.on_tokens(request, prompt, output)
