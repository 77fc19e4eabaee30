"""The attention operations: what is tested, compiled and measured.

Knows sizes. Toy cases cross every boundary there is (one key, a page exactly full, a window inside
a page, groups that are no power of two, padded rows); benchmark cases are those of an 8B model.
"""

from functools import cache
from typing import Any

import torch

from kernels.attention import reference
from kernels.attention.attention import paged_attention
from kernels.attention.decode import paged_decode
from kernels.attention.inputs import (
    attention_bytes,
    attention_flops,
    decode_inputs,
    make_inputs,
    merge_bytes,
    merge_inputs,
    prefill_inputs,
)
from kernels.attention.merge import merge_states
from kernels.attention.peers import PEERS
from kernels.attention.prefill import paged_prefill
from kernels.op import Case, Op

FP32, FP16, BF16 = torch.float32, torch.float16, torch.bfloat16
TOLERANCE = {FP32: 1e-5, FP16: 1e-3, BF16: 5e-3}


def _case(name: str, dtype: torch.dtype = BF16, **shape: Any) -> Case:
    small = {"num_heads": 4, "num_kv_heads": 2, "head_dim": 32, "block_size": 16}
    return Case(name, dtype, small | shape)


def _large(name: str, dtype: torch.dtype = BF16, **shape: Any) -> Case:
    llama = {"num_heads": 32, "num_kv_heads": 8, "head_dim": 128, "block_size": 16}
    return Case(name, dtype, llama | shape)


