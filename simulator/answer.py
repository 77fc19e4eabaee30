"""One answer of a simulated model: its tokens in order, and when it ends by itself.

Knows one request's parameters and its random stream. It knows no batch, no time and no text.
"""

from array import array
from collections.abc import Iterator, Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from simulator.vocabulary import Vocabulary
from workbench.outputs import NewRequestData
from workbench.sampling_params import MAX_LOGIT_BIAS, SamplingParams

Ids = NDArray[np.int64]
Bitmask = NDArray[np.int32]

OPEN_ENDED_TOKENS = 256.0
TOKENS_A_DRAW = 64
CLOSING_SHARE = 0.25
GREEDY = 1e-5
_PLAIN = SamplingParams()


class Answer:
    """The answer to one request.

    Args:
        new: The request, as it joins a batch for the first time.
        vocabulary: What may be said.
        spoken: [n] the ids of the vocabulary that answers are made of.
        seed: Of requests that bring none.
        mean_tokens: See DrawnTokens.

    Attributes:
        next_token: Gives the next token where no grammar has a say; raises StopIteration where no
            token may be drawn at all.
        params: The request's.
        prompt: Its prompt; empty where its tokens are not known.
        num_computed: Tokens of the prompt that were computed.
    """

    __slots__ = (
        "_choices",
        "_end",
        "_eos_token_id",
        "_position",
        "_random",
        "_vocab_size",
        "next_token",
        "num_computed",
        "params",
        "prompt",
    )

    def __init__(
        self,
        new: NewRequestData,
        vocabulary: Vocabulary,
        spoken: Ids,
        seed: int,
        mean_tokens: float | None,
    ) -> None:
        self.params = new.sampling_params or _PLAIN
        self.prompt: Sequence[int] = new.prompt_token_ids or ()
        self.num_computed = new.num_computed_tokens
        self._random = np.random.default_rng(_entropy(new, self.params, self.prompt, seed))
        self._choices = _choices(self.params, vocabulary, spoken)
        self._eos_token_id = vocabulary.eos_token_id
        self._vocab_size = vocabulary.size
        self._end = self._draw_end(mean_tokens)
        self._position = 0
        self.next_token = self._tokens().__next__

    def _draw_end(self, mean_tokens: float | None) -> float:
        """Place of the token that ends the answer."""
        params = self.params
        if mean_tokens is None and params.max_tokens is None:
            mean_tokens = OPEN_ENDED_TOKENS
        if mean_tokens is None or params.ignore_eos or self._eos_token_id is None:
            return np.inf
        drawn = int(self._random.geometric(1.0 / mean_tokens)) - 1
        return max(drawn, params.min_tokens)

    def _tokens(self) -> Iterator[int]:
        choices = self._choices
        while len(choices):
            places = self._random.integers(len(choices), size=TOKENS_A_DRAW)
            for token_id in choices[places].tolist():
                eos = self._eos_token_id if self._position >= self._end else None
                self._position += 1
                yield token_id if eos is None else eos

    def token_of(self, bitmask: Bitmask, closing: Ids) -> int | None:
        """The next token under a grammar; None: it leaves none.

        A grammar that has come to its end is ended, and one that could come closer to it does so
        now and then.

        Args:
            bitmask: [ceil(size / 32)] a bit a token, the lowest first; 1 is allowed.
            closing: [m] see Vocabulary.
        """
        self._position += 1
        is_over = self._position > self.params.min_tokens
        if self._eos_token_id is not None and is_over and _allows(bitmask, self._eos_token_id):
            return self._eos_token_id
        for choices, share in ((closing, CLOSING_SHARE), (self._choices, 1.0)):
            allowed = choices[_allowed(bitmask, choices)]
            if len(allowed) and (share == 1.0 or self._random.random() < share):
                return self._one_of(allowed)
        bits = np.unpackbits(bitmask.view(np.uint8), bitorder="little")
        allowed = np.flatnonzero(bits[: self._vocab_size])
        return self._one_of(allowed) if len(allowed) else None

    def _one_of(self, token_ids: Ids) -> int:
        return int(token_ids[self._random.integers(len(token_ids))])


def _allowed(bitmask: Bitmask, token_ids: Ids) -> NDArray[np.bool_]:
    """[m] whether the mask has each token."""
    bits = (bitmask[token_ids >> 5] >> (token_ids & 31).astype(np.int32)) & 1
    allowed: NDArray[np.bool_] = bits.astype(bool)
    return allowed


def _allows(bitmask: Bitmask, token_id: int) -> bool:
    return bool(int(bitmask[token_id >> 5]) >> (token_id & 31) & 1)


def _entropy(
    new: NewRequestData, params: SamplingParams, prompt: Sequence[int], seed: int
) -> list[int]:
    """What the random stream is made of: on a real engine, too, a seed stands for the same answer
    to the same prompt, and so does a temperature of 0."""
    if params.seed is None and params.temperature >= GREEDY:
        return [seed, crc32(new.request_id.encode("utf-8", "surrogatepass"))]
    told = 0 if params.temperature < GREEDY else abs(int(params.seed or 0)) + 1
    return [told, crc32(array("q", prompt).tobytes())]


def _choices(params: SamplingParams, vocabulary: Vocabulary, spoken: Ids) -> Ids:
    """[k] ids that the request may draw."""
    if params.allowed_token_ids is not None:
        spoken = np.array(params.allowed_token_ids, dtype=np.int64)
    if not params.logit_bias:
        return spoken
    biases = params.logit_bias
    forced = [i for i, bias in biases.items() if bias >= MAX_LOGIT_BIAS and i < vocabulary.size]
    if forced:
        return np.array(forced, dtype=np.int64)
    forbidden = [i for i, bias in biases.items() if bias <= -MAX_LOGIT_BIAS]
    return spoken[~np.isin(spoken, forbidden)]
