"""Draws tokens on the CPU: exactly, one row at a time, and whatever the other rows are.

argmax(w / e), e exponential noise, has the law w / sum(w): the Gumbel trick without logarithms
(Gumbel 1954; Maddison et al. 2014). It is played twice, first for a group of 64 tokens and then
within it, which needs a fiftieth of the noise. The noise depends on (seed, position) and on the
place in the vocabulary only, so logits that differ in the last bit draw the same token unless two
were as good as equal; a search in cumulated probabilities would not have that. Knows one row's
logits and settings; knows no request, no batch and no torch.
"""

import numpy as np

GROUP = 64
FEW = 512
SMALLEST_NOISE = 1e-300


def draw(
    logits: np.ndarray,
    temperature: float,
    top_k: int,
    top_p: float,
    min_p: float,
    seed: int,
    position: int,
) -> tuple[int, bool]:
    """One token of one row.

    Args:
        logits: [V] float32.
        temperature: Above 0.
        top_k, top_p, min_p: As in `smallest_kept`.
        seed: 64 bits, signed.
        position: Which draw of its request this is, 0 or more.

    Returns:
        The token, and whether the row is valid: it holds no NaN and no +inf, and something above
        -inf. The token of a row that is not valid means nothing.
    """
    largest = logits.max()
    if not np.isfinite(largest):
        return 0, False
    weights = np.exp((logits - largest) / np.float32(temperature))
    if top_k or top_p < 1.0 or min_p > 0.0:
        weights[weights < smallest_kept(weights, top_k, top_p, min_p)] = 0.0
    masses = np.add.reduceat(weights, np.arange(0, len(weights), GROUP))
    noise = exponential_noise(seed, position, GROUP + len(masses))
    start = GROUP * int(np.argmax(masses / noise[GROUP:]))
    group = weights[start : start + GROUP]
    return start + int(np.argmax(group / noise[: len(group)])), True


def smallest_kept(weights: np.ndarray, top_k: int, top_p: float, min_p: float) -> np.float32:
    """The smallest weight that the three rules keep; at least one token stays.

    One rule after the other, in vLLM's order: min_p keeps what weighs at least min_p times the
    largest; top_k keeps the k largest of these and every token equal to the k-th; top_p keeps the
    smallest set of these, largest first, with at least top_p of what the others left, and every
    token equal to its last.

    Args:
        weights: [V] float32, proportional to probabilities, the largest of them 1.
        top_k: 0: off. top_p: 1: off. min_p: 0: off.
    """
    smallest = np.float32(min_p)
    if 0 < top_k < len(weights):
        split = len(weights) - top_k
        smallest = max(smallest, np.partition(weights, split)[split])
    if top_p < 1.0:
        smallest = _nucleus(weights[weights >= smallest] if smallest > 0 else weights, top_p)
    return np.float32(smallest)


def _nucleus(weights: np.ndarray, top_p: float) -> np.float32:
    """The smallest weight of the smallest set, largest first, with at least top_p of all."""
    needed = top_p * float(weights.sum())
    for size in (FEW, len(weights)):
        split = max(len(weights) - size, 0)
        # most texts need few of the tokens, and only these are put in order
        largest = np.sort(np.partition(weights, split)[split:])[::-1].astype(np.float64)
        mass = np.cumsum(largest)
        if mass[-1] >= needed:
            return np.float32(largest[np.searchsorted(mass, needed)])
    # the two sums round differently
    return np.float32(largest[-1])


def exponential_noise(seed: int, position: int, size: int) -> np.ndarray:
    """Standard exponential variates of one draw, [size] float64, above 0.

    Philox counts instead of keeping a state (Salmon et al., SC 2011): the position is its counter's
    third word, so the draws of a request never overlap.
    """
    generator = np.random.Philox(key=seed % 2**64, counter=np.array([0, 0, position, 0], "u8"))
    noise = np.random.Generator(generator).standard_exponential(size)
    return np.maximum(noise, SMALLEST_NOISE, out=noise)
