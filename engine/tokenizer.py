"""Loads a Hugging Face tokenizer from disk, and asks it what an engine needs to know.

The tokenizer itself stays what transformers makes of it. Knows files, special tokens and chat
templates; knows no model and no request.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import InputError, ModelLoadError

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "tekken.json",
)
Messages = Sequence[Mapping[str, Any]]


def has_tokenizer(folder: str | Path) -> bool:
    """Whether any of a tokenizer's usual files is in the folder."""
    return any((Path(folder) / name).is_file() for name in TOKENIZER_FILES)


def load_tokenizer(folder: str | Path) -> Any:
    """The tokenizer of a folder; nothing is downloaded and no code of the folder is run.

    Raises:
        ModelLoadError: There is none, or transformers cannot read it.
    """
    if not has_tokenizer(folder):
        raise ModelLoadError(
            f"{folder} has no tokenizer (none of {', '.join(TOKENIZER_FILES)}): name a folder that "
            "has one with tokenizer=, or set skip_tokenizer_init=True and pass token ids"
        )
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ModelLoadError(
            f"the tokenizer in {folder} cannot be read ({type(error).__name__}: {reason}): replace "
            "its files, or set skip_tokenizer_init=True and pass token ids"
        ) from error


def apply_chat_template(
    tokenizer: Any,
    messages: Messages,
    *,
    chat_template: str | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    tools: Sequence[Mapping[str, Any]] | None = None,
    **variables: Any,
) -> str:
    """A conversation as the text of a prompt, by the tokenizer's template or the one given.

    Raises:
        InputError: No template, or one that refuses these messages.
    """
    if chat_template is None and not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template: pass chat_template=, or use generate() with the "
            "prompt as the model expects it"
        )
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message:
            raise InputError(
                f"message {message!r} must be a dict with role and content, as in "
                "{'role': 'user', 'content': 'Hello'}"
            )
    try:
        text = tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=None if tools is None else [dict(tool) for tool in tools],
            tokenize=False,
            **variables,
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"the chat template refuses these messages: {reason}") from error
    return str(text)


def encode_bad_words(tokenizer: Any, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token sequences that complete the words at the start of a text and inside it.

    A word stands inside a text after a space, so it is encoded with one as well; that form counts
    where it is a word of its own, as in vLLM: of the same length, with another first token.

    Raises:
        InputError: A word without tokens.
    """
    sequences: list[tuple[int, ...]] = []
    for word in words:
        bare = tuple(tokenizer.encode(word.lstrip(), add_special_tokens=False))
        if not bare:
            raise InputError(f"bad_words: {word!r} has no tokens: leave it out")
        spaced = tuple(tokenizer.encode(" " + word.lstrip(), add_special_tokens=False))
        sequences.append(bare)
        if len(spaced) == len(bare) and spaced[0] != bare[0]:
            sequences.append(spaced)
    return tuple(sequences)
