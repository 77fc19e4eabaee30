"""The attention of a step: one call, whatever the batch holds.

Knows which kernel takes which rows; decides by host numbers only, so that a call can be captured in
a CUDA graph and replayed.
"""

from collections.abc import Callable
from typing import Any

import torch

from kernels.attention.config import MAX_VERIFY_LEN
from kernels.attention.decode import paged_decode
from kernels.attention.prefill import paged_prefill


def paged_attention(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    num_decode_rows: int,
    max_query_len: int,
    max_seq_len: int,
    scale: float,
    sliding_window: int = 0,
    softcap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    out: torch.Tensor | None = None,
    workspace: torch.Tensor | None = None,
    side_stream: torch.cuda.Stream | None = None,
) -> torch.Tensor:
    """Causal attention of every query token to its request's keys, itself included.

    q, out: [T, Hq, D]. k_cache, v_cache: [num_blocks, Hkv, block_size, D], of q's type or
    float8_e4m3fn (then times k_scale, v_scale). block_table: int32 [R, W]. seq_lens: int32 [R],
    keys incl. this step's; 0 marks a padded row, whose tokens get zeros. query_start_loc: int32
    [R + 1]. The first num_decode_rows rows have one query token each. sliding_window: keys attended
    incl. the token's own, 0 for all. workspace: see decode.workspace_size. Raises ValueError for
    shapes, types and layouts that the kernels do not take.

    Decode rows are split over their context; rows of a few tokens likewise if no row has more than
    MAX_VERIFY_LEN; every other batch sends its remaining rows through one prefill launch. With a
    side_stream the decode rows of a mixed batch run there, beside the prefill rows: one is bound by
    memory and the other by arithmetic, and a multiprocessor has room for a program of each.
    """
    out = torch.empty_like(q) if out is None else out
    options: dict[str, Any] = {
        "scale": scale,
        "sliding_window": sliding_window,
        "softcap": softcap,
        "k_scale": k_scale,
        "v_scale": v_scale,
    }
    num_rows, caches = seq_lens.shape[0], (k_cache, v_cache)
    is_short = max_query_len <= MAX_VERIFY_LEN
    num_split_rows = num_rows if is_short else num_decode_rows

    def decode() -> None:
        num_tokens = q.shape[0] if is_short else num_decode_rows
        paged_decode(
            q[:num_tokens],
            *caches,
            block_table[:num_split_rows],
            seq_lens[:num_split_rows],
            query_start_loc,
            max_query_len=1 if num_split_rows == num_decode_rows else max_query_len,
            max_seq_len=max_seq_len,
            out=out[:num_tokens],
            workspace=workspace,
            **options,
        )

    def prefill() -> None:
        table = (block_table, seq_lens, query_start_loc)
        paged_prefill(q, *caches, *table, first_row=num_split_rows, out=out, **options)

    if num_split_rows == num_rows:
        decode()
    elif num_split_rows == 0:
        prefill()
    else:
        _side_by_side(prefill, decode, side_stream)
    return out


def _side_by_side(
    first: Callable[[], None], second: Callable[[], None], side_stream: torch.cuda.Stream | None
) -> None:
    """Both, one after the other, or the second on the side stream between a fork and a join."""
    if side_stream is None:
        first()
        second()
        return
    current = torch.cuda.current_stream(side_stream.device)
    side_stream.wait_stream(current)
    # launched first, the large programs get their place on every multiprocessor
    first()
    with torch.cuda.stream(side_stream):
        second()
    current.wait_stream(side_stream)
