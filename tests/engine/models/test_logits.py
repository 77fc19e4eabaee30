"""Logits of every architecture beside those of transformers."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from engine.loader import load_model
from engine.models.causal_lm import CausalLM
from engine.models.registry import read_hf_config
from tests.engine.checkpoints import ARCHITECTURES, make_checkpoint, make_config, make_model
from tests.engine.paged import PagedRun

LENGTHS = (1, 30, 57)
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama with all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, tied": ("llama", {"tie_word_embeddings": True}),
    "llama, one key head, explicit head_dim": (
        "llama",
        {"num_key_value_heads": 1, "head_dim": 32},
    ),
    "mistral without window": ("mistral", {"sliding_window": None}),
    "qwen2, tied": ("qwen2", {"tie_word_embeddings": True}),
    "qwen2, window in upper layers": (
        "qwen2",
        {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 2},
    ),
    "qwen3, window in all layers": (
        "qwen3",
        {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 0},
    ),
    "qwen3 with biases": ("qwen3", {"attention_bias": True}),
    "mixtral with window": ("mixtral", {"sliding_window": 16}),
    "qwen3_moe, no norm": ("qwen3_moe", {"norm_topk_prob": False, "decoder_sparse_step": 1}),
    "qwen3_moe, dense layers": ("qwen3_moe", {"mlp_only_layers": [1, 2]}),
}
ROPE = {
    "linear": {"factor": 2.5},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 32,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 32},
}


def sequences(seed: int = 0, lengths: tuple[int, ...] = LENGTHS) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 320, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def expected_logits(model: Any, tokens: list[list[int]]) -> list[Tensor]:
    return [model(torch.tensor([row])).logits[0] for row in tokens]


def load(folder: Path, **settings: Any) -> CausalLM:
    return load_model(read_hf_config(folder), folder, **settings)


def assert_same(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to 1e-5 of the largest logit, and the same best token everywhere."""
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == torch.float32
        error, scale = (ours - theirs).abs().max().item(), theirs.abs().max().item()
        assert error <= 1e-5 * scale
        assert ours.argmax(-1).equal(theirs.argmax(-1))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_equals_transformers_in_any_chunks(architecture: str, tmp_path: Path) -> None:
    model = load(make_checkpoint(tmp_path, architecture, has_tokenizer=False))
    tokens = sequences()
    expected = expected_logits(make_model(make_config(architecture)), tokens)
    for chunk in (1, 7, 100):
        assert_same(PagedRun(model, tokens).all_logits(chunk), expected)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_equal_transformers(name: str, tmp_path: Path) -> None:
    architecture, sizes = VARIANTS[name]
    model = load(make_checkpoint(tmp_path, architecture, has_tokenizer=False, **sizes))
    tokens = sequences(1)
    expected = expected_logits(make_model(make_config(architecture, **sizes)), tokens)
    assert_same(PagedRun(model, tokens).all_logits(13), expected)


@pytest.mark.parametrize("kind", ROPE)
@pytest.mark.parametrize("is_old_spelling", [False, True])
def test_rope_scalings_equal_transformers(kind: str, is_old_spelling: bool, tmp_path: Path) -> None:
    settings = {"rope_type": kind, **ROPE[kind]}
    config = make_config("llama", rope_parameters={"rope_theta": 500.0, **settings})
    make_checkpoint(tmp_path, "llama", has_tokenizer=False)
    fields = config.to_dict()
    if is_old_spelling:
        del fields["rope_parameters"]
        fields |= {"rope_theta": 500.0, "rope_scaling": settings}
    model = load_model(read_hf_config(fields), tmp_path)
    tokens = sequences(2, (40, 100))
    expected = expected_logits(make_model(config), tokens)
    assert_same(PagedRun(model, tokens, block_size=8).all_logits(64), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_half_precision_errs_no_more_than_transformers(
    architecture: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    # with all experts in use no rounding error can change the choice, which would hide all others
    fields = ARCHITECTURES[architecture]
    experts = fields.get("num_experts", fields.get("num_local_experts"))
    sizes = {} if experts is None else {"num_experts_per_tok": experts}
    ours = theirs = 0.0
    for seed in range(4):
        folder = make_checkpoint(
            tmp_path / str(seed), architecture, seed=seed, dtype=dtype, has_tokenizer=False, **sizes
        )
        tokens = sequences(seed, (64,))
        peer = make_model(make_config(architecture, **sizes), seed, dtype)
        logits = expected_logits(peer, tokens)[0].double()
        truth = expected_logits(peer.double(), tokens)[0]
        run = PagedRun(load(folder), tokens).all_logits(100)[0].double()
        ours += (run - truth).square().mean().item()
        theirs += (logits - truth).square().mean().item()
    assert ours <= theirs


def test_a_mix_of_full_and_window_layers_is_two_groups() -> None:
    sizes = {"use_sliding_window": True, "sliding_window": 10, "max_window_layers": 2}
    model = load_model(make_config("qwen2", **sizes), None, "dummy")
    assert [spec.group for spec in model.attention_specs] == [0, 0, 1]
    assert [spec.sliding_window for spec in model.attention_specs] == [None, None, 10]


def test_a_window_that_nothing_outgrows_is_full_attention() -> None:
    model = load_model(make_config("mistral", sliding_window=512), None, "dummy")
    assert {spec.sliding_window for spec in model.attention_specs} == {None}
    assert {spec.group for spec in model.attention_specs} == {0}


def test_interface_attributes() -> None:
    config = make_config("qwen3", head_dim=16)
    model = load_model(config, None, "dummy")
    spec = model.attention_specs[0]
    assert len(model.attention_specs) == 3
    assert (spec.num_heads, spec.num_kv_heads, spec.head_dim, spec.scale) == (4, 2, 16, 0.25)
    assert model.cos_sin_cache.shape == (512, 16)
    assert model.cos_sin_cache.dtype == torch.float32
    assert model.vocab_size == 320
    assert model.hf_config is config
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
