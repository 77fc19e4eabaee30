"""Experts: routing, grouping, and the sum over experts written out."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from engine.layers.moe import (
    MoeConfig,
    SparseMoe,
    TokenGroups,
    group_by_expert,
    has_grouped_mm,
    route,
    run_each,
    run_grouped,
)
from engine.layers.weights import Placement

CPU = Placement(torch.float64, torch.device("cpu"))


def make_block(normalize: bool, num_experts: int = 5, k: int = 2) -> SparseMoe:
    block = SparseMoe(12, MoeConfig(num_experts, k, 8, normalize), CPU)
    generator = torch.Generator().manual_seed(1)
    for parameter in block.parameters():
        parameter.normal_(generator=generator)
    return block


def written_out(block: SparseMoe, x: Tensor) -> Tensor:
    """The definition, one token and one expert after the other."""
    out = torch.zeros_like(x)
    for token, row in enumerate(x):
        probabilities = (block.router.weight @ row).softmax(-1)
        best, experts = probabilities.topk(block.config.experts_per_token)
        if block.config.normalize:
            best = best / best.sum()
        for weight, expert in zip(best, experts, strict=True):
            gate, up = (block.gate_up[expert] @ row).chunk(2)
            out[token] += weight * (block.down[expert] @ (functional.silu(gate) * up))
    return out


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_block_is_the_weighted_sum_of_its_experts(normalize: bool, tokens: int) -> None:
    block = make_block(normalize)
    x = torch.randn(
        tokens, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(tokens)
    )
    torch.testing.assert_close(block(x), written_out(block, x), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not hasattr(functional, "grouped_mm"), reason="torch lacks grouped_mm")
def test_grouped_products_equal_one_expert_after_the_other() -> None:
    generator = torch.Generator().manual_seed(2)
    inputs, gate_up, down = (
        torch.randn(shape, generator=generator, dtype=torch.bfloat16)
        for shape in ((20, 16), (4, 48, 16), (4, 16, 24))
    )
    ends = torch.tensor([7, 7, 19, 20], dtype=torch.int32)
    grouped, each = (run(inputs, ends, gate_up, down) for run in (run_grouped, run_each))
    assert (grouped - each).norm() < 0.01 * each.norm()


def test_grouped_products_are_for_gpus() -> None:
    assert not has_grouped_mm(torch.empty(2, 16, dtype=torch.bfloat16), 16)
    assert not has_grouped_mm(torch.empty(2, 12, dtype=torch.bfloat16, device="meta"), 16)


def test_no_tokens_give_no_output() -> None:
    assert make_block(True)(torch.empty(0, 12, dtype=torch.float64)).shape == (0, 12)


@given(st.integers(1, 6), st.lists(st.integers(0, 5), max_size=24))
def test_groups_hold_each_pair_once_and_in_order(k: int, experts: list[int]) -> None:
    expert_ids = torch.tensor(experts[: len(experts) // k * k], dtype=torch.int64).view(-1, k)
    groups = group_by_expert(expert_ids, 6)
    flat = expert_ids.flatten()
    assert sorted(groups.order.tolist()) == list(range(len(flat)))
    assert flat[groups.order].tolist() == sorted(flat.tolist())
    counts = [flat.tolist().count(expert) for expert in range(6)]
    assert groups.ends.tolist() == [sum(counts[: expert + 1]) for expert in range(6)]


def test_weights_are_probabilities_best_first() -> None:
    logits = torch.tensor([[1.0, 3.0, 2.0, -1.0]], dtype=torch.bfloat16)
    weights, expert_ids = route(logits, 2, normalize=False)
    assert expert_ids.tolist() == [[1, 2]]
    assert weights.dtype == torch.float32
    torch.testing.assert_close(weights, logits.float().softmax(-1)[:, [1, 2]])
    assert route(logits, 2, normalize=True)[0].sum().item() == pytest.approx(1.0)


def test_routing_and_grouping_can_be_replaced() -> None:
    block = make_block(True, num_experts=3, k=1)
    called: list[str] = []

    def first_expert(logits: Tensor, k: int, normalize: bool) -> tuple[Tensor, Tensor]:
        called.append("route")
        return torch.ones(len(logits), k), torch.zeros(len(logits), k, dtype=torch.int64)

    def group(expert_ids: Tensor, num_experts: int) -> TokenGroups:
        called.append("group")
        return group_by_expert(expert_ids, num_experts)

    block.route, block.group = first_expert, group
    x = torch.randn(3, 12, dtype=torch.float64)
    gate, up = (x @ block.gate_up[0].T).chunk(2, dim=-1)
    expected = (functional.silu(gate) * up) @ block.down[0].T
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)
    assert called == ["route", "group"]


@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_packed_experts_compute_the_same(tokens: int) -> None:
    block = make_block(True).float()
    x = torch.randn(tokens, 12, generator=torch.Generator().manual_seed(tokens))
    expected = block(x)
    block.finalize()
    torch.testing.assert_close(block(x), expected)
    assert block.gate_up.is_meta
    assert block.down.shape == (5, 12, 8)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, 40])
def test_kernels_route_and_group_as_torch_does(normalize: bool, tokens: int) -> None:
    block = make_block(normalize, num_experts=13, k=3).float()
    x = torch.randn(tokens, 12, generator=torch.Generator().manual_seed(tokens))
    expected = block(x)
    block.use_kernels()
    torch.testing.assert_close(block(x), expected)
