"""Keys of full KV blocks: equal keys mean equal tokens in the block and in all blocks before it.

A key says what a block holds, not where it is. Three sources of keys share one method:
real tokens are hashed in a chain, a trace brings its own chained ids, and a request with
neither gets keys that no other request has (so that its blocks age in the cache as real ones do).
"""

import hashlib
import struct
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol, overload

import numpy as np

from workbench.errors import ConfigError

_PRIVATE_KEYS_PER_REQUEST = 1 << 32
_ALL_BLOCKS = 1 << 60


class Chain(Protocol):
    """Keys by place in a sequence of blocks."""

    def __getitem__(self, index: int, /) -> Hashable: ...


class BlockHashes(Protocol):
    """The keys of one request's full blocks."""

    @property
    def num_shareable(self) -> int:
        """How many blocks, from the first on, another request may ever share; an upper bound."""
        ...

    def chain(self, num_blocks: int) -> Chain:
        """Keys by place, those of the first `num_blocks` among them; the same object every time."""
        ...

    def get(self, start: int, stop: int) -> Sequence[Hashable]:
        """Keys of the full blocks [start, stop); their tokens must be known by now."""
        ...

    def at(self, index: int) -> Hashable:
        """The key of one full block."""
        ...

    def prompt(self) -> Sequence[Hashable]:
        """Keys of the prompt's full blocks that another request may share."""
        ...


class PrivateBlockHashes:
    """Keys of a request that shares nothing: negative integers from a range of its own."""

    __slots__ = ("_base", "_chain")

    num_shareable = 0

    def __init__(self, ordinal: int) -> None:
        self._base = -(ordinal + 1) * _PRIVATE_KEYS_PER_REQUEST
        self._chain: range | None = None

    def chain(self, num_blocks: int) -> Chain:
        if self._chain is None:
            self._chain = self.get(0, _PRIVATE_KEYS_PER_REQUEST)
        return self._chain

    def get(self, start: int, stop: int) -> range:
        return range(self._base + start, self._base + stop)

    def at(self, index: int) -> Hashable:
        return self._base + index

    def prompt(self) -> Sequence[Hashable]:
        return ()


class KnownBlockHashes:
    """Keys that are known beforehand for the first blocks, and private ones after them.

    Args:
        ordinal: Number of the request, for the private keys.
        keys: Chained keys of the first full blocks: of the prompt, and of the answer as far as it
            is known.
        num_prompt_blocks: Full blocks of the prompt.
    """

    __slots__ = ("_keys", "_num_prompt_blocks", "_private_base", "num_shareable")

    def __init__(self, ordinal: int, keys: Sequence[Hashable], num_prompt_blocks: int) -> None:
        self._keys = keys
        self._num_prompt_blocks = num_prompt_blocks
        self._private_base = -(ordinal + 1) * _PRIVATE_KEYS_PER_REQUEST
        self.num_shareable = len(keys)

    def chain(self, num_blocks: int) -> Chain:
        return self

    def __getitem__(self, index: int) -> Hashable:
        return self._keys[index] if index < self.num_shareable else self._private_base + index

    def get(self, start: int, stop: int) -> Sequence[Hashable]:
        keys, base = self._keys, self._private_base
        if stop <= len(keys):
            return keys[start:stop]
        return [*keys[start:], *range(base + max(start, len(keys)), base + stop)]

    def at(self, index: int) -> Hashable:
        return self[index]

    def prompt(self) -> Sequence[Hashable]:
        keys = self._keys
        return keys if len(keys) == self._num_prompt_blocks else keys[: self._num_prompt_blocks]


