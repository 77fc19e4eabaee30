"""What a server asks of a tokenizer once, because it is slow to find out.

Knows vocabularies; tokenizes nothing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from engine.detokenizer import TokenBytes

BytesOf = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class TokenFacts:
    """Facts of one tokenizer.

    Attributes:
        tokenizer: Of transformers, or None.
        bytes_of: The bytes of a token, where the tokenizer is a byte-level one.
        max_chars: Most characters that one token stands for; None: nobody knows.
    """

    tokenizer: Any = None
    bytes_of: BytesOf | None = None
    max_chars: int | None = None

    @classmethod
    def of(cls, tokenizer: Any) -> "TokenFacts":
        """Find them out."""
        if tokenizer is None:
            return cls()
        bytes_of = _bytes_of(tokenizer)
        # other tokenizers may drop characters, or make one token of all that they do not know
        longest = max(map(len, tokenizer.get_vocab())) if bytes_of is not None else None
        return cls(tokenizer, bytes_of, longest)


def _bytes_of(tokenizer: Any) -> BytesOf | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    from tokenizers import decoders

    if not isinstance(backend.decoder, decoders.ByteLevel):
        return None
    return TokenBytes(backend, skip_special_tokens=False).__getitem__
