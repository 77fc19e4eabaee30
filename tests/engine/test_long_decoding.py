"""Tokens that are decoded in slices give the text of all of them at once."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from engine import long_decoding
from engine.long_decoding import SLICE, decode_long
from tests.engine.test_detokenizer import BYTE_LEVEL, NUM_TOKENS, SENTENCEPIECE

SPECIAL = [1, 2]


def whole(tokenizer: Any, token_ids: list[int], skip: bool) -> str:
    return str(
        tokenizer.decode(token_ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False)
    )


@pytest.fixture(autouse=True)
def short_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_decoding, "SLICE", 7)


@given(st.lists(st.integers(0, NUM_TOKENS + 3), max_size=60), st.booleans())
def test_bytes(token_ids: list[int], skip: bool) -> None:
    assert decode_long(BYTE_LEVEL, token_ids, skip) == whole(BYTE_LEVEL, token_ids, skip)


# of each kind, so that one stands often beside another; 999 is none of the tokenizer's
TOKENS = st.one_of(
    st.integers(3, 258),
    st.integers(259, len(SENTENCEPIECE) - 1),
    st.sampled_from([*SPECIAL, 260, 261, 999]),
)


@given(st.lists(TOKENS, max_size=60), st.booleans())
@example([3] * 6 + [999, 999, 131], False)
@example([3] * 6 + [1, 131], True)
@example([261] * 6 + [260, 260, 260], True)
def test_windows(token_ids: list[int], skip: bool) -> None:
    assert decode_long(SENTENCEPIECE, token_ids, skip) == whole(SENTENCEPIECE, token_ids, skip)


def test_a_tokenizer_never_decodes_very_many_tokens_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()
    sizes: list[int] = []

    class Backend:
        decoder = SENTENCEPIECE.backend_tokenizer.decoder

        def __getattr__(self, name: str) -> Any:
            return getattr(SENTENCEPIECE.backend_tokenizer, name)

        def decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
            sizes.append(len(token_ids))
            return str(SENTENCEPIECE.backend_tokenizer.decode(token_ids, skip_special_tokens))

    class Slow:
        backend_tokenizer = Backend()

    many = [259, 260, 264] * (2 * SLICE)
    assert decode_long(Slow(), many, False) == whole(SENTENCEPIECE, many, False)
    assert max(sizes) < SLICE + 100
    assert len(sizes) > 6
