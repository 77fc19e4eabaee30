"""The KV-cache operations as records: inputs, prices, cases, peers."""

from typing import Any

import torch
from torch import Tensor

from kernels.kv_cache import reference
from kernels.kv_cache.block_copy import CacheBlocks
from kernels.kv_cache.rotary_cache_write import rotary_cache_write
from kernels.op import Case, Inputs, Op, tensor_bytes, with_inductor

FLOAT8 = torch.float8_e4m3fn
MAX_POSITION = 4096


def angles(max_position: int, head_dim: int, device: torch.device) -> Tensor:
    """cos and sin table [max_position, head_dim] float32 with RoPE's usual base."""
    exponent = torch.arange(0, head_dim, 2, device=device, dtype=torch.float64) / head_dim
    position = torch.arange(max_position, device=device, dtype=torch.float64)
    angle = torch.outer(position, 10000.0**-exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=-1).float()


def _rotary_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    num_tokens, num_q_heads, num_kv_heads = case["tokens"], case["q_heads"], case["kv_heads"]
    head_dim, block_size = case["head_dim"], case["block_size"]
    num_blocks = -(-num_tokens // block_size) + 2
    heads = num_q_heads + 2 * num_kv_heads
    qkv = torch.randn(num_tokens, heads * head_dim, device=device, generator=generator)
    q, k, v = (
        qkv.to(case.dtype)
        .view(num_tokens, heads, head_dim)
        .split([num_q_heads, num_kv_heads, num_kv_heads], dim=1)
    )
    slots = torch.randperm(num_blocks * block_size, device=device, generator=generator)
    slots = slots[:num_tokens]
    slots[2::7] = -1
    if case.get("consecutive"):  # as a prefill writes: whole blocks in order
        slots = torch.arange(num_tokens, device=device) + block_size
    shape = (2, num_blocks, num_kv_heads, block_size, head_dim)
    cache_dtype = FLOAT8 if case.get("float8") else case.dtype
    cache = torch.zeros(shape, device=device).to(cache_dtype)
    return {
        "q": q,
        "k": k * case.get("k_size", 1.0),
        "v": v,
        "cos_sin": angles(MAX_POSITION, head_dim, device),
        "positions": torch.randint(MAX_POSITION, (num_tokens,), device=device, generator=generator),
        "slot_mapping": slots,
        "k_cache": cache[0],
        "v_cache": cache[1],
        "k_scale": case.get("k_scale", 1.0),
        "v_scale": case.get("v_scale", 1.0),
    }


def _rotary_run(**inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    return rotary_cache_write(**inputs), inputs["k_cache"], inputs["v_cache"]


def _rotary_bytes(inputs: Inputs) -> int:
    q, k, v = inputs["q"], inputs["k"], inputs["v"]
    written = 2 * k.numel() * inputs["k_cache"].element_size() + tensor_bytes(q)
    tables = k.shape[0] * (4 * q.shape[-1] + 16)  # cos and sin, position and slot of each token
    return tensor_bytes(q, k, v) + written + tables


def _rotary_flops(inputs: Inputs) -> int:
    return 3 * (inputs["q"].numel() + inputs["k"].numel())


def _rotary_torch(**inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Eager torch: rotation in float32, then index_put; needs every slot to be >= 0."""
    cos, sin = inputs["cos_sin"][inputs["positions"]].unsqueeze(1).chunk(2, dim=-1)

    def turn(x: Tensor) -> Tensor:
        first, second = x.float().chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], -1).to(x.dtype)

    k_cache, v_cache = inputs["k_cache"], inputs["v_cache"]
    block, offset = inputs["slot_mapping"] // k_cache.shape[2], inputs["slot_mapping"]
    offset = offset % k_cache.shape[2]
    k_cache[block, :, offset] = turn(inputs["k"]).to(k_cache.dtype)
    v_cache[block, :, offset] = inputs["v"].to(v_cache.dtype)
    return turn(inputs["q"]), k_cache, v_cache


def _llama(name: str, tokens: int, dtype: torch.dtype = torch.bfloat16, **more: Any) -> Case:
    shape = {"q_heads": 32, "kv_heads": 8, "head_dim": 128, "block_size": 16}
    return Case(name, dtype, {"tokens": tokens, "consecutive": True, **shape, **more})


def _toy(name: str, dtype: torch.dtype, **shape: Any) -> Case:
    sizes = {"tokens": 9, "q_heads": 4, "kv_heads": 2, "head_dim": 16, "block_size": 4}
    return Case(name, dtype, {**sizes, **shape})


ROTARY_CACHE_WRITE = Op(
    name="rotary_cache_write",
    family="kv_cache",
    run=_rotary_run,
    reference=reference.rotary_cache_write,
    make_inputs=_rotary_inputs,
    num_bytes=_rotary_bytes,
    num_flops=_rotary_flops,
    cases=(
        _toy("gqa", torch.float32),
        _toy("odd-heads", torch.bfloat16, q_heads=7, kv_heads=1, head_dim=24, tokens=5),
        _toy("half", torch.float16, kv_heads=3, q_heads=6, block_size=16),
        _toy("one-token", torch.bfloat16, tokens=1),
        _toy("float8", torch.bfloat16, float8=True, k_scale=0.5, v_scale=0.25),
        _toy("float8-saturates", torch.bfloat16, float8=True, k_size=1000.0),
    ),
    bench_cases=(
        _llama("64-tokens", 64),
        _llama("256-tokens", 256),
        _llama("16k-tokens", 16384),
        _llama("32k-tokens", 32768),
        _llama("16k-tokens-float8", 16384, float8=True),
    ),
    compile_cases=(
        _llama("llama-8b", 4),
        _llama("llama-8b-float8", 4, float8=True),
        _llama("llama-70b", 2, q_heads=64),
        _llama("qwen2-7b", 2, q_heads=28, kv_heads=4, dtype=torch.float16),
        _llama("float32", 2, dtype=torch.float32),
    ),
    # a value halfway between two of the type's may be rounded to either after float32 arithmetic
    tolerance={torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3},
    peers=with_inductor({"torch": _rotary_torch}),
)


def _copy_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    shape = (case["blocks"], case["kv_heads"], case["block_size"], case["head_dim"])
    caches = torch.randn(
        case["layers"], 2, *shape, device=device, generator=generator, dtype=torch.float32
    )
    order = torch.randperm(case["blocks"], device=device, generator=generator)
    pairs = case["pairs"]
    return {
        "kv_caches": caches.to(case.dtype),
        "source": order[:pairs],
        "target": order[pairs : 2 * pairs],
    }


def _copy_run(kv_caches: Tensor, source: Tensor, target: Tensor) -> Tensor:
    CacheBlocks(kv_caches.unbind(0), use_kernel=True).copy(source, target)
    return kv_caches


def _copy_bytes(inputs: Inputs) -> int:
    cache = inputs["kv_caches"]
    page = cache[0, 0, 0].numel() * cache.element_size()
    return 2 * len(inputs["source"]) * 2 * len(cache) * page


def _copy_torch(kv_caches: Tensor, source: Tensor, target: Tensor) -> Tensor:
    """Indexing, one layer after the other."""
    CacheBlocks(kv_caches.unbind(0), use_kernel=False).copy(source, target)
    return kv_caches


def _copy_case(name: str, dtype: torch.dtype = torch.bfloat16, **shape: int) -> Case:
    sizes = {"layers": 32, "blocks": 1024, "kv_heads": 8, "block_size": 16, "head_dim": 128}
    return Case(name, dtype, {**sizes, **shape})


BLOCK_COPY = Op(
    name="block_copy",
    family="kv_cache",
    run=_copy_run,
    reference=reference.block_copy,
    make_inputs=_copy_inputs,
    num_bytes=_copy_bytes,
    cases=(
        _copy_case("two-layers", layers=2, blocks=7, kv_heads=3, block_size=4, head_dim=8, pairs=3),
        _copy_case(
            "several-pieces",
            torch.float32,
            layers=1,
            blocks=3,
            kv_heads=3,
            block_size=16,
            head_dim=64,
            pairs=1,
        ),
        _copy_case("none", layers=1, blocks=2, kv_heads=1, block_size=4, head_dim=8, pairs=0),
    ),
    bench_cases=(_copy_case("64-blocks", pairs=64), _copy_case("512-blocks", pairs=512)),
    compile_cases=(_copy_case("llama-8b", layers=1, blocks=4, pairs=1),),
    tolerance={},
    peers=with_inductor({"torch": _copy_torch}),
)

OPS = (ROTARY_CACHE_WRITE, BLOCK_COPY)
