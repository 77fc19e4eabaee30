"""The operations of mixtures of experts as records: inputs, prices, cases, peers."""

import torch
from torch import Tensor

from kernels.moe import reference
from kernels.moe.align import align
from kernels.moe.routing import route
from kernels.op import Case, Inputs, Op, tensor_bytes, with_inductor


def _route_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    logits = torch.randn(case["tokens"], case["experts"], device=device, generator=generator)
    return {
        "router_logits": logits.to(case.dtype),
        "experts_per_token": case["top"],
        "normalize": case["normalize"],
    }


def _route_bytes(inputs: Inputs) -> int:
    logits = inputs["router_logits"]
    return tensor_bytes(logits) + 8 * logits.shape[0] * inputs["experts_per_token"]


def _route_torch(
    router_logits: Tensor, experts_per_token: int, normalize: bool
) -> tuple[Tensor, Tensor]:
    """Eager torch: softmax, topk, division."""
    probabilities = router_logits.softmax(dim=-1, dtype=torch.float32)
    weights, expert_ids = probabilities.topk(experts_per_token, dim=-1)
    if normalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    return weights, expert_ids


def _align_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    scores = torch.rand(case["tokens"], case["experts"], device=device, generator=generator)
    # some experts are wanted more than others, some not at all
    scores = scores * torch.linspace(0.0, 1.0, case["experts"], device=device)
    expert_ids = scores.topk(case["top"], dim=-1).indices.int()
    return {
        "expert_ids": expert_ids,
        "num_experts": case["experts"],
        "block_size": case.get("block_size", 1),
    }


def _align_run(expert_ids: Tensor, num_experts: int, block_size: int) -> tuple[Tensor, ...]:
    order = align(expert_ids, num_experts, block_size)
    return order.order, order.places, order.counts, order.ends


def _align_bytes(inputs: Inputs) -> int:
    # expert ids in; order and places out
    return 3 * tensor_bytes(inputs["expert_ids"]) + 8 * inputs["num_experts"]


def _align_torch(expert_ids: Tensor, num_experts: int, block_size: int) -> tuple[Tensor, ...]:
    """Eager torch without padding: a stable sort, its inverse, counts and ends."""
    flat = expert_ids.flatten().long()
    order = flat.argsort(stable=True)
    places = torch.empty_like(order)
    places[order] = torch.arange(len(order), device=order.device)
    counts = torch.zeros(num_experts, dtype=torch.int32, device=order.device)
    counts.scatter_add_(0, flat, torch.ones_like(flat, dtype=torch.int32))
    return order, places, counts, counts.cumsum(0, dtype=torch.int32)


def _case(name: str, dtype: torch.dtype, tokens: int, experts: int, top: int, **more: int) -> Case:
    shape = {"tokens": tokens, "experts": experts, "top": top, "normalize": True, **more}
    return Case(name, dtype, shape)


MODELS = {"mixtral": (8, 2), "qwen3": (128, 8)}


def _bench(tokens: int) -> tuple[Case, ...]:
    return tuple(
        _case(f"{name}-{tokens}-tokens", torch.float32, tokens, *sizes)
        for name, sizes in MODELS.items()
    )


ROUTE = Op(
    name="route",
    family="moe",
    run=route,
    reference=reference.route,
    make_inputs=_route_inputs,
    num_bytes=_route_bytes,
    cases=(
        _case("mixtral", torch.float32, 9, 8, 2),
        _case("qwen3", torch.bfloat16, 11, 128, 8),
        _case("odd", torch.float32, 5, 13, 3, normalize=False),
        _case("all-experts", torch.float16, 3, 4, 4, normalize=False),
        _case("one-expert", torch.float32, 2, 1, 1),
    ),
    bench_cases=(*_bench(64), *_bench(16384)),
    compile_cases=_bench(16),
    tolerance=dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), 1e-6),
    peers=with_inductor({"torch": _route_torch}),
)

ALIGN = Op(
    name="align",
    family="moe",
    run=_align_run,
    reference=reference.align,
    make_inputs=_align_inputs,
    num_bytes=_align_bytes,
    cases=(
        _case("mixtral", torch.int32, 9, 8, 2),
        _case("qwen3-padded", torch.int32, 37, 128, 8, block_size=16),
        _case("odd", torch.int32, 701, 13, 3),
        _case("many-chunks", torch.int32, 120, 200, 4, block_size=4),
        _case("one-expert", torch.int32, 3, 1, 1, block_size=8),
    ),
    bench_cases=(*_bench(64), *_bench(16384)),
    compile_cases=_bench(16),
    peers=with_inductor({"torch": _align_torch}),
)

OPS = (ROUTE, ALIGN)
