"""What the sampling kernels compute, in float64, slowly and plainly. The oracle of their tests.

Sorting, softmax over the whole vocabulary and one loop a row are allowed here.
"""

import math

import torch
from torch import Tensor

from kernels.sampling.noise import BLOCK_TOKENS, LANE_TOKENS, ROUNDS

MASK = 0xFFFFFFFF


def _multiply(factor: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of factor * x, for values below 2^32 held in int64."""
    low, high = factor * (x & 0xFFFF), factor * (x >> 16)
    return (high + (low >> 16)) >> 16, (low + ((high & 0xFFFF) << 16)) & MASK


def philox(key: tuple[int, int], counter: tuple[Tensor, ...], rounds: int) -> tuple[Tensor, ...]:
    """Philox 4x32: four words (int64 tensors with values below 2^32) of each counter."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = _multiply(0xD2511F53, c0)
        high1, low1 = _multiply(0xCD9E8D57, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def uniform(seed: int, position: int, vocab_size: int) -> Tensor:
    """Uniform variates of one draw, [vocab_size] float64 in (0, 1)."""
    token = torch.arange(vocab_size)
    block, rest = token // BLOCK_TOKENS.value, token % BLOCK_TOKENS.value
    counter = block * LANE_TOKENS.value + rest % LANE_TOKENS.value
    words = philox(
        (seed & MASK, (seed >> 32) & MASK),
        (
            counter,
            torch.full_like(token, position & MASK),
            torch.full_like(token, (position >> 32) & MASK),
            torch.zeros_like(token),
        ),
        ROUNDS.value,
    )
    lane = rest // LANE_TOKENS.value
    bits = torch.stack(words).gather(0, lane.unsqueeze(0)).squeeze(0)
    return (bits.double() + 0.5) / 2.0**32


def gumbel_noise(seed: int, position: int, vocab_size: int) -> Tensor:
    """Standard Gumbel variates of one draw, [vocab_size] float64."""
    return -torch.log(-torch.log1p(-uniform(seed, position, vocab_size)))


def is_valid(logits: Tensor) -> Tensor:
    """[N] bool: no NaN, no +inf, and something above -inf."""
    worst = logits.double().amax(dim=-1)  # NaN if there is one
    return torch.isfinite(worst)


def kept(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """[N, V] bool: what min_p, then top_k, then top_p leave of softmax(logits / temperature)."""
    rows = zip(logits.double(), temperature, top_k, top_p, min_p, strict=True)
    return torch.stack(
        [_kept_of_row(row, float(t), int(k), float(p), float(m)) for row, t, k, p, m in rows]
    )


def _kept_of_row(x: Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    everything = torch.ones_like(x, dtype=torch.bool)
    if not math.isfinite(x.max().item()):
        return everything
    if temperature == 0.0:
        return x == x.max()
    probabilities = torch.softmax(x / temperature, dim=-1)
    keep = everything
    if min_p > 0.0:
        keep = probabilities >= min_p * probabilities.max()
    if 0 < top_k < len(x):
        smallest = torch.where(keep, x, -torch.inf).topk(top_k).values[-1]
        keep = keep & (x >= smallest)
    if top_p < 1.0:
        mass = torch.where(keep, probabilities, 0.0)
        sorted_mass, order = mass.sort(descending=True, stable=True)
        before = (sorted_mass.cumsum(0) - sorted_mass) / sorted_mass.sum()
        last = order[before < top_p][-1]
        keep = keep & (x >= x[last])
    return keep


def top_k_top_p_mask(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """Logits in float64 with -inf where nothing is kept."""
    keep = kept(logits, temperature, top_k, top_p, min_p)
    return torch.where(keep, logits.double(), -torch.inf)


def gumbel_sample(
    logits: Tensor, temperature: Tensor, seeds: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Token ids [N] int64 and is_valid [N]; the token of a row that is not valid means nothing."""
    tokens = []
    for x, t, seed, position in zip(logits.double(), temperature, seeds, positions, strict=True):
        if float(t) > 0.0:
            x = x / t.double() + gumbel_noise(int(seed), int(position), len(x)).to(x.device)
        tokens.append(x.argmax())
    return torch.stack(tokens), is_valid(logits)


def top_k_top_p_sample(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> tuple[Tensor, Tensor]:
    """gumbel_sample over what is kept."""
    masked = top_k_top_p_mask(logits, temperature, top_k, top_p, min_p)
    return gumbel_sample(masked, temperature, seeds, positions)


def token_logprobs(
    logits: Tensor, token_ids: Tensor, num_top: int = 0
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-softmax of token_ids, their ranks, and the num_top best (values, tokens)."""
    logprobs = torch.log_softmax(logits.double(), dim=-1)
    chosen = logprobs.gather(1, token_ids.unsqueeze(1))
    x = logits.double()
    ranks = (x >= x.gather(1, token_ids.unsqueeze(1))).sum(dim=-1)
    tokens = x.sort(dim=-1, descending=True, stable=True).indices
    top = logprobs.gather(1, tokens[:, :num_top])
    return chosen.squeeze(1), ranks, top, tokens[:, :num_top]
