"""The KV cache with sliding windows: what is given back, what a hit needs."""

from tests.workbench.kv_cache.small_managers import compute, make_manager, make_request


def test_a_sliding_window_gives_back_what_it_has_left() -> None:
    manager = make_manager(sliding_window=6)
    request = make_request("a", 20)
    compute(manager, request)
    assert manager.num_used_blocks == 5
    assert manager.allocate_slots(request, 1) is not None
    # Token 20 attends to tokens 15 to 20: blocks 0 to 2 (tokens 0 to 11) are left behind.
    assert [block == 0 for block in request.block_ids[0]] == [True] * 3 + [False] * 3
    assert manager.num_used_blocks == 3
    manager.check_integrity([request])
    manager.free(request)
    assert manager.num_used_blocks == 0


def test_tokens_in_flight_keep_their_window() -> None:
    manager = make_manager(sliding_window=6)
    request = make_request("a", 20)
    compute(manager, request)
    request._in_flight_tokens = 20  # nothing has come back yet: all of it may still be read
    assert manager.allocate_slots(request, 1) is not None
    assert 0 not in request.block_ids[0]


def test_a_hybrid_cache_frees_the_windows_group_only() -> None:
    manager = make_manager(hybrid_window=6)
    request = make_request("a", 20, "vwxyz")
    compute(manager, request)
    assert manager.num_used_blocks == 10
    manager.allocate_slots(request, 1)
    full, window = request.block_ids
    assert 0 not in full
    assert window[:3] == [0, 0, 0]
    assert not set(full) & set(window)
    manager.check_integrity([request])


def test_a_window_needs_only_its_own_blocks_for_a_hit() -> None:
    manager = make_manager(sliding_window=6)
    first = make_request("a", 21, "vwxyz")
    compute(manager, first)
    manager.allocate_slots(first, 1)
    second = make_request("b", 21, "vwxyz")
    hit = manager.get_computed_blocks(second)
    assert hit.num_tokens == 20
    # What the window has left behind is a place without a block, whether it is cached or not.
    compute(manager, second)
    assert second.block_ids[0][:3] == [0, 0, 0]
    assert second.block_ids[0][4] == first.block_ids[0][4]


def test_sharing_is_counted_where_blocks_never_leave_a_window() -> None:
    for windows, expected in (({}, 20), ({"sliding_window": 6}, 0), ({"hybrid_window": 6}, 0)):
        manager = make_manager(**windows)
        first, second = (make_request(name, 21, "vwxyz") for name in "ab")
        compute(manager, first)
        assert manager.num_shared_tokens == 0
        compute(manager, second)
        assert manager.pool.num_shared_refs > 0
        assert manager.num_shared_tokens == expected
        manager.free(first)
        assert manager.num_shared_tokens == 0
