"""Causal attention of chunks of prompts over a paged KV cache, any mix of lengths in one launch.

Knows how prefill_kernel is launched: on a grid that needs an upper bound only, so that the host
never waits for the device. Source of such a grid: vLLM's Triton backend (arXiv 2511.11581).
"""

import torch

from kernels.attention.arguments import (
    check_shape,
    constants_of,
    score_factors,
    strides_of,
)
from kernels.attention.config import LaunchConfig, prefill_config
from kernels.attention.prefill_kernel import prefill_kernel
from kernels.target import target_of


def paged_prefill(
    q: torch.Tensor,
    k_cache: torch.Tensor,
    v_cache: torch.Tensor,
    block_table: torch.Tensor,
    seq_lens: torch.Tensor,
    query_start_loc: torch.Tensor,
    *,
    scale: float,
    first_row: int = 0,
    sliding_window: int = 0,
    softcap: float = 0.0,
    k_scale: float = 1.0,
    v_scale: float = 1.0,
    causal: bool = True,
    out: torch.Tensor | None = None,
    lse: torch.Tensor | None = None,
    config: LaunchConfig | None = None,
) -> torch.Tensor:
    """Attention of the query tokens of rows [first_row, R), any number a row, decodes included.

    q, out: [T, Hq, D]; the query tokens of a row are the last of its seq_lens keys. Rows before
    first_row have one query token each and are left alone. causal=False: every query token sees all
    keys of its row (a prefix shared by a batch, merged later with merge_states). lse: float32
    [T, Hq], receives log(sum(exp(scores))), -inf without keys.
    """
    if sliding_window and not causal:
        raise ValueError(f"sliding_window {sliding_window} needs causal attention")
    target = target_of(q.device)
    shape = check_shape(q, k_cache, v_cache, block_table, seq_lens, target)
    config = config or prefill_config(shape.head_dim, shape.element_size, shape.group, target)
    if shape.group > config.block_m:
        raise ValueError(f"{shape.group} query heads a KV head exceed block_m {config.block_m}")
    multiplier, pre_tanh = score_factors(scale, softcap, k_scale)
    out = torch.empty_like(q) if out is None else out
    num_rows = shape.num_rows - first_row
    block_q = config.block_m // shape.group
    num_blocks = (shape.num_tokens - first_row) // block_q + num_rows
    prefill_kernel[(num_blocks, shape.num_kv_heads)](
        q,
        k_cache,
        v_cache,
        block_table,
        seq_lens,
        query_start_loc,
        out,
        lse,
        first_row,
        shape.num_rows,
        multiplier,
        pre_tanh,
        v_scale,
        sliding_window,
        *strides_of(q, k_cache, v_cache, block_table, out),
        IS_CAUSAL=causal,
        **constants_of(shape, config, q, k_cache, lse, sliding_window, softcap),
    )
    return out
