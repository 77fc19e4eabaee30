"""Random numbers of a draw: one exponential variate for each token of the vocabulary.

Knows how (seed, position, token) becomes noise, and nothing of logits. The generator is Philox
4x32 with 7 rounds (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011: the
fewest that pass BigCrush). It counts instead of keeping a state, so noise does not depend on the
batch or on how the vocabulary is cut into programs. One call serves four tokens that lie
`LANE_TOKENS` apart: every lane then reads logits that are contiguous, and nothing is shuffled.
"""

import triton
import triton.language as tl

ROUNDS = tl.constexpr(7)
LANE_TOKENS = tl.constexpr(1024)
BLOCK_TOKENS = tl.constexpr(4096)


@triton.jit
def random_bits(seed, position, block, lane_offset):
    """Four tensors of random uint32: one for each lane of vocabulary block `block`.

    seed, position: int64 scalars. lane_offset: int32 tensor with values in [0, LANE_TOKENS).
    Lane j belongs to the tokens block * BLOCK_TOKENS + j * LANE_TOKENS + lane_offset.
    """
    counter = block * LANE_TOKENS + lane_offset
    zero = counter * 0
    low = zero + (position & 0xFFFFFFFF).to(tl.int32)
    high = zero + (position >> 32).to(tl.int32)
    return tl.philox(seed, counter, low, high, zero, ROUNDS)


@triton.jit
def exponential(bits):
    """Exponential variates (mean 1) from random uint32, relative error below 1e-5.

    -log(1 - u) with u = (bits + 0.5) / 2^32. The smallest variates decide who wins, so near 0 the
    series is taken in u itself, not in 1 - u, which has lost most digits of it: variates reach
    down to 2^-33. A logarithm that is right to the last digit would cost twice as much as this
    polynomial (minimax of log(1 + f) / f for |f| <= 1/3) and the law would not show it.
    """
    u = (bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10
    rest = 1.0 - tl.minimum(u, 0.99999994)
    # rest = 2^exponent * (1 + f)
    as_int = rest.to(tl.int32, bitcast=True)
    exponent = (as_int - 0x3F2AAAAB) & -0x800000
    f = (as_int - exponent).to(tl.float32, bitcast=True) - 1.0
    f = tl.where(exponent == 0, -u, f)
    series = -0.1934983 * f + 0.22646548
    series = series * f - 0.2484969
    series = series * f + 0.332192
    series = series * f - 0.5000202
    series = series * f + 1.0000072
    # log(2) / 2^23: the exponent still stands at its place in the float
    return exponent.to(tl.float32) * -8.262958294867817e-08 - f * series
