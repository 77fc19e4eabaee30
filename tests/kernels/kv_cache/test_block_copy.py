"""Blocks keep their bytes on every way, with the kernel and without."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from kernels.kv_cache.block_copy import CacheBlocks, runs


def _caches(device: torch.device, layers: int = 3) -> list[Tensor]:
    generator = torch.Generator(device=device).manual_seed(2)
    shape = (2, 6, 2, 4, 8)
    return [torch.randn(shape, device=device, generator=generator) for _ in range(layers)]


@pytest.fixture(params=[True, False], ids=["kernel", "torch"])
def use_kernel(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


def test_copy_over_all_layers(device: torch.device, use_kernel: bool) -> None:
    caches = _caches(device)
    expected = [cache.clone() for cache in caches]
    source, target = torch.tensor([5, 1], device=device), torch.tensor([0, 3], device=device)
    CacheBlocks(caches, use_kernel).copy(source, target)
    for cache, before in zip(caches, expected, strict=True):
        before[:, target] = before[:, source]
        assert torch.equal(cache, before)


def test_a_block_goes_out_and_comes_back_elsewhere(device: torch.device, use_kernel: bool) -> None:
    caches = _caches(device)
    before = [cache.clone() for cache in caches]
    blocks = CacheBlocks(caches, use_kernel)
    host = blocks.empty_packed(8, host=True).fill_(255)
    blocks.swap_out([4, 1, 5], host, [6, 7, 2])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    assert (host[[0, 1, 3, 4, 5]] == 255).all()
    for cache in caches:
        cache[:, [1, 4, 5]] = torch.nan
    blocks.swap_in(host, [2, 6, 7], [0, 2, 5])
    for cache, old in zip(caches, before, strict=True):
        assert torch.equal(cache[:, [0, 2, 5, 3]], old[:, [5, 4, 1, 3]])


def test_packed_pages_are_k_then_v_of_each_layer(device: torch.device, use_kernel: bool) -> None:
    caches = _caches(device, layers=2)
    blocks = CacheBlocks(caches, use_kernel)
    packed = blocks.empty_packed(1)
    blocks.gather(torch.tensor([3], device=device), packed)
    pages = packed[0].view(torch.float32).view(4, 2, 4, 8)
    for plane, page in enumerate(pages):
        assert torch.equal(page, caches[plane // 2][plane % 2, 3])


def test_layers_of_one_allocation(device: torch.device) -> None:
    stacked = torch.stack(_caches(device))
    before = stacked.clone()
    blocks = CacheBlocks(stacked.unbind(0), use_kernel=True)
    blocks.copy(torch.tensor([0], device=device), torch.tensor([1], device=device))
    assert torch.equal(stacked[:, :, 1], before[:, :, 0])
    assert torch.equal(stacked[:, :, 2:], before[:, :, 2:])


def test_caches_that_cannot_move_together_are_refused(device: torch.device) -> None:
    cache = torch.zeros(2, 3, 1, 4, 8, device=device)
    with pytest.raises(ValueError, match="KV caches differ"):
        CacheBlocks([cache, cache.half()])
    with pytest.raises(ValueError, match="must be contiguous"):
        CacheBlocks([cache.transpose(0, 1)])
    with pytest.raises(ValueError, match="page of 12 bytes"):
        CacheBlocks([torch.zeros(2, 3, 1, 1, 3, device=device)])


@given(st.lists(st.integers(0, 9)))
def test_runs_cover_the_list_with_rising_pieces(numbers: list[int]) -> None:
    pieces = runs(numbers)
    assert [i for start, end in pieces for i in range(start, end)] == list(range(len(numbers)))
    for start, end in pieces:
        first = numbers[start]
        assert numbers[start:end] == list(range(first, first + end - start))
    for _, end in pieces[:-1]:
        assert numbers[end] != numbers[end - 1] + 1
