"""Grammars of chance whose every state is another one, and a model that obeys bitmasks.

What a grammar allows depends on all tokens before, so a bitmask made for any other state than the
one in which its token is taken in would be found out.
"""

from random import Random

import numpy as np

from workbench.outputs import UNKNOWN_DRAFT_TOKEN, ModelRunnerOutput, SchedulerOutput
from workbench.structured_output import (
    ALL_TOKENS,
    BITS_PER_WORD,
    GrammarOutput,
    allowed_token_ids,
    is_allowed,
)

VOCABULARY = 50
NUM_WORDS = -(-VOCABULARY // BITS_PER_WORD)


class ScriptedGrammar:
    """A workbench.structured_output.Grammar.

    Args:
        seed: Of what it allows; None: everything, always.
        num_tokens: Tokens after which the answer is complete; None: never.
        fails_at: Tokens after which it cannot go on.
    """

    def __init__(
        self, seed: int | None, num_tokens: int | None = None, fails_at: int | None = None
    ) -> None:
        self._seed = seed
        self._num_tokens = num_tokens
        self._fails_at = fails_at
        self.token_ids: list[int] = []
        self.fewest_left: int | None = None
        self.failure: str | None = None

    @property
    def num_words(self) -> int:
        return NUM_WORDS

    @property
    def is_complete(self) -> bool:
        return len(self.token_ids) == self._num_tokens

    def fill_bitmask(self, row: np.ndarray, num_tokens_left: int) -> None:
        assert not self.is_complete
        assert num_tokens_left >= 1
        if self._seed is None:
            row[:] = ALL_TOKENS
            return
        if len(self.token_ids) == self._fails_at:
            self.failure = "out of words"
            row[:] = ALL_TOKENS
            return
        flags = np.zeros(NUM_WORDS * BITS_PER_WORD, dtype=np.uint8)
        flags[Random(f"{self._seed} {self.token_ids}").sample(range(VOCABULARY), 7)] = 1
        row[:] = np.packbits(flags, bitorder="little").view(np.int32)

    def accept_token(self, token_id: int) -> bool:
        if self.failure is not None:
            return False
        row = np.empty(NUM_WORDS, dtype=np.int32)
        self.fill_bitmask(row, 1)
        assert is_allowed(row, token_id), f"{token_id} after {self.token_ids}"
        self.token_ids.append(token_id)
        return True

    def rollback(self, num_tokens: int) -> None:
        assert 0 < num_tokens <= len(self.token_ids)
        del self.token_ids[-num_tokens:]


class ObedientModel:
    """An executor whose tokens are drawn by chance among those that are allowed.

    Args:
        random: Of the tokens.
        num_drafts: Most drafts proposed after a sampled token.
        acceptance_rate: Chance that a draft that is allowed is sampled.
    """

    def __init__(self, random: Random, num_drafts: int = 0, acceptance_rate: float = 0.5) -> None:
        self._random = random
        self._num_drafts = num_drafts
        self._acceptance_rate = acceptance_rate
        self._computed: dict[str, int] = {}
        self._known: dict[str, int] = {}
        self._proposed: dict[str, list[int]] = {}
        self._step: SchedulerOutput | None = None
        self.outputs: list[SchedulerOutput] = []
        self.calls: list[tuple[str, int]] = []
        self.grammar_outputs: list[GrammarOutput | None] = []

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        assert self._step is None, "a step was started before the one before it was sampled"
        self._step = scheduler_output
        self.outputs.append(scheduler_output)
        self.calls.append(("execute", scheduler_output.step))
        for new in scheduler_output.scheduled_new_reqs:
            self._computed[new.request_id] = new.num_computed_tokens
            known = new.num_prompt_tokens + len(new.output_token_ids)
            self._known[new.request_id] = max(known, self._known.get(new.request_id, 0))
            self._proposed.pop(new.request_id, None)

    def sample_tokens(self, grammar_output: GrammarOutput | None) -> ModelRunnerOutput:
        step, self._step = self._step, None
        assert step is not None
        self.calls.append(("sample", step.step))
        self.grammar_outputs.append(grammar_output)
        masks = dict(grammar_output.items()) if grammar_output is not None else {}
        answer = ModelRunnerOutput([], {}, {})
        rows, drafts = [], {}
        for request_id, num_tokens in step.num_scheduled_tokens.items():
            scheduled = self._drafts_of(request_id, step)
            row = self._row(request_id, num_tokens, scheduled, masks.get(request_id))
            rows.append(row)
            if row and self._num_drafts:
                count = self._random.randint(0, self._num_drafts)
                drafts[request_id] = [self._random.randrange(VOCABULARY) for _ in range(count)]
        self._proposed |= drafts
        answer.sampled_token_ids, answer.draft_token_ids = rows, drafts
        return answer

    def _drafts_of(self, request_id: str, step: SchedulerOutput) -> list[int]:
        scheduled = step.scheduled_spec_decode_tokens.get(request_id, [])
        own = self._proposed.get(request_id, [])
        own = own + [UNKNOWN_DRAFT_TOKEN] * len(scheduled)
        return [token if token >= 0 else own[i] for i, token in enumerate(scheduled)]

    def _row(
        self, request_id: str, num_tokens: int, drafts: list[int], mask: np.ndarray | None
    ) -> list[int]:
        computed = self._computed[request_id] + num_tokens - len(drafts)
        self._computed[request_id] = computed
        if computed < self._known[request_id]:
            assert mask is None, "a row that samples nothing has a bitmask"
            return []
        assert mask is None or len(mask) == 1 + len(drafts)
        row = []
        for i in range(1 + len(drafts)):
            may = range(VOCABULARY) if mask is None else allowed_token_ids(mask[i]).tolist()
            may = [token for token in may if token < VOCABULARY]
            draft = drafts[i] if i < len(drafts) else None
            is_drawn = self._random.random() < self._acceptance_rate
            token = draft if is_drawn and draft in may else self._random.choice(may)
            assert token is not None
            row.append(token)
            if token != draft:
                break
        self._computed[request_id] += len(row) - 1
        self._known[request_id] += len(row)
        return row
