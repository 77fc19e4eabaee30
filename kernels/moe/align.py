"""Alignment: pairs of token and expert in the order of experts, for grouped matrix products.

A counting sort in three launches: pairs are counted in chunks (each walked in steps), counts
become places, and every pair goes to its place. It is stable, uses no atomics (so that it gives
the same order every time) and never waits for the device. Knows nothing of weights.
"""

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

MAX_CHUNKS = 256


@dataclass(frozen=True, slots=True)
class ExpertOrder:
    """Pairs token · k + choice in the order of their experts. P = T · k pairs, E experts.

    order [S] int32: the pair at each place; P (no pair) where an expert's places are padded and
        behind the last. S = P without padding, else the most that padding can need.
    places [P] int32: where each pair is in `order`.
    counts [E] int32: pairs of each expert.
    ends [E] int32: where each expert's places end, padding included: the `offs` of
        torch's grouped_mm.
    """

    order: Tensor
    places: Tensor
    counts: Tensor
    ends: Tensor

    def block_experts(self, block_size: int) -> Tensor:
        """[S / block_size] int32: the expert of each block of places; E behind the last."""
        starts = torch.arange(0, len(self.order), block_size, device=self.order.device)
        return torch.searchsorted(self.ends, starts.to(torch.int32), right=True, out_int32=True)


@triton.jit
def _one_hot(expert_ids_ptr, step, num_pairs, PAIRS: tl.constexpr, EXPERTS: tl.constexpr):
    pair = step * PAIRS + tl.arange(0, PAIRS)
    mine = tl.load(expert_ids_ptr + pair, mask=pair < num_pairs, other=-1).to(tl.int32)
    return pair, (mine[:, None] == tl.arange(0, EXPERTS)[None, :]).to(tl.int32)


@triton.jit
def _count_kernel(
    expert_ids_ptr,
    chunk_count_ptr,
    num_pairs,
    steps,
    NUM_EXPERTS: tl.constexpr,
    PAIRS: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    chunk = tl.program_id(0)
    expert = tl.arange(0, EXPERTS)
    count = tl.zeros([EXPERTS], tl.int32)
    for step in range(steps):
        _pair, hot = _one_hot(expert_ids_ptr, chunk * steps + step, num_pairs, PAIRS, EXPERTS)
        count += tl.sum(hot, 0)
    to = chunk_count_ptr + chunk * NUM_EXPERTS + expert
    tl.store(to, count, mask=expert < NUM_EXPERTS)


@triton.jit
def _place_kernel(
    chunk_count_ptr,
    chunk_start_ptr,
    count_ptr,
    end_ptr,
    num_chunks,
    PAD: tl.constexpr,
    NUM_EXPERTS: tl.constexpr,
    EXPERTS: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """Where the pairs of each chunk and expert start, and where each expert ends. One program."""
    expert = tl.arange(0, EXPERTS)
    total = tl.zeros([EXPERTS], tl.int32)
    for first in range(0, num_chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        at = chunk[:, None] * NUM_EXPERTS + expert[None, :]
        inside = (chunk[:, None] < num_chunks) & (expert[None, :] < NUM_EXPERTS)
        total += tl.sum(tl.load(chunk_count_ptr + at, mask=inside, other=0), 0)
    ends = tl.cumsum((total + PAD - 1) // PAD * PAD, 0)
    tl.store(count_ptr + expert, total, mask=expert < NUM_EXPERTS)
    tl.store(end_ptr + expert, ends, mask=expert < NUM_EXPERTS)
    start = ends - (total + PAD - 1) // PAD * PAD
    for first in range(0, num_chunks, CHUNKS):
        chunk = first + tl.arange(0, CHUNKS)
        at = chunk[:, None] * NUM_EXPERTS + expert[None, :]
        inside = (chunk[:, None] < num_chunks) & (expert[None, :] < NUM_EXPERTS)
        counts = tl.load(chunk_count_ptr + at, mask=inside, other=0)
        tl.store(chunk_start_ptr + at, start[None, :] + tl.cumsum(counts, 0) - counts, mask=inside)
        start += tl.sum(counts, 0)


@triton.jit
def _order_kernel(
    expert_ids_ptr,
    chunk_start_ptr,
    order_ptr,
    place_ptr,
    num_pairs,
    steps,
    NUM_EXPERTS: tl.constexpr,
    PAIRS: tl.constexpr,
    EXPERTS: tl.constexpr,
):
    chunk = tl.program_id(0)
    expert = tl.arange(0, EXPERTS)
    at = chunk_start_ptr + chunk * NUM_EXPERTS + expert
    start = tl.load(at, mask=expert < NUM_EXPERTS, other=0)
    for step in range(steps):
        pair, hot = _one_hot(expert_ids_ptr, chunk * steps + step, num_pairs, PAIRS, EXPERTS)
        # start plus the pairs before this one, in this step, that have its expert
        place = tl.sum(hot * (start[None, :] + tl.cumsum(hot, 0) - 1), 1)
        tl.store(place_ptr + pair, place, mask=pair < num_pairs)
        tl.store(order_ptr + place, pair, mask=pair < num_pairs)
        start += tl.sum(hot, 0)


def launch_config(num_experts: int) -> dict[str, int]:
    """Pairs a chunk and warps: 32 elements of the one-hot tile a thread."""
    experts = triton.next_power_of_2(num_experts)
    return {"EXPERTS": experts, "PAIRS": max(16, min(512, 8192 // experts)), "num_warps": 8}


def align(expert_ids: Tensor, num_experts: int, block_size: int = 1) -> ExpertOrder:
    """Order pairs of token and expert by expert, tokens of one expert in their own order.

    Args:
        expert_ids: [T, k] int32 or int64, in [0, num_experts).
        num_experts: E.
        block_size: every expert's places start at a multiple of this and are padded to one.
    """
    flat = expert_ids.reshape(-1)
    num_pairs, device = flat.numel(), flat.device
    size = num_pairs
    if block_size > 1:
        size = triton.cdiv(num_pairs + num_experts * (block_size - 1), block_size) * block_size
    order = torch.empty(size, dtype=torch.int32, device=device)
    if block_size > 1:
        order.fill_(num_pairs)
    places = torch.empty(num_pairs, dtype=torch.int32, device=device)
    counts = torch.empty(num_experts, dtype=torch.int32, device=device)
    ends = torch.empty_like(counts)
    if num_pairs == 0:
        return ExpertOrder(order, places, counts.zero_(), ends.zero_())
    config = launch_config(num_experts)
    # one program joins the chunks: more of them than this would make it the slowest part
    steps = triton.cdiv(num_pairs, MAX_CHUNKS * config["PAIRS"])
    num_chunks = triton.cdiv(num_pairs, steps * config["PAIRS"])
    chunk_counts = torch.empty(num_chunks, num_experts, dtype=torch.int32, device=device)
    chunk_starts = torch.empty_like(chunk_counts)
    sizes = {"NUM_EXPERTS": num_experts, **config}
    _count_kernel[(num_chunks,)](flat, chunk_counts, num_pairs, steps, **sizes)
    _place_kernel[(1,)](
        chunk_counts,
        chunk_starts,
        counts,
        ends,
        num_chunks,
        PAD=block_size,
        NUM_EXPERTS=num_experts,
        EXPERTS=config["EXPERTS"],
        CHUNKS=min(triton.next_power_of_2(num_chunks), max(1, 8192 // config["EXPERTS"])),
        num_warps=8,
    )
    _order_kernel[(num_chunks,)](flat, chunk_starts, order, places, num_pairs, steps, **sizes)
    return ExpertOrder(order, places, counts, ends)
