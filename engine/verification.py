"""Which draft tokens a step accepts, once the host has the tokens that the model sampled.

Drafts are deterministic, so a draft is right exactly if the token sampled at its place is the same
one; every token kept is then distributed as the model's own (Leviathan et al., ICML 2023, with a
point mass as the draft's distribution). Knows tokens; knows no device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.batch_inputs import BatchInputs
from engine.input_batch import InputBatch


@dataclass(frozen=True, slots=True)
class Accepted:
    """What one row keeps.

    Attributes:
        slot: Its slot.
        request_id: Its request.
        place: Its place in the scheduler's order.
        first_logits_row: Row of the logits at which its tokens begin.
        token_ids: Accepted drafts and one more token.
        num_drafts: Drafts that the row had.
        is_valid: Whether all of these tokens came from logits that are numbers.
    """

    slot: int
    request_id: str
    place: int
    first_logits_row: int
    token_ids: list[int]
    num_drafts: int
    is_valid: bool


def drafts_before(inputs: BatchInputs) -> np.ndarray | None:
    """[N] int64 the draft before each row of the logits, -1 for the first of a request."""
    if inputs.num_drafts is None:
        return None
    drafts = inputs.token_ids[inputs.logits_indices]
    firsts = np.cumsum(inputs.num_drafts + 1) - (inputs.num_drafts + 1)
    drafts[firsts] = -1
    return drafts


def accept(
    inputs: BatchInputs,
    places: Sequence[int],
    sampled: list[int],
    is_valid: list[bool],
) -> list[Accepted]:
    """Compare drafts and samples, row by row.

    Args:
        inputs: The step.
        places: [S] place of each sampling row in the scheduler's order.
        sampled, is_valid: [N] of the rows of the logits.
    """
    num_drafts = inputs.num_drafts
    counts = [0] * len(places) if num_drafts is None else num_drafts.tolist()
    read = inputs.token_ids[inputs.logits_indices].tolist()
    accepted = []
    first = 0
    for slot, place, count in zip(inputs.sample_slots.tolist(), places, counts, strict=True):
        drafts, answers = read[first + 1 : first + 1 + count], sampled[first : first + count + 1]
        num_kept = 1 + _num_equal(drafts, answers)
        accepted.append(
            Accepted(
                slot,
                inputs.rows.request_ids[place],
                place,
                first,
                answers[:num_kept],
                count,
                all(is_valid[first : first + num_kept]),
            )
        )
        first += count + 1
    return accepted


def _num_equal(drafts: Sequence[int], answers: Sequence[int]) -> int:
    """Leading drafts that are what the model says."""
    pairs = zip(drafts, answers, strict=False)
    return next((i for i, (draft, answer) in enumerate(pairs) if draft != answer), len(drafts))


def settle(batch: InputBatch, accepted: Sequence[Accepted]) -> None:
    """Write what every row keeps to its slot."""
    for row in accepted:
        batch.settle(row.slot, row.token_ids, row.num_drafts)


def kept_tokens(accepted: Sequence[Accepted], num_logits: int, sampled: list[int]) -> list[int]:
    """[N] the sampled tokens, -1 where one was not kept."""
    kept = [-1] * num_logits
    for row in accepted:
        end = row.first_logits_row + len(row.token_ids)
        kept[row.first_logits_row : end] = sampled[row.first_logits_row : end]
    return kept
