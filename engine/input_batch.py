"""The requests in the batch: their tokens, counts and blocks, kept from step to step.

Every request has a slot for as long as it stays. A step changes the slots by what is different from
the step before; the arrays of a step are then cut out of them as wholes. This file knows no model,
no sampling and no device but for the tables that attention reads.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from engine.batch_inputs import (
    BatchInputs,
    FlatTokens,
    Rows,
    flatten,
    logits_positions,
    ramps,
    slot_mapping,
)
from engine.block_table import BlockTable
from workbench.errors import SchedulerError
from workbench.outputs import UNKNOWN_DRAFT_TOKEN, NewRequestData, SchedulerOutput


class InputBatch:
    """Slots of up to `max_num_seqs` requests.

    Args:
        max_num_seqs: Slots.
        max_model_len: Most tokens of a request.
        block_size: Tokens a block.
        num_groups: KV-cache groups.
        device: Where attention reads the block tables.
        num_speculative_tokens: Most draft tokens of a row.

    Attributes:
        slot_of: Slot by request id.
        token_ids: [slots, max_model_len + drafts + 1] int32: prompt, answer, and for the length of
            a step the drafts behind them.
        num_prompt: [slots] int64 prompt tokens.
        num_computed: [slots] int64 tokens whose KV is in the cache or on its way.
        num_tokens: [slots] int64 prompt and answer, tokens in flight included.
        num_known: [slots] int64 leading tokens whose ids the host knows.
        block_tables: One a group.
    """

    def __init__(
        self,
        max_num_seqs: int,
        max_model_len: int,
        block_size: int,
        num_groups: int,
        device: torch.device,
        num_speculative_tokens: int = 0,
    ) -> None:
        self._block_size = block_size
        width = max_model_len + num_speculative_tokens + 1
        max_blocks = -(-width // block_size)
        self.slot_of: dict[str, int] = {}
        self._free_slots = list(range(max_num_seqs - 1, -1, -1))
        self.token_ids = np.zeros((max_num_seqs, width), dtype=np.int32)
        self.num_prompt = np.zeros(max_num_seqs, dtype=np.int64)
        self.num_computed = np.zeros(max_num_seqs, dtype=np.int64)
        self.num_tokens = np.zeros(max_num_seqs, dtype=np.int64)
        self.num_known = np.zeros(max_num_seqs, dtype=np.int64)
        self.block_tables = [
            BlockTable(max_num_seqs, max_blocks, device) for _ in range(num_groups)
        ]
        # What the runner still has of the drafts it proposed, for steps scheduled before they were.
        self._drafts: dict[int, list[int]] = {}
        self._last_scheduled: dict[str, int] | None = None
        self._last_rows: Rows | None = None

    def add(self, new: NewRequestData) -> int:
        """Give a request that joins the batch a slot; the slot."""
        if not self._free_slots:
            raise SchedulerError(
                f"request {new.request_id!r} joins a batch whose {len(self.slot_of)} slots are "
                "taken: raise max_num_seqs"
            )
        slot = self._free_slots.pop()
        self.slot_of[new.request_id] = slot
        num_prompt, num_outputs = new.num_prompt_tokens, len(new.output_token_ids)
        num_tokens = num_prompt + num_outputs
        tokens = self.token_ids[slot]
        tokens[:num_prompt] = new.prompt_token_ids
        tokens[num_prompt:num_tokens] = new.output_token_ids
        self.num_prompt[slot] = num_prompt
        self.num_tokens[slot] = self.num_known[slot] = num_tokens
        self.num_computed[slot] = new.num_computed_tokens
        for table, block_ids in zip(self.block_tables, new.block_ids, strict=True):
            table.set_row(slot, block_ids)
        self._last_scheduled = None
        return slot

    def remove(self, request_id: str) -> int | None:
        """Take a request out; its slot, or None if it was not in (it ended while it waited)."""
        slot = self.slot_of.pop(request_id, None)
        if slot is not None:
            self._free_slots.append(slot)
            self._drafts.pop(slot, None)
            self._last_scheduled = None
        return slot

    def append_blocks(self, new_block_ids: Mapping[str, Sequence[Sequence[int]]]) -> None:
        """Lengthen block tables, by request id one list of blocks a group."""
        slot_of = self.slot_of
        for request_id, block_ids in new_block_ids.items():
            slot = slot_of[request_id]
            for table, ids in zip(self.block_tables, block_ids, strict=True):
                if ids:
                    table.append(slot, ids)

    def prepare(self, output: SchedulerOutput) -> BatchInputs:
        """The arrays of a step, and the counts as they will be after it (drafts: see `settle`)."""
        rows = self._rows(output.num_scheduled_tokens)
        slots = rows.slots
        starts = self.num_computed[slots]
        ends = starts + rows.query_lens
        drafts = self._place_drafts(rows, output.scheduled_spec_decode_tokens)
        num_tokens = self.num_tokens[slots]
        owes = (ends if drafts is None else ends - drafts) >= num_tokens
        sample_rows = np.flatnonzero(owes)
        num_drafts = None if drafts is None else drafts[sample_rows]
        flat = flatten(rows, starts)
        unknown = self._unknown(flat)
        num_outputs = (num_tokens - self.num_prompt[slots])[sample_rows]
        if num_drafts is not None:
            num_outputs = np.repeat(num_outputs, num_drafts + 1) + ramps(num_drafts + 1)
        self.num_computed[slots] = ends
        self.num_tokens[slots] = num_tokens + owes
        return BatchInputs(
            rows=rows,
            token_ids=self.token_ids[flat.slots, flat.positions].astype(np.int64),
            device_tokens=unknown,
            device_slots=flat.slots[unknown],
            positions=flat.positions,
            slot_mappings=[
                slot_mapping(table.ids, flat, self._block_size) for table in self.block_tables
            ],
            query_start_loc=flat.query_start_loc,
            seq_lens=ends.astype(np.int32),
            sample_rows=sample_rows,
            sample_slots=slots if len(sample_rows) == len(slots) else slots[sample_rows],
            num_drafts=num_drafts,
            logits_indices=logits_positions(flat.query_start_loc, sample_rows, num_drafts),
            num_outputs=num_outputs,
        )

    def _rows(self, scheduled: dict[str, int]) -> Rows:
        """The step's rows; the scheduler hands out the same dict while nothing changes."""
        if self._last_rows is None or scheduled is not self._last_scheduled:
            self._last_rows = Rows.of(scheduled, self.slot_of)
            self._last_scheduled = scheduled
        return self._last_rows

    def _unknown(self, flat: FlatTokens) -> np.ndarray:
        return np.flatnonzero(flat.positions >= self.num_known[flat.slots])

    def _place_drafts(
        self, rows: Rows, scheduled_drafts: Mapping[str, Sequence[int]]
    ) -> np.ndarray | None:
        """Write the drafts behind the known tokens; [R] int64 drafts a row, None for no drafts.

        A draft of -1 stands for one that the runner has proposed itself, or for padding: any token
        will do there, since it is kept only if the model samples the same one.
        """
        if not scheduled_drafts:
            return None
        counts = np.zeros(len(self.num_tokens), dtype=np.int64)
        for request_id, token_ids in scheduled_drafts.items():
            slot = self.slot_of[request_id]
            own = self._drafts.get(slot, [])
            counts[slot] = len(token_ids)
            start = int(self.num_tokens[slot])
            for i, token_id in enumerate(token_ids):
                if token_id < 0:
                    token_id = own[i] if i < len(own) else UNKNOWN_DRAFT_TOKEN
                self.token_ids[slot, start + i] = token_id
            self.num_known[slot] = start + len(token_ids)
        return counts[rows.slots]

    def settle(self, slot: int, token_ids: Sequence[int], num_drafts: int) -> None:
        """Take in what one row sampled, where the host has waited for it.

        Args:
            slot: The slot.
            token_ids: Accepted drafts and one more token.
            num_drafts: Drafts that the row had.
        """
        # `prepare` counted the row's drafts as computed, and one new token.
        start = int(self.num_tokens[slot]) - 1
        end = start + len(token_ids)
        self.token_ids[slot, start:end] = token_ids
        self.num_tokens[slot] = self.num_known[slot] = end
        self.num_computed[slot] -= num_drafts - (len(token_ids) - 1)

    def keep_drafts(self, slot: int, token_ids: list[int]) -> None:
        """Remember the drafts proposed behind a slot's tokens."""
        self._drafts[slot] = token_ids

    def known_tokens(self, slot: int) -> np.ndarray:
        """Prompt and answer as far as the host knows them, [length] int32; a view."""
        return self.token_ids[slot, : int(self.num_known[slot])]

    def check_integrity(self) -> None:
        """Raise AssertionError where slots are lost or counts disagree."""
        used = sorted(self.slot_of.values())
        assert sorted([*used, *self._free_slots]) == list(range(len(self.num_tokens)))
        assert (self.num_computed[used] <= self.num_tokens[used]).all()
        assert (self.num_known[used] <= self.num_tokens[used]).all()
