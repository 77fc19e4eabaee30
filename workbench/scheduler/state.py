"""What the passes of one scheduler share: who waits, who runs, which steps are in flight.

It keeps these lists consistent and takes no decision.
"""

from bisect import insort
from collections import deque
from collections.abc import Mapping, Set
from operator import attrgetter

from workbench.config import SchedulerConfig
from workbench.kv_cache.host_cache import HostCache
from workbench.kv_cache.kv_cache_manager import KVCacheManager
from workbench.outputs import SchedulerOutput
from workbench.request import Request, RequestStatus
from workbench.scheduler.decode_cohort import DecodeCohort
from workbench.scheduler.request_queue import RequestQueue

_ADMISSION_INDEX = attrgetter("admission_index")


class InFlightStep:
    """A scheduled step whose results have not come back.

    Attributes:
        output: The step's decisions.
        tick: Tick of the decode cohort in this step, 0 where it took no part.
        rows: Requests scheduled one by one, with their tokens.
        silent: Those of `rows` that sample no token: prompts that are not finished.
        leavers: Members that left the cohort after this step was scheduled.
    """

    __slots__ = ("leavers", "output", "rows", "silent", "tick")

    def __init__(self, output: SchedulerOutput, tick: int, rows: dict[Request, int]) -> None:
        self.output = output
        self.tick = tick
        self.rows = rows
        self.silent: set[Request] = set()
        self.leavers: list[Request] = []