class SplitIds(Sequence[int]):
    """Keys of blocks that are parts of larger ones with ids, made when they are asked for.

    Args:
        ids: Of the larger blocks.
        per_id: Blocks in each of them.
        num_blocks: Blocks in all.
    """

    __slots__ = ("_ids", "_num_blocks", "_per_id")

    def __init__(self, ids: Sequence[int], per_id: int, num_blocks: int) -> None:
        self._ids = ids
        self._per_id = per_id
        self._num_blocks = min(num_blocks, len(ids) * per_id)

    def __len__(self) -> int:
        return self._num_blocks

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        per_id = self._per_id
        if isinstance(index, slice):
            places = np.arange(*index.indices(self._num_blocks), dtype=np.int64)
            ids = np.asarray(self._ids, dtype=np.int64)[places // per_id]
            keys: list[int] = (ids * per_id + places % per_id).tolist()
            return keys
        place = index if index >= 0 else index + self._num_blocks
        if not 0 <= place < self._num_blocks:
            raise IndexError(f"block {index} of {self._num_blocks}")
        return self._ids[place // per_id] * per_id + place % per_id


def keys_from_hash_ids(
    hash_ids: Sequence[int], hash_block_size: int, block_size: int, num_blocks: int
) -> Sequence[int]:
    """Keys of KV blocks from a trace's chained ids.

    Args:
        hash_ids: Non-negative ids, one per `hash_block_size` tokens; the last may cover fewer.
        hash_block_size: Tokens an id.
        block_size: Tokens a KV block; one of the two sizes must divide the other.
        num_blocks: Full blocks that the ids cover, an upper bound on the keys returned.
    """
    if hash_block_size % block_size == 0:
        return SplitIds(hash_ids, hash_block_size // block_size, num_blocks)
    if block_size % hash_block_size == 0:
        per_block = block_size // hash_block_size
        return list(hash_ids[per_block - 1 :: per_block])[:num_blocks]
    raise ConfigError(
        f"block_size={block_size} does not fit the trace's hash_block_size={hash_block_size}: "
        "one must divide the other"
    )


class TokenBlockHashes:
    """Keys hashed over real tokens: key i is the digest of all tokens up to the end of block i.

    Args:
        prompt_token_ids: The prompt.
        output_token_ids: The answer; the list the request appends to.
        block_size: Tokens a block.
        algorithm: "blake2b" (128 bits, the faster one) or "sha256".
        salt: Sets apart requests that must not share (a tenant, an adapter).
    """

    __slots__ = ("_block_size", "_hash", "_keys", "_output", "_prompt")

    num_shareable = _ALL_BLOCKS

    def __init__(
        self,
        prompt_token_ids: Sequence[int],
        output_token_ids: list[int],
        block_size: int,
        algorithm: str = "blake2b",
        salt: bytes = b"",
    ) -> None:
        self._prompt = prompt_token_ids
        self._output = output_token_ids
        self._block_size = block_size
        self._hash = _HASHES[algorithm](salt)
        self._keys: list[bytes] = []
        self._extend(prompt_token_ids, len(prompt_token_ids) // block_size)

    def chain(self, num_blocks: int) -> Chain:
        if num_blocks > len(self._keys):
            self._know(num_blocks)
        return self._keys

    def get(self, start: int, stop: int) -> Sequence[Hashable]:
        if stop > len(self._keys):
            self._know(stop)
        return self._keys[start:stop]

    def at(self, index: int) -> Hashable:
        keys = self._keys
        return keys[index] if index < len(keys) else self.get(index, index + 1)[0]

    def prompt(self) -> Sequence[Hashable]:
        return self._keys[: len(self._prompt) // self._block_size]

    def _know(self, num_blocks: int) -> None:
        """Add the keys up to `num_blocks`, which reach into the answer."""
        num_known, size = len(self._keys), self._block_size
        first = num_known * size - len(self._prompt)
        tokens = self._output[max(first, 0) : num_blocks * size - len(self._prompt)]
        if first < 0:
            tokens = [*self._prompt[first:], *tokens]
        self._extend(tokens, num_blocks - num_known)

    def _extend(self, tokens: Sequence[int], num_blocks: int) -> None:
        num_tokens = num_blocks * self._block_size
        data = struct.pack(f"{num_tokens}i", *tokens[:num_tokens])
        update, digest = self._hash.update, self._hash.digest
        if num_blocks == 1:  # an answer grows block by block
            update(data)
            self._keys.append(digest())
            return
        blocks = struct.iter_unpack(f"{4 * self._block_size}s", data)
        # `update` returns None, so each item is the digest up to the end of its block.
        self._keys += [update(block) or digest() for (block,) in blocks]


def _blake2b(salt: bytes) -> Any:
    return hashlib.blake2b(salt, digest_size=16)


_HASHES: dict[str, Callable[[bytes], Any]] = {"sha256": hashlib.sha256, "blake2b": _blake2b}
