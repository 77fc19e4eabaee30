"""Turns tokens into text as they come, and never shows half a character.

Two decoders of one interface. Byte-level BPE (GPT-2, Llama 3, Qwen) is bytes: each token has its
own, and UTF-8 is decoded as it arrives. Others (SentencePiece) depend on what stands before, so a
short window is decoded again. All text together equals what the tokenizer makes of all tokens at
once. Knows no stop strings and no requests.
"""

import codecs
from collections.abc import Callable, Sequence
from typing import Any, Protocol

REPLACEMENT = "\ufffd"
PRIMING_TOKENS = 5
"""Last tokens of the prompt that tell a window decoder whether the answer begins with a space."""
PATIENCE = 8
"""Tokens without a whole character after which a window is tried at powers of two only."""


class IncrementalDecoder(Protocol):
    """Decodes the tokens of one answer."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text that these tokens complete; an unfinished character is kept back."""
        ...

    def flush(self) -> str:
        """The rest at the end of the answer; an unfinished character shows as U+FFFD."""
        ...


DecoderFactory = Callable[[Sequence[int], bool, bool], IncrementalDecoder]
"""(prompt token ids, skip_special_tokens, spaces_between_special_tokens) -> a decoder."""


class ByteDecoder:
    """Decoder of byte-level BPE; constant work a token.

    Args:
        bytes_of: Bytes of each token.
    """

    __slots__ = ("_bytes_of", "_utf8")

    def __init__(self, bytes_of: "TokenBytes") -> None:
        self._bytes_of = bytes_of
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def decode(self, token_ids: Sequence[int]) -> str:
        bytes_of = self._bytes_of
        return self._utf8.decode(b"".join([bytes_of[token_id] for token_id in token_ids]))

    def flush(self) -> str:
        return self._utf8.decode(b"", final=True)


class TokenBytes(dict[int, bytes]):
    """Bytes of the tokens of a byte-level BPE, looked up once each.

    Args:
        backend: A tokenizers.Tokenizer with a ByteLevel decoder.
        skip_special_tokens: Special tokens have none.
    """

    def __init__(self, backend: Any, skip_special_tokens: bool) -> None:
        super().__init__()
        self._backend = backend
        self._byte_of = _byte_of_character()
        self._hidden = {
            token_id
            for token_id, token in backend.get_added_tokens_decoder().items()
            if skip_special_tokens and token.special
        }

    def __missing__(self, token_id: int) -> bytes:
        token = None if token_id in self._hidden else self._backend.id_to_token(token_id)
        try:
            value = bytes([self._byte_of[character] for character in token or ""])
        except KeyError:
            # added tokens are plain text
            value = (token or "").encode()
        self[token_id] = value
        return value


class WindowDecoder:
    """Decoder for tokenizers whose text depends on the tokens before.

    The window holds the tokens since the last shown character, and those of the show before it.
    Once a run without a whole character is long, it is tried only when it has doubled: the work
    stays proportional to the tokens.

    Args:
        decode_all: Decodes a whole sequence.
        prompt_token_ids: The prompt; its end is decoded with the answer but not shown.
    """

    __slots__ = ("_decode_all", "_num_read", "_shown", "_window")

    def __init__(
        self, decode_all: Callable[[list[int]], str], prompt_token_ids: Sequence[int]
    ) -> None:
        self._decode_all = decode_all
        self._window = list(prompt_token_ids[-PRIMING_TOKENS:])
        self._num_read = len(self._window)
        self._shown = decode_all(self._window).rstrip(REPLACEMENT) if self._window else ""

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join([self._decode_one(token_id) for token_id in token_ids])

    def _decode_one(self, token_id: int) -> str:
        self._window.append(token_id)
        num_pending = len(self._window) - self._num_read
        if num_pending > PATIENCE and num_pending & (num_pending - 1):
            return ""
        text = self._decode_all(self._window)
        if len(text) <= len(self._shown) or text.endswith(REPLACEMENT):
            return ""
        piece = text[len(self._shown) :]
        self._window = self._window[self._num_read :]
        self._num_read = len(self._window)
        self._shown = self._decode_all(self._window)
        return piece

    def flush(self) -> str:
        return self._decode_all(self._window)[len(self._shown) :]


def decoder_factory(tokenizer: Any) -> DecoderFactory:
    """How the answers of a tokenizer are decoded.

    Args:
        tokenizer: Of transformers.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        from tokenizers import decoders

        if isinstance(backend.decoder, decoders.ByteLevel):
            tables = {skip: TokenBytes(backend, skip) for skip in (True, False)}
            return lambda prompt, skip, spaces: ByteDecoder(tables[skip])

    def make(prompt: Sequence[int], skip: bool, spaces: bool) -> IncrementalDecoder:
        if backend is not None:
            return WindowDecoder(
                lambda ids: str(backend.decode(ids, skip_special_tokens=skip)), prompt
            )
        return WindowDecoder(
            lambda ids: str(
                tokenizer.decode(
                    ids,
                    skip_special_tokens=skip,
                    spaces_between_special_tokens=spaces,
                    clean_up_tokenization_spaces=False,
                )
            ),
            prompt,
        )

    return make


def _byte_of_character() -> dict[str, int]:
    """GPT-2's alphabet: printable bytes stand for themselves, the others for code points from 256.

    Source: Radford et al., "Language Models are Unsupervised Multitask Learners", 2019.
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(256 + i): byte for i, byte in enumerate(others)}