def _run_decode(**inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out = paged_decode(**_without_copies(inputs))
    return out, inputs["lse"]


def _run_prefill(**inputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    out = paged_prefill(**_without_copies(inputs))
    return out, inputs["lse"]


def _run_mixed(**inputs: Any) -> torch.Tensor:
    device = inputs["q"].device
    side_stream = _side_stream(device) if device.type == "cuda" else None
    return paged_attention(**_without_copies(inputs), side_stream=side_stream)


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def _mixed_reference(**inputs: Any) -> torch.Tensor:
    return reference.paged_attention(**inputs)[0]


def _without_copies(inputs: dict[str, Any]) -> dict[str, Any]:
    """Less the contiguous keys and values that only peers read."""
    return {name: value for name, value in inputs.items() if name not in ("k", "v")}


# a page exactly full, one key, a page and one key, a padded row
EDGES = (16, 1, 17, 0, 33)

DECODE_CASES = (
    _case("edges", seq_lens=EDGES),
    _case("edges", FP16, seq_lens=EDGES),
    _case("edges", FP32, seq_lens=EDGES),
    _case("mha", seq_lens=(40, 7), num_heads=2),
    _case("mqa-group-20", seq_lens=(40, 7), num_heads=20, num_kv_heads=1),
    _case("group-7", seq_lens=(19, 32), num_heads=14),
    _case("window-inside-a-page", seq_lens=EDGES, sliding_window=5),
    _case("window-of-pages", seq_lens=(70, 31, 0), sliding_window=32),
    _case("softcap", seq_lens=EDGES, softcap=2.0),
    _case("page-8", seq_lens=EDGES, block_size=8),
    _case("page-64", seq_lens=(64, 65, 3), block_size=64),
    _case("head-dim-80", seq_lens=EDGES, head_dim=80),
    _case("head-dim-96", seq_lens=(20, 1), head_dim=96),
    _case("head-dim-256", seq_lens=(20,), head_dim=256),
    _case("fp8", seq_lens=EDGES, kv="fp8"),
    _case("fp8", FP32, seq_lens=EDGES, kv="fp8"),
    _case("split", FP32, seq_lens=(700, 0, 1, 255), num_kv_heads=1, head_dim=16),
    _case("split-window", seq_lens=(700,), num_kv_heads=1, head_dim=16, sliding_window=290),
    _case("verify", seq_lens=(20, 3, 0, 17), query_lens=(4, 3, 1, 1)),
    _case("verify", FP32, seq_lens=(40, 16), query_lens=(8, 5), num_heads=6),
    _case("verify-window", seq_lens=(40, 16), query_lens=(5, 5), sliding_window=6),
    _case("verify-split", seq_lens=(600, 4), query_lens=(4, 4), num_kv_heads=1, head_dim=16),
)

DECODE_BENCH = (
    *(
        _large(f"batch-{b}-context-{n}", seq_lens=(n,) * b, is_contiguous_too=True)
        for b, n in ((64, 1024), (64, 2048), (64, 8192), (128, 4096), (256, 2048), (256, 8192))
    ),
    _large("batch-1-context-8192", seq_lens=(8192,), is_contiguous_too=True),
    _large("batch-64-context-8192-page-128", seq_lens=(8192,) * 64, block_size=128),
    _large("batch-64-context-8192-contiguous", seq_lens=(8192,) * 64, block_size=8192),
    _large("batch-128-ragged", seq_lens=tuple(64 + 127 * row for row in range(128))),
    _large("batch-64-context-8192-fp8", seq_lens=(8192,) * 64, kv="fp8"),
    _large("batch-64-window-4096", seq_lens=(8192,) * 64, sliding_window=4096),
    _large("verify-5-batch-64-context-4096", seq_lens=(4096,) * 64, query_lens=(5,) * 64),
    _large("mha-batch-64-context-2048", seq_lens=(2048,) * 64, num_kv_heads=32),
)

PREFILL_CASES = (
    _case("edges", seq_lens=(16, 1, 17, 33), query_lens=(16, 1, 17, 33)),
    _case("edges", FP16, seq_lens=(16, 1, 17, 33), query_lens=(16, 1, 17, 33)),
    _case("edges", FP32, seq_lens=(16, 1, 17, 33), query_lens=(16, 1, 17, 33)),
    _case("chunks-and-decodes", FP32, seq_lens=(50, 9, 40, 1), query_lens=(20, 1, 7, 1)),
    _case("padded-row", seq_lens=(20, 0, 5), query_lens=(12, 3, 5)),
    _case("mha", seq_lens=(40, 7), query_lens=(30, 7), num_heads=2),
    _case("mqa-group-20", seq_lens=(9, 3), query_lens=(5, 3), num_heads=20, num_kv_heads=1),
    _case("group-7", seq_lens=(19, 32), query_lens=(10, 3), num_heads=14),
    _case("window-inside-a-page", seq_lens=(50, 20), query_lens=(30, 20), sliding_window=5),
    _case("window-of-pages", seq_lens=(70, 20), query_lens=(20, 20), sliding_window=33),
    _case("softcap", seq_lens=(33, 9), query_lens=(20, 9), softcap=2.0),
    _case("page-8", seq_lens=(33, 9), query_lens=(20, 9), block_size=8),
    _case("page-64", seq_lens=(70, 64), query_lens=(20, 9), block_size=64),
    _case("head-dim-80", seq_lens=(33, 9), query_lens=(20, 9), head_dim=80),
    _case("head-dim-256", seq_lens=(20,), query_lens=(20,), head_dim=256),
    _case("fp8", seq_lens=(33, 9), query_lens=(20, 9), kv="fp8"),
    _case("shared-prefix", seq_lens=(40,), query_lens=(9,), causal=False),
)

PREFILL_BENCH = (
    *(
        _large(f"causal-{n}", seq_lens=(n,), query_lens=(n,), is_contiguous_too=True)
        for n in (2048, 8192, 16384)
    ),
    _large("causal-16384-page-128", seq_lens=(16384,), query_lens=(16384,), block_size=128),
    _large("causal-16384-contiguous", seq_lens=(16384,), query_lens=(16384,), block_size=16384),
    _large("causal-16384-fp8", seq_lens=(16384,), query_lens=(16384,), kv="fp8"),
    _large("chunk-2048-of-16384", seq_lens=(16384,), query_lens=(2048,)),
    _large("window-4096-16384", seq_lens=(16384,), query_lens=(16384,), sliding_window=4096),
    _large("ragged", seq_lens=(100, 3000, 777, 4096), query_lens=(100, 3000, 777, 4096)),
    _large("mha-8192", seq_lens=(8192,), query_lens=(8192,), num_kv_heads=32),
)

MIXED_CASES = (
    _case("decodes", FP32, seq_lens=(16, 0), num_decode_rows=2),
    _case("decodes-and-chunk", seq_lens=(16, 33, 40), query_lens=(1, 1, 20), num_decode_rows=2),
    _case("chunk", seq_lens=(40,), query_lens=(20,)),
    _case("verify", seq_lens=(16, 33, 40), query_lens=(1, 3, 2), num_decode_rows=1),
)

MIXED_BENCH = tuple(
    _large(name, seq_lens=seq_lens, query_lens=query_lens, num_decode_rows=num_decode_rows)
    for name, seq_lens, query_lens, num_decode_rows in (
        ("chunk-2048-and-64-decodes", (4096,) * 65, (1,) * 64 + (2048,), 64),
        ("chunk-2048", (4096,), (2048,), 0),
        ("64-decodes", (4096,) * 64, (1,) * 64, 64),
    )
)

# what the compiler must do well: one small context at each real shape
DECODE_COMPILE = (
    _large("gqa", seq_lens=(600, 70)),
    _large("gqa-page-64", seq_lens=(600, 70), block_size=64),
    _large("fp8", seq_lens=(600, 70), kv="fp8"),
    _large("verify", seq_lens=(600, 70), query_lens=(5, 5)),
    _large("head-dim-64", seq_lens=(600, 70), head_dim=64),
    _large("head-dim-256", seq_lens=(600,), head_dim=256, sliding_window=99, softcap=30.0),
)

PREFILL_COMPILE = (
    _large("gqa", seq_lens=(200, 70), query_lens=(150, 70)),
    _large("gqa-page-64", seq_lens=(200, 70), query_lens=(150, 70), block_size=64),
    _large("fp8", seq_lens=(200, 70), query_lens=(150, 70), kv="fp8"),
    _large("window-softcap", seq_lens=(200,), query_lens=(150,), sliding_window=64, softcap=30.0),
    _large("head-dim-64", seq_lens=(200, 70), query_lens=(150, 70), head_dim=64),
    _large("head-dim-80", seq_lens=(200,), query_lens=(150,), head_dim=80),
    _large(
        "head-dim-256",
        seq_lens=(200,),
        query_lens=(150,),
        head_dim=256,
        sliding_window=64,
        softcap=30.0,
    ),
)

MERGE_CASES = (
    Case("toy", BF16, {"num_tokens": 5, "num_heads": 7, "head_dim": 64}),
    Case("toy", FP32, {"num_tokens": 3, "num_heads": 4, "head_dim": 80}),
)
MERGE_BENCH = (Case("8192", BF16, {"num_tokens": 8192, "num_heads": 32, "head_dim": 128}),)

PAGED_DECODE = Op(
    name="paged_decode",
    family="attention",
    run=_run_decode,
    reference=reference.paged_attention,
    make_inputs=decode_inputs,
    num_bytes=attention_bytes,
    num_flops=attention_flops,
    cases=DECODE_CASES,
    bench_cases=DECODE_BENCH,
    compile_cases=DECODE_COMPILE,
    tolerance=TOLERANCE,
    buffers=("out", "lse"),
    peers=PEERS,
)

PAGED_PREFILL = Op(
    name="paged_prefill",
    family="attention",
    run=_run_prefill,
    reference=reference.paged_attention,
    make_inputs=prefill_inputs,
    num_bytes=attention_bytes,
    num_flops=attention_flops,
    cases=PREFILL_CASES,
    bench_cases=PREFILL_BENCH,
    compile_cases=PREFILL_COMPILE,
    tolerance=TOLERANCE,
    buffers=("out", "lse"),
    peers=PEERS,
)

PAGED_ATTENTION = Op(
    name="paged_attention",
    family="attention",
    run=_run_mixed,
    reference=_mixed_reference,
    make_inputs=make_inputs,
    num_bytes=attention_bytes,
    num_flops=attention_flops,
    cases=MIXED_CASES,
    bench_cases=MIXED_BENCH,
    tolerance=TOLERANCE,
    buffers=("out",),
)

MERGE_STATES = Op(
    name="merge_states",
    family="attention",
    run=merge_states,
    reference=reference.merge_states,
    make_inputs=merge_inputs,
    num_bytes=merge_bytes,
    cases=MERGE_CASES,
    bench_cases=MERGE_BENCH,
    compile_cases=(Case("128", BF16, {"num_tokens": 4, "num_heads": 32, "head_dim": 128}),),
    tolerance=TOLERANCE,
    buffers=("out", "lse"),
)

OPS = (PAGED_DECODE, PAGED_PREFILL, PAGED_ATTENTION, MERGE_STATES)
