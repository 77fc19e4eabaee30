"""A tokenizer as llguidance sees it: the bytes of every token, and which of them end an answer.

Knows tokenizers and vocabularies; knows no grammar.
"""

from collections.abc import Sequence
from copy import copy
from functools import cached_property
from typing import Any

import numpy as np
from llguidance import LLTokenizer

from engine.errors import InputError
from workbench.structured_output import BITS_PER_WORD

BYTES_PER_WORD = BITS_PER_WORD // 8
ASCII = range(0x20, 0x7F)
NO_END = "<|no end|>"
MAX_MESSAGE = 300


class Vocabulary:
    """The tokens of a model.

    Args:
        tokenizer: Of transformers, or of tokenizers.
        vocab_size: Of the model; the tokenizer's may be smaller or larger.
        eos_token_ids: What ends an answer.

    Raises:
        InputError: It is a tokenizer whose tokens cannot be told as bytes.

    Attributes:
        ll: llguidance's tokenizer.
        vocab_size: Of the model.
        num_words: int32 words of a row of the bitmask.
        eos_token_ids: As given.
    """

    def __init__(self, tokenizer: Any, vocab_size: int, eos_token_ids: Sequence[int]) -> None:
        self.vocab_size = vocab_size
        self.num_words = -(-vocab_size // BITS_PER_WORD)
        backend = _backend(tokenizer)
        size = backend.get_vocab_size(with_added_tokens=True)
        self.eos_token_ids = tuple(i for i in eos_token_ids if 0 <= i < min(vocab_size, size))
        ends, self._hidden = list(self.eos_token_ids), None
        if not ends:
            # llguidance wants one, so it gets one that no row shows
            backend.add_special_tokens([NO_END])
            self._hidden = backend.token_to_id(NO_END)
            ends, size = [self._hidden], size + 1
        size = max(vocab_size, size)
        try:
            self.ll = LLTokenizer(backend.to_str(), n_vocab=size, eos_token=ends)
        except ValueError as error:
            raise InputError(
                f"structured_outputs: the tokenizer is not understood ({one_line(error)})"
            ) from None
        self._num_ll_bytes = -(-size // BITS_PER_WORD) * BYTES_PER_WORD

    @cached_property
    def single_characters(self) -> dict[str, int]:
        """The token of every printable ASCII character that has one of its own."""
        tokens = {}
        for code in ASCII:
            token_ids = self.ll.greedy_tokenize(chr(code))
            if len(token_ids) == 1 and token_ids[0] < self.vocab_size:
                tokens[chr(code)] = int(token_ids[0])
        return tokens

    @cached_property
    def eos_bits(self) -> np.ndarray:
        """[num_words] int32: a bitmask of the tokens that end an answer."""
        return self.bits(self.eos_token_ids)

    def bits(self, token_ids: Sequence[int]) -> np.ndarray:
        """[num_words] int32: a bitmask of some tokens."""
        flags = np.zeros(self.num_words * BITS_PER_WORD, dtype=np.uint8)
        flags[list(token_ids)] = 1
        return np.packbits(flags, bitorder="little").view(np.int32)

    def new_buffer(self) -> np.ndarray:
        """Words for llguidance to write a row into; it may know more tokens than the model."""
        return np.zeros(self._num_ll_bytes // BYTES_PER_WORD, dtype=np.int32)

    @cached_property
    def known_bits(self) -> np.ndarray | None:
        """A bitmask of the model's tokens, where llguidance knows of more; None: it does not."""
        if self.ll.vocab_size == self.vocab_size and self._hidden is None:
            return None
        return self.bits([i for i in range(self.vocab_size) if i != self._hidden])


def _backend(tokenizer: Any) -> Any:
    """A copy of the tokenizer of the library tokenizers that does nothing but tokenize."""
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not hasattr(backend, "to_str") or not hasattr(backend, "no_padding"):
        raise InputError(
            f"structured_outputs need a tokenizer of the library tokenizers, and the model's is a "
            f"{type(tokenizer).__name__}: convert it to a tokenizer.json"
        )
    made = copy(backend)
    made.no_padding()
    made.no_truncation()
    return made


def one_line(message: object) -> str:
    """A message of llguidance in one line of bounded length."""
    text = " ".join(str(message).replace("<non-verbose/>", "").split())
    return text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 1] + "…"
