"""The arrays of a step beside loops over requests and tokens."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.batch_inputs import ramps
from engine.input_batch import InputBatch
from workbench.errors import SchedulerError
from workbench.outputs import BatchRows, NewRequestData, SchedulerOutput
from workbench.request import Request

SIZE = 4


def new_request(request_id: str, prompt: list[int], blocks: list[int], **fields: Any) -> Any:
    values = {"num_computed_tokens": 0, "output_token_ids": ()} | fields
    return NewRequestData(
        request_id,
        len(prompt),
        prompt,
        sampling_params=None,
        block_ids=(tuple(blocks),),
        **values,
    )


def step_of(num_tokens: dict[str, int], drafts: dict[str, list[int]] | None = None) -> Any:
    output = SchedulerOutput(0)
    requests = {name: Request(name, 1, 1) for name in num_tokens}
    output._rows = BatchRows(
        list(requests.values()), {requests[name]: n for name, n in num_tokens.items()}
    )
    output.total_num_scheduled_tokens = sum(num_tokens.values())
    output.scheduled_spec_decode_tokens = drafts or {}
    return output


def make_batch(slots: int = 4, drafts: int = 0) -> InputBatch:
    return InputBatch(slots, 64, SIZE, 1, torch.device("cpu"), drafts)


def test_a_mixed_step() -> None:
    batch = make_batch()
    batch.add(new_request("a", [10, 11, 12, 13, 14, 15], [3, 5]))
    batch.add(new_request("b", [20, 21, 22], [7], num_computed_tokens=2))
    batch.add(new_request("c", [30], [8, 2], output_token_ids=(31, 32, 33)))
    inputs = batch.prepare(step_of({"a": 5, "b": 1, "c": 4}))
    assert inputs.rows.request_ids == ["a", "b", "c"]
    assert inputs.rows.num_decode_rows == 1
    assert inputs.token_ids.tolist() == [22, 10, 11, 12, 13, 14, 30, 31, 32, 33]
    assert inputs.positions.tolist() == [2, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert inputs.slot_mappings[0].tolist() == [30, 12, 13, 14, 15, 20, 32, 33, 34, 35]
    assert inputs.query_start_loc.tolist() == [0, 1, 6, 10]
    assert inputs.seq_lens.tolist() == [3, 5, 4]
    assert inputs.sample_rows.tolist() == [0, 2]
    assert inputs.logits_indices.tolist() == [0, 9]
    assert inputs.num_outputs.tolist() == [0, 3]
    assert not len(inputs.device_tokens)
    # the next token of b and c is known to the device only
    inputs = batch.prepare(step_of({"a": 1, "b": 1, "c": 1}))
    assert inputs.rows.order is None
    assert inputs.device_tokens.tolist() == [1, 2]
    assert inputs.device_slots.tolist() == [batch.slot_of["b"], batch.slot_of["c"]]
    assert inputs.token_ids[0] == 15
    assert inputs.sample_rows.tolist() == [0, 1, 2]
    assert inputs.num_outputs.tolist() == [0, 1, 4]


def test_a_slot_is_used_again_and_a_table_grows() -> None:
    batch = make_batch(slots=1)
    slot = batch.add(new_request("a", [1, 2, 3], [9]))
    with pytest.raises(SchedulerError, match="raise max_num_seqs"):
        batch.add(new_request("b", [1], [4]))
    assert batch.remove("a") == slot
    assert batch.remove("a") is None
    batch.add(new_request("b", [1] * 6, [4, 6]))
    batch.append_blocks({"b": [[2, 8]]})
    assert batch.block_tables[0].ids[slot, :4].tolist() == [4, 6, 2, 8]
    batch.check_integrity()


def test_drafts_are_placed_and_settled() -> None:
    batch = make_batch(drafts=3)
    slot = batch.add(new_request("a", [1, 2, 3], [4, 6]))
    inputs = batch.prepare(step_of({"a": 3}))
    assert inputs.num_drafts is None
    batch.settle(slot, [50], 0)
    batch.keep_drafts(slot, [51, 52])
    inputs = batch.prepare(step_of({"a": 4}, {"a": [-1, -1, 77]}))
    assert inputs.token_ids.tolist() == [50, 51, 52, 77]
    assert inputs.logits_indices.tolist() == [0, 1, 2, 3]
    assert inputs.num_outputs.tolist() == [1, 2, 3, 4]
    batch.settle(slot, [51, 99], 3)
    assert batch.known_tokens(slot).tolist() == [1, 2, 3, 50, 51, 99]
    assert batch.num_computed[slot] == 5
    assert batch.num_tokens[slot] == 6


@given(st.lists(st.integers(0, 5), max_size=8))
def test_ramps(lengths: list[int]) -> None:
    expected = [i for length in lengths for i in range(length)]
    assert ramps(np.array(lengths, dtype=np.int64)).tolist() == expected
