"""What sampling should do, in plain Python: one row, one token, one rule after the other."""

import math
from collections.abc import Sequence

import numpy as np

from workbench.sampling_params import SamplingParams

NEVER = float("-inf")


def edited(
    logits: Sequence[float],
    params: SamplingParams,
    prompt: Sequence[int],
    answer: Sequence[int],
) -> list[float]:
    """Logits after allowed tokens, bias, bad words, min_tokens and penalties."""
    x = list(logits)
    for token in range(len(x)):
        if params.allowed_token_ids is not None and token not in params.allowed_token_ids:
            x[token] = NEVER
        x[token] += (params.logit_bias or {}).get(token, 0.0)
        if len(answer) < params.min_tokens and token in (params.stop_token_ids or ()):
            x[token] = NEVER
        for word in params.bad_words_token_ids:
            before = list(word[:-1])
            if token == word[-1] and before == list(answer)[len(answer) - len(before) :]:
                x[token] = NEVER
        if token in prompt or token in answer:
            r = params.repetition_penalty
            x[token] = x[token] / r if x[token] > 0 else x[token] * r
        times = list(answer).count(token)
        x[token] -= params.frequency_penalty * times + params.presence_penalty * (times > 0)
    return x


def probabilities(logits: Sequence[float], params: SamplingParams) -> np.ndarray:
    """The law a token is drawn from, after temperature, min_p, top_k and top_p, in float64."""
    x = np.array(logits, dtype=np.float64) / params.temperature
    weights = np.exp(x - x.max())
    weights[weights < params.min_p] = 0.0
    if 0 < params.top_k < len(weights):
        weights[weights < sorted(weights)[-params.top_k]] = 0.0
    if params.top_p < 1.0:
        mass, total, last = 0.0, weights.sum(), math.inf
        for weight in sorted(weights, reverse=True):
            if mass < params.top_p * total:
                mass, last = mass + weight, weight
        weights[weights < last] = 0.0
    return np.asarray(weights / weights.sum())
