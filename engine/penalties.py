"""Repetition, presence and frequency penalties, counted on the device.

The counts live where the tokens are drawn, so that a step can be planned before the host knows the
tokens of the step before it. Knows nothing of how tokens are drawn.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.logit_rules import Edit, StepRows
from engine.slot_rows import SlotRows, to_device
from workbench.sampling_params import SamplingParams


class PenaltyRule:
    """Penalties of the requests that ask for any.

    A logit x of a token that stands in the prompt or the answer becomes x / r if positive, else
    x * r, with r the repetition penalty (Keskar et al., CTRL, 2019); then a token that stands c
    times in the answer loses frequency_penalty * c + presence_penalty * (c > 0) (OpenAI).

    Args:
        max_num_seqs, vocab_size, device: As for the sampling batch.
    """

    def __init__(self, max_num_seqs: int, vocab_size: int, device: torch.device) -> None:
        self._device = device
        self._vocab_size = vocab_size
        # One row a request: how often a token stands in the answer; whether it is in the prompt.
        self._rows = SlotRows(
            max_num_seqs, (vocab_size, vocab_size), (torch.int32, torch.bool), (0, False), device
        )
        self._strengths = np.zeros((max_num_seqs, 3), dtype=np.float32)

    def add(
        self,
        slot: int,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int],
    ) -> bool:
        strengths = (params.repetition_penalty, params.frequency_penalty, params.presence_penalty)
        if strengths == (1.0, 0.0, 0.0):
            return False
        self._strengths[slot] = strengths
        row = self._rows.take(slot)
        counts, in_prompt = self._rows.matrices
        prompt = np.unique(np.asarray(prompt_token_ids, dtype=np.int64))
        in_prompt[row, to_device(prompt, self._device)] = True
        if len(output_token_ids):
            answer = np.asarray(output_token_ids, dtype=np.int64)
            token_ids, times = np.unique(answer, return_counts=True)
            columns = to_device(token_ids, self._device)
            counts[row, columns] = to_device(times.astype(np.int32), self._device)
        return True

    def remove(self, slot: int) -> None:
        self._rows.give_back(slot)

    def plan(self, step: StepRows, rows: np.ndarray) -> Edit | None:
        slots = step.slots[rows]
        here = to_device(rows, self._device)
        count_rows = to_device(self._rows.row_of[slots], self._device)
        strengths = to_device(self._strengths[slots], self._device)
        drafts = self._draft_counts(step, rows)
        matrices = self._rows.matrices

        def edit(logits: Tensor) -> None:
            counts = matrices[0][count_rows]
            if drafts is not None:
                counts.view(-1).index_add_(0, drafts, torch.ones_like(drafts, dtype=counts.dtype))
            repeated = (counts > 0) | matrices[1][count_rows]
            # few tokens are repeated; but on a GPU their number would have to be waited for
            penalize = _penalize_places if logits.device.type == "cpu" else _penalize_rows
            penalize(logits, here, repeated, counts, strengths)

        return edit

    def _draft_counts(self, step: StepRows, rows: np.ndarray) -> Tensor | None:
        """Places in [M, V], flattened, of the drafts that each row takes for accepted."""
        places, _, token_ids = step.earlier_drafts(rows)
        if not len(places):
            return None
        return to_device(places * self._vocab_size + token_ids, self._device)

    def record(self, slots: Tensor, token_ids: Tensor) -> None:
        counts = self._rows.matrices[0]
        rows = torch.where(token_ids >= 0, self._rows.rows_of(slots), 0)
        places = rows * self._vocab_size + token_ids.clamp(min=0)
        counts.view(-1).index_add_(0, places, torch.ones_like(places, dtype=counts.dtype))


def _penalize_places(
    logits: Tensor, rows: Tensor, repeated: Tensor, counts: Tensor, strengths: Tensor
) -> None:
    """Change the logits [N, V] of repeated tokens [M, V] of some rows [M], place by place."""
    at, token_ids = repeated.nonzero(as_tuple=True)
    here = rows[at]
    x = logits[here, token_ids]
    logits[here, token_ids] = _penalized(x, counts[at, token_ids], strengths[at])


def _penalize_rows(
    logits: Tensor, rows: Tensor, repeated: Tensor, counts: Tensor, strengths: Tensor
) -> None:
    """The same without a look at how many there are."""
    x = logits[rows]
    logits[rows] = torch.where(repeated, _penalized(x, counts, strengths.unsqueeze(1)), x)


def _penalized(x: Tensor, counts: Tensor, strengths: Tensor) -> Tensor:
    """Logits of repeated tokens after the penalties.

    Args:
        x: Logits.
        counts: How often each token stands in the answer, of the shape of x.
        strengths: repetition, frequency and presence in the last dimension.
    """
    repetition, frequency, presence = strengths.unbind(-1)
    x = torch.where(x > 0, x / repetition, x * repetition)
    return x - (frequency * counts + presence * (counts > 0))
