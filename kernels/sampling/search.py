"""Search for a threshold among logits, without sorting them.

Knows that a set {x >= t} is described by how many logits it has and what they weigh, and that
both shrink as t grows: the largest t with enough of both is found by cutting an interval in four.
The interval is one of integers that order float32, so the search ends at neighbouring floats at
the latest. Only device functions; knows nothing of top-k, top-p or where the logits come from.
"""

import triton
import triton.language as tl

from kernels.sampling.group_stats import GROUP

ARITHMETIC_STEPS = tl.constexpr(8)
STAGES = tl.constexpr(3)


@triton.jit
def to_key(x):
    """Integers in the order of float32 values."""
    bits = x.to(tl.int32, bitcast=True)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.int64)


@triton.jit
def to_float(key):
    bits = key.to(tl.int32)
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def measure(
    row_ptr,
    group_ids_ptr,
    num_ids,
    length,
    scale,
    largest,
    p0,
    p1,
    p2,
    TILE: tl.constexpr,
    ALL: tl.constexpr,
):
    """Number of elements and exp((x - largest) * scale) mass at or above three pivots.

    Looks at the groups named in group_ids, or at all of them.
    """
    zeros = tl.zeros([TILE, GROUP], tl.int32)
    n0, n1, n2 = zeros, zeros, zeros
    none = tl.zeros([TILE, GROUP], tl.float32)
    m0, m1, m2 = none, none, none
    for start in tl.range(0, num_ids, TILE, num_stages=STAGES):
        slot = start + tl.arange(0, TILE)
        group = slot
        if not ALL:
            group = tl.load(group_ids_ptr + slot, mask=slot < num_ids, other=0)
        at = group[:, None] * GROUP + tl.arange(0, GROUP)[None, :]
        inside = (slot[:, None] < num_ids) & (at < length)
        x = tl.load(row_ptr + at, mask=inside, other=-float("inf")).to(tl.float32)
        mass = tl.exp((x - largest) * scale)
        k0, k1, k2 = inside & (x >= p0), inside & (x >= p1), inside & (x >= p2)
        n0 += k0.to(tl.int32)
        n1 += k1.to(tl.int32)
        n2 += k2.to(tl.int32)
        m0 += tl.where(k0, mass, 0.0)
        m1 += tl.where(k1, mass, 0.0)
        m2 += tl.where(k2, mass, 0.0)
    return (
        tl.sum(tl.sum(n0, 1), 0),
        tl.sum(tl.sum(n1, 1), 0),
        tl.sum(tl.sum(n2, 1), 0),
        tl.sum(tl.sum(m0, 1), 0),
        tl.sum(tl.sum(m1, 1), 0),
        tl.sum(tl.sum(m2, 1), 0),
    )


@triton.jit
def _pivots(low, high, step):
    """Three ascending keys in [low, high), all above low unless high is near.

    First by value, which suits logits; then by key, which bounds the number of steps.
    """
    width = high - low
    bottom, top = to_float(low), to_float(high - 1)
    quarter = (top - bottom) * 0.25
    v0, v1, v2 = (
        to_key(bottom + quarter),
        to_key(bottom + quarter * 2.0),
        to_key(bottom + quarter * 3.0),
    )
    by_value = (step < ARITHMETIC_STEPS) & (v0 > low) & (v1 >= v0) & (v2 >= v1) & (v2 < high)
    return (
        tl.where(by_value, v0, low + width // 4),
        tl.where(by_value, v1, low + width // 2),
        tl.where(by_value, v2, low + (width * 3) // 4),
    )


@triton.jit
def search(
    row_ptr,
    group_ids_ptr,
    num_ids,
    length,
    scale,
    largest,
    low,
    low_count,
    low_mass,
    high,
    high_count,
    high_mass,
    need_count,
    need_mass,
    enough,
    TILE: tl.constexpr,
    ALL: tl.constexpr,
):
    """Narrow [low, high), which holds the largest t whose set has need_count and need_mass.

    low and high are keys. The set of low has both, that of high lacks one. Ends when no more than
    `enough` elements are in the interval (with 1, low names the smallest set; it need not be an
    element), when low's set cannot be smaller, or when low and high are neighbours.
    """
    step = 0
    while (high - low > 1) & (low_count - high_count > enough) & (low_count > need_count):
        q0, q1, q2 = _pivots(low, high, step)
        n0, n1, n2, m0, m1, m2 = measure(
            row_ptr,
            group_ids_ptr,
            num_ids,
            length,
            scale,
            largest,
            to_float(q0),
            to_float(q1),
            to_float(q2),
            TILE,
            ALL,
        )
        ok0 = (n0 >= need_count) & (m0 >= need_mass)
        ok1 = (n1 >= need_count) & (m1 >= need_mass)
        ok2 = (n2 >= need_count) & (m2 >= need_mass)
        # the lowest pivot that fails, then the highest that does not
        high_count = tl.where(ok0, tl.where(ok1, tl.where(ok2, high_count, n2), n1), n0)
        high_mass = tl.where(ok0, tl.where(ok1, tl.where(ok2, high_mass, m2), m1), m0)
        high = tl.where(ok0, tl.where(ok1, tl.where(ok2, high, q2), q1), q0)
        low_count = tl.where(ok2, n2, tl.where(ok1, n1, tl.where(ok0, n0, low_count)))
        low_mass = tl.where(ok2, m2, tl.where(ok1, m1, tl.where(ok0, m0, low_mass)))
        low = tl.where(ok2, q2, tl.where(ok1, q1, tl.where(ok0, q0, low)))
        step += 1
    return low, low_count, low_mass, high, high_count, high_mass


@triton.jit
def collect(row_ptr, group_ids_ptr, num_ids, length, low, high, found_ptr, TILE: tl.constexpr):
    """Write the elements in [low, high) of the named groups to found, in any order; their number.

    Ends with a barrier: other threads read what one wrote.
    """
    count = num_ids * 0
    for start in tl.range(0, num_ids, TILE):
        place = tl.arange(0, TILE * GROUP)
        slot = start + place // GROUP
        group = tl.load(group_ids_ptr + slot, mask=slot < num_ids, other=0)
        at = group * GROUP + place % GROUP
        inside = (slot < num_ids) & (at < length)
        x = tl.load(row_ptr + at, mask=inside, other=-float("inf")).to(tl.float32)
        keep = inside & (x >= low) & (x < high)
        tl.store(found_ptr + count + tl.cumsum(keep.to(tl.int32), 0) - 1, x, mask=keep)
        count += tl.sum(keep.to(tl.int32), 0)
    tl.debug_barrier()
    return count
