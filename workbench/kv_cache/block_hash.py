"""Keys of full KV blocks: equal keys mean equal tokens in the block and in all blocks before it.

A key says what a block holds, not where it is. Three sources of keys share one method:
real tokens are hashed in a chain, a trace brings its own chained ids, and a request with
neither gets keys that no other request has (so that its blocks age in the cache as real ones do).
"""

import hashlib
import struct
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

import numpy as np

from workbench.errors import ConfigError

_PRIVATE_KEYS_PER_REQUEST = 1 << 32


class BlockHashes(Protocol):
    """The keys of one request's full blocks."""

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

    __slots__ = ("_base",)

    def __init__(self, ordinal: int) -> None:
        self._base = -(ordinal + 1) * _PRIVATE_KEYS_PER_REQUEST

    def get(self, start: int, stop: int) -> Sequence[Hashable]:
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

    __slots__ = ("_keys", "_num_prompt_blocks", "_private")

    def __init__(self, ordinal: int, keys: Sequence[Hashable], num_prompt_blocks: int) -> None:
        self._keys = keys
        self._num_prompt_blocks = num_prompt_blocks
        self._private = PrivateBlockHashes(ordinal)

    def get(self, start: int, stop: int) -> Sequence[Hashable]:
        keys = self._keys
        if stop <= len(keys):
            return keys[start:stop]
        return [*keys[start:], *self._private.get(max(start, len(keys)), stop)]

    def at(self, index: int) -> Hashable:
        keys = self._keys
        return keys[index] if index < len(keys) else self._private.at(index)

    def prompt(self) -> Sequence[Hashable]:
        return self._keys[: self._num_prompt_blocks]


def keys_from_hash_ids(
    hash_ids: Sequence[int], hash_block_size: int, block_size: int, num_blocks: int
) -> list[int]:
    """Keys of KV blocks from a trace's chained ids.

    Args:
        hash_ids: Non-negative ids, one per `hash_block_size` tokens; the last may cover fewer.
        hash_block_size: Tokens an id.
        block_size: Tokens a KV block; one of the two sizes must divide the other.
        num_blocks: Full blocks that the ids cover, an upper bound on the keys returned.
    """
    if hash_block_size % block_size == 0:
        per_id = hash_block_size // block_size
        ids = np.asarray(hash_ids, dtype=np.int64)[:, None] * per_id + np.arange(per_id)
        return ids.ravel()[:num_blocks].tolist()  # type: ignore[no-any-return]
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

    def get(self, start: int, stop: int) -> Sequence[Hashable]:
        keys = self._keys
        if stop > len(keys):
            first = len(keys) * self._block_size - len(self._prompt)
            tokens = self._output[max(first, 0) : stop * self._block_size - len(self._prompt)]
            if first < 0:
                tokens = [*self._prompt[first:], *tokens]
            self._extend(tokens, stop - len(keys))
        return keys[start:stop]

    def at(self, index: int) -> Hashable:
        keys = self._keys
        return keys[index] if index < len(keys) else self.get(index, index + 1)[0]

    def prompt(self) -> Sequence[Hashable]:
        return self._keys[: len(self._prompt) // self._block_size]

    def _extend(self, tokens: Sequence[int], num_blocks: int) -> None:
        num_tokens = num_blocks * self._block_size
        data = struct.pack(f"{num_tokens}i", *tokens[:num_tokens])
        update, digest, append = self._hash.update, self._hash.digest, self._keys.append
        for (block,) in struct.iter_unpack(f"{4 * self._block_size}s", data):
            update(block)
            append(digest())


def _blake2b(salt: bytes) -> Any:
    return hashlib.blake2b(salt, digest_size=16)


_HASHES: dict[str, Callable[[bytes], Any]] = {"sha256": hashlib.sha256, "blake2b": _blake2b}
