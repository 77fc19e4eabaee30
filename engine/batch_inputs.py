"""The flattened batch of one step as arrays: which tokens, at which positions, into which slots.

Knows the arithmetic of a batch and no request. It works on whole arrays: nothing here loops over
tokens, and nothing over rows.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Rows:
    """Which slots take part in a step, and in which order.

    Rows with exactly one token come first, then the others, each part in the scheduler's order.

    Attributes:
        request_ids: In the scheduler's order.
        order: [R] for each row its place in the scheduler's order; None where the two agree.
        slots: [R] int64.
        query_lens: [R] int32 tokens.
        num_decode_rows: Rows with exactly one token.
    """

    request_ids: list[str]
    order: np.ndarray | None
    slots: np.ndarray
    query_lens: np.ndarray
    num_decode_rows: int

    @classmethod
    def of(cls, scheduled: dict[str, int], slot_of: dict[str, int]) -> "Rows":
        """The rows of a step from its tokens by request id."""
        num_rows = len(scheduled)
        slots = np.fromiter(map(slot_of.__getitem__, scheduled), np.int64, num_rows)
        query_lens = np.fromiter(scheduled.values(), np.int32, num_rows)
        is_longer = query_lens != 1
        num_longer = int(np.count_nonzero(is_longer))
        order = None
        if num_longer and not is_longer[num_rows - num_longer :].all():
            order = np.argsort(is_longer, kind="stable")
            slots, query_lens = slots[order], query_lens[order]
        return cls(list(scheduled), order, slots, query_lens, num_rows - num_longer)

    @property
    def num_rows(self) -> int:
        """R."""
        return len(self.slots)


@dataclass(slots=True)
class BatchInputs:
    """One step's arrays: T tokens of R rows, of which N positions get logits.

    Attributes:
        rows: Slots and order.
        token_ids: [T] int64; what stands at `device_tokens` is not known to the host.
        device_tokens: [D] int64 token indices whose id is the token sampled last in `device_slots`.
        device_slots: [D] int64.
        positions: [T] int64.
        slot_mappings: One [T] int64 a KV-cache group.
        query_start_loc: [R + 1] int32.
        seq_lens: [R] int32, KV tokens including this step's.
        sample_rows, sample_slots: [S] int64 rows that sample, and their slots.
        num_drafts: [S] int64 draft tokens of each of them; None where nobody has any.
        logits_indices: [N] int64 token indices, one and its drafts for every sampling row.
        num_outputs: [N] int64 output tokens before each of these positions.
    """

    rows: Rows
    token_ids: np.ndarray
    device_tokens: np.ndarray
    device_slots: np.ndarray
    positions: np.ndarray
    slot_mappings: list[np.ndarray]
    query_start_loc: np.ndarray
    seq_lens: np.ndarray
    sample_rows: np.ndarray
    sample_slots: np.ndarray
    num_drafts: np.ndarray | None
    logits_indices: np.ndarray
    num_outputs: np.ndarray

    @property
    def num_tokens(self) -> int:
        """T."""
        return len(self.positions)

    @property
    def logits_slots(self) -> np.ndarray:
        """[N] int64 slots of the positions that get logits."""
        if self.num_drafts is None:
            return self.sample_slots
        return np.repeat(self.sample_slots, self.num_drafts + 1)


@dataclass(slots=True)
class FlatTokens:
    """Where each of T tokens belongs.

    Attributes:
        slots: [T] int64 slot of each token's row.
        positions: [T] int64.
        query_start_loc: [R + 1] int32.
    """

    slots: np.ndarray
    positions: np.ndarray
    query_start_loc: np.ndarray


def flatten(rows: Rows, starts: np.ndarray) -> FlatTokens:
    """Lay the rows' tokens one behind the other.

    Args:
        rows: The rows.
        starts: [R] int64 position of each row's first token.
    """
    num_rows = rows.num_rows
    if rows.num_decode_rows == num_rows:
        return FlatTokens(rows.slots, starts, np.arange(num_rows + 1, dtype=np.int32))
    query_start_loc = np.zeros(num_rows + 1, dtype=np.int32)
    np.cumsum(rows.query_lens, out=query_start_loc[1:])
    positions = np.arange(query_start_loc[-1], dtype=np.int64)
    positions += np.repeat(starts - query_start_loc[:-1], rows.query_lens)
    return FlatTokens(np.repeat(rows.slots, rows.query_lens), positions, query_start_loc)


def slot_mapping(block_ids: np.ndarray, flat: FlatTokens, block_size: int) -> np.ndarray:
    """Where each token's key and value are written: block * block_size + offset, [T] int64.

    Args:
        block_ids: [slots, max_blocks] int32.
        flat: The tokens.
        block_size: Tokens a block.
    """
    block = flat.positions // block_size
    # (first slot of its block) + (position - first position of its block)
    return (block_ids[flat.slots, block] - block) * np.int64(block_size) + flat.positions


def logits_positions(
    query_start_loc: np.ndarray, sample_rows: np.ndarray, num_drafts: np.ndarray | None
) -> np.ndarray:
    """[N] int64 token indices whose logits are wanted: the last of a row and its drafts."""
    last = query_start_loc[1:][sample_rows].astype(np.int64) - 1
    if num_drafts is None:
        return last
    return np.repeat(last - num_drafts, num_drafts + 1) + ramps(num_drafts + 1)


def ramps(lengths: np.ndarray) -> np.ndarray:
    """0 … length - 1 for each length, one behind the other."""
    ends = np.cumsum(lengths)
    return np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
