"""Host blocks: copies out and in, hits that spare a copy, and a full host."""

import pytest

from workbench.kv_cache.host_cache import HostCache
from workbench.outputs import SchedulerOutput
from workbench.request import Request


def holder(name: str, blocks: list[int]) -> Request:
    request = Request(name, 64, 10)
    request.block_ids = [blocks]
    return request


def test_blocks_go_out_and_come_back() -> None:
    cache, output = HostCache(8), SchedulerOutput(0)
    request = holder("a", [5, 9, 2])
    assert cache.swap_out(request, output)
    (copy,) = output.swap_out
    assert (copy.request_id, copy.device_blocks) == ("a", (5, 9, 2))
    assert len(set(copy.host_blocks)) == 3
    assert cache.num_free_blocks == 5
    cache.check_integrity()
    request.block_ids = [[7, 8, 1, 4]]  # one more for the next token
    cache.swap_in(request, 0, output)
    (back,) = output.swap_in
    assert back.device_blocks == (7, 8, 1)
    assert back.host_blocks == copy.host_blocks
    assert cache.num_free_blocks == 8
    cache.check_integrity()


def test_what_the_prefix_cache_still_holds_is_not_copied() -> None:
    cache, output = HostCache(8), SchedulerOutput(0)
    request = holder("a", [5, 9, 2])
    cache.swap_out(request, output)
    request.block_ids = [[5, 9, 6]]
    cache.swap_in(request, 2, output)
    assert output.swap_in[0].device_blocks == (6,)
    assert output.swap_in[0].host_blocks == output.swap_out[0].host_blocks[2:]
    assert cache.num_free_blocks == 8


def test_a_full_host_and_an_empty_table_refuse_without_a_trace() -> None:
    cache, output = HostCache(3), SchedulerOutput(0)
    assert cache.swap_out(holder("a", [1, 2]), output)
    assert not cache.swap_out(holder("b", [3, 4]), output)
    assert not cache.swap_out(holder("c", []), output)
    assert not cache.swap_out(Request("d", 4, 4), output)
    assert len(output.swap_out) == 1
    assert cache.num_free_blocks == 1
    cache.check_integrity()


def test_an_abort_gives_the_blocks_back() -> None:
    cache, output = HostCache(4), SchedulerOutput(0)
    request = holder("a", [1, 2])
    request.num_swapped_tokens = 30
    cache.swap_out(request, output)
    for _ in range(2):  # giving back nothing is fine
        cache.free(request)
        assert cache.num_free_blocks == 4
        assert request.num_swapped_tokens == 0
    cache.check_integrity()


def test_the_integrity_check_finds_a_lost_block() -> None:
    cache = HostCache(4)
    cache._free.pop()
    with pytest.raises(AssertionError, match="host block lost"):
        cache.check_integrity()
