"""Routing: the best experts of each token and their weights.

Softmax over all experts, then the k largest, then normalised or not, as Mixtral (always) and
Qwen3-MoE (`norm_topk_prob`) do. Knows nothing of where tokens go next.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _route_kernel(
    logits_ptr,
    row_stride,
    weight_ptr,
    expert_ptr,
    num_tokens,
    NUM_EXPERTS: tl.constexpr,
    TOP: tl.constexpr,
    NORMALIZE: tl.constexpr,
    EXPERTS: tl.constexpr,
    TOPS: tl.constexpr,
    TOKENS: tl.constexpr,
):
    token = tl.program_id(0) * TOKENS + tl.arange(0, TOKENS)
    expert = tl.arange(0, EXPERTS)
    choice = tl.arange(0, TOPS)
    inside = (token[:, None] < num_tokens) & (expert[None, :] < NUM_EXPERTS)
    at = token[:, None].to(tl.int64) * row_stride + expert[None, :]
    x = tl.load(logits_ptr + at, mask=inside, other=-float("inf")).to(tl.float32)
    largest = tl.max(x, 1)
    # rows of the padding hold nothing but -inf
    shift = tl.where(token < num_tokens, largest, 0.0)
    total = tl.where(token < num_tokens, tl.sum(tl.exp(x - shift[:, None]), 1), 1.0)
    left = x
    weights = tl.zeros([TOKENS, TOPS], tl.float32)
    experts = tl.zeros([TOKENS, TOPS], tl.int32)
    for i in range(TOP):
        best = tl.max(left, 1)
        # of equal experts the lower number; EXPERTS - 1 where nothing is equal (NaN)
        found = (left == best[:, None]) & (expert[None, :] < NUM_EXPERTS)
        winner = tl.min(tl.where(found, expert[None, :], NUM_EXPERTS - 1), 1)
        weight = tl.exp(best - shift) / total
        weights = tl.where(choice[None, :] == i, weight[:, None], weights)
        experts = tl.where(choice[None, :] == i, winner[:, None], experts)
        left = tl.where(expert[None, :] == winner[:, None], -float("inf"), left)
    if NORMALIZE:
        chosen = tl.where(token < num_tokens, tl.sum(weights, 1), 1.0)
        weights = weights / chosen[:, None]
    to = token[:, None].to(tl.int64) * TOP + choice[None, :]
    kept = (token[:, None] < num_tokens) & (choice[None, :] < TOP)
    tl.store(weight_ptr + to, weights, mask=kept)
    tl.store(expert_ptr + to, experts, mask=kept)


def launch_config(num_experts: int) -> dict[str, int]:
    """Tokens a program, and warps: 16 logits a thread."""
    experts = triton.next_power_of_2(num_experts)
    return {"EXPERTS": experts, "TOKENS": max(1, 1024 // experts), "num_warps": 2}


def route(router_logits: Tensor, experts_per_token: int, normalize: bool) -> tuple[Tensor, Tensor]:
    """The most probable experts of each token and their weights.

    Args:
        router_logits: [T, num_experts] float32, bfloat16 or float16; rows may be strided.
        experts_per_token: k, at most num_experts.
        normalize: whether the k weights are scaled to sum to 1.

    Returns:
        Weights [T, k] float32 (softmax over all experts, computed in float32) and expert ids
        [T, k] int32, best first, of equal logits the lower expert first.
    """
    num_tokens, num_experts = router_logits.shape
    if not 1 <= experts_per_token <= num_experts:
        raise ValueError(f"experts_per_token={experts_per_token} is outside [1, {num_experts}]")
    if router_logits.stride(1) != 1:
        raise ValueError(
            f"router_logits have stride {router_logits.stride(1)} between experts, must be 1: "
            "call .contiguous()"
        )
    shape, device = (num_tokens, experts_per_token), router_logits.device
    weights = torch.empty(shape, dtype=torch.float32, device=device)
    expert_ids = torch.empty(shape, dtype=torch.int32, device=device)
    if num_tokens == 0:
        return weights, expert_ids
    config = launch_config(num_experts)
    _route_kernel[(triton.cdiv(num_tokens, config["TOKENS"]),)](
        router_logits,
        router_logits.stride(0),
        weights,
        expert_ids,
        num_tokens,
        NUM_EXPERTS=num_experts,
        TOP=experts_per_token,
        NORMALIZE=normalize,
        TOPS=triton.next_power_of_2(experts_per_token),
        **config,
    )
    return weights, expert_ids
