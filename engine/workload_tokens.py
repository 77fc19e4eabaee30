"""Real tokens for workloads that only say how long prompts are and what they share.

Prompts that share a block id share the block's tokens, so the prefix cache of a real engine finds
what the trace says it should. The tokens themselves mean nothing.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.errors import InputError
from workbench.workload.base import WorkloadRequest

Words = NDArray[np.uint64]
# No block id of a trace is as large: keys from here on are those of tokens that nobody shares.
FIRST_PRIVATE_KEY = 1 << 63


class WorkloadTokens:
    """Makes the prompts of a run.

    Args:
        vocab_size: Ids are below it.
        seed: Of the run.
    """

    def __init__(self, vocab_size: int, seed: int) -> None:
        self._vocab_size = vocab_size
        self._seed = _mixed(np.array([seed], dtype=np.uint64))
        self._num_private = 0
        # Blocks that a model has written: a later turn of the session repeats them.
        self._answered: dict[int, NDArray[np.int32]] = {}

    def check(self, item: WorkloadRequest) -> None:
        """Raise InputError if a request brings tokens of its own that the vocabulary lacks."""
        tokens = item.prompt_token_ids or (0,)
        for wrong in (min(tokens), max(tokens)):
            if not 0 <= wrong < self._vocab_size:
                raise InputError(
                    f"request {item.request_id!r} has token id {wrong}, and the model's vocabulary "
                    f"ends at {self._vocab_size - 1}: use the model that the workload was made for"
                )

    def prompt(self, item: WorkloadRequest) -> list[int]:
        """Token ids of a request's prompt; of the workload itself where it has any."""
        if item.prompt_token_ids is not None:
            return list(item.prompt_token_ids)
        length = item.num_prompt_tokens
        shared = self._shared(item)[:length]
        private = self._private(length - len(shared))
        tokens: list[int] = [*shared.tolist(), *private.tolist()]
        return tokens

    def learn(self, item: WorkloadRequest, prompt: Sequence[int], answer: Sequence[int]) -> None:
        """Remember the blocks that an answer has filled, where the trace has ids for them."""
        if item.hash_ids is None or not item.output_hash_ids:
            return
        size, first = item.hash_block_size, len(prompt) // item.hash_block_size
        ids = (item.hash_ids + item.output_hash_ids)[first:]
        tokens = np.array([*prompt[first * size :], *answer], dtype=np.int32)
        for index, block_id in enumerate(ids[: len(tokens) // size]):
            self._answered[block_id] = tokens[index * size : (index + 1) * size]

    def _shared(self, item: WorkloadRequest) -> NDArray[np.int64]:
        """Tokens of the blocks that have ids."""
        ids = item.hash_ids or ()
        blocks = self._drawn(np.array(ids, dtype=np.uint64), item.hash_block_size)
        for row, block_id in enumerate(ids if self._answered else ()):
            written = self._answered.get(block_id)
            if written is not None:
                blocks[row] = written
        return blocks.reshape(-1)

    def _private(self, num_tokens: int) -> NDArray[np.int64]:
        key = FIRST_PRIVATE_KEY + self._num_private
        self._num_private += 1
        return self._drawn(np.array([key], dtype=np.uint64), num_tokens)[0]

    def _drawn(self, keys: Words, num_tokens: int) -> NDArray[np.int64]:
        """[keys, num_tokens]: the same tokens for the same key, in one go for all of them."""
        places = np.arange(num_tokens, dtype=np.uint64)
        words = _mixed(_mixed(keys ^ self._seed)[:, None] + places)
        return (words % np.uint64(self._vocab_size)).astype(np.int64)


def _mixed(words: Words) -> Words:
    """A permutation of 64-bit words that leaves no pattern: SplitMix64 (Steele et al., 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
