"""Lets waiting requests into the batch, in the order of the queue.

The first request that does not fit ends the pass: nobody overtakes it. What may be admitted at all
(whole prompts only, nothing while others run) is the batch policy's question.
"""

from workbench.errors import SchedulerError
from workbench.kv_cache.prefix_hit import PrefixHit
from workbench.outputs import NewRequestData
from workbench.request import Request, RequestStatus
from workbench.scheduler.batch import Batch
from workbench.scheduler.state import SchedulerState

PLACEHOLDER_TOKEN = -1
_WAITS = (RequestStatus.WAITING, RequestStatus.PREEMPTED)


class AdmissionPass:
    """Schedules waiting requests.

    Args:
        state: The scheduler's lists.

    Attributes:
        max_active: Most running requests.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        config = state.config
        self.max_active = config.max_num_active_seqs or config.max_num_seqs

    def run(self, batch: Batch, now: float, whole_prompts: bool) -> None:
        """Admit waiting requests while budget, slots and blocks last.

        Args:
            batch: The step.
            now: Seconds on the engine's clock.
            whole_prompts: Admit a request only with all its tokens in this step.
        """
        state = self._state
        waiting = state.waiting
        skipped: list[Request] = []
        while batch.token_budget > 0 and len(waiting) and len(state.running) < self.max_active:
            request = self._next()
            if request.num_stale_output_tokens:
                # Output of the time before its preemption is still under way: to resume now could
                # sample a position twice. It comes back within the steps in flight.
                self._pop(request)
                skipped.append(request)
                state.skipped.add(request)
                continue
            if not self._admit(request, batch, now, whole_prompts):
                break
        for request in reversed(skipped):
            waiting.prepend(request)

    def _admit(self, request: Request, batch: Batch, now: float, whole_prompts: bool) -> bool:
        state = self._state
        kv_cache_manager = state.kv_cache_manager
        hit = kv_cache_manager.get_computed_blocks(request)
        num_computed = max(hit.num_tokens, request.num_swapped_tokens)
        if batch.defer_prefills and num_computed < request.num_tokens - 1:
            return False
        num_tokens, num_drafts = self._num_tokens(request, num_computed, batch, whole_prompts)
        if num_tokens == 0:
            return False
        blocks = kv_cache_manager.admit_slots(
            request,
            num_tokens,
            hit,
            num_loaded_tokens=num_computed - hit.num_tokens,
            full_sequence_must_fit=state.config.scheduler_reserve_full_isl,
            keep_watermark=bool(state.running),
        )
        if blocks is None:
            return False
        self._pop(request)
        state.waiting.on_tokens(request, num_tokens, 0)
        state.skipped.discard(request)
        self._enter(request, batch, hit, num_computed, now)
        batch.admitted.add(request)
        batch.rows[request] = num_tokens
        batch.token_budget -= num_tokens
        batch.prefill_admitted |= num_computed < request.num_tokens - 1
        if num_drafts:
            drafts = [PLACEHOLDER_TOKEN] * num_drafts
            batch.output.scheduled_spec_decode_tokens[request.request_id] = drafts
        return True

    def _next(self) -> Request:
        """The request the queue puts first; there must be one."""
        waiting = self._state.waiting
        try:
            request = waiting.peek()
        except LookupError as error:
            raise SchedulerError(
                f"{type(waiting).__name__}.peek found nobody ({error!r}) while its length is "
                f"{len(waiting)}: it must return the next request"
            ) from error
        if not isinstance(request, Request) or request.status not in _WAITS:
            raise SchedulerError(
                f"{type(waiting).__name__}.peek returned {request!r}: it must return one of its "
                f"{len(waiting)} waiting requests"
            )
        return request

    def _pop(self, request: Request) -> None:
        """Take the request that `_next` gave from the queue."""
        popped = self._state.waiting.pop()
        if popped is not request:
            raise SchedulerError(
                f"{type(self._state.waiting).__name__}.pop returned {popped!r} after peek had "
                f"returned {request!r}: both must name the same request"
            )

    def _num_tokens(
        self, request: Request, num_computed: int, batch: Batch, whole_prompts: bool
    ) -> tuple[int, int]:
        """(tokens to schedule, padding drafts among them); 0 tokens to end the pass."""
        config = self._state.config
        num_tokens = request.num_tokens - num_computed
        num_spec = config.num_speculative_tokens
        if num_spec and self._may_pad(num_tokens, num_computed, batch):
            # One token beside running verifications: pad it to their size, so that all rows of
            # the step are alike (vLLM keeps its full CUDA graph that way).
            num_padded = 1 + num_spec
            if num_computed + num_padded + 1 <= self._state.max_model_len:
                return (num_padded, num_spec) if num_padded <= batch.token_budget else (0, 0)
        threshold = batch.long_prefill_token_threshold
        if 0 < threshold < num_tokens:
            num_tokens = threshold
        if num_tokens > batch.token_budget and (whole_prompts or not config.enable_chunked_prefill):
            return 0, 0
        return min(num_tokens, batch.token_budget), 0

    @staticmethod
    def _may_pad(num_tokens: int, num_computed: int, batch: Batch) -> bool:
        alone = not batch.running_scheduled and num_computed == 0
        return num_tokens == 1 and not batch.prefill_continued and not alone

    def _enter(
        self, request: Request, batch: Batch, hit: PrefixHit, num_computed: int, now: float
    ) -> None:
        state = self._state
        if request.num_swapped_tokens and state.host_cache is not None:
            num_hit_blocks = hit.num_tokens // state.kv_cache_manager.block_size
            state.host_cache.swap_in(request, num_hit_blocks, batch.output)
        state.kv_cache_manager.record_lookup(request, hit)
        if request.status is RequestStatus.WAITING:
            request.first_scheduled_time = now
            request.num_cached_tokens = num_computed
        request._num_computed_tokens = num_computed
        state.enter_running(request)
        batch.output.scheduled_new_reqs.append(
            NewRequestData(
                request.request_id,
                request.num_prompt_tokens,
                request.prompt_token_ids,
                tuple(request.output_token_ids),
                request.sampling_params,
                tuple(tuple(table) for table in request.block_ids),
                num_computed,
            )
        )
