"""Tokenizers from disk, chat templates, and what is said where they are missing."""

import re
from pathlib import Path
from typing import Any

import pytest

from engine.errors import InputError, ModelLoadError
from engine.tokenizer import (
    apply_chat_template,
    encode_bad_words,
    flatten_content,
    has_tokenizer,
    load_tokenizer,
)
from tests.engine.checkpoints import make_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_tokenizer(make_tokenizer(tmp_path_factory.mktemp("tokenizer")))


def test_a_tokenizer_is_found_on_disk(tokenizer: Any) -> None:
    assert tokenizer.encode("hé", add_special_tokens=False) == list("hé".encode())


def test_a_folder_without_tokenizer_is_named(tmp_path: Path) -> None:
    assert not has_tokenizer(tmp_path)
    with pytest.raises(ModelLoadError, match="has no tokenizer") as caught:
        load_tokenizer(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "skip_tokenizer_init=True" in str(caught.value)


def test_a_broken_tokenizer_is_told_in_one_line(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{not json")
    with pytest.raises(ModelLoadError, match="cannot be read") as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_content_in_parts_becomes_text() -> None:
    parts = [{"type": "text", "text": "Hi"}, "you"]
    messages: list[Any] = [{"role": "user", "content": parts}, {"role": "tool", "content": None}]
    flat = flatten_content(messages)
    assert flat == [{"role": "user", "content": "Hi\nyou"}, {"role": "tool", "content": None}]
    for part, named in (
        ({"type": "image_url"}, "of type 'image_url'"),
        ({"type": "text"}, "{'type': 'text'}"),
        (5, "5"),
    ):
        with pytest.raises(InputError, match=f"a part {re.escape(named)} in a message's content"):
            flatten_content([{"role": "user", "content": [part]}])
    with pytest.raises(InputError, match="messages='hi' must be a list of dicts"):
        flatten_content("hi")


def test_a_conversation_becomes_a_prompt(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "hi"}]
    assert apply_chat_template(tokenizer, messages) == "<|bos|><|user|>hi<|eos|><|assistant|>"
    assert apply_chat_template(tokenizer, messages, add_generation_prompt=False).endswith("<|eos|>")
    own = "{% for message in messages %}[{{ message['content'] }}]{% endfor %}{{ mood }}"
    text = apply_chat_template(tokenizer, messages, chat_template=own, mood="!")
    assert text == "[hi]!"


def test_messages_that_are_none_are_refused(tokenizer: Any) -> None:
    for wrong in ("hi", {"content": "hi"}):
        messages: Any = [wrong]
        with pytest.raises(InputError, match="must be a dict with role and content"):
            apply_chat_template(tokenizer, messages)


def test_a_template_that_refuses_is_quoted(tokenizer: Any) -> None:
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InputError, match="roles must alternate"):
        apply_chat_template(tokenizer, [{"role": "user"}], chat_template=template)


def test_no_template_is_told() -> None:
    class Bare:
        chat_template = None

    with pytest.raises(InputError, match="no chat template: pass chat_template="):
        apply_chat_template(Bare(), [{"role": "user", "content": "hi"}])


def test_a_word_without_tokens_cannot_be_forbidden(tokenizer: Any) -> None:
    with pytest.raises(InputError, match="'  ' has no tokens"):
        encode_bad_words(tokenizer, ["  "])
    assert encode_bad_words(tokenizer, ["ab"]) == ((97, 98),)
