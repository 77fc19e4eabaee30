"""Log probabilities as OpenAI's two APIs show them: by column for completions, by token for chats.

Knows the forms; where the numbers come from, the engine knows.
"""

from collections.abc import Sequence
from typing import Any

from engine.outputs import Logprob, PositionLogprobs
from engine.server.token_facts import TokenFacts

LEAST = -9999.0
"""Stands for minus infinity, which JSON has not."""


class TokenTexts:
    """What tokens look like by themselves.

    Args:
        facts: Of their tokenizer.
        as_ids: Show them as "token_id:7".
    """

    def __init__(self, facts: TokenFacts, as_ids: bool = False) -> None:
        self._tokenizer = facts.tokenizer
        self._bytes_of = facts.bytes_of
        self._as_ids = as_ids

    def text(self, token_id: int, decoded: str | None = None) -> str:
        """The token as text; its number where there is no text."""
        if not self._as_ids:
            if decoded is not None:
                return decoded
            if self._tokenizer is not None:
                return str(self._tokenizer.decode([token_id]))
        return f"token_id:{token_id}"

    def entry(self, token_id: int, logprob: Logprob) -> dict[str, Any]:
        """A token of a chat: text, log probability and the bytes that it stands for."""
        text = self.text(token_id, logprob.decoded_token)
        return {
            "token": text,
            "logprob": finite(logprob.logprob),
            "bytes": list(self._bytes(token_id, logprob.decoded_token or text)),
        }

    def _bytes(self, token_id: int, text: str) -> bytes:
        # half a character has bytes of its own, and shows as U+FFFD
        if self._bytes_of is not None:
            return self._bytes_of(token_id)
        return text.encode("utf-8", "replace")


def finite(logprob: float) -> float:
    """A number that JSON can hold."""
    return logprob if logprob > LEAST else LEAST


class CompletionLogprobs:
    """Writes the columns of one answer, piece by piece; offsets count on from piece to piece.

    Args:
        texts: Of tokens.
    """

    def __init__(self, texts: TokenTexts) -> None:
        self._texts = texts
        self._offset = 0

    def write(
        self, token_ids: Sequence[int], positions: Sequence[PositionLogprobs | None]
    ) -> dict[str, Any]:
        """The columns of further tokens; a position without numbers has null."""
        columns: dict[str, list[Any]] = {
            "text_offset": [],
            "token_logprobs": [],
            "tokens": [],
            "top_logprobs": [],
        }
        for token_id, position in zip(token_ids, positions, strict=True):
            chosen = None if position is None else position.get(token_id)
            text = self._texts.text(token_id, None if chosen is None else chosen.decoded_token)
            columns["text_offset"].append(self._offset)
            columns["tokens"].append(text)
            columns["token_logprobs"].append(None if chosen is None else finite(chosen.logprob))
            columns["top_logprobs"].append(None if position is None else self._top(position))
            self._offset += len(text)
        return columns

    def _top(self, position: PositionLogprobs) -> dict[str, float]:
        top: dict[str, float] = {}
        for token_id, logprob in position.items():
            # tokens that look alike: the one that stands there, or the likelier one, is told
            top.setdefault(
                self._texts.text(token_id, logprob.decoded_token), finite(logprob.logprob)
            )
        return top


def chat_logprobs(
    token_ids: Sequence[int],
    positions: Sequence[PositionLogprobs],
    num_top: int,
    texts: TokenTexts,
) -> dict[str, Any]:
    """The tokens of a chat's answer, each with the `num_top` most likely ones in its place."""
    content = []
    for token_id, position in zip(token_ids, positions, strict=True):
        top = [
            texts.entry(each, logprob)
            for each, logprob in sorted(position.items(), key=lambda item: item[1].rank or 0)
            if num_top == -1 or (logprob.rank or 0) <= num_top
        ]
        content.append(texts.entry(token_id, position[token_id]) | {"top_logprobs": top})
    return {"content": content}


def prompt_logprobs_of(
    positions: Sequence[PositionLogprobs | None] | None,
) -> list[dict[str, dict[str, Any]] | None] | None:
    """The log probabilities of a prompt, in vLLM's form."""
    if positions is None:
        return None
    return [None if position is None else _by_id(position) for position in positions]


def _by_id(position: PositionLogprobs) -> dict[str, dict[str, Any]]:
    return {
        str(token_id): {
            "logprob": finite(logprob.logprob),
            "rank": logprob.rank,
            "decoded_token": logprob.decoded_token,
        }
        for token_id, logprob in position.items()
    }
