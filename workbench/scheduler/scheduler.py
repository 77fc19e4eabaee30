"""The scheduler: hands out tokens, step by step, until every request has caught up.

There is no prefill phase and no decode phase. The scheduler names no policy: it asks the batch
policy how to form a step, the queue who is next and the victim policy who must go. It knows no
clock, no device and no text.
"""

from collections.abc import Callable, Iterable

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import SchedulerError
from workbench.kv_cache.eviction import EvictionPolicy
from workbench.kv_cache.host_cache import HostCache
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput, SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.admission_pass import AdmissionPass
from workbench.scheduler.batch import Batch
from workbench.scheduler.batch_builder import StepBuilder
from workbench.scheduler.batch_policy import BatchPolicy, UnifiedBatching
from workbench.scheduler.completion_pass import CompletionPass
from workbench.scheduler.decode_ahead import DecodeAhead
from workbench.scheduler.feasibility import check_settings, why_ignored, why_truncated
from workbench.scheduler.grammar_pass import GrammarPass
from workbench.scheduler.output_pass import OutputPass
from workbench.scheduler.parts import (
    cohort_is_exact,
    decodes_repeat,
    default_queue,
    default_victim,
    make_cache,
)
from workbench.scheduler.preemption import VictimPolicy
from workbench.scheduler.prefill_limits import PrefillLimits
from workbench.scheduler.request_queue import RequestQueue
from workbench.scheduler.running_pass import RunningPass
from workbench.scheduler.state import SchedulerState
from workbench.scheduler.stuck_watch import StuckWatch
from workbench.step_profile import StepShape
from workbench.structured_output import GrammarOutput


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
        use_cohort, use_runs: Keep plain decodes together (see DecodeCohort), and the cached blocks
            of a sequence (see RunPool). They change no decision; off, every request, and every
            block, is looked at on its own.
        forget_uncomputed_blocks: A request that is thrown out in the very step that was to compute
            some blocks leaves them in the prefix cache, in vLLM. True takes them out, which a world
            with real KV needs, as a hit would read what was never written.
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
        use_runs: bool = True,
        forget_uncomputed_blocks: bool = False,
    ) -> None:
        self.config = config
        self._batch_policy = batch_policy = batch_policy or UnifiedBatching()
        max_model_len = check_settings(config, cache_config, num_blocks, batch_policy)
        depth = max_concurrent_batches or (2 if config.async_scheduling else 1)
        self.kv_cache_manager = make_cache(
            config, cache_config, num_blocks, max_model_len, depth, eviction, use_runs
        )
        self._state = SchedulerState(
            config,
            max_model_len,
            self.kv_cache_manager,
            HostCache(num_host_blocks) if config.preemption_mode == "swap" else None,
            default_queue(config) if queue is None else queue,  # an empty queue is false
            use_cohort=use_cohort and cohort_is_exact(config, batch_policy, depth),
        )
        self._may_decode_ahead = decodes_repeat(self._state, batch_policy, depth)
        self._make_passes(victim_policy or default_victim(config), forget_uncomputed_blocks)

    def _make_passes(self, victim_policy: VictimPolicy, forget_uncomputed_blocks: bool) -> None:
        state = self._state
        victim_policy.bind(self.kv_cache_manager)
        self._running_pass = RunningPass(state, victim_policy, forget_uncomputed_blocks)
        self._admission_pass = AdmissionPass(state)
        self._completion_pass = CompletionPass(state)
        self._prefill_limits = PrefillLimits(state, self._completion_pass)
        self._output_pass = OutputPass(state)
        self._grammar_pass = GrammarPass(state)
        self._decode_ahead = DecodeAhead(state)
        self._stuck_watch = StuckWatch(state, type(self._batch_policy).__name__)
        self._num_steps = 0
        self._num_arrivals = 0

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
        state.num_constrained += request.grammar is not None
        state.waiting.add(request, now)

    def why_ignored(self, request: Request) -> str | None:
        """Why this request can never run, in one line; None if it can."""
        return why_ignored(request, self.max_model_len, self.kv_cache_manager)

    def why_ended(self, request: Request) -> str | None:
        """Why a finished request did not get all it wanted, in one line; None if it did."""
        if request.finish_reason == "ignored":
            return self.why_ignored(request)
        if request.finish_reason == "error" and isinstance(request.stop_reason, str):
            return request.stop_reason
        return why_truncated(request, self.max_model_len)

    def ignore_request(self, request: Request) -> None:
        """End a request that was never added, because it can never run."""
        request.status = RequestStatus.FINISHED_IGNORED
        self.kv_cache_manager.drop_lookup(request)

    def end_stuck_request(self, scheduler_output: SchedulerOutput) -> None:
        """End a request as an error if it has outgrown the whole KV cache.

        Args:
            scheduler_output: A step, just scheduled, that has no tokens.

        Raises:
            SchedulerError: Nothing has been scheduled for many steps, though somebody could run.
        """
        self._stuck_watch.end_stuck_request(scheduler_output)

    def abort_requests(self, request_ids: Iterable[str]) -> list[Request]:
        """End requests at once, wherever they are; unknown and finished ids are passed over."""
        state = self._state
        aborted = []
        for request_id in request_ids:
            request = state.requests.get(request_id)
            if request is not None:
                state.end(request, RequestStatus.FINISHED_ABORTED)
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
        self._prefill_limits.set(batch)
        self._batch_policy.form_batch(
            StepBuilder(batch, now, state, self._running_pass, self._admit, self._batch_policy)
        )
        if state.waiting.counts_service:
            state.report_service(batch.rows, batch.has_cohort, batch.admitted)
        self._completion_pass.run(batch)
        if output.total_num_scheduled_tokens:
            self._stuck_watch.note_progress()
        output.finished_req_ids = state.finished_req_ids
        state.finished_req_ids = []
        return output

    def get_grammar_bitmask(self, scheduler_output: SchedulerOutput) -> GrammarOutput | None:
        """What the rows of a step in flight may sample; None where no grammar says anything."""
        if not self._state.num_constrained:
            return None
        return self._grammar_pass.bitmask(scheduler_output)

    def grammar_waits(self, scheduler_output: SchedulerOutput) -> bool:
        """Whether the bitmask of a step needs tokens of steps that have not come back."""
        if not self._state.num_constrained:
            return False
        return self._grammar_pass.waits_for_tokens(scheduler_output)

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
        if state.num_constrained:
            return None  # a grammar may end an answer at any token
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
        drafts = model_output.draft_token_ids
        if drafts and not self.config.async_scheduling:
            self._output_pass.take_drafts(drafts)
        elif drafts or self._state.num_constrained:
            # the device keeps its drafts; placeholders stand for them
            self._grammar_pass.take_drafts(drafts)
        return outputs

    def _admit(self, batch: Batch, now: float, whole_prompts: bool) -> None:
        if len(self._state.waiting):
            self._stuck_watch.has_tried_to_admit = True
            self._admission_pass.run(batch, now, whole_prompts)
        self._prefill_limits.note_admissions(batch)

    def check_integrity(self) -> None:
        """Raise AssertionError where the lists, the blocks and the counts disagree."""
        self._state.check_integrity()
