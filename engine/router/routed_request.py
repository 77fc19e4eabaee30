"""A request as the routing policies see it, read from an HTTP body without a tokenizer.

Token ids are taken as they are; text and chats are measured in bytes. Keys of blocks are hashed
when a policy asks for them. A body that cannot be read is routed like an empty one: the backend
says what is wrong with it.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

import msgspec

from engine.router.settings import PromptSettings
from workbench.kv_cache.block_hash import TokenBlockHashes

MAX_TOKEN_ID = (1 << 31) - 1
MAX_COUNTED_TOKENS = 1 << 40
MAX_SESSION_CHARACTERS = 512
MODELS = "/v1/models/"
GENERATING = ("completions", "responses", "messages")


class Envelope(msgspec.Struct, rename={"prompt_input": "input"}):
    """What is read of a body. Types are not checked here: that is the backend's business."""

    model: Any = None
    prompt: Any = None
    messages: Any = None
    prompt_input: Any = None
    tools: Any = None
    max_tokens: Any = None
    max_completion_tokens: Any = None
    max_output_tokens: Any = None
    n: Any = None
    user: Any = None
    prompt_cache_key: Any = None
    cache_salt: Any = None


_DECODER = msgspec.json.Decoder(Envelope)


def read_envelope(body: bytes) -> Envelope:
    """The fields of a JSON object; an empty envelope if the body is none."""
    try:
        return _DECODER.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return Envelope()


class RoutedHTTPRequest:
    """One request on its way (RoutedRequest of `workbench/router.py`).

    Args:
        request_id: Of the client, or made up.
        client_id: Whose turn it is in the queue.
        path: Of the URL.
        session_id: From a header; the body's `prompt_cache_key` and `user` come after it.
    """

    def __init__(
        self,
        request_id: str,
        client_id: str,
        path: str,
        envelope: Envelope,
        settings: PromptSettings,
        session_id: str | None = None,
    ) -> None:
        self.request_id = request_id
        self.client_id = client_id
        self.session_id = _readable(session_id) or _session(envelope)
        self.model = envelope.model if isinstance(envelope.model, str) else _model_in(path)
        self.is_generating = path.rstrip("/").rpartition("/")[2] in GENERATING
        self._envelope = envelope
        self._settings = settings
        self._prompts = list(_prompts(envelope))

    @cached_property
    def num_prompt_tokens(self) -> int:
        """Exact for token ids, from the length of text otherwise."""
        return sum(self._num_tokens(prompt) for prompt in self._prompts)

    @cached_property
    def num_tokens(self) -> int:
        """Tokens that it may need at most, prompt and answers."""
        if not self.is_generating:
            return self.num_prompt_tokens
        body = self._envelope
        limits = (body.max_completion_tokens, body.max_tokens, body.max_output_tokens)
        most = next((n for n in limits if _is_count(n)), self._settings.default_max_tokens)
        choices = body.n if _is_count(body.n) else 1
        answers = most * max(1, choices) * max(1, len(self._prompts))
        return min(self.num_prompt_tokens + answers, MAX_COUNTED_TOKENS)

    @cached_property
    def block_hashes(self) -> Sequence[Hashable]:
        """Chained keys of the full blocks of its first prompt; none if it fills no KV cache."""
        if not self.is_generating or not self._prompts:
            return ()
        prompt, settings = self._prompts[0], self._settings
        # other models and other salts share no KV
        salt = repr((type(prompt).__name__, self.model, self._envelope.cache_salt))
        salted = salt.encode(errors="backslashreplace")
        most = settings.memory_blocks  # further keys would be remembered nowhere
        if isinstance(prompt, list):
            known = prompt[: most * settings.block_size]
            return TokenBlockHashes(known, [], settings.block_size, salt=salted).prompt()
        size = int(settings.block_size * settings.bytes_per_token)
        return _keys_of_bytes(prompt[: most * size], size, salted)

    @property
    def known_hashes(self) -> Sequence[Hashable]:
        """The keys if a policy has asked for them."""
        known: Sequence[Hashable] = self.__dict__.get("block_hashes", ())
        return known

    def _num_tokens(self, prompt: bytes | list[int]) -> int:
        if isinstance(prompt, list):
            return len(prompt)
        return int(len(prompt) / self._settings.bytes_per_token)


def _model_in(path: str) -> str | None:
    """The model that `GET /v1/models/NAME` asks about."""
    return path.removeprefix(MODELS) or None if path.startswith(MODELS) else None


def _keys_of_bytes(text: bytes, size: int, salt: bytes) -> list[bytes]:
    """Key i is the digest of all bytes up to the end of piece i."""
    digest = blake2b(salt, digest_size=16)
    keys = []
    for start in range(0, len(text) - size + 1, size):
        digest.update(text[start : start + size])
        keys.append(digest.digest())
    return keys


def _prompts(body: Envelope) -> Iterator[bytes | list[int]]:
    """Text as UTF-8, token ids as they are; what is neither is left out."""
    if isinstance(body.messages, list):
        yield _chat(body.tools, body.messages)
        return
    prompt = body.prompt if body.prompt is not None else body.prompt_input
    if isinstance(prompt, str):
        yield prompt.encode(errors="replace")
    elif _are_token_ids(prompt):
        yield prompt
    elif isinstance(prompt, list) and all(isinstance(item, Mapping) for item in prompt):
        yield _chat(body.tools, prompt)  # the messages of /v1/responses
    elif isinstance(prompt, list):
        for item in prompt:
            if isinstance(item, str):
                yield item.encode(errors="replace")
            elif _are_token_ids(item):
                yield item


def _chat(tools: Any, messages: list[Any]) -> bytes:
    """A chat as bytes that begin like those of the same chat some turns earlier."""
    parts = [tools, *messages] if tools else messages
    # no bracket around them: the longer chat must begin with the shorter one
    return b"\n".join(msgspec.json.encode(part, order="sorted") for part in parts)


def _are_token_ids(value: Any) -> bool:
    # no loop in Python: a prompt of millions would hold everybody's requests back
    return (
        isinstance(value, list)
        and set(map(type, value)) == {int}
        and min(value) >= 0
        and max(value) <= MAX_TOKEN_ID
    )


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _session(body: Envelope) -> str | None:
    for value in (body.prompt_cache_key, body.user):
        if isinstance(value, str) and value:
            return _readable(value)
    return None


def _readable(text: str | None) -> str | None:
    """Of bounded length, and free of what cannot be encoded again."""
    if not text:
        return None
    return text[:MAX_SESSION_CHARACTERS].encode(errors="replace").decode()
