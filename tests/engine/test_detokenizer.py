"""Incremental text: equal to decoding everything at once, never half a character, linear work."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from engine.detokenizer import (
    REPLACEMENT,
    ByteDecoder,
    IncrementalDecoder,
    TokenBytes,
    WindowDecoder,
    decoder_factory,
)

PARTS = [b"\xe4\xbd", b"\xa0\xe5", b"\xf0\x9f", b"\x98\x80", b"hello", b" \xc3", "€".encode()]
TEXT = st.text(st.sampled_from("ab é€ß你好😀🏳️‍🌈\n") | st.characters(codec="utf-8"), max_size=30)


def byte_level() -> PreTrainedTokenizerFast:
    """Token b is byte b; then parts that cut characters in two, and special tokens."""
    characters = bytes_to_unicode()
    words = [bytes([i]) for i in range(256)] + PARTS
    vocabulary = {"".join(characters[byte] for byte in word): i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken("<|eos|>", special=True)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False), AddedToken("größer 你")])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|eos|>")


BYTE_LEVEL = byte_level()
NUM_TOKENS = len(BYTE_LEVEL)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """A tokenizer as Llama 2's: words with a space in front, and single bytes as a last resort."""
    words = ["<unk>", "<s>", "</s>", *[f"<0x{i:02X}>" for i in range(256)]]
    words += ["▁Hello", "▁world", "▁", "llo", "▁é", "!", "▁你", "a"]
    tokenizer = Tokenizer(
        models.BPE({word: i for i, word in enumerate(words)}, [], byte_fallback=True)
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(
        [AddedToken("<s>", special=True), AddedToken("</s>", special=True)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", bos_token="<s>")


def whole(tokenizer: Any, token_ids: Sequence[int], skip: bool = True) -> str:
    return str(tokenizer.backend_tokenizer.decode(list(token_ids), skip_special_tokens=skip))


def pieces(decoder: IncrementalDecoder, token_ids: Sequence[int], cuts: Sequence[int]) -> list[str]:
    """Text of each run between the cuts, and the rest."""
    ends = [*sorted({min(cut, len(token_ids)) for cut in cuts}), len(token_ids)]
    starts = [0, *ends[:-1]]
    runs = [decoder.decode(token_ids[a:b]) for a, b in zip(starts, ends, strict=True)]
    return [*runs, decoder.flush()]


@settings(max_examples=200)
@given(
    st.lists(st.integers(0, NUM_TOKENS + 3), max_size=40),
    st.lists(st.integers(0, 40), max_size=8),
    st.booleans(),
)
def test_any_tokens_cut_anywhere_equal_the_whole(
    token_ids: list[int], cuts: list[int], skip: bool
) -> None:
    decoder = decoder_factory(BYTE_LEVEL)([], skip, True)
    assert isinstance(decoder, ByteDecoder)
    assert "".join(pieces(decoder, token_ids, cuts)) == whole(BYTE_LEVEL, token_ids, skip)


@given(TEXT)
def test_half_a_character_is_never_shown(text: str) -> None:
    decoder = decoder_factory(BYTE_LEVEL)([], True, True)
    shown = ""
    for byte in text.encode():
        shown += decoder.decode([byte])
        assert text.startswith(shown)
    assert shown + decoder.flush() == text


def test_a_character_cut_off_by_the_end_shows_as_the_tokenizer_shows_it() -> None:
    decoder = decoder_factory(BYTE_LEVEL)([], True, True)
    assert decoder.decode("é€".encode()[:-1]) == "é"
    assert decoder.flush() == REPLACEMENT


def test_special_tokens_are_skipped_or_shown() -> None:
    token_ids = [104, BYTE_LEVEL.eos_token_id, 105]
    assert decoder_factory(BYTE_LEVEL)([], True, True).decode(token_ids) == "hi"
    assert decoder_factory(BYTE_LEVEL)([], False, True).decode(token_ids) == "h<|eos|>i"


def test_bytes_of_a_token_are_looked_up_once() -> None:
    table = TokenBytes(BYTE_LEVEL.backend_tokenizer, skip_special_tokens=True)
    assert table[0xC3] == b"\xc3"
    assert 0xC3 in table
    assert table[10**9] == b""


SENTENCEPIECE = sentencepiece_like()
WHOLE_CHARACTERS = [
    SENTENCEPIECE.convert_tokens_to_ids([f"<0x{byte:02X}>" for byte in character.encode()])
    for character in ("é", "€", "你", "😀", "z")
]
WORDS = [[i] for i in range(259, len(SENTENCEPIECE))]


@given(
    st.lists(st.sampled_from(WORDS + WHOLE_CHARACTERS + [[1], [2]]), max_size=20),
    st.lists(st.integers(0, 60), max_size=6),
    st.lists(st.sampled_from([259, 260, 264]), max_size=7),
)
def test_a_window_continues_the_prompt(
    groups: list[list[int]], cuts: list[int], prompt: list[int]
) -> None:
    token_ids = [token_id for group in groups for token_id in group]
    decoder = decoder_factory(SENTENCEPIECE)(prompt, True, True)
    assert isinstance(decoder, WindowDecoder)
    text = "".join(pieces(decoder, token_ids, cuts))
    assert text == whole(SENTENCEPIECE, prompt + token_ids)[len(whole(SENTENCEPIECE, prompt)) :]


@given(st.lists(st.sampled_from(WHOLE_CHARACTERS), max_size=12))
def test_a_window_never_shows_half_a_character(groups: list[list[int]]) -> None:
    decoder = decoder_factory(SENTENCEPIECE)([259], True, True)
    for token_id in [token_id for group in groups for token_id in group]:
        assert REPLACEMENT not in decoder.decode([token_id])
    assert decoder.flush() == ""


def test_a_character_that_the_prompt_began_is_shown_whole() -> None:
    first, *rest = SENTENCEPIECE.convert_tokens_to_ids([f"<0x{b:02X}>" for b in "你".encode()])
    decoder = decoder_factory(SENTENCEPIECE)([259, first], True, True)
    assert decoder.decode([*rest, 265]) + decoder.flush() == "你 你"


@pytest.mark.parametrize("byte", [0xFF, 0x80])
def test_a_run_of_broken_bytes_costs_linear_work_and_is_shown_in_the_end(byte: int) -> None:
    decoded = 0

    def count(decode: Callable[[list[int]], str]) -> Callable[[list[int]], str]:
        def counting(token_ids: list[int]) -> str:
            nonlocal decoded
            decoded += len(token_ids)
            return decode(token_ids)

        return counting

    decoder = WindowDecoder(count(lambda ids: whole(SENTENCEPIECE, ids)), [259])
    token_ids = [3 + byte] * 2000
    text = "".join(decoder.decode([token_id]) for token_id in token_ids)
    assert text + decoder.flush() == REPLACEMENT * 2000
    assert decoded < 10 * len(token_ids)


class PlainTokenizer:
    """A tokenizer without a fast backend."""

    def decode(self, token_ids: list[int], **options: Any) -> str:
        assert options["skip_special_tokens"] is True
        return bytes(token_ids).decode("utf-8", "replace")


def test_tokenizers_without_a_backend_are_decoded_by_windows() -> None:
    decoder = decoder_factory(PlainTokenizer())(list(b"prompt"), True, True)
    data = "naïve 你好".encode()
    assert "".join(decoder.decode([byte]) for byte in data) == "naïve 你好"