class SchedulerState:
    """Lists and counters of one scheduler.

    Args:
        config: Limits and rules.
        max_model_len: Most tokens of a request.
        kv_cache_manager: The KV cache.
        host_cache: Host memory for swapped requests, or None.
        waiting: The queue.
        use_cohort: Whether plain decodes may be kept as a cohort.

    Attributes:
        requests: Every unfinished request by id.
        running: Running requests in the order of their admission.
        others: Those of `running` outside the decode cohort, in the same order.
        cohort: Running requests that only decode.
        version: Changes whenever a request joins or leaves the running ones.
        skipped: Waiting requests that the last admission pass had to leave out.
        in_flight: Steps that have not returned, oldest first.
        finished_req_ids: Requests that ended since the last step was scheduled.
        num_stoppable: Unfinished requests that a token can end.
        num_constrained: Unfinished requests that have a grammar.
        failed: Requests that ended as errors since the last step returned.
    """

    def __init__(
        self,
        config: SchedulerConfig,
        max_model_len: int,
        kv_cache_manager: KVCacheManager,
        host_cache: HostCache | None,
        waiting: RequestQueue,
        use_cohort: bool,
    ) -> None:
        self.config = config
        self.max_model_len = max_model_len
        self.kv_cache_manager = kv_cache_manager
        self.host_cache = host_cache
        self.waiting = waiting
        self.use_cohort = use_cohort
        self.version = 0
        self.requests: dict[str, Request] = {}
        self.running: list[Request] = []
        self.others: list[Request] = []
        self.cohort = DecodeCohort(uses_placeholders=config.async_scheduling)
        self.skipped: set[Request] = set()
        self.in_flight: deque[InFlightStep] = deque()
        self.finished_req_ids: list[str] = []
        self.failed: list[Request] = []
        self.num_stoppable = 0
        self.num_constrained = 0
        self.num_preemptions = 0
        self._num_admissions = 0

    def enter_running(self, request: Request) -> None:
        """Append an admitted request to the running ones."""
        self._num_admissions += 1
        request.admission_index = self._num_admissions
        request.status = RequestStatus.RUNNING
        self.version += 1
        self.running.append(request)
        self.others.append(request)

    def leave_cohort(self, request: Request) -> None:
        """Take a running request out of the cohort; its results in flight stay its own."""
        if self._detach(request):
            insort(self.others, request, key=_ADMISSION_INDEX)

    def dissolve_cohort(self) -> None:
        """Take every request out of the cohort."""
        for request in self.running:
            self._detach(request)
        self.others = list(self.running)

    def renew_member(self, request: Request) -> list[list[int]] | None:
        """Give a member that is due what its next token needs, and set the day it is due again.

        Returns:
            Its new blocks (free ones must have been counted before); None if it has been scheduled
            to its end and has left the cohort.
        """
        cohort = self.cohort
        computed = request._num_computed_tokens + cohort.num_scheduled - request._joined_tick
        remaining = request.last_scheduled_token - computed
        if remaining <= 0:
            self.leave_cohort(request)
            return None
        blocks, quiet = self.kv_cache_manager.append_slot(request, computed)
        if quiet > remaining:
            quiet = remaining
        # The coming tick is the first of the quiet ones, so the next look is after it at least.
        cohort.wake_after(request, quiet + 1 if quiet > 1 else 2)
        return blocks

    def forget_running(self, request: Request) -> None:
        """Drop a request from cohort and others; the caller removes it from `running`."""
        self.version += 1
        if not self._detach(request):
            self.others.remove(request)

    def _detach(self, request: Request) -> bool:
        if request._cohort is None:
            return False
        joined = max(request._joined_tick, self.cohort.num_returned)
        for step in self.in_flight:
            if step.tick > joined:
                step.leavers.append(request)
        self.cohort.leave(request)
        return True

    def preempt(self, request: Request, output: SchedulerOutput) -> None:
        """Throw out a request that the caller has taken from `running`; it waits again."""
        self.forget_running(request)
        swapped = self.host_cache is not None and self.host_cache.swap_out(request, output)
        self.kv_cache_manager.free(request)
        request.num_swapped_tokens = request._num_computed_tokens if swapped else 0
        request.status = RequestStatus.PREEMPTED
        request._num_computed_tokens = 0
        request.spec_token_ids = ()
        # Steps in flight were scheduled on the counts just reset: their tokens are still
        # delivered but must not be counted as computed again.
        request.num_stale_output_tokens = request._in_flight_tokens
        request._output_placeholders = 0
        request.num_preemptions += 1
        self.num_preemptions += 1
        self.waiting.prepend(request)
        output.preempted_req_ids.append(request.request_id)

    def fail(self, request: Request, reason: str) -> None:
        """End a request as an error, wherever it is."""
        request.stop_reason = reason
        self.end(request, RequestStatus.FINISHED_ERROR, is_sound=False)
        self.failed.append(request)

    def end(self, request: Request, status: RequestStatus, is_sound: bool = True) -> None:
        """End a request early: take it from the running ones, or from the queue, and release it."""
        if request.status is RequestStatus.RUNNING:
            self.forget_running(request)
            self.running.remove(request)
        else:
            self.waiting.remove(request)
        request.status = status
        self.release(request, is_sound)

    def release(self, request: Request, is_sound: bool = True) -> None:
        """Give back everything a finished request holds; is_sound: see KVCacheManager.free."""
        if request.block_ids:
            self.kv_cache_manager.free(request, is_sound)
        if self.host_cache is not None:
            self.host_cache.free(request)
        del self.requests[request.request_id]
        self.num_stoppable -= bool(request.stop_token_ids)
        self.num_constrained -= request.grammar is not None
        self.finished_req_ids.append(request.request_id)
        self.skipped.discard(request)
        if request.first_scheduled_time is None:
            self.kv_cache_manager.drop_lookup(request)

    def report_service(
        self, rows: Mapping[Request, int], has_cohort: bool, admitted: Set[Request]
    ) -> None:
        """Tell a queue that shares by service what each running request gets in a step.

        Admissions were told at once: the next one of the same step must count them.

        Args:
            rows: Tokens of the requests scheduled one by one.
            has_cohort: Whether the members of the cohort get one token each.
            admitted: Requests admitted in the step.
        """
        for request in self.running:
            ticks = 1 if has_cohort and request._cohort is not None else 0
            num_tokens = rows.get(request, ticks)
            if num_tokens and request not in admitted:
                is_prompt = request.is_prefill_chunk
                prompt, output = (num_tokens, 0) if is_prompt else (0, num_tokens)
                self.waiting.on_tokens(request, prompt, output)

    def check_integrity(self) -> None:
        """Raise AssertionError where the lists, the blocks and the counts disagree."""
        running, cohort = self.running, self.cohort
        assert len(running) <= self.config.max_num_seqs
        assert self.others == [r for r in running if r._cohort is None], "others out of step"
        members = [r for r in running if r._cohort is not None]
        assert cohort.size == len(members), "cohort size is wrong"
        assert cohort.context_tokens == sum(r.num_computed_tokens for r in members)
        waiting = list(self.waiting)
        assert len(waiting) == len(self.waiting)
        assert set(self.requests.values()) == {*running, *waiting}, "a request is lost"
        assert not set(waiting) & set(running), "a request waits and runs"
        constrained = [r for r in self.requests.values() if r.grammar is not None]
        assert len(constrained) == self.num_constrained, "constrained requests are miscounted"
        for request in running:
            returned = request.num_computed_tokens - request.num_in_flight_tokens
            assert 0 <= returned <= request.num_tokens, f"{request}: {returned} have returned"
        for request in waiting:
            assert request.num_computed_tokens == 0, f"{request} waits with computed tokens"
        self.kv_cache_manager.check_integrity(self.requests.values())
        if self.host_cache is not None:
            self.host_cache.check_integrity()
