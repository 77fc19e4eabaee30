"""Rules that change logits before a token is drawn, one concern a class, and how they plug in.

Here: the interface, the additive rule (logit_bias and allowed_token_ids) and the rule that masks
stop tokens until min_tokens. Rules know slots and token ids; they know no request and no draw.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from engine.slot_rows import SlotRows, to_device
from workbench.sampling_params import SamplingParams

Edit = Callable[[Tensor], None]
"""Changes a step's logits [N, V] in place."""


@dataclass(frozen=True, slots=True)
class StepRows:
    """The rows of a step's logits, as a rule sees them.

    Attributes:
        slots: [N] int64; equal ones stand together (drafts of one request).
        num_output_tokens: [N] int64; tokens of the answer before the one to be drawn.
        draft_rank: [N] int64; number of drafts that row takes for accepted. None: no drafts.
        draft_token_ids: [N] int64; the last of those drafts, where draft_rank > 0.
    """

    slots: np.ndarray
    num_output_tokens: np.ndarray
    draft_rank: np.ndarray | None = None
    draft_token_ids: np.ndarray | None = None

    def earlier_drafts(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Every draft that each of some rows takes for accepted.

        Returns:
            Places in `rows`, how far back the draft lies (0: the last one), and the draft.
        """
        if self.draft_rank is None or self.draft_token_ids is None:
            empty = np.zeros(0, dtype=np.int64)
            return empty, empty, empty
        ranks = self.draft_rank[rows]
        places = np.repeat(np.arange(len(rows)), ranks)
        backs = np.arange(len(places)) - np.repeat(np.cumsum(ranks) - ranks, ranks)
        return places, backs, self.draft_token_ids[rows[places] - backs]


class LogitRule(Protocol):
    """What one rule keeps of the slots, and what it does to a step."""

    def add(
        self,
        slot: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
    ) -> bool:
        """Take in a request; False if the rule does not concern it (then nothing is kept)."""
        ...

    def remove(self, slot: int) -> None:
        """Forget a request that the rule concerns."""
        ...

    def plan(self, step: StepRows, rows: np.ndarray) -> Edit | None:
        """The edit of a step; `rows` [M] are those of its rows that the rule concerns."""
        ...

    def record(self, slots: Tensor, token_ids: Tensor) -> None:
        """Take in drawn tokens [N], on the device and in order; negative ones are none."""
        ...


class AdditiveRule:
    """logit_bias and allowed_token_ids: one vector added to the logits of a request.

    Args:
        max_num_seqs, vocab_size, device: As for the sampling batch.
    """

    def __init__(self, max_num_seqs: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._rows = SlotRows(max_num_seqs, (vocab_size,), (torch.float32,), (0.0,), device)

    def add(
        self,
        slot: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
    ) -> bool:
        allowed, bias = params.allowed_token_ids, params.logit_bias
        if allowed is None and not bias:
            return False
        row = self._rows.take(slot)
        vector = self._rows.matrices[0][row]
        if allowed is not None:
            vector.fill_(float("-inf"))
            vector[to_device(np.array(allowed, dtype=np.int64), self._device)] = 0.0
        if bias:
            token_ids = np.fromiter(bias.keys(), np.int64, len(bias))
            values = np.fromiter(bias.values(), np.float32, len(bias))
            vector[to_device(token_ids, self._device)] += to_device(values, self._device)
        return True

    def remove(self, slot: int) -> None:
        self._rows.give_back(slot)

    def plan(self, step: StepRows, rows: np.ndarray) -> Edit | None:
        here = to_device(rows, self._device)
        vectors = to_device(self._rows.row_of[step.slots[rows]], self._device)
        matrix = self._rows.matrices[0]

        def edit(logits: Tensor) -> None:
            logits.index_add_(0, here, matrix[vectors])

        return edit

    def record(self, slots: Tensor, token_ids: Tensor) -> None:
        pass


class MinTokensRule:
    """Masks the stop tokens of a request until its answer has min_tokens tokens.

    Args:
        max_num_seqs, device: As for the sampling batch.
    """

    def __init__(self, max_num_seqs: int, device: torch.device) -> None:
        self._device = device
        self._min_tokens = np.zeros(max_num_seqs, dtype=np.int64)
        self._stop_token_ids: dict[int, np.ndarray] = {}

    def add(
        self,
        slot: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
    ) -> bool:
        if not params.min_tokens or not params.stop_token_ids:
            return False
        self._min_tokens[slot] = params.min_tokens
        self._stop_token_ids[slot] = np.array(params.stop_token_ids, dtype=np.int64)
        return True

    def remove(self, slot: int) -> None:
        self._min_tokens[slot] = 0
        del self._stop_token_ids[slot]

    def plan(self, step: StepRows, rows: np.ndarray) -> Edit | None:
        slots = step.slots[rows]
        young = step.num_output_tokens[rows] < self._min_tokens[slots]
        if not young.any():
            return None
        masked = [self._stop_token_ids[slot] for slot in slots[young].tolist()]
        here = to_device(np.repeat(rows[young], [len(ids) for ids in masked]), self._device)
        token_ids = to_device(np.concatenate(masked), self._device)

        def edit(logits: Tensor) -> None:
            logits[here, token_ids] = float("-inf")

        return edit

    def record(self, slots: Tensor, token_ids: Tensor) -> None:
        pass
