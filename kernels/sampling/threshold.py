"""The smallest logit that top-k, top-p and min-p keep, found without sorting.

Knows which sets the rules ask for and how to read little of a row. The maxima of groups of 128
tokens are themselves a row, and its threshold bounds the wanted one from below: only groups that
reach it are read again (about k of them for top-k). If they are many, a few passes narrow the
interval, the logits in it are copied out, and the search ends among these. How an interval is
narrowed is search.py's matter; nothing is known of noise.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.sampling.group_stats import GROUP
from kernels.sampling.search import collect, measure, search, to_float, to_key
from kernels.target import Target, target_of


@triton.jit
def _name_groups(maxima, num_groups, low, group_ids_ptr, GROUPS: tl.constexpr):
    """Write the ids of the groups whose maximum reaches low; their number. Ends with a barrier."""
    group = tl.arange(0, GROUPS)
    keep = (maxima >= low) & (group < num_groups)
    tl.store(group_ids_ptr + tl.cumsum(keep.to(tl.int32), 0) - 1, group, mask=keep)
    tl.debug_barrier()
    return tl.sum(keep.to(tl.int32), 0)


@triton.jit
def _lower_bound(
    maxima,
    max_row_ptr,
    num_groups,
    scale,
    largest,
    low,
    need_count,
    need_mass,
    TOP_TILE: tl.constexpr,
):
    """A logit that the threshold reaches: the threshold of the row of group maxima, or low.

    What the maxima alone have in number and mass at or above t, the whole row has too.
    """
    heavy = maxima >= low
    count = tl.sum(heavy.to(tl.int32), 0)
    mass = tl.sum(tl.where(heavy, tl.exp((maxima - largest) * scale), 0.0), 0)
    if (count > need_count) & (mass >= need_mass):
        low_key, _n, _m, _high, _hn, _hm = search(
            max_row_ptr,
            max_row_ptr,
            tl.cdiv(num_groups, GROUP),
            num_groups,
            scale,
            largest,
            to_key(low),
            count,
            mass,
            to_key(largest) + 1,
            count * 0,
            mass * 0.0,
            need_count,
            need_mass,
            1,
            TOP_TILE,
            True,
        )
        low = to_float(low_key)
    return low


@triton.jit
def _narrow(
    row_ptr,
    group_ids_ptr,
    num_ids,
    found_ptr,
    vocab_size,
    scale,
    largest,
    key,
    count,
    mass,
    need_count,
    need_mass,
    TILE: tl.constexpr,
    FOUND: tl.constexpr,
):
    """The largest threshold with need_count and need_mass, and its count and mass.

    A long list of groups is searched until few logits are left, then these alone.
    """
    enough = tl.where(num_ids > 2 * TILE, FOUND, 1)
    key, count, mass, high, high_count, high_mass = search(
        row_ptr,
        group_ids_ptr,
        num_ids,
        vocab_size,
        scale,
        largest,
        key,
        count,
        mass,
        to_key(largest) + 1,
        count * 0,
        mass * 0.0,
        need_count,
        need_mass,
        enough,
        TILE,
        False,
    )
    if (high - key > 1) & (count - high_count > 1) & (count > need_count):
        num_found = collect(
            row_ptr,
            group_ids_ptr,
            num_ids,
            vocab_size,
            to_float(key),
            to_float(high),
            found_ptr,
            TILE,
        )
        key, count, mass, _high, _hn, _hm = search(
            found_ptr,
            found_ptr,
            tl.cdiv(num_found, GROUP),
            num_found,
            scale,
            largest,
            key,
            count - high_count,
            mass - high_mass,
            high,
            count * 0,
            mass * 0.0,
            need_count - high_count,
            need_mass - high_mass,
            1,
            TILE,
            True,
        )
        count, mass = count + high_count, mass + high_mass
    return key, count, mass


@triton.jit
def _threshold_of_row(
    row_ptr,
    maxima,
    max_row_ptr,
    group_ids_ptr,
    found_ptr,
    vocab_size,
    num_groups,
    scale,
    largest,
    total,
    floor,
    top_k,
    top_p,
    by_count,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
    TOP_TILE: tl.constexpr,
    FOUND: tl.constexpr,
):
    """Threshold of one row for which top-k or top-p is on. floor: the threshold of min-p."""
    by_mass_only = (by_count == 0) & (floor == -float("inf"))
    # all tokens below this logit together weigh less than 1 - top_p
    light = tl.log((1.0 - top_p) * total / vocab_size) - 1e-3
    low = tl.where(by_mass_only, largest + tl.minimum(light, 0.0) / scale, floor)
    if by_count | by_mass_only:
        low = _lower_bound(
            maxima,
            max_row_ptr,
            num_groups,
            scale,
            largest,
            low,
            tl.where(by_count, top_k, 1),
            tl.where(by_count, 0.0, top_p * total),
            TOP_TILE,
        )
    num_ids = _name_groups(maxima, num_groups, low, group_ids_ptr, GROUPS)
    key = to_key(low)
    # with top-p alone all is known of a set that has enough: how many it has does not matter
    count, mass = vocab_size, total
    if by_mass_only == 0:
        count, _n1, _n2, mass, _m1, _m2 = measure(
            row_ptr, group_ids_ptr, num_ids, vocab_size, scale, largest, low, low, low, TILE, False
        )
    for phase in range(2):
        counting = phase == 0
        if tl.where(counting, by_count & (count > top_k), top_p < 1.0):
            key, count, mass = _narrow(
                row_ptr,
                group_ids_ptr,
                num_ids,
                found_ptr,
                vocab_size,
                scale,
                largest,
                key,
                count,
                mass,
                tl.where(counting, top_k, 1),
                tl.where(counting, 0.0, top_p * mass),
                TILE,
                FOUND,
            )
    return to_float(key)


@triton.jit
def _threshold_kernel(
    logits_ptr,
    row_stride,
    group_max_ptr,
    group_sum_ptr,
    temperature_ptr,
    top_k_ptr,
    top_p_ptr,
    min_p_ptr,
    group_ids_ptr,
    found_ptr,
    threshold_ptr,
    vocab_size,
    num_groups,
    GROUPS: tl.constexpr,
    TILE: tl.constexpr,
    TOP_TILE: tl.constexpr,
    FOUND: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    temperature = tl.load(temperature_ptr + row).to(tl.float32)
    top_k = tl.load(top_k_ptr + row).to(tl.int32)
    top_p = tl.load(top_p_ptr + row).to(tl.float32)
    min_p = tl.load(min_p_ptr + row).to(tl.float32)
    max_row_ptr = group_max_ptr + row * num_groups
    group = tl.arange(0, GROUPS)
    inside = group < num_groups
    maxima = tl.load(max_row_ptr + group, mask=inside, other=-float("inf"))
    largest = tl.max(tl.where(maxima != maxima, -float("inf"), maxima), 0)
    nan = tl.max((maxima != maxima).to(tl.int32), 0) > 0
    usable = (nan == 0) & (largest > -float("inf")) & (largest < float("inf"))
    by_count = (top_k > 0) & (top_k < vocab_size)
    threshold = largest
    if usable == 0:
        threshold = tl.full([], -float("inf"), tl.float32)
    elif temperature != 0.0:
        floor = tl.minimum(largest + temperature * tl.log(min_p), largest)
        threshold = tl.where(min_p > 0.0, floor, -float("inf"))
        if by_count | (top_p < 1.0):
            scale = 1.0 / temperature
            sums = tl.load(group_sum_ptr + row * num_groups + group, mask=inside, other=0.0)
            threshold = _threshold_of_row(
                logits_ptr + row * row_stride,
                maxima,
                max_row_ptr,
                group_ids_ptr + row * num_groups,
                found_ptr + row * FOUND,
                vocab_size,
                num_groups,
                scale,
                largest,
                tl.sum(sums * tl.exp((maxima - largest) * scale), 0),
                threshold,
                top_k,
                top_p,
                by_count,
                GROUPS,
                TILE,
                TOP_TILE,
                FOUND,
            )
    tl.store(threshold_ptr + row, threshold)


def find_thresholds(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    group_max: Tensor,
    group_sum: Tensor,
) -> Tensor:
    """The smallest kept logit of each row; see `top_k_top_p` for what is kept.

    Args:
        logits: [N, V]; temperature, top_p, min_p: [N] float32; top_k: [N] int32.
        group_max, group_sum: [N, ceil(V / 128)] from `group_stats(logits, temperature)`.

    Returns:
        [N] float32: -inf where everything is kept or the row is not valid, the largest logit
        where the temperature is 0.
    """
    num_rows, vocab_size = logits.shape
    thresholds = torch.empty(num_rows, dtype=torch.float32, device=logits.device)
    if num_rows == 0:
        return thresholds
    config = launch_config(group_max.shape[1], target_of(logits.device))
    group_ids = torch.empty(group_max.shape, dtype=torch.int32, device=logits.device)
    found = torch.empty(num_rows, config["FOUND"], dtype=torch.float32, device=logits.device)
    _threshold_kernel[(num_rows,)](
        logits,
        logits.stride(0),
        group_max,
        group_sum,
        temperature,
        top_k,
        top_p,
        min_p,
        group_ids,
        found,
        thresholds,
        vocab_size,
        group_max.shape[1],
        **config,
    )
    return thresholds


def launch_config(num_groups: int, target: Target) -> dict[str, int]:
    """Tile sizes in groups, and 256 threads: more than 16 groups a tile spill registers."""
    return {
        "GROUPS": triton.next_power_of_2(num_groups),
        "TILE": min(16, triton.next_power_of_2(num_groups)),
        "TOP_TILE": min(16, triton.next_power_of_2(triton.cdiv(num_groups, GROUP.value))),
        "FOUND": 8192,
        "num_warps": 4 if target.backend == "hip" else 8,
    }
