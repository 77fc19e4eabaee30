"""Launch configurations of the attention kernels: plain functions of what a launch looks like.

Knows tile sizes, warps, stages and the number of splits; no tensor. The numbers for sm_90 come from
what the compiler reports (registers, spills, shared memory, wgmma; see tests/kernels/attention).
"""

from dataclasses import dataclass

from kernels.target import INTERPRETER, Target

MAX_VERIFY_LEN = 8
"""Most query tokens a request that the decode kernel takes."""

MAX_SPLITS = 32
MIN_SPLIT_TOKENS = 256
PROGRAMS_PER_SM = 8


@dataclass(frozen=True)
class LaunchConfig:
    """block_m: query rows (tokens times heads of a group) and block_n: keys of one tile."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


def next_power_of_2(n: int) -> int:
    """The smallest power of two that is at least n (n >= 1)."""
    return 1 << (n - 1).bit_length()


def decode_config(head_dim: int, element_size: int, num_rows: int, target: Target) -> LaunchConfig:
    """`num_rows`: query tokens of a request times heads of a group; at least 16 for the MMA."""
    block_m = min(64, max(16, next_power_of_2(num_rows)))
    if target.backend == INTERPRETER:
        return LaunchConfig(16, 16, 4, 1)
    # tiles of K and V of 16 KiB each in two buffers: three programs fit on a multiprocessor, with
    # some 96 KiB in flight: several times what hides the latency of device memory
    row_bytes = next_power_of_2(head_dim) * element_size
    block_n = max(32, min(128, 16384 // row_bytes))
    if target.backend == "hip":
        return LaunchConfig(block_m, min(block_n, 32), 4, 2)
    return LaunchConfig(block_m, block_n, 4, 3)


def prefill_config(head_dim: int, element_size: int, group: int, target: Target) -> LaunchConfig:
    """Tiles of a chunk of a prompt; wgmma needs 64 rows a group of four warps."""
    padded, rows = next_power_of_2(head_dim), next_power_of_2(group)
    if target.backend == INTERPRETER:
        return LaunchConfig(max(16, rows), 16, 4, 1)
    if element_size == 4:
        return LaunchConfig(max(32, rows), 32, 4, 2 if target.backend == "cuda" else 1)
    if target.backend == "hip":
        return LaunchConfig(max(128 if padded <= 128 else 64, rows), 32, 8, 1)
    if not target.has_large_shared_memory:
        narrow = LaunchConfig(max(128, rows), 32, 8, 3)
        return narrow if padded <= 128 else LaunchConfig(max(64, rows), 32, 8, 2)
    if padded <= 128:
        return LaunchConfig(max(128, rows), 64, 8, 3)
    return LaunchConfig(max(128, rows), 32, 8, 2)


def choose_num_splits(num_programs: int, max_seq_len: int, num_sms: int) -> int:
    """Into how many parts each context is cut, from host numbers only.

    num_programs: programs of an unsplit launch (requests x KV heads). The same for every replay of
    a CUDA graph, since none of the arguments changes; shorter contexts use fewer parts on the
    device. As many as keep PROGRAMS_PER_SM programs on each multiprocessor, none shorter than
    MIN_SPLIT_TOKENS.
    """
    wanted = -(-PROGRAMS_PER_SM * num_sms // max(1, num_programs))
    useful = -(-max_seq_len // MIN_SPLIT_TOKENS)
    return max(1, min(wanted, useful, MAX_SPLITS))
