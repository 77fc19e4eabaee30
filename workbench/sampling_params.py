"""How the next token of a request is chosen, when the request stops, and what is told of it.

Names and meanings follow vLLM's SamplingParams. This file checks values one by one; it samples
nothing and knows neither vocabulary nor tokenizer (who does must check token ids).
"""

import difflib
import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any

from workbench.errors import ConfigError
from workbench.structured_outputs_params import StructuredOutputsParams, structured_outputs

MAX_LOGIT_BIAS = 100.0
MAX_BAD_WORD_TOKENS = 64
"""Longest bad word that an engine compares with the end of an answer, tokens."""
SEED_BITS = 64


class RequestOutputKind(enum.Enum):
    """What the engine hands out while a request runs."""

    CUMULATIVE = 0
    """Everything so far, after every step."""
    DELTA = 1
    """What is new, after every step."""
    FINAL_ONLY = 2
    """Everything, once, at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """Sampling settings of one request.

    They never change, so one object may serve many requests; `clone` makes one that differs.

    Attributes:
        n: Number of answers to one prompt.
        temperature: Softmax temperature; 0 (or less than 1e-5) means greedy.
        top_p: Smallest probability mass kept, in (0, 1].
        top_k: Number of most likely tokens kept; 0 or -1 keeps all.
        min_p: Smallest kept probability relative to the most likely token, in [0, 1].
        presence_penalty, frequency_penalty: Additive penalties in [-2, 2] on tokens of the answer
            (OpenAI's definition).
        repetition_penalty: Multiplicative penalty > 0 on tokens of prompt and answer (Keskar et
            al., CTRL, 2019).
        seed: Seed of this request's own random stream; answer i of n takes seed + i. -1 is None:
            derived from the engine's seed and the request's id.
        stop: Strings that end the answer; one string or several, kept as a tuple.
        stop_token_ids: Token ids that end the answer.
        include_stop_str_in_output: Keep the stop string, or the text of the stop token, in the
            text.
        ignore_eos: Go on after the end-of-sequence token.
        max_tokens: Largest number of output tokens; None: up to the model's length.
        min_tokens: Number of output tokens before the answer may stop in another way.
        logprobs, prompt_logprobs: Number of most likely tokens whose log probabilities are
            returned per position, beside the token that stands there; -1: the whole vocabulary.
        logit_bias: Added to the logits, per token id, each in [-100, 100].
        bad_words: Words that are never completed, in any place of a sentence.
        bad_words_token_ids: The same as token sequences; what an engine makes of `bad_words`.
        allowed_token_ids: The only token ids allowed; None: all.
        detokenize: Return text.
        skip_special_tokens, spaces_between_special_tokens: How special tokens show in the text.
        output_kind: What is handed out while the request runs (LLM.generate: the end only).
        truncate_prompt_tokens: Keep that many last tokens of the prompt; -1: as many as leave room
            for one output token; None: refuse prompts that are too long.
        structured_outputs: The form that the answer must have, or the fields of one in a dict.
    """

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: str | Sequence[str] | None = ()
    stop_token_ids: Sequence[int] | None = ()
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    logit_bias: Mapping[int, float] | None = field(default_factory=dict)
    bad_words: str | Sequence[str] | None = ()
    bad_words_token_ids: Sequence[Sequence[int]] = ()
    allowed_token_ids: Sequence[int] | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    output_kind: RequestOutputKind = RequestOutputKind.CUMULATIVE
    truncate_prompt_tokens: int | None = None
    structured_outputs: StructuredOutputsParams | None = None

    def __post_init__(self) -> None:
        self._normalize()
        self._check_distribution()
        self._check_lengths()
        self._check_tokens()

    def clone(self, **changes: Any) -> "SamplingParams":
        """A copy; with changes, one that differs in these fields.

        Raises:
            ConfigError: A value is out of range, or there is no field of that name.
        """
        unknown = [name for name in changes if name not in self.__dataclass_fields__]
        if unknown:
            near = difflib.get_close_matches(unknown[0], self.__dataclass_fields__, n=1)
            hint = f"did you mean {near[0]}?" if near else "see SamplingParams for the names"
            raise ConfigError(f"SamplingParams has no field {unknown[0]}: {hint}")
        return replace(self, **changes)

    def _normalize(self) -> None:
        """Give every setting its one form."""
        for name in ("stop", "bad_words"):
            self._set(name, _strings(name, getattr(self, name)))
        self._set("stop_token_ids", _token_ids("stop_token_ids", self.stop_token_ids))
        if self.allowed_token_ids is not None:
            ids = _token_ids("allowed_token_ids", self.allowed_token_ids)
            self._set("allowed_token_ids", ids)
        words = _items("bad_words_token_ids", self.bad_words_token_ids)
        self._set(
            "bad_words_token_ids", tuple(_token_ids("bad_words_token_ids", word) for word in words)
        )
        self._set("logit_bias", _biases(self.logit_bias))
        self._set("structured_outputs", structured_outputs(self.structured_outputs))
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is True:
                self._set(name, 1)
        if self.seed == -1:
            self._set("seed", None)

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _check_distribution(self) -> None:
        self._check("temperature", 0.0, math.inf, "0 (greedy) or more, and finite", float)
        self._check("top_p", 0.0, 1.0, "in (0, 1]", float)
        _require("top_p", self.top_p, self.top_p > 0, "in (0, 1]")
        self._check("top_k", -1, math.inf, "-1, 0 (off) or more")
        self._check("min_p", 0.0, 1.0, "in [0, 1]", float)
        self._check("presence_penalty", -2.0, 2.0, "in [-2, 2]", float)
        self._check("frequency_penalty", -2.0, 2.0, "in [-2, 2]", float)
        self._check("repetition_penalty", 0.0, math.inf, "above 0 and finite", float)
        _require(
            "repetition_penalty", self.repetition_penalty, self.repetition_penalty > 0, "above 0"
        )
        if self.seed is not None:
            limit = f"a whole number of at most {SEED_BITS} bits"
            self._check("seed", -(2 ** (SEED_BITS - 1)), 2**SEED_BITS - 1, limit)

    def _check_lengths(self) -> None:
        self._check("n", 1, math.inf, "at least 1")
        most = math.inf if self.max_tokens is None else self.max_tokens
        if self.max_tokens is not None:
            self._check("max_tokens", 1, math.inf, "at least 1")
        limit = f"between 0 and max_tokens={self.max_tokens}"
        self._check("min_tokens", 0, most, limit if self.max_tokens else "at least 0")
        for name in ("logprobs", "prompt_logprobs"):
            if getattr(self, name) is not None:
                self._check(name, -1, math.inf, "-1 (the whole vocabulary), 0 or more")
        if self.truncate_prompt_tokens is not None:
            limit = "-1 (the model's length) or at least 1"
            self._check("truncate_prompt_tokens", -1, math.inf, limit)
            _require("truncate_prompt_tokens", 0, self.truncate_prompt_tokens != 0, limit)

    def _check_tokens(self) -> None:
        if self.allowed_token_ids is not None:
            _require("allowed_token_ids", [], bool(self.allowed_token_ids), "non-empty or None")
        if not all(self.bad_words_token_ids):
            raise ConfigError("bad_words_token_ids holds an empty sequence: leave it out")
        if self.stop and not self.detokenize:
            raise ConfigError(
                f"stop={list(self.stop)!r} needs text and detokenize=False gives none: set it to "
                "True, or use stop_token_ids"
            )
        _require(
            "output_kind",
            self.output_kind,
            isinstance(self.output_kind, RequestOutputKind),
            "a RequestOutputKind",
        )

    def _check(
        self, name: str, low: float, high: float, limit: str, kind: type[float] = int
    ) -> None:
        value = getattr(self, name)
        ok = isinstance(value, Integral if kind is int else Real) and not isinstance(value, bool)
        _require(name, value, ok and math.isfinite(value) and low <= value <= high, limit)


def _require(name: str, value: object, ok: bool, limit: str) -> None:
    if not ok:
        shown = value if isinstance(value, Real) else repr(value)
        raise ConfigError(f"{name}={shown} must be {limit}")


def _items(name: str, value: Any) -> tuple[Any, ...]:
    """The items of a sequence of any kind; none of None."""
    if value is None:
        return ()
    try:
        return tuple(value)
    except TypeError:
        raise ConfigError(f"{name}={value!r} must be a sequence") from None


def _strings(name: str, value: Any) -> tuple[str, ...]:
    strings = (value,) if isinstance(value, str) else tuple(dict.fromkeys(_items(name, value)))
    for string in strings:
        _require(name, string, isinstance(string, str) and bool(string), "non-empty strings")
    return strings


def _token_ids(name: str, value: Any) -> tuple[int, ...]:
    items = _items(name, value)
    for token_id in items:
        ok = (
            isinstance(token_id, Integral) and not isinstance(token_id, bool) and int(token_id) >= 0
        )
        _require(name, token_id, ok, "token ids: whole numbers, 0 or more")
    token_ids = tuple(int(token_id) for token_id in items)
    # a sequence of tokens that is a word may repeat one
    return token_ids if name == "bad_words_token_ids" else tuple(dict.fromkeys(token_ids))


def _biases(value: Any) -> dict[int, float]:
    if not isinstance(value, Mapping | None):
        raise ConfigError(f"logit_bias={value!r} must be a dict of token ids and biases")
    biases: dict[int, float] = {}
    for key, bias in (value or {}).items():
        try:
            token_id = int(key)
        except (TypeError, ValueError):
            token_id = -1
        if token_id < 0:
            raise ConfigError(f"logit_bias has the key {key!r}: keys must be token ids, 0 or more")
        ok = isinstance(bias, Real) and abs(float(bias)) <= MAX_LOGIT_BIAS
        limit = f"in [{-MAX_LOGIT_BIAS:g}, {MAX_LOGIT_BIAS:g}]"
        _require(f"logit_bias[{token_id}]", bias, ok, limit)
        biases[token_id] = float(bias)
    return biases
