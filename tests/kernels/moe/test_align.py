"""Orders of pairs: longer than one chunk, padded, and empty."""

import pytest
import torch

from kernels.moe import align as align_module
from kernels.moe import reference
from kernels.moe.align import ExpertOrder, align


def _check(order: ExpertOrder, expert_ids: torch.Tensor, experts: int, block_size: int) -> None:
    found = (order.order, order.places, order.counts, order.ends)
    for mine, right in zip(found, reference.align(expert_ids, experts, block_size), strict=True):
        assert torch.equal(mine.cpu().long(), right)


@pytest.mark.parametrize("block_size", [1, 4])
def test_chunks_of_several_steps(
    device: torch.device, monkeypatch: pytest.MonkeyPatch, block_size: int
) -> None:
    monkeypatch.setattr(align_module, "MAX_CHUNKS", 2)
    generator = torch.Generator(device=device).manual_seed(3)
    expert_ids = torch.randint(0, 13, (900, 3), device=device, generator=generator)
    _check(align(expert_ids, 13, block_size), expert_ids, 13, block_size)


def test_each_block_of_places_has_one_expert(device: torch.device) -> None:
    expert_ids = torch.tensor([[4, 0], [4, 1], [4, 0]], device=device)
    order = align(expert_ids, 6, block_size=2)
    # two of expert 0, one of 1 (padded), three of 4 (padded), the rest is nobody's
    assert order.ends.tolist() == [2, 4, 4, 4, 8, 8]
    blocks = order.block_experts(2).tolist()
    assert blocks == [0, 1, 4, 4] + [6] * (len(order.order) // 2 - 4)
    assert order.order.tolist()[:8] == [1, 5, 3, 6, 0, 2, 4, 6]


def test_gathered_rows_go_back_to_their_tokens(device: torch.device) -> None:
    generator = torch.Generator(device=device).manual_seed(4)
    expert_ids = torch.randint(0, 5, (40, 2), device=device, generator=generator)
    order = align(expert_ids, 5)
    by_expert = expert_ids.flatten()[order.order]
    assert torch.equal(by_expert, by_expert.sort().values)
    assert torch.equal(by_expert[order.places], expert_ids.flatten())


def test_no_tokens(device: torch.device) -> None:
    order = align(torch.empty(0, 2, dtype=torch.int32, device=device), 3)
    assert order.counts.tolist() == order.ends.tolist() == [0, 0, 0]
    assert len(order.order) == len(order.places) == 0
