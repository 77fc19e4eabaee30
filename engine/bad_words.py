"""Bad words: the last token of a forbidden sequence is masked where the others stand before it.

The last tokens of an answer are kept on the device, so that a step can be planned before the host
knows the tokens of the step before it. Knows sequences of token ids, not words.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.logit_rules import Edit, StepRows
from engine.slot_rows import SlotRows, to_device
from workbench.sampling_params import MAX_BAD_WORD_TOKENS, SamplingParams

RING = 128
"""Tokens kept of an answer; RING - MAX_BAD_WORD_TOKENS may be drawn for a request in one step."""
NO_TOKEN = -2
ANY_TOKEN = -1


class BadWordsRule:
    """Forbidden token sequences of the requests that bring any.

    Only tokens of the answer count as standing before, as in vLLM: a word that began in the prompt
    may be completed.

    Args:
        max_num_seqs, device: As for the sampling batch.
    """

    def __init__(self, max_num_seqs: int, device: torch.device) -> None:
        self._device = device
        # One row a request: its last tokens in a ring, and how many there have been.
        self._rows = SlotRows(
            max_num_seqs, (RING, 1), (torch.int64, torch.int64), (NO_TOKEN, 0), device
        )
        self._words: dict[int, tuple[tuple[int, ...], ...]] = {}

    def add(
        self,
        slot: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
    ) -> bool:
        words = tuple(tuple(word) for word in params.bad_words_token_ids)
        if not words:
            return False
        assert max(map(len, words)) <= MAX_BAD_WORD_TOKENS, "refused when the request came"
        self._words[slot] = words
        row = self._rows.take(slot)
        ring, count = self._rows.matrices
        last = np.asarray(output_token_ids[-RING:], dtype=np.int64)
        places = np.arange(len(output_token_ids) - len(last), len(output_token_ids)) % RING
        ring[row, to_device(places, self._device)] = to_device(last, self._device)
        count[row] = len(output_token_ids)
        return True

    def remove(self, slot: int) -> None:
        self._rows.give_back(slot)
        del self._words[slot]

    def plan(self, step: StepRows, rows: np.ndarray) -> Edit | None:
        slots = step.slots[rows]
        words = [word for slot in slots.tolist() for word in self._words[slot]]
        owners = np.repeat(np.arange(len(rows)), [len(self._words[s]) for s in slots.tolist()])
        length = max(map(len, words)) - 1
        prefixes = np.full((len(words), length), ANY_TOKEN, dtype=np.int64)
        for prefix, word in zip(prefixes, words, strict=True):
            prefix[length - len(word) + 1 :] = word[:-1]
        columns = [
            rows[owners],
            owners,
            np.array([word[-1] for word in words], dtype=np.int64),
            self._rows.row_of[slots],
        ]
        here, owner, last, ring_rows = (to_device(column, self._device) for column in columns)
        wanted = to_device(prefixes, self._device)
        drafts = self._drafts(step, rows, length)
        matrices = self._rows.matrices

        def edit(logits: Tensor) -> None:
            before = _last_tokens(matrices[0][ring_rows], matrices[1][ring_rows], length, drafts)
            match = ((wanted == before[owner]) | (wanted == ANY_TOKEN)).all(1)
            # min with +inf changes nothing; an index_put of the matches would wait for the device
            bound = torch.where(match, float("-inf"), float("inf")).to(logits.dtype)
            flat = here * logits.shape[1] + last
            logits.view(-1).scatter_reduce_(0, flat, bound, "amin")

        return edit

    def _drafts(self, step: StepRows, rows: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
        """Number of drafts each row takes for accepted [M, 1], and the last ones [M, length]."""
        window = np.full((len(rows), length), NO_TOKEN, dtype=np.int64)
        places, backs, token_ids = step.earlier_drafts(rows)
        near = backs < length
        window[places[near], length - 1 - backs[near]] = token_ids[near]
        no_drafts = np.zeros(len(rows), dtype=np.int64)
        ranks = no_drafts if step.draft_rank is None else step.draft_rank[rows]
        return to_device(ranks[:, None].copy(), self._device), to_device(window, self._device)

    def record(self, slots: Tensor, token_ids: Tensor) -> None:
        ring, count = self._rows.matrices
        is_token = token_ids >= 0
        rows = torch.where(is_token, self._rows.rows_of(slots), 0)
        # which of its request's new tokens each one is: those before it in the same row
        same = (rows[:, None] == rows[None, :]) & is_token[None, :]
        order = same.tril(-1).sum(1)
        ring[rows, (count[rows, 0] + order) % RING] = token_ids
        count.view(-1).index_add_(0, rows, is_token.to(count.dtype))


def _last_tokens(ring: Tensor, count: Tensor, length: int, drafts: tuple[Tensor, Tensor]) -> Tensor:
    """The last tokens before each row, drafts included: [M, length], NO_TOKEN before the answer."""
    num_drafts, draft_window = drafts
    column = torch.arange(length, device=ring.device)
    # column j of the result is the j-th of `length` tokens that end with the drafts
    place = count - length + num_drafts + column
    # places before the answer fall on parts of the ring that nothing was written to
    recorded = ring.gather(1, place % RING)
    return torch.where(column >= length - num_drafts, draft_window, recorded)
