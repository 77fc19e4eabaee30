"""Says which tokens the rows of a step may sample, where requests have grammars.

Reads the steps in flight and the requests' grammars, and changes no decision. A grammar goes on
when the tokens come back (see OutputPass); here it runs ahead over drafts only, and comes back.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from workbench.outputs import UNKNOWN_DRAFT_TOKEN, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.state import InFlightStep, SchedulerState
from workbench.structured_output import ALL_TOKENS, Grammar, GrammarOutput, is_allowed


class GrammarPass:
    """Makes the bitmasks of steps.

    Args:
        state: The scheduler's lists.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        # Under asynchronous scheduling drafts stay on the device; these are what it has.
        self._drafts: Mapping[str, Sequence[int]] = {}

    def take_drafts(self, draft_token_ids: Mapping[str, Sequence[int]]) -> None:
        """Remember the drafts that the device proposed in the step that has just come back."""
        self._drafts = draft_token_ids

    def waits_for_tokens(self, output: SchedulerOutput) -> bool:
        """Whether a row with a grammar follows tokens that have not come back."""
        step = self._step(output)
        return any(
            request.num_in_flight_tokens > step.rows.get(request, 1)
            for request in self._constrained(step)
        )

    def bitmask(self, output: SchedulerOutput) -> GrammarOutput | None:
        """The tokens that each row of a step in flight may sample; None: all may sample any."""
        requests = self._constrained(self._step(output))
        if not requests:
            return None
        drafts = [self._drafts_of(request, output) for request in requests]
        num_rows = [1 + len(each) for each in drafts]
        grammars = [request.grammar for request in requests if request.grammar is not None]
        bitmask = np.empty((sum(num_rows), grammars[0].num_words), dtype=np.int32)
        start = 0
        for request, grammar, each in zip(requests, grammars, drafts, strict=True):
            end = start + 1 + len(each)
            _fill(grammar, bitmask[start:end], each, self._num_tokens_left(request))
            start = end
        return GrammarOutput([r.request_id for r in requests], num_rows, bitmask)

    def _step(self, output: SchedulerOutput) -> InFlightStep:
        return next(step for step in reversed(self._state.in_flight) if step.output is output)

    @staticmethod
    def _constrained(step: InFlightStep) -> list[Request]:
        """The requests that have a grammar and sample in a step, in batch order."""
        return [
            request
            for request in step.output.rows.requests
            if request.grammar is not None
            and request not in step.silent
            and not request.is_finished
        ]

    def _drafts_of(self, request: Request, output: SchedulerOutput) -> list[int]:
        """The drafts that the device will verify."""
        scheduled = output.scheduled_spec_decode_tokens.get(request.request_id, ())
        if not any(token_id < 0 for token_id in scheduled):
            return list(scheduled)
        # who joins the batch brings no drafts, whatever was proposed before it left
        joins = any(new.request_id == request.request_id for new in output.scheduled_new_reqs)
        own = () if joins else self._drafts.get(request.request_id, ())
        return [
            token_id if token_id >= 0 else own[i] if i < len(own) else UNKNOWN_DRAFT_TOKEN
            for i, token_id in enumerate(scheduled)
        ]

    def _num_tokens_left(self, request: Request) -> int:
        room = self._state.max_model_len - request.num_tokens
        return max(min(request.max_tokens - request.num_output_tokens, room), 1)


def _fill(grammar: Grammar, rows: np.ndarray, drafts: Sequence[int], num_left: int) -> None:
    """Fill the rows of one request: before its first draft, behind it, and so on."""
    grammar.fill_bitmask(rows[0], num_left)
    num_accepted = 0
    for i, draft in enumerate(drafts):
        is_over = grammar.is_complete or not is_allowed(rows[i], draft)
        if is_over or grammar.failure is not None or not grammar.accept_token(draft):
            rows[i + 1 :] = ALL_TOKENS
            break
        num_accepted += 1
        if grammar.is_complete:
            rows[i + 1 :] = ALL_TOKENS
            break
        grammar.fill_bitmask(rows[i + 1], max(num_left - i - 1, 1))
    if num_accepted:
        grammar.rollback(num_accepted)
