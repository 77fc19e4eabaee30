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
        InputError: No template, one that refuses these messages, or content that is not text.
    """
    if chat_template is None and not getattr(tokenizer, "chat_template", None):
        raise InputError(
            "the tokenizer has no chat template: pass chat_template=, or use generate() with the "
            "prompt as the model expects it"
        )
    flat = flatten_content(messages)
    try:
        text = tokenizer.apply_chat_template(
            flat,
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


def encode_text(tokenizer: Any, text: str, name: str, add_special_tokens: bool) -> list[int]:
    """Token ids of a text that a user calls `name`.

    Raises:
        InputError: The tokenizer does not take it.
    """
    try:
        # the other lists that a tokenizer makes would take their time, too
        encoded = tokenizer.encode(
            text,
            add_special_tokens=add_special_tokens,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,
        )
        return list(encoded)
    except Exception as error:
        alone = next((c for c in text if "\ud800" <= c <= "\udfff"), None)
        if alone is not None:
            raise InputError(
                f"{name} holds {alone!r}, half of a surrogate pair, which is no character: read "
                "text as UTF-8, or bytes with errors='replace'"
            ) from error
        reason = f"{type(error).__name__}: {error}".partition("\n")[0][:300]
        raise InputError(f"the tokenizer refuses {name} ({reason}): pass token ids") from error


def flatten_content(messages: Messages) -> list[dict[str, Any]]:
    """Messages whose content is text; OpenAI's lists of text parts are joined by newlines.

    Raises:
        InputError: A part that is no text, by its type; or what is no list of messages.
    """
    if isinstance(messages, str) or not isinstance(messages, Sequence):
        raise InputError(
            f"messages={messages!r} must be a list of dicts with role and content, as in "
            "[{'role': 'user', 'content': 'Hello'}]"
        )
    flat = []
    for message in messages:
        if not isinstance(message, Mapping) or "role" not in message:
            raise InputError(
                f"message {message!r} must be a dict with role and content, as in "
                "{'role': 'user', 'content': 'Hello'}"
            )
        content = message.get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            flat.append({**message, "content": "\n".join(map(_text_of_part, content))})
        else:
            flat.append(dict(message))
    return flat


def _text_of_part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else None
    text = part.get("text") if kind == "text" else None
    if not isinstance(text, str):
        named = f"of type {kind!r}" if kind not in (None, "text") else repr(part)
        raise InputError(
            f"a part {named} in a message's content is not supported: only text is, as in "
            "{'type': 'text', 'text': 'Hello'}"
        )
    return text


def encode_bad_words(tokenizer: Any, words: Iterable[str]) -> tuple[tuple[int, ...], ...]:
    """Token sequences that complete the words at the start of a text and inside it.

    A word stands inside a text after a space, so it is encoded with one as well; that form counts
    where it is a word of its own, as in vLLM: of the same length, with another first token.

    Raises:
        InputError: A word without tokens.
    """
    sequences: list[tuple[int, ...]] = []
    for word in words:
        bare = tuple(encode_text(tokenizer, word.lstrip(), "bad_words", False))
        if not bare:
            raise InputError(f"bad_words: {word!r} has no tokens: leave it out")
        spaced = tuple(encode_text(tokenizer, " " + word.lstrip(), "bad_words", False))
        sequences.append(bare)
        if len(spaced) == len(bare) and spaced[0] != bare[0]:
            sequences.append(spaced)
    return tuple(sequences)
