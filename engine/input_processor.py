"""From a prompt and its sampling parameters to a request, or to one clear error.

Everything that can be known to be wrong before a model runs is refused here. Knows vocabulary,
length and tokenizer; knows no scheduler, no device and no answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from typing import Any

import numpy as np

from engine.errors import InputError
from engine.grammars import Grammars
from engine.token_ids import first_outside, kinds_of
from engine.tokenizer import encode_bad_words, encode_text
from workbench.sampling_params import MAX_BAD_WORD_TOKENS, SamplingParams

Prompt = str | Sequence[int] | Mapping[str, Any]
"""Text, token ids, {"prompt": text}, {"prompt_token_ids": ids} or both together."""

PROMPT_KEYS = ("prompt", "prompt_token_ids")


@dataclass(frozen=True, slots=True)
class EosTokens:
    """The model's end-of-sequence tokens.

    Attributes:
        primary: The tokenizer's (without one, the config's first); its end has no stop_reason.
        others: Further ones of generation_config.json; they end an answer like stop_token_ids.
    """

    primary: int | None = None
    others: tuple[int, ...] = ()

    @property
    def all(self) -> tuple[int, ...]:
        """Every one of them."""
        return self.others if self.primary is None else (self.primary, *self.others)


@dataclass(frozen=True, slots=True)
class ProcessedInput:
    """A request, checked and tokenized.

    Attributes:
        prompt: The text, where there was one.
        prompt_token_ids: At least one and below the model's length.
        params: As the user gave them.
        device_params: For the model runner: n=1, with every stop token and bad words as ids.
        stop_token_ids: What ends an answer, end-of-sequence tokens included.
        eos_token_id: The one that ends without a stop_reason, or None.
        max_tokens: Most tokens of an answer, at least 1.
    """

    prompt: str | None
    prompt_token_ids: list[int]
    params: SamplingParams
    device_params: SamplingParams
    stop_token_ids: frozenset[int]
    eos_token_id: int | None
    max_tokens: int


class InputProcessor:
    """Checks and tokenizes.

    Args:
        vocab_size: Of the model.
        max_model_len: Most tokens of prompt and answer.
        tokenizer: Of transformers, or None.
        no_tokenizer_reason: Said where one is needed and there is none.
        eos: The model's end-of-sequence tokens.
        grammars_elsewhere: The core, in another process, compiles grammars; here they are not.

    Attributes:
        grammars: Of the answers' forms.
    """

    def __init__(
        self,
        vocab_size: int,
        max_model_len: int,
        tokenizer: Any = None,
        no_tokenizer_reason: str = "the engine has no tokenizer",
        eos: EosTokens = EosTokens(),
        grammars_elsewhere: bool = False,
    ) -> None:
        self._vocab_size = vocab_size
        self._max_model_len = max_model_len
        self.tokenizer = tokenizer
        self.no_tokenizer_reason = no_tokenizer_reason
        self._eos = eos
        self.grammars = Grammars(
            tokenizer, no_tokenizer_reason, vocab_size, eos.all, grammars_elsewhere
        )
        # Calls usually share one object for all prompts.
        self._last_params: tuple[SamplingParams, SamplingParams, frozenset[int]] | None = None

    def process(self, prompt: Prompt, params: SamplingParams) -> ProcessedInput:
        """Check and tokenize one request.

        Raises:
            InputError: In one line, with the cure.
        """
        if not isinstance(params, SamplingParams):
            raise InputError(f"sampling_params={params!r} must be a SamplingParams")
        text, token_ids = self._tokenize(prompt)
        token_ids = self._truncate(token_ids, params.truncate_prompt_tokens)
        self._check_prompt(token_ids)
        device_params, stop_token_ids = self._resolve(params)
        room = self._max_model_len - len(token_ids)
        return ProcessedInput(
            prompt=text,
            prompt_token_ids=token_ids,
            params=params,
            device_params=device_params,
            stop_token_ids=stop_token_ids,
            eos_token_id=None if params.ignore_eos else self._eos.primary,
            max_tokens=room if params.max_tokens is None else min(params.max_tokens, room),
        )

    def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text.

        Raises:
            InputError: There is no tokenizer, or it does not take the text.
        """
        if self.tokenizer is None:
            raise InputError(
                f"the prompt is text, and {self.no_tokenizer_reason}: pass "
                "{'prompt_token_ids': [...]} or a list of token ids"
            )
        return encode_text(self.tokenizer, text, "the prompt", add_special_tokens)

    def _tokenize(self, prompt: Prompt) -> tuple[str | None, list[int]]:
        if isinstance(prompt, str):
            return prompt, self.encode(prompt)
        if not isinstance(prompt, Mapping):
            return None, _as_token_ids(prompt)
        text, token_ids = prompt.get("prompt"), prompt.get("prompt_token_ids")
        unknown = [key for key in prompt if key not in PROMPT_KEYS]
        if unknown or (text is None and token_ids is None):
            raise InputError(
                f"a prompt with the keys {sorted(map(str, prompt))} is not understood: give it "
                "'prompt' (text) or 'prompt_token_ids'"
            )
        if text is not None and not isinstance(text, str):
            raise InputError(f"'prompt' is of type {type(text).__name__}: it must be text")
        if token_ids is not None:
            return text, _as_token_ids(token_ids)
        return text, self.encode(str(text))

    def _truncate(self, token_ids: list[int], limit: int | None) -> list[int]:
        if limit is None:
            return token_ids
        return token_ids[-(self._max_model_len - 1 if limit == -1 else limit) :]

    def _check_prompt(self, token_ids: list[int]) -> None:
        if not token_ids:
            raise InputError("the prompt is empty: it must have at least 1 token")
        if len(token_ids) >= self._max_model_len:
            raise InputError(
                f"the prompt has {len(token_ids)} tokens and max_model_len={self._max_model_len} "
                f"holds {self._max_model_len - 1} and one of the answer: shorten it, set "
                "truncate_prompt_tokens, or raise max_model_len"
            )
        self.check_vocabulary(token_ids, "the prompt has")

    def check_vocabulary(self, token_ids: Sequence[int], who: str) -> None:
        """Refuse token ids that are none of the model's.

        Args:
            token_ids: Integers.
            who: Begins the message, as in "the prompt has".

        Raises:
            InputError: Naming the first one.
        """
        wrong = first_outside(token_ids, self._vocab_size)
        if wrong is not None:
            raise InputError(
                f"{who} the token id {wrong}, outside the model's vocabulary of "
                f"{self._vocab_size}: use ids from 0 to {self._vocab_size - 1}"
            )

    def _resolve(self, params: SamplingParams) -> tuple[SamplingParams, frozenset[int]]:
        """Parameters as the device takes them, and all tokens that end an answer."""
        last = self._last_params
        if last is not None and last[0] is params:
            return last[1], last[2]
        self._check_params(params)
        own = tuple(params.stop_token_ids or ())
        every = (*own, *self._eos.all)
        words = tuple(params.bad_words or ())
        sequences = tuple(tuple(word) for word in params.bad_words_token_ids)
        if words:
            sequences += self._encode_bad_words(words)
        longest = max(map(len, sequences), default=0)
        if longest > MAX_BAD_WORD_TOKENS:
            raise InputError(
                f"a bad word has {longest} tokens, and at most {MAX_BAD_WORD_TOKENS} are compared: "
                "shorten it"
            )
        # Also where ignore_eos lets the answer go on: min_tokens keeps it from being sampled.
        device_params = replace(
            params, n=1, stop_token_ids=every, bad_words=(), bad_words_token_ids=sequences
        )
        stop_token_ids = frozenset(own if params.ignore_eos else every)
        self._last_params = (params, device_params, stop_token_ids)
        return device_params, stop_token_ids

    def _encode_bad_words(self, words: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        if self.tokenizer is None:
            raise InputError(
                f"bad_words={list(words)!r} are text, and {self.no_tokenizer_reason}: use "
                "bad_words_token_ids"
            )
        return encode_bad_words(self.tokenizer, words)

    def _check_params(self, params: SamplingParams) -> None:
        named: dict[str, Sequence[int]] = {
            "stop_token_ids": params.stop_token_ids or (),
            "logit_bias": tuple(params.logit_bias or ()),
            "allowed_token_ids": params.allowed_token_ids or (),
            "bad_words_token_ids": [i for word in params.bad_words_token_ids for i in word],
        }
        for name, token_ids in named.items():
            if max(token_ids, default=0) >= self._vocab_size:
                raise InputError(
                    f"{name} holds the token id {max(token_ids)}, outside the model's vocabulary "
                    f"of {self._vocab_size}: use ids from 0 to {self._vocab_size - 1}"
                )
        for name in ("logprobs", "prompt_logprobs"):
            count = getattr(params, name)
            if count is not None and count > self._vocab_size:
                raise InputError(
                    f"{name}={count} exceeds the model's vocabulary of {self._vocab_size}: lower "
                    "it, or use -1 for all of it"
                )
        if params.stop and self.tokenizer is None:
            raise InputError(
                f"stop={list(params.stop)!r} needs text, and {self.no_tokenizer_reason}: use "
                "stop_token_ids"
            )
        self.grammars.check(params)


def _as_token_ids(value: Any) -> list[int]:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise InputError(
            f"a prompt of type {type(value).__name__} is not understood: pass text, token ids, or "
            "a dict with 'prompt' or 'prompt_token_ids'"
        )
    if type(value) is list and kinds_of(value) == {int}:
        return value.copy()
    for item in value:
        if not isinstance(item, Integral) or isinstance(item, bool):
            raise InputError(
                f"the prompt holds {item!r} among its token ids: they must be integers"
            )
    return [int(item) for item in value]
