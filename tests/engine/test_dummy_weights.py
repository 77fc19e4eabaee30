"""Random weights: reproducible, with distinct rows, and of a size that keeps logits finite."""

import pytest
import torch
from torch import nn

from engine.dummy_weights import TILE, fill_randomly
from engine.loader import load_model
from tests.engine.checkpoints import ARCHITECTURES, make_config
from tests.engine.paged import PagedRun


def test_the_seed_decides_the_weights() -> None:
    config = make_config("qwen2")
    first, again, other = (
        load_model(config, None, "dummy", seed=seed, adapts_to_cpu=False) for seed in (3, 3, 4)
    )
    assert first.head.weight.equal(again.head.weight)
    assert not first.head.weight.equal(other.head.weight)
    assert not first.layers[0].mlp.down.weight.equal(first.layers[1].mlp.down.weight)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_logits_are_finite_and_not_flat(architecture: str, dtype: str) -> None:
    config = make_config(architecture, num_hidden_layers=6)
    model = load_model(config, None, "dummy", dtype=dtype)
    logits = PagedRun(model, [list(range(20))]).all_logits(100)[0]
    assert logits.isfinite().all()
    assert 0.1 < logits.std() < 10.0


def test_large_matrices_repeat_a_tile_without_equal_rows() -> None:
    layer = nn.Linear(1024, 2500)
    assert layer.weight.numel() > 2 * TILE
    with torch.no_grad():
        fill_randomly(layer, 0)
    flat = layer.weight.flatten()
    assert flat[:TILE].equal(flat[TILE : 2 * TILE])
    assert len(layer.weight.unique(dim=0)) == 2500
    assert layer.bias.count_nonzero() == 0
    assert layer.weight.var().item() == pytest.approx(1 / 1024, rel=0.01)


def test_half_precision_weights_are_those_of_float32_rounded() -> None:
    config = make_config("llama")
    precise, rounded = (
        load_model(config, None, "dummy", dtype=dtype, adapts_to_cpu=False)
        for dtype in ("float32", "bfloat16")
    )
    assert precise.head.weight.bfloat16().equal(rounded.head.weight)
