"""Gives tokens to the requests that run already, and throws some out where blocks run short.

Each request catches up: its computed tokens follow its known tokens, whatever they are (prompt,
output, drafts). Plain decodes are handled together as the decode cohort wherever that cannot change
a decision, and one by one where it could: too small a budget, too few free blocks.
"""

from workbench.errors import SchedulerError
from workbench.kv_cache.kv_cache_manager import NO_BLOCKS
from workbench.request import Request, RequestStatus
from workbench.scheduler.batch import Batch
from workbench.scheduler.preemption import VictimPolicy
from workbench.scheduler.state import SchedulerState


class RunningPass:
    """Schedules running requests.

    Args:
        state: The scheduler's lists.
        victim_policy: Who is thrown out when a running request finds no block.
        forget_uncomputed_blocks: See Scheduler.
    """

    def __init__(
        self,
        state: SchedulerState,
        victim_policy: VictimPolicy,
        forget_uncomputed_blocks: bool = False,
    ) -> None:
        self._state = state
        self._victim_policy = victim_policy
        self._forgets = forget_uncomputed_blocks

    def run(self, batch: Batch, decodes: bool, prefills: bool) -> None:
        """Schedule running requests in the order of their admission.

        Args:
            batch: The step.
            decodes: Whether requests that have only their last token to compute take part.
            prefills: Whether the others do.
        """
        state = self._state
        if decodes and state.cohort.size and not batch.has_cohort:
            due = state.cohort.due_next()
            others = [
                r
                for r in state.others
                if r not in batch.rows and (prefills or not r.is_prefill_chunk)
            ]
            if self._cohort_fits(batch, due, others):
                self._visit_with_cohort(batch, due, others)
                return
            state.dissolve_cohort()
        # Whoever is in the cohort now either has its token or takes no part.
        for request in list(state.others):
            if batch.token_budget <= 0:
                break
            wanted = prefills if request.is_prefill_chunk else decodes
            if wanted and request not in batch.rows and request.status is RequestStatus.RUNNING:
                self._visit(request, batch)

    def _cohort_fits(self, batch: Batch, due: list[Request], others: list[Request]) -> bool:
        """Whether every member gets its token, and no block runs short, in any order of visits."""
        state = self._state
        kv_cache_manager = state.kv_cache_manager
        budget = batch.token_budget - state.cohort.size
        if budget < 0:
            return False
        num_groups = len(kv_cache_manager.groups)
        num_blocks = len(due) * num_groups
        for i, request in enumerate(others):
            wanted = self._num_wanted_tokens(request, batch)
            if wanted > budget:
                # To get fewer tokens than wanted is right only if no member comes after it.
                if batch.rows or state.running[i - len(others)] is not request:
                    return False
                wanted = budget
            budget -= wanted
            num_blocks += (wanted // kv_cache_manager.block_size + 2) * num_groups
        return num_blocks <= kv_cache_manager.num_free_blocks

    def _visit_with_cohort(self, batch: Batch, due: list[Request], others: list[Request]) -> None:
        cohort = self._state.cohort
        batch.token_budget -= cohort.size
        visits = due + others
        if due and len(visits) > 1:
            visits.sort(key=lambda request: request.admission_index)
        for request in visits:
            if request._cohort is None:
                self._visit(request, batch)
            else:
                self._visit_member(request, batch)
        if cohort.size:
            batch.has_cohort = True
            batch.running_scheduled = True

    def _visit_member(self, request: Request, batch: Batch) -> None:
        """Look after a member that is due: its next block, its full block, or its last step."""
        blocks = self._state.renew_member(request)
        if blocks is None:
            batch.token_budget += 1
        elif blocks is not NO_BLOCKS and any(blocks):
            batch.output.new_block_ids[request.request_id] = blocks

    def _num_wanted_tokens(self, request: Request, batch: Batch) -> int:
        """Tokens that this request would take with an unlimited budget; 0 to pass over it."""
        placeholders = request.num_output_placeholders
        computed = request.num_computed_tokens
        if placeholders and (
            computed + 2 - placeholders >= request.num_prompt_tokens + request.max_tokens
        ):
            # The steps in flight bring its last token, even if every draft is rejected.
            return 0
        if batch.defer_prefills and request.is_prefill_chunk:
            return 0
        wanted = request.num_tokens + len(request.spec_token_ids) + placeholders - computed
        threshold = batch.long_prefill_token_threshold
        if 0 < threshold < wanted:
            wanted = threshold
        return min(wanted, self._state.max_model_len - computed - 1)

    def _visit(self, request: Request, batch: Batch) -> None:
        """Schedule one request, at the cost of others if need be."""
        num_tokens = min(self._num_wanted_tokens(request, batch), batch.token_budget)
        if num_tokens <= 0:
            return
        state = self._state
        while True:
            blocks = state.kv_cache_manager.allocate_slots(request, num_tokens)
            if blocks is not None:
                break
            victim = self._select_victim(request, batch)
            self._preempt(victim, batch)
            if victim is request:
                return
        batch.rows[request] = num_tokens
        batch.token_budget -= num_tokens
        batch.running_scheduled = True
        batch.prefill_continued |= request.is_prefill_chunk
        if any(blocks):
            batch.output.new_block_ids[request.request_id] = blocks
        if request.spec_token_ids:
            self._schedule_drafts(request, num_tokens, batch)

    def _select_victim(self, request: Request, batch: Batch) -> Request:
        """Ask the victim policy; it gets a list of its own."""
        # Nobody is admitted and thrown out in one step.
        candidates = [r for r in self._state.running if r not in batch.admitted]
        if self._forgets and batch.admitted:
            # Who was admitted may count on the blocks of one that was scheduled before it.
            ticked = batch.has_cohort
            candidates = [
                r for r in candidates if r not in batch.rows and not (ticked and r._cohort)
            ]
        victim = self._victim_policy.select(candidates.copy(), request)
        if not any(victim is candidate for candidate in reversed(candidates)):
            raise SchedulerError(
                f"{type(self._victim_policy).__name__}.select returned {victim!r} for request "
                f"{request.request_id!r}: it must return one of the {len(candidates)} running "
                "requests it was given"
            )
        return victim

    def _schedule_drafts(self, request: Request, num_tokens: int, batch: Batch) -> None:
        num_drafts = (
            num_tokens
            + request.num_computed_tokens
            - request.num_tokens
            - request.num_output_placeholders
        )
        if num_drafts > 0:
            drafts = list(request.spec_token_ids[:num_drafts])
            batch.output.scheduled_spec_decode_tokens[request.request_id] = drafts
        request.spec_token_ids = ()

    def _preempt(self, victim: Request, batch: Batch) -> None:
        state = self._state
        state.running.remove(victim)
        num_tokens = batch.rows.get(victim, 0)
        if batch.has_cohort and victim._cohort is not None:
            batch.token_budget += 1
            num_tokens = 1
        if num_tokens:
            # As in vLLM, what this step was to compute of it counts as cached already.
            if self._forgets:
                state.kv_cache_manager.forget_blocks(victim, victim.num_computed_tokens)
            else:
                state.kv_cache_manager.cache_rest(victim, victim.num_computed_tokens + num_tokens)
        batch.unschedule(victim)
        batch.preempted.append(victim)
        state.preempt(victim, batch.output)
