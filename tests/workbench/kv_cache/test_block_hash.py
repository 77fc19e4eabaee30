"""Keys of blocks: chained over real tokens, taken from a trace, or nobody else's."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError
from workbench.kv_cache.block_hash import (
    KnownBlockHashes,
    PrivateBlockHashes,
    TokenBlockHashes,
    keys_from_hash_ids,
)

tokens = st.lists(st.integers(0, 3), max_size=40)
sizes = st.integers(1, 6)


@settings(derandomize=True, deadline=None)
@given(a=tokens, b=tokens, size=sizes)
def test_keys_are_equal_exactly_where_all_tokens_up_to_them_are(
    a: list[int], b: list[int], size: int
) -> None:
    keys_a, keys_b = (list(TokenBlockHashes(t, [], size).prompt()) for t in (a, b))
    assert len(keys_a) == len(a) // size
    for i, (key_a, key_b) in enumerate(zip(keys_a, keys_b, strict=False)):
        stop = (i + 1) * size
        assert (key_a == key_b) == (a[:stop] == b[:stop])


@settings(derandomize=True, deadline=None)
@given(prompt=tokens, output=tokens, size=sizes, data=st.data())
def test_an_answer_continues_the_chain_of_its_prompt(
    prompt: list[int], output: list[int], size: int, data: st.DataObject
) -> None:
    growing: list[int] = []
    hashes = TokenBlockHashes(prompt, growing, size)
    whole = list(TokenBlockHashes(prompt + output, [], size).prompt())
    for token in output:
        growing.append(token)
        stop = (len(prompt) + len(growing)) // size
        if data.draw(st.booleans()):
            start = data.draw(st.integers(0, stop))
            assert list(hashes.get(start, stop)) == whole[start:stop]
    stop = (len(prompt) + len(growing)) // size
    assert list(hashes.get(0, stop)) == whole
    assert list(hashes.prompt()) == whole[: len(prompt) // size]


def test_algorithm_and_salt_set_keys_apart() -> None:
    prompt = list(range(32))
    variants = [
        TokenBlockHashes(prompt, [], 16, "sha256").prompt(),
        TokenBlockHashes(prompt, [], 16, "blake2b").prompt(),
        TokenBlockHashes(prompt, [], 16, "blake2b", salt=b"tenant").prompt(),
    ]
    assert len({key for keys in variants for key in keys}) == 6
    widths = [len(key) for (key, *_) in variants if isinstance(key, bytes)]
    assert widths == [32, 16, 16]  # bytes


def test_a_salt_sets_keys_apart_for_every_algorithm() -> None:
    prompt = list(range(32))
    for algorithm in ("sha256", "blake2b"):
        plain, salted = (
            TokenBlockHashes(prompt, [], 16, algorithm, salt).prompt() for salt in (b"", b"t")
        )
        assert not set(plain) & set(salted)


def test_private_keys_are_nobody_elses() -> None:
    hashes = [PrivateBlockHashes(ordinal) for ordinal in range(5)]
    keys = [key for h in hashes for key in h.get(0, 1000)]
    assert len(set(keys)) == 5000
    assert all(isinstance(key, int) and key < 0 for key in keys)  # a trace's ids are not negative
    assert list(hashes[2].get(3, 6)) == list(hashes[2].get(0, 1000))[3:6]
    assert not hashes[0].prompt()


def test_known_keys_come_first_and_private_ones_after_them() -> None:
    hashes = KnownBlockHashes(7, ["a", "b", "c"], 2)
    private = PrivateBlockHashes(7).get(0, 10)
    assert list(hashes.get(0, 2)) == ["a", "b"]
    assert list(hashes.get(1, 5)) == ["b", "c", private[3], private[4]]
    assert list(hashes.get(4, 6)) == [private[4], private[5]]
    assert list(hashes.get(3, 3)) == []
    assert list(hashes.prompt()) == ["a", "b"]


@settings(derandomize=True, deadline=None)
@given(
    ids=st.lists(st.integers(0, 10**9), unique=True, max_size=20),
    other=st.lists(st.integers(0, 10**9), unique=True, max_size=20),
    sizes=st.sampled_from([(16, 16), (512, 16), (16, 64), (24, 8), (8, 24)]),
)
def test_trace_ids_share_as_much_as_their_blocks_do(
    ids: list[int], other: list[int], sizes: tuple[int, int]
) -> None:
    hash_block_size, block_size = sizes
    common = 0
    while common < min(len(ids), len(other)) and ids[common] == other[common]:
        common += 1
    # chained ids: once different, always different
    other = other[:common] + [i + 10**10 for i in other[common:]]
    a, b = (
        keys_from_hash_ids(i, hash_block_size, block_size, len(i) * hash_block_size // block_size)
        for i in (ids, other)
    )
    assert len(a) == len(ids) * hash_block_size // block_size
    shared = common * hash_block_size // block_size
    assert a[:shared] == b[:shared]
    assert not set(a[shared:]) & set(b[shared:])
    assert len(set(a)) == len(a)


def test_trace_ids_in_numbers() -> None:
    assert list(keys_from_hash_ids([3, 5], 32, 16, 4)) == [6, 7, 10, 11]
    assert list(keys_from_hash_ids([3, 5], 32, 16, 3)) == [6, 7, 10]
    assert list(keys_from_hash_ids([3, 5, 9, 11, 13], 16, 32, 2)) == [5, 11]
    assert list(keys_from_hash_ids([3, 5, 9, 11], 16, 32, 1)) == [5]
    assert list(keys_from_hash_ids([], 16, 16, 0)) == []


@pytest.mark.parametrize(("hash_block_size", "block_size"), [(16, 24), (24, 16), (512, 48)])
def test_sizes_that_do_not_divide_are_refused(hash_block_size: int, block_size: int) -> None:
    message = f"block_size={block_size} .*hash_block_size={hash_block_size}: one must divide"
    with pytest.raises(ConfigError, match=message):
        keys_from_hash_ids([1, 2], hash_block_size, block_size, 1)


def test_split_ids_are_a_sequence_like_any_other() -> None:
    keys = keys_from_hash_ids((3, 5, 9), 48, 16, 8)
    whole = [9, 10, 11, 15, 16, 17, 27, 28]
    assert list(keys) == whole
    assert len(keys) == 8
    assert [keys[i] for i in range(-8, 8)] == whole + whole
    for start in range(-9, 10):
        for stop in range(-9, 10):
            assert keys[start:stop] == whole[start:stop]
    for outside in (8, -9):
        with pytest.raises(IndexError, match=f"block {outside} of 8"):
            keys[outside]


@given(st.lists(st.integers(0, 9), max_size=20), st.integers(0, 40))
def test_a_chain_names_the_keys_that_get_names(tokens: list[int], num_known: int) -> None:
    known = KnownBlockHashes(3, [f"k{i}" for i in range(num_known)], num_known)
    hashed = TokenBlockHashes(tokens, [1, 2, 3, 4], 2)
    private = PrivateBlockHashes(3)
    num_hashed = (len(tokens) + 4) // 2
    for hashes, count in ((known, 50), (hashed, num_hashed), (private, 50)):
        chain = hashes.chain(count)
        assert [chain[i] for i in range(count)] == list(hashes.get(0, count))
        assert hashes.chain(0) is chain
        assert [hashes.at(i) for i in range(count)] == list(hashes.get(0, count))
    assert (known.num_shareable, private.num_shareable) == (num_known, 0)
