"""Decodes very many tokens in slices, to the text that the tokenizer makes of all of them at once.

A tokenizer that decodes a million tokens holds the interpreter for as long as that takes. Between
two slices other threads get their turn, so this is for threads beside an event loop. Knows the two
kinds of tokenizers of `detokenizer`; knows no request.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from engine.detokenizer import PRIMING_TOKENS, ByteDecoder, TokenBytes

SLICE = 2**13
"""Tokens between two chances for others: a few milliseconds."""


def decode_long(tokenizer: Any, token_ids: Sequence[int], skip_special_tokens: bool) -> str:
    """The text of token ids.

    Args:
        tokenizer: Of transformers.
        token_ids: Of its vocabulary.
        skip_special_tokens: Special tokens have no text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or len(token_ids) <= SLICE:
        # a tokenizer without a backend is Python, which others can interrupt
        text = tokenizer.decode(
            token_ids, skip_special_tokens=skip_special_tokens, clean_up_tokenization_spaces=False
        )
        return str(text)
    from tokenizers import decoders

    if isinstance(backend.decoder, decoders.ByteLevel):
        return "".join(_by_bytes(backend, token_ids, skip_special_tokens))
    return "".join(_by_windows(backend, token_ids, skip_special_tokens))


def _by_bytes(backend: Any, token_ids: Sequence[int], skip: bool) -> Iterator[str]:
    decoder = ByteDecoder(TokenBytes(backend, skip))
    for start in range(0, len(token_ids), SLICE):
        yield decoder.decode(token_ids[start : start + SLICE])
    yield decoder.flush()


def _by_windows(backend: Any, token_ids: Sequence[int], skip: bool) -> Iterator[str]:
    """Slices are decoded behind the last tokens of the slice before, whose text is taken off."""
    decode = partial(backend.decode, skip_special_tokens=skip)
    bound = _bound(backend, skip)
    start = lead = 0
    while start < len(token_ids):
        end = min(start + SLICE, len(token_ids))
        while end < len(token_ids) and any(map(bound, token_ids[end - 1 : end + 1])):
            end += 1
        shown = decode(token_ids[lead:start]) if start else ""
        yield str(decode(token_ids[lead:end]))[len(shown) :]
        start, lead = end, max(end - PRIMING_TOKENS, 0)
        # text must stand before a slice, or it would lose its first space as a beginning does
        while end - lead < SLICE and lead and not decode(token_ids[lead:end]):
            lead = max(2 * lead - end, 0)


def _bound(backend: Any, skip: bool) -> Callable[[int], bool]:
    """Whether no slice may end beside a token: bytes that stand side by side become characters
    together, or none of them does, and tokens without a text do not part them."""
    added = backend.get_added_tokens_decoder().items()
    ids = {backend.token_to_id(f"<0x{byte:02X}>") for byte in range(256)}
    ids |= {token_id for token_id, token in added if skip and token.special}
    return lambda token_id: token_id in ids or backend.id_to_token(token_id) is None
