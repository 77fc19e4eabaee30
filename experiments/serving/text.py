"""The text side of a served model, in the process that talks to clients.

Knows where a tokenizer comes from, how it is loaded without torch, and which of its tokens a
simulated model says. It knows no core.
"""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from engine.input_processor import EosTokens
from engine.model_text import ModelText
from experiments.serving.options import ServeOptions

HEAVY = "torch"
BYTE_LEVEL_NOTE = (
    "{name} has no tokenizer: every byte of a text is a token, so prompts are about four times as"
    " long as with its own (--tokenizer FOLDER names one; prompts of token ids are taken as they"
    " are)"
)
MOST_WORDS = 4096
# how a space is written: byte-level tokenizers, sentencepiece
SPACES = ("\u0120", "\u2581")
SPACES_AMONG_LETTERS = 5
_SPACED_WORD = re.compile(r"[\u0120\u2581][a-z]{2,}")
_LETTER = re.compile(r"[a-z]")
# the end of a string, alone or with what may follow it
_CLOSING = re.compile(r'"[}\],]?')


@contextmanager
def without_torch() -> Iterator[None]:
    """Let transformers find no torch while it is imported: a front needs none, and it is slow."""
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    if HEAVY in sys.modules or "transformers" in sys.modules:
        yield
        return
    hidden: Any = None  # an entry of None makes an import fail and a search find nothing
    sys.modules[HEAVY] = hidden
    try:
        yield
    finally:
        del sys.modules[HEAVY]


def load_text(options: ServeOptions) -> tuple[ModelText, list[str]]:
    """The text side of the model, and what to say about it.

    Raises:
        ModelLoadError: A file that cannot be read, or a tokenizer that was named is missing.
    """
    with without_torch():
        return _load(options)


def _load(options: ServeOptions) -> tuple[ModelText, list[str]]:
    if uses_byte_tokenizer(options):
        from engine.byte_tokenizer import byte_tokenizer

        tokenizer = byte_tokenizer()
        eos = EosTokens(tokenizer.eos_token_id)
        text = ModelText(tokenizer=tokenizer, no_tokenizer_reason="", eos=eos)
        return text, [BYTE_LEVEL_NOTE.format(name=options.model.name)]
    text = ModelText.of_folder(
        options.model.folder,
        options.tokenizer,
        skip_tokenizer_init=options.skip_tokenizer_init,
    )
    notes = []
    if text.tokenizer is None:
        notes.append(f"token ids only: {text.no_tokenizer_reason}")
    return text, notes


def uses_byte_tokenizer(options: ServeOptions) -> bool:
    """Whether the built-in tokenizer stands for one that is missing."""
    wants_none = options.skip_tokenizer_init or options.tokenizer is not None
    return options.is_simulated and not wants_none and not options.model.has_tokenizer


def tokenizer_file(options: ServeOptions) -> Path | None:
    """The tokenizer.json that `text` was read from; None: there is none."""
    file = (options.tokenizer or options.model.folder) / "tokenizer.json"
    return file if file.is_file() else None


def spoken_tokens(tokenizer: Any, vocab_size: int) -> tuple[list[int], list[int]]:
    """(tokens that read as words, tokens that end a string of JSON).

    Of a tokenizer without words: its printable characters. Ids beyond the model's vocabulary, and
    special tokens, are none of them.
    """
    special = set(tokenizer.all_special_ids)
    pieces = {
        piece: token_id
        for piece, token_id in tokenizer.get_vocab().items()
        if token_id < vocab_size and token_id not in special
    }
    words = sorted(i for piece, i in pieces.items() if _SPACED_WORD.fullmatch(piece))
    if not words:
        words = sorted(i for piece, i in pieces.items() if _LETTER.fullmatch(piece))
        words += [pieces[space] for space in SPACES if space in pieces] * SPACES_AMONG_LETTERS
    closing = sorted(i for piece, i in pieces.items() if _CLOSING.fullmatch(piece))
    return words[:MOST_WORDS], closing
