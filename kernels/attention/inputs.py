"""Inputs of the attention operations, and what they cost.

Knows how a paged cache is filled for a test: pages in random order, NaN in every slot that no
request owns, the null block 0 included.
"""

import torch

from kernels.op import Case, Inputs

NO_PAGE = 2**31 - 1


def make_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    """Arguments of `paged_attention` and, less num_decode_rows, of the kernels alone.

    case.shape: query_lens and seq_lens (one number a row, query_lens 1 by default), num_heads,
    num_kv_heads, head_dim, block_size; optional sliding_window, softcap, kv ("fp8" for a float8
    cache), num_decode_rows, and is_contiguous_too (rows of one length: k and v [R, Hkv, N, D] are
    added for peers that read no pages).
    """
    seq_lens = list(case["seq_lens"])
    query_lens = list(case.get("query_lens", [1] * len(seq_lens)))
    block_size, head_dim = case["block_size"], case["head_dim"]
    table, num_blocks = _block_table(seq_lens, block_size, device, generator)
    if case.get("sliding_window"):
        _drop_pages_before_window(table, seq_lens, query_lens, block_size, case["sliding_window"])
    cache = (num_blocks, case["num_kv_heads"], block_size, head_dim)
    is_fp8 = case.get("kv") == "fp8"
    k_cache, v_cache = (
        _cache(cache, seq_lens, table, case.dtype, is_fp8, device, generator) for _ in "kv"
    )
    starts = torch.tensor([0, *query_lens]).cumsum(0).to(device, torch.int32)
    q_shape = (sum(query_lens), case["num_heads"], head_dim)
    q = torch.randn(q_shape, dtype=case.dtype, device=device, generator=generator)
    inputs = {
        "q": q,
        "k_cache": k_cache,
        "v_cache": v_cache,
        "block_table": table,
        "seq_lens": torch.tensor(seq_lens, dtype=torch.int32, device=device),
        "query_start_loc": starts,
        "num_decode_rows": case.get("num_decode_rows", 0),
        "max_query_len": max(query_lens),
        "max_seq_len": max(seq_lens),
        "scale": head_dim**-0.5,
        "sliding_window": case.get("sliding_window", 0),
        "softcap": case.get("softcap", 0.0),
        "k_scale": 0.5 if is_fp8 else 1.0,
        "v_scale": 2.0 if is_fp8 else 1.0,
        "out": torch.empty_like(q),
    }
    if case.get("is_contiguous_too"):
        inputs |= {"k": _gathered(k_cache, table), "v": _gathered(v_cache, table)}
    return inputs


def decode_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    """Arguments of `paged_decode`, with room for the logarithms of the sums."""
    inputs = make_inputs(case, device, generator)
    del inputs["num_decode_rows"]
    inputs["lse"] = torch.empty(inputs["q"].shape[:2], dtype=torch.float32, device=device)
    return inputs


def prefill_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    """Arguments of `paged_prefill`."""
    inputs = decode_inputs(case, device, generator)
    for name in ("max_query_len", "max_seq_len"):
        del inputs[name]
    return inputs | {"causal": case.get("causal", True)}


def merge_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    """Arguments of `merge_states`; some rows lack keys on one side or on both."""
    shape = (case["num_tokens"], case["num_heads"], case["head_dim"])
    inputs: Inputs = {}
    for side in "ab":
        out = torch.randn(shape, dtype=case.dtype, device=device, generator=generator)
        lse = 4.0 * torch.randn(shape[:2], device=device, generator=generator)
        is_empty = torch.rand(shape[:2], device=device, generator=generator) < 0.2
        inputs[f"out_{side}"] = out.masked_fill_(is_empty[..., None], float("nan"))
        inputs[f"lse_{side}"] = lse.masked_fill_(is_empty, float("-inf"))
    inputs["out"] = torch.empty_like(inputs["out_a"])
    inputs["lse"] = torch.empty_like(inputs["lse_a"])
    return inputs


def _block_table(
    seq_lens: list[int], block_size: int, device: torch.device, generator: torch.Generator
) -> tuple[torch.Tensor, int]:
    """Pages in random order; entries past a row's last page name a page that does not exist."""
    counts = [-(-length // block_size) for length in seq_lens]
    num_blocks = sum(counts) + 1
    order = torch.randperm(num_blocks - 1, device=device, generator=generator) + 1
    shape = (len(seq_lens), max(1, *counts))
    table = torch.full(shape, NO_PAGE, dtype=torch.int32, device=device)
    first = 0
    for row, count in enumerate(counts):
        table[row, :count] = order[first : first + count]
        first += count
    return table, num_blocks


def _drop_pages_before_window(
    table: torch.Tensor, seq_lens: list[int], query_lens: list[int], block_size: int, window: int
) -> None:
    """Pages that no token sees any more become the null block, as the block pool has it."""
    for row, (length, query_len) in enumerate(zip(seq_lens, query_lens, strict=True)):
        table[row, : max(0, length - query_len - window + 1) // block_size] = 0


def _cache(
    shape: tuple[int, ...],
    seq_lens: list[int],
    table: torch.Tensor,
    dtype: torch.dtype,
    is_fp8: bool,
    device: torch.device,
    generator: torch.Generator,
) -> torch.Tensor:
    """Keys or values of one layer; what no request owns is NaN."""
    cache = torch.randn(shape, dtype=dtype, device=device, generator=generator)
    cache[0] = float("nan")
    for row, length in enumerate(seq_lens):
        used = length % shape[2]
        if used:
            cache[table[row, length // shape[2]], :, used:] = float("nan")
    return cache.to(torch.float8_e4m3fn) if is_fp8 else cache


def _gathered(cache: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Pages of rows of one length, a multiple of the page, side by side: [R, Hkv, N, D]."""
    return cache[table.long()].transpose(1, 2).flatten(2, 3)


def num_keys_read(inputs: Inputs) -> int:
    """Keys that must be read, over all rows; with a window only those that some token sees."""
    starts, window = inputs["query_start_loc"].tolist(), inputs.get("sliding_window", 0)
    total = 0
    for row, length in enumerate(inputs["seq_lens"].tolist()):
        reach = window + starts[row + 1] - starts[row] - 1 if window else length
        total += min(length, reach)
    return total


def num_pairs(inputs: Inputs) -> int:
    """(query token, key) pairs that attention looks at, over all rows."""
    starts, window = inputs["query_start_loc"].tolist(), inputs.get("sliding_window", 0)
    total = 0
    for row, length in enumerate(inputs["seq_lens"].tolist()):
        query_len = starts[row + 1] - starts[row]
        if not inputs.get("causal", True):
            total += query_len * length
            continue
        positions = range(length - query_len, length)
        total += sum(min(position + 1, window or position + 1) for position in positions)
    return total


def attention_bytes(inputs: Inputs) -> int:
    """Queries in, keys and values of every row once, outputs out."""
    q, cache = inputs["q"], inputs["k_cache"]
    key = cache.shape[1] * cache.shape[3] * cache.element_size()
    return 2 * q.numel() * q.element_size() + 2 * key * num_keys_read(inputs)


def attention_flops(inputs: Inputs) -> int:
    """Two products of 2 D operations a pair and query head; softmax not counted."""
    _, num_heads, head_dim = inputs["q"].shape
    return 4 * num_heads * head_dim * num_pairs(inputs)


def merge_bytes(inputs: Inputs) -> int:
    """Both states in, one out."""
    out, lse = inputs["out_a"], inputs["lse_a"]
    return 3 * (out.numel() * out.element_size() + lse.numel() * lse.element_size())
