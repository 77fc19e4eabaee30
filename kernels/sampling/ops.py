"""The sampling operations as records: inputs, prices, cases, peers."""

from typing import Any

import torch
from torch import Tensor

from kernels.op import Case, Inputs, Op, tensor_bytes, with_inductor
from kernels.sampling import reference
from kernels.sampling.gumbel import gumbel_sample
from kernels.sampling.logprobs import token_logprobs
from kernels.sampling.top_k_top_p import top_k_top_p_mask, top_k_top_p_sample

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}


def _logits(case: Case, device: torch.device, generator: torch.Generator) -> Tensor:
    """Normal logits times `spread`, some masked; rows lie apart by more than the vocabulary."""
    num_rows, vocab_size = case["rows"], case["vocab"]
    wide = torch.randn(
        num_rows, vocab_size + case.get("padding", 0), device=device, generator=generator
    )
    logits = (wide * case.get("spread", 3.0)).to(case.dtype)[:, :vocab_size]
    if case.get("masked"):
        logits[:, 1::3] = -torch.inf
    return logits


def _draws(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    """Temperature, seed and position of each row; every fifth row is greedy in toy cases."""
    num_rows = case["rows"]
    temperature = torch.rand(num_rows, device=device, generator=generator) + 0.5
    if case.get("greedy", True):
        temperature[::5] = 0.0
    seeds = torch.randint(-(2**62), 2**62, (num_rows,), device=device, generator=generator)
    positions = torch.randint(0, 4096, (num_rows,), device=device, generator=generator)
    return {"temperature": temperature, "seeds": seeds, "positions": positions}


def _gumbel_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    return {
        "logits": _logits(case, device, generator),
        **_draws(case, device, generator),
    }


def _rules(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    """top_k, top_p and min_p: of the case, or one of eight combinations a row."""
    num_rows = case["rows"]
    row = torch.arange(num_rows, device=device)
    noise = torch.rand(num_rows, device=device, generator=generator)
    top_k = torch.where(row % 2 == 1, 1 + (noise * 20).int(), 0)
    top_p = torch.where(row % 4 >= 2, 0.2 + 0.7 * noise, 1.0)
    min_p = torch.where(row % 8 >= 4, 0.1 * noise, 0.0)
    if "top_k" in case.shape:
        top_k, top_p, min_p = (torch.full_like(noise, case[name]) for name in RULES)
    return {"top_k": top_k.int(), "top_p": top_p, "min_p": min_p}


RULES = ("top_k", "top_p", "min_p")


def _filter_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    return {**_gumbel_inputs(case, device, generator), **_rules(case, device, generator)}


def _mask_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    inputs = _filter_inputs(case, device, generator)
    return {name: inputs[name] for name in ("logits", "temperature", *RULES)}


def _logprobs_inputs(case: Case, device: torch.device, generator: torch.Generator) -> Inputs:
    ids = torch.randint(case["vocab"], (case["rows"],), device=device, generator=generator)
    logits = _logits(case, device, generator)
    return {"logits": logits, "token_ids": ids, "num_top": case["num_top"]}


def _read_bytes(inputs: Inputs) -> int:
    """The logits once; a few numbers a row."""
    return tensor_bytes(inputs["logits"]) + 40 * inputs["logits"].shape[0]


def _read_and_write_bytes(inputs: Inputs) -> int:
    return 2 * tensor_bytes(inputs["logits"])


def _gumbel_torch(
    logits: Tensor, temperature: Tensor, seeds: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Eager torch: one generator for all rows, so seeds and positions are not used."""
    scaled = logits.float() / temperature.unsqueeze(1)
    noise = torch.empty_like(scaled).exponential_()
    probabilities = scaled.softmax(dim=-1)
    return (probabilities / noise).argmax(dim=-1), ~probabilities.isnan().any(dim=-1)


def _argmax_torch(logits: Tensor, **_: Any) -> tuple[Tensor, Tensor]:
    """Greedy only: the floor of any sampler in eager torch."""
    return logits.argmax(dim=-1), ~logits.isnan().any(dim=-1)


def _sorted_mask(
    logits: Tensor, temperature: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor
) -> Tensor:
    """Eager torch with a full sort, as engines do without a kernel; min_p is not applied."""
    scaled = logits.float() / temperature.unsqueeze(1)
    values, order = scaled.sort(dim=-1, descending=False)
    vocab_size = values.shape[1]
    k = torch.where(top_k > 0, top_k, vocab_size).clamp(max=vocab_size).long()
    smallest = values.gather(1, (vocab_size - k).unsqueeze(1))
    values = values.masked_fill(values < smallest, -torch.inf)
    mass = values.softmax(dim=-1).cumsum(dim=-1)
    drop = mass <= 1.0 - top_p.unsqueeze(1)
    drop[:, -1] = False
    values = values.masked_fill(drop, -torch.inf)
    return values.scatter(1, order, values)


def _sorted_sample(seeds: Tensor, positions: Tensor, **inputs: Any) -> tuple[Tensor, Tensor]:
    """The full sort, then exponential noise; min_p, seeds and positions are not used."""
    masked = _sorted_mask(**inputs)
    return _gumbel_torch(masked, torch.ones_like(inputs["temperature"]), seeds, positions)


def _logprobs_torch(logits: Tensor, token_ids: Tensor, num_top: int) -> tuple[Tensor, ...]:
    """Eager torch: log-softmax of the whole vocabulary, topk, and a count."""
    logprobs = logits.float().log_softmax(dim=-1)
    chosen = logprobs.gather(1, token_ids.unsqueeze(1))
    values, tokens = logprobs.topk(num_top, dim=-1)
    return chosen.squeeze(1), (logprobs >= chosen).sum(dim=-1), values, tokens


def _case(name: str, dtype: torch.dtype, rows: int, vocab: int, **more: Any) -> Case:
    return Case(name, dtype, {"rows": rows, "vocab": vocab, **more})


def _bench(name: str, dtype: torch.dtype = torch.float32, **more: Any) -> Case:
    """64 rows of Llama 3's vocabulary; spread 1 is nearly flat, which is the hard case."""
    return _case(name, dtype, 64, 128256, greedy=False, **more)


GUMBEL_SAMPLE = Op(
    name="gumbel_sample",
    family="sampling",
    run=gumbel_sample,
    reference=reference.gumbel_sample,
    make_inputs=_gumbel_inputs,
    num_bytes=_read_bytes,
    cases=(
        _case("small", torch.float32, 6, 50),
        _case("two-blocks", torch.float32, 3, 5003, padding=13, spread=1.0),
        _case("bfloat16", torch.bfloat16, 3, 1027, spread=5.0),
        _case("masked", torch.float32, 3, 300, masked=True),
    ),
    bench_cases=(_bench("64x128k"), _bench("64x128k-bf16", torch.bfloat16)),
    compile_cases=(
        _case("8k", torch.float32, 1, 8192),
        _case("8k-bf16", torch.bfloat16, 1, 8192),
    ),
    peers=with_inductor({"torch": _gumbel_torch, "torch argmax": _argmax_torch}),
)

TOP_K_TOP_P_SAMPLE = Op(
    name="top_k_top_p_sample",
    family="sampling",
    run=top_k_top_p_sample,
    reference=reference.top_k_top_p_sample,
    make_inputs=_filter_inputs,
    num_bytes=_read_bytes,
    cases=(
        _case("small", torch.float32, 8, 50),
        _case("two-blocks", torch.float32, 8, 5003, padding=5),
    ),
    bench_cases=(
        _bench("64x128k-k50-p0.9", top_k=50, top_p=0.9, min_p=0.0, spread=3.0),
        _bench("64x128k-p0.9", top_k=0, top_p=0.9, min_p=0.0, spread=3.0),
        _bench("64x128k-p0.9-flat", top_k=0, top_p=0.9, min_p=0.0, spread=1.0),
        _bench("64x128k-min_p", top_k=0, top_p=1.0, min_p=0.05, spread=3.0),
        _bench("64x128k-k50-p0.9-bf16", torch.bfloat16, top_k=50, top_p=0.9, min_p=0.0),
    ),
    compile_cases=(
        _case("128k", torch.float32, 1, 128256),
        _case("128k-bf16", torch.bfloat16, 1, 128256),
        _case("150k", torch.float32, 1, 151936),
    ),
    peers=with_inductor({"torch sort": _sorted_sample}),
)

TOP_K_TOP_P_MASK = Op(
    name="top_k_top_p_mask",
    family="sampling",
    run=top_k_top_p_mask,
    reference=reference.top_k_top_p_mask,
    make_inputs=_mask_inputs,
    num_bytes=_read_and_write_bytes,
    cases=(
        _case("one-group", torch.float32, 8, 50),
        _case("flat", torch.float32, 8, 1500, spread=0.1),
        _case("peaked", torch.float32, 8, 1500, spread=30.0),
        # more logits near the threshold than are searched at once
        _case("wide", torch.float32, 2, 20011, spread=0.5, top_k=0, top_p=0.6, min_p=0.0),
        _case("masked", torch.float32, 8, 700, masked=True),
        _case("float16", torch.float16, 8, 1030, spread=2.0),
    ),
    bench_cases=(_bench("64x128k-k50-p0.9", top_k=50, top_p=0.9, min_p=0.0),),
    compile_cases=(_case("128k", torch.float32, 1, 128256),),
    # kept logits come through unchanged
    tolerance=dict.fromkeys(TOLERANCE, 0.0),
    peers=with_inductor({"torch sort": _sorted_mask}),
)

TOKEN_LOGPROBS = Op(
    name="token_logprobs",
    family="sampling",
    run=token_logprobs,
    reference=reference.token_logprobs,
    make_inputs=_logprobs_inputs,
    num_bytes=_read_bytes,
    cases=(
        _case("none", torch.float32, 3, 50, num_top=0),
        _case("five", torch.float32, 3, 5003, num_top=5, padding=7),
        _case("ties", torch.bfloat16, 3, 700, num_top=20, spread=0.05),
        _case("all-of-them", torch.float16, 2, 9, num_top=9),
    ),
    bench_cases=(
        _bench("64x128k-top-0", num_top=0),
        _bench("64x128k-top-5", num_top=5),
        _bench("64x128k-top-20", num_top=20),
    ),
    compile_cases=(_case("128k", torch.float32, 1, 128256, num_top=5),),
    tolerance=TOLERANCE,
    peers=with_inductor({"torch": _logprobs_torch}),
)

OPS = (GUMBEL_SAMPLE, TOP_K_TOP_P_SAMPLE, TOP_K_TOP_P_MASK, TOKEN_LOGPROBS)
