"""The text side of a served model, and what a simulated one says."""

import sys
from pathlib import Path

import pytest

from engine.byte_tokenizer import byte_tokenizer
from engine.errors import ModelLoadError
from experiments.serving.options import read_options
from experiments.serving.text import load_text, spoken_tokens, uses_byte_tokenizer, without_torch


def test_a_preset_gets_a_tokenizer_of_bytes_and_a_note() -> None:
    options = read_options(["qwen3_0_6b", "--backend", "simulator"], {})
    assert uses_byte_tokenizer(options)
    text, notes = load_text(options)
    assert "every byte of a text is a token" in notes[0]
    assert text.tokenizer.decode(text.tokenizer.encode("Grüße, 🙂")) == "Grüße, 🙂"
    assert text.eos.primary == 257
    chat = [{"role": "user", "content": "hi"}]
    assert text.tokenizer.apply_chat_template(chat, tokenize=False) == "user: hi\n"


def test_token_ids_only_where_that_is_wanted() -> None:
    options = read_options(["qwen3_0_6b", "--backend", "simulator", "--skip-tokenizer-init"], {})
    text, notes = load_text(options)
    assert text.tokenizer is None
    assert "token ids only" in notes[0]


def test_a_tokenizer_that_was_named_must_be_there(tmp_path: Path) -> None:
    words = ["qwen3_0_6b", "--backend", "simulator", "--tokenizer", str(tmp_path)]
    with pytest.raises(ModelLoadError, match="has no tokenizer"):
        load_text(read_options(words, {}))


def test_letters_are_spoken_where_there_are_no_words() -> None:
    tokenizer = byte_tokenizer()
    spoken, closing = spoken_tokens(tokenizer, 259)
    assert set(tokenizer.decode(spoken)) == set("abcdefghijklmnopqrstuvwxyz ")
    assert tokenizer.decode(closing) == '"'


class Words:
    """A tokenizer with words."""

    all_special_ids = (6,)

    def get_vocab(self) -> dict[str, int]:
        pieces = [
            "\u0120the",
            "\u2581of",
            "ing",
            '"',
            '"}',
            "\u0120x1",
            "\u0120special",
            "\u0120far",
        ]
        return {piece: i for i, piece in enumerate(pieces)}


def test_words_are_spoken_where_there_are_any() -> None:
    assert spoken_tokens(Words(), 8) == ([0, 1, 7], [3, 4])
    # an id beyond the model's vocabulary would be none of its tokens
    assert spoken_tokens(Words(), 4) == ([0, 1], [3])


def test_torch_is_hidden_from_the_first_import_of_transformers_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.delitem(sys.modules, "transformers", raising=False)
    with without_torch():
        assert sys.modules["torch"] is None
    assert "torch" not in sys.modules
    monkeypatch.setitem(sys.modules, "transformers", sys)
    with without_torch():
        assert "torch" not in sys.modules
