"""Attention of random batches, tiles and windows; and what must not change the result."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.attention import reference
from kernels.attention.attention import paged_attention
from kernels.attention.config import MAX_VERIFY_LEN, LaunchConfig, choose_num_splits
from kernels.attention.decode import paged_decode, workspace_size
from kernels.attention.inputs import decode_inputs, make_inputs
from kernels.attention.ops import MIXED_CASES, PAGED_ATTENTION, PAGED_DECODE, PAGED_PREFILL
from kernels.op import Case
from kernels.testing import check, compare, generator_of, relative_error
from kernels.testing import make_inputs as poisoned_inputs

few = settings(max_examples=10)
CPU = torch.device("cpu")


@st.composite
def batches(draw: st.DrawFn, max_query_len: int, max_rows: int = 3) -> Case:
    """A ragged batch: contexts up to 70, some rows padded, any grouping, window and page."""
    query_lens = draw(st.lists(st.integers(1, max_query_len), min_size=1, max_size=max_rows))
    contexts = draw(st.lists(st.integers(0, 50), min_size=max_rows, max_size=max_rows))
    pads = draw(st.lists(st.booleans(), min_size=max_rows, max_size=max_rows))
    num_kv_heads = draw(st.integers(1, 2))
    shape = {
        "query_lens": tuple(query_lens),
        "seq_lens": tuple(
            0 if pad and query_len == 1 else context + query_len
            for query_len, context, pad in zip(query_lens, contexts, pads, strict=False)
        ),
        "num_kv_heads": num_kv_heads,
        "num_heads": num_kv_heads * draw(st.integers(1, 5)),
        "head_dim": draw(st.sampled_from([16, 24, 32])),
        "block_size": draw(st.sampled_from([8, 16, 32, 64])),
        "sliding_window": draw(st.sampled_from([0, 1, 7, 16, 40])),
        "softcap": draw(st.sampled_from([0.0, 3.0])),
        "kv": draw(st.sampled_from(["", "fp8"])),
    }
    return Case("random", torch.float32, shape)


tiles = st.builds(LaunchConfig, st.just(16), st.sampled_from([16, 32, 64]), st.just(4), st.just(1))


@few
@given(batches(max_query_len=30), tiles)
def test_prefill_of_any_batch_and_tile(case: Case, config: LaunchConfig) -> None:
    inputs = poisoned_inputs(PAGED_PREFILL, case)
    expected = reference.paged_attention(**inputs)
    compare(PAGED_PREFILL, case, PAGED_PREFILL.run(**inputs, config=config), expected)


@few
@given(batches(max_query_len=MAX_VERIFY_LEN), tiles, st.integers(1, 5))
def test_decode_of_any_batch_tile_and_number_of_splits(
    case: Case, config: LaunchConfig, num_splits: int
) -> None:
    inputs = poisoned_inputs(PAGED_DECODE, case)
    expected = reference.paged_attention(**inputs)
    actual = PAGED_DECODE.run(**inputs, config=config, num_splits=num_splits)
    compare(PAGED_DECODE, case, actual, expected)


@few
@given(batches(max_query_len=12), st.integers(0, 2))
def test_mixed_batches(case: Case, num_decode_rows: int) -> None:
    query_lens = (1,) * num_decode_rows + case["query_lens"][num_decode_rows:]
    seq_lens = tuple(map(max, case["seq_lens"], query_lens))[: len(query_lens)]
    num_decode_rows = min(num_decode_rows, len(seq_lens))
    shape = dict(case.shape) | {
        "query_lens": query_lens[: len(seq_lens)],
        "seq_lens": seq_lens,
        "num_decode_rows": num_decode_rows,
    }
    check(PAGED_ATTENTION, Case("mixed", case.dtype, shape))


def test_splits_are_merged_to_what_one_part_gives(device: torch.device) -> None:
    shape = {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "block_size": 16}
    case = Case("three", torch.float32, shape | {"seq_lens": (600, 0, 20)})
    inputs = decode_inputs(case, device, generator_of(device))
    whole = paged_decode(**(inputs | {"out": None}), num_splits=1)
    for num_splits in (2, 7):
        parts = paged_decode(**(inputs | {"out": None}), num_splits=num_splits)
        assert relative_error(parts, whole) < 1e-6


def test_a_request_does_not_depend_on_its_neighbours(device: torch.device) -> None:
    inputs = make_inputs(MIXED_CASES[1], device, generator_of(device))
    together = paged_attention(**inputs)
    alone = {
        "q": inputs["q"][2:],
        "out": None,
        "block_table": inputs["block_table"][2:],
        "seq_lens": inputs["seq_lens"][2:],
        "query_start_loc": inputs["query_start_loc"][2:] - 2,
        "num_decode_rows": 0,
    }
    assert torch.equal(together[2:], paged_attention(**(inputs | alone)))


def test_a_workspace_is_enough_for_every_smaller_batch(device: torch.device) -> None:
    size = workspace_size(num_tokens=8, num_heads=2, num_kv_heads=1, head_dim=16, num_sms=1)
    workspace = torch.full((size,), torch.nan, device=device)
    shape = {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "block_size": 16}
    for query_lens in ((1,), (1,) * 8, (8,), (4, 4)):
        shape |= {"seq_lens": (150,) * len(query_lens), "query_lens": query_lens}
        case = Case("rows", torch.float32, shape)
        inputs = decode_inputs(case, device, generator_of(device))
        inputs["max_seq_len"] = 1 << 20
        paged_decode(**inputs, workspace=workspace)
        out, _ = reference.paged_attention(**inputs)
        assert relative_error(inputs["out"], out) < 1e-5
    with pytest.raises(ValueError, match="workspace of 10"):
        paged_decode(**inputs, workspace=workspace[:10])


@given(st.integers(1, 5000), st.integers(0, 1 << 20), st.integers(1, 200))
def test_splits_fill_the_device_and_no_more(programs: int, max_seq_len: int, sms: int) -> None:
    num_splits = choose_num_splits(programs, max_seq_len, sms)
    assert 1 <= num_splits <= 32
    assert num_splits <= max(1, -(-max_seq_len // 256))
    assert num_splits <= choose_num_splits(1, 1 << 20, sms)
    assert choose_num_splits(10**6, max_seq_len, sms) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(7, 3, 32)}, "3 query heads are no multiple of 2"),
        ({"q": torch.zeros(7, 4, 16)}, "do not fit"),
        ({"q": torch.zeros(7, 4, 32, dtype=torch.float16)}, "q of torch.float16 with a cache of"),
        ({"q": torch.zeros(7, 4, 64)[..., ::2]}, "must be contiguous"),
        ({"scale": -1.0}, "scale -1.0"),
    ],
)
def test_what_the_kernels_do_not_take_is_refused(change: dict[str, Any], message: str) -> None:
    shape = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "block_size": 16}
    case = Case("seven", torch.float32, shape | {"seq_lens": (3,) * 7})
    inputs = make_inputs(case, CPU, generator_of(CPU)) | {"out": None}
    with pytest.raises(ValueError, match=message):
        paged_attention(**(inputs | change))


def test_odd_pages_and_wide_heads_are_refused() -> None:
    cache = torch.zeros(2, 1, 24, 512)
    inputs = make_inputs(MIXED_CASES[0], CPU, generator_of(CPU)) | {"out": None}
    wide = {"q": torch.zeros(2, 4, 512), "k_cache": cache, "v_cache": cache}
    with pytest.raises(ValueError, match="head_dim 512"):
        paged_attention(**(inputs | wide))
    narrow = {"q": torch.zeros(2, 4, 32), "k_cache": cache[..., :32], "v_cache": cache[..., :32]}
    with pytest.raises(ValueError, match="block_size 24 is no power of two"):
        paged_attention(**(inputs | narrow))


def test_streams_of_a_mixed_batch_fork_before_and_join_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log: list[str] = []

    class Stream:
        device = None

        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: "Stream") -> None:
            log.append(f"{self.name} waits for {other.name}")

    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream("main"))
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext(log.append("on side")))
    inputs = make_inputs(MIXED_CASES[1], CPU, generator_of(CPU))
    alone = paged_attention(**(inputs | {"out": None}))
    assert torch.equal(paged_attention(**inputs, side_stream=Stream("side")), alone)
    assert log == ["side waits for main", "on side", "main waits for side"]
