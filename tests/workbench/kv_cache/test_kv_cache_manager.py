"""Prefix hits, allocation, the watermark, and what fits."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.workbench.kv_cache.small_managers import compute, make_manager, make_request


@pytest.mark.parametrize(("num_tokens", "hit"), [(11, 8), (12, 8), (13, 12), (4, 0), (5, 4)])
def test_a_hit_leaves_a_token_to_compute(num_tokens: int, hit: int) -> None:
    manager = make_manager()
    first = make_request("a", 16, "wxyz")
    compute(manager, first)
    second = make_request("b", num_tokens, "wxyz")
    found = manager.get_computed_blocks(second)
    assert found.num_tokens == hit
    assert found.blocks == (first.block_ids[0][: hit // 4],)


def test_a_hit_shares_blocks_and_counts_their_users() -> None:
    manager = make_manager()
    first, second = make_request("a", 10, "xy"), make_request("b", 14, "xyz")
    compute(manager, first)
    compute(manager, second)
    assert second.block_ids[0][:2] == first.block_ids[0][:2]
    assert manager.num_used_blocks == 5
    assert manager.usage == 0.25
    manager.check_integrity([first, second])
    manager.free(first)
    assert manager.num_used_blocks == 4
    manager.free(second)
    manager.check_integrity([])
    assert manager.num_used_blocks == 0
    assert manager.num_cached_prefix_tokens(list("xyzq")) == 12
    assert manager.num_cached_prefix_tokens(list("qxyz")) == 0
    assert (manager.num_queried_tokens, manager.num_hit_tokens) == (24, 8)
    assert manager.reset_prefix_cache()
    assert manager.num_cached_prefix_tokens(list("xyz")) == 0


@pytest.mark.parametrize("how", ["off", "no_keys"])
def test_without_caching_nothing_is_found_or_counted(how: str) -> None:
    manager = make_manager(enable_prefix_caching=how != "off")
    for name in "ab":
        request = make_request(name, 12, "xyz")
        if how == "no_keys":
            request.block_hashes = None
        compute(manager, request)
    assert manager.num_used_blocks == 6
    assert manager.num_queried_tokens == manager.num_hit_tokens == 0
    assert manager.num_cached_prefix_tokens(list("xyz")) == 0


def test_a_refusal_changes_nothing() -> None:
    manager = make_manager(5)
    first = make_request("a", 8, "xy")
    compute(manager, first)
    manager.free(first)
    second = make_request("b", 30, "xy")
    line = manager.pool.free_line()
    hit = manager.get_computed_blocks(second)
    assert hit.num_tokens == 8
    assert manager.admit_slots(second, 22, hit) is None
    assert not second.block_ids
    assert manager.pool.free_line() == line
    manager.check_integrity([second])


def test_blocks_hit_in_the_line_of_free_ones_count_as_needed() -> None:
    manager = make_manager(5)
    first = make_request("a", 9, "xy")
    compute(manager, first)
    manager.free(first)
    # 17 tokens are 5 blocks, two of which are found, but free: 5 are taken from the line.
    second = make_request("b", 17, "xy")
    hit = manager.get_computed_blocks(second)
    assert manager.admit_slots(second, 9, hit) is not None
    assert manager.num_free_blocks == 0


def test_decoding_takes_a_block_every_block_size_tokens() -> None:
    manager = make_manager()
    request = make_request("a", 6)
    compute(manager, request)
    got = []
    for _ in range(10):
        new, _ = manager.append_slot(request, request.num_computed_tokens)
        got.append(len(new[0]))
        request._num_computed_tokens += 1
        request._num_output_tokens += 1
    assert got == [0, 0, 1, 0, 0, 0, 1, 0, 0, 0]
    manager.check_integrity([request])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    num_prompt=st.integers(1, 40),
    num_output=st.integers(1, 40),
    window=st.sampled_from([None, 3, 8]),
    caching=st.booleans(),
)
def test_the_short_way_for_decodes_is_the_long_way(
    num_prompt: int, num_output: int, window: int | None, caching: bool
) -> None:
    managers = [
        make_manager(40, sliding_window=window, enable_prefix_caching=caching) for _ in range(2)
    ]
    requests = [make_request("a", num_prompt, "x" if caching else "") for _ in managers]
    for manager, request in zip(managers, requests, strict=True):
        compute(manager, request)
    quiet = 0
    for _ in range(num_output):
        for request in requests:
            request._num_output_tokens += 1
        short, told = managers[0].append_slot(requests[0], requests[0].num_computed_tokens)
        long = managers[1].allocate_slots(requests[1], 1)
        assert told == managers[0].quiet_tokens(requests[0])
        assert [b for table in short for b in table] == [b for table in long or [] for b in table]
        assert requests[0].block_ids == requests[1].block_ids
        assert requests[0].num_cached_blocks == requests[1].num_cached_blocks
        assert managers[0].pool.free_line() == managers[1].pool.free_line()
        if quiet > 0:
            assert not any(short)
        for request in requests:
            request._num_computed_tokens += 1
        quiet = managers[0].quiet_tokens(requests[0])


def test_the_watermark_keeps_blocks_free_for_those_that_run() -> None:
    manager = make_manager(19, watermark=0.2)
    assert manager.watermark_blocks == 4
    request = make_request("a", 64)
    hit = manager.get_computed_blocks(request)
    arguments: dict[str, Any] = {"hit": hit, "keep_watermark": True}
    assert manager.admit_slots(request, 61, **arguments) is None
    assert manager.admit_slots(request, 60, **arguments) is not None
    manager.free(request)
    arguments["keep_watermark"] = False
    assert manager.admit_slots(request, 64, **arguments) is not None


def test_a_whole_sequence_may_be_asked_to_fit() -> None:
    manager = make_manager(10)
    request = make_request("a", 41)
    hit = manager.get_computed_blocks(request)
    arguments: dict[str, Any] = {"hit": hit}
    assert manager.admit_slots(request, 8, full_sequence_must_fit=True, **arguments) is None
    assert manager.admit_slots(request, 8, **arguments) is not None


@pytest.mark.parametrize(
    ("cache", "most"),
    [
        ({}, 40),
        ({"block_size": 5}, 50),
        # 10 blocks: a window of 6 and 16 tokens in flight never need more than 7
        ({"sliding_window": 6}, 10**6),
        # a window's 7 blocks leave 3 to full attention; within the window both need all blocks
        ({"hybrid_window": 6}, 20),
        ({"hybrid_window": 30}, 20),
    ],
)
def test_what_fits_an_empty_cache(cache: dict[str, Any], most: int) -> None:
    manager = make_manager(10, **cache)
    request = make_request("a", 1)
    assert manager.fits_alone(request, most)
    if most < 10**6:
        assert not manager.fits_alone(request, most + 1)
