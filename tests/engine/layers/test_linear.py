"""Fused linear layers and the views of their parts."""

import pytest
import torch

from engine.layers.linear import Linear
from engine.layers.weights import Placement

CPU = Placement(torch.float32, torch.device("cpu"))


def test_parts_are_views_that_fill_the_fused_weight() -> None:
    layer = Linear(3, {"q_proj": 4, "k_proj": 2}, True, CPU)
    views = layer.destinations("attn")
    assert list(views) == [
        "attn.q_proj.weight",
        "attn.k_proj.weight",
        "attn.q_proj.bias",
        "attn.k_proj.bias",
    ]
    for view in views.values():
        view.tensor.copy_(torch.randn(view.tensor.shape))
    x = torch.randn(5, 3)
    parts = [
        x @ views[f"attn.{name}.weight"].tensor.T + views[f"attn.{name}.bias"].tensor
        for name in ("q_proj", "k_proj")
    ]
    torch.testing.assert_close(layer(x), torch.cat(parts, dim=-1))


def test_without_prefix_and_bias() -> None:
    layer = Linear(3, {"lm_head": 4}, False, CPU)
    assert list(layer.destinations("")) == ["lm_head.weight"]
    assert layer.bias is None


def test_meta_layers_have_shapes_but_no_memory() -> None:
    layer = Linear(1 << 20, {"up": 1 << 20}, False, Placement(torch.bfloat16, torch.device("meta")))
    assert layer.weight.shape == (1 << 20, 1 << 20)
    assert layer.weight.nbytes == 2 << 40


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("num_tokens", [1, 5, 64])
def test_finalized_layers_compute_the_same_and_hold_no_second_copy(
    has_bias: bool, num_tokens: int
) -> None:
    layer = Linear(48, {"gate": 33, "up": 33}, has_bias, CPU)
    for parameter in layer.parameters():
        parameter.normal_(generator=torch.Generator().manual_seed(1))
    x = torch.randn(num_tokens, 48, generator=torch.Generator().manual_seed(0))
    expected = layer(x)
    layer.finalize()
    torch.testing.assert_close(layer(x), expected)
    assert layer.weight.is_meta
    assert layer.weight.shape == (66, 48)


def test_a_shared_table_survives() -> None:
    layer = Linear(4, {"lm_head": 8}, False, CPU)
    table = layer.weight
    layer.finalize()
    assert not table.is_meta


def test_gpu_layers_and_layers_without_memory_are_not_packed() -> None:
    layer = Linear(4, {"up": 8}, False, Placement(torch.float32, torch.device("meta")))
    before = layer.weight
    layer.finalize()
    assert layer.weight is before
