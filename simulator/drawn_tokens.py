"""The answers of a simulated model in token ids that read as something.

Every answer has a random stream of its own, so it does not depend on what else is served, nor on
preemptions. All tokens are equally likely: temperature, top_p and penalties change nothing, while
`allowed_token_ids`, grammars, and a `logit_bias` of -100 (never) or 100 (nothing else) hold.

Knows the rows of steps. It knows no time, no cost and no text.
"""

from collections.abc import Callable, Mapping

import numpy as np

from simulator.answer import Answer, Bitmask
from simulator.token_source import DraftTokenSource
from simulator.uniform_logprobs import prompt_logprobs, token_logprobs
from simulator.vocabulary import Vocabulary
from workbench.outputs import BatchRows, ModelRunnerOutput, SchedulerOutput

NOTHING_LEFT = (
    "nothing is left to choose: allowed_token_ids, logit_bias and the grammar leave no token; "
    "allow more or forbid less"
)
_NO_MASKS: Mapping[str, Bitmask] = {}


class DrawnTokens:
    """Draws the tokens of every step.

    Args:
        vocabulary: What may be drawn.
        seed: Of requests that bring none.
        mean_output_tokens: Answers end by the end-of-sequence token after so many tokens on
            average; None: only those of requests without `max_tokens` do, after 256. Neither where
            a request ignores that token, or the vocabulary has none.
        drafts: Says how many draft tokens each row accepts; None: there are none.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        seed: int = 0,
        mean_output_tokens: float | None = None,
        drafts: DraftTokenSource | None = None,
    ) -> None:
        self._vocabulary = vocabulary
        self._spoken = np.array(vocabulary.spoken or range(vocabulary.size), dtype=np.int64)
        self._closing = np.array(vocabulary.closing, dtype=np.int64)
        self._seed = seed
        self._mean = mean_output_tokens
        self._drafts = drafts
        self._answers: dict[str, Answer] = {}
        self._asking: set[str] = set()  # requests that want more than tokens
        self._rows: BatchRows | None = None
        self._draw_all: list[Callable[[], int]] | None = None

    def draw(
        self, step: SchedulerOutput, bitmasks: Mapping[str, Bitmask] = _NO_MASKS
    ) -> ModelRunnerOutput:
        """The answer of one step.

        Args:
            step: The decisions.
            bitmasks: By request id: what a grammar allows, [ceil(size / 32)], a bit a token.
        """
        self._admit(step)
        if self._drafts is None and not bitmasks:
            plain = self._plain_rows(step.rows)
            if plain is not None:
                return ModelRunnerOutput([[draw()] for draw in plain])
        return self._draw_each(step, bitmasks)

    def _admit(self, step: SchedulerOutput) -> None:
        """Forget the answers that have ended, and begin those that join for the first time."""
        for request_id in step.finished_req_ids:
            self._answers.pop(request_id, None)
            self._asking.discard(request_id)
        for new in step.scheduled_new_reqs:
            answer = self._answers.get(new.request_id)
            if answer is not None:
                answer.num_computed = new.num_computed_tokens
                continue
            answer = Answer(new, self._vocabulary, self._spoken, self._seed, self._mean)
            self._answers[new.request_id] = answer
            params = answer.params
            restricts = params.allowed_token_ids is not None or bool(params.logit_bias)
            if restricts or params.logprobs is not None or params.prompt_logprobs is not None:
                self._asking.add(new.request_id)

    def _plain_rows(self, rows: BatchRows) -> list[Callable[[], int]] | None:
        """What draws each row, if every row owes a token and nothing else; steps share rows."""
        if rows is not self._rows:
            self._rows, self._draw_all = rows, None
            ids, asking = [r.request_id for r in rows.requests], self._asking
            if asking and not asking.isdisjoint(ids):
                return None
            if not any(r.is_prefill_chunk for r in rows.requests):
                answers = self._answers
                self._draw_all = [answers[request_id].next_token for request_id in ids]
        return self._draw_all

    def _draw_each(
        self, step: SchedulerOutput, bitmasks: Mapping[str, Bitmask]
    ) -> ModelRunnerOutput:
        """Row by row: prompts that are not finished, drafts, grammars, log probabilities."""
        requests = step.rows.requests
        output = ModelRunnerOutput()
        counts = [0 if r.is_prefill_chunk else 1 for r in requests]
        if self._drafts is not None:
            # a mask is for the next token only
            proposed = self._drafts.sample(step, refusing=bitmasks.keys())
            output.draft_token_ids = proposed.draft_token_ids
            counts = [len(row) for row in proposed.sampled_token_ids or ()]
        rows: list[list[int]] = []
        failed: dict[str, str] = {}
        for request, count in zip(requests, counts, strict=True):
            answer, mask = self._answers[request.request_id], bitmasks.get(request.request_id)
            tokens = self._tokens(answer, count, mask)
            if tokens is None:
                tokens, failed[request.request_id] = [], NOTHING_LEFT
            rows.append(tokens)
        output.sampled_token_ids, output.failed = rows, failed
        if self._asking:
            self._add_logprobs(step, rows, output)
        return output

    def _tokens(self, answer: Answer, count: int, mask: Bitmask | None) -> list[int] | None:
        if mask is not None and count:
            token_id = answer.token_of(mask, self._closing)
            return None if token_id is None else [token_id]
        try:
            return [answer.next_token() for _ in range(count)]
        except StopIteration:
            return None

    def _add_logprobs(
        self, step: SchedulerOutput, rows: list[list[int]], output: ModelRunnerOutput
    ) -> None:
        size = self._vocabulary.size
        told, of_prompts = {}, {}
        scheduled = step.rows.num_tokens_of
        for request, tokens in zip(step.rows.requests, rows, strict=True):
            request_id = request.request_id
            if request_id not in self._asking:
                continue
            answer = self._answers[request_id]
            params = answer.params
            if params.logprobs is not None and tokens:
                told[request_id] = [token_logprobs(t, params.logprobs, size) for t in tokens]
            if params.prompt_logprobs is not None and answer.num_computed < len(answer.prompt):
                start = answer.num_computed
                answer.num_computed = stop = start + scheduled.get(request, 1)
                found = prompt_logprobs(answer.prompt, start, stop, params.prompt_logprobs, size)
                if found is not None:
                    of_prompts[request_id] = found
        output.logprobs, output.prompt_logprobs = told, of_prompts
