"""Moves whole blocks of the KV cache: device to device, and to and from the host.

Knows caches as planes of equal pages (K and V of every layer) and moves the same blocks of all
planes at once. Knows nothing of what the pages hold or who owns a block. On a GPU one kernel
follows a list of addresses; elsewhere torch indexes one layer after the other.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import triton
import triton.language as tl
from torch import Tensor

WORDS = 2048


@triton.jit
def _move_kernel(
    target_address_ptr,
    source_address_ptr,
    target_block_ptr,
    source_block_ptr,
    target_stride,
    source_stride,
    page_words,
    WORDS: tl.constexpr,
):
    """Copy page source_block of each source plane over page target_block of its target plane.

    Addresses are bytes, strides (of pages) and page_words are words of 4 bytes.
    """
    pair, plane = tl.program_id(0), tl.program_id(1)
    to = tl.load(target_address_ptr + plane).to(tl.pointer_type(tl.int32))
    of = tl.load(source_address_ptr + plane).to(tl.pointer_type(tl.int32))
    to = tl.multiple_of(to, 16) + tl.load(target_block_ptr + pair) * target_stride
    of = tl.multiple_of(of, 16) + tl.load(source_block_ptr + pair) * source_stride
    word = tl.program_id(2) * WORDS + tl.arange(0, WORDS)
    inside = word < page_words
    tl.store(to + word, tl.load(of + word, mask=inside), mask=inside)


class CacheBlocks:
    """The same blocks of every layer's KV cache, as one thing to move.

    Outside the cache a block is packed: its pages in order, K then V of the first layer, K then V
    of the next, and so on: [num_planes, page_bytes] uint8.
    """

    def __init__(self, kv_caches: Sequence[Tensor], use_kernel: bool | None = None) -> None:
        """
        Args:
            kv_caches: one a layer, [2, num_blocks, ...] contiguous, of equal shape and dtype; a
                page (all behind the second dimension) is a multiple of 16 bytes.
            use_kernel: move with the Triton kernel; None: if the caches are on a GPU.
        """
        first = kv_caches[0]
        for cache in kv_caches:
            if cache.shape != first.shape or cache.dtype != first.dtype:
                raise ValueError(
                    f"KV caches differ: {tuple(cache.shape)} {cache.dtype} and "
                    f"{tuple(first.shape)} {first.dtype}; move groups of equal layers one by one"
                )
            if not cache.is_contiguous():
                raise ValueError(f"KV cache with strides {cache.stride()} must be contiguous")
        self.num_blocks = first.shape[1]
        self.num_planes = 2 * len(kv_caches)
        self.page_bytes = first[0, 0].numel() * first.element_size()
        self.device = first.device
        if self.page_bytes % 16:
            raise ValueError(f"a page of {self.page_bytes} bytes is not a multiple of 16")
        # [2, num_blocks, page_bytes] a layer: the caches' own memory
        self.layers = [cache.view(torch.uint8).view(2, self.num_blocks, -1) for cache in kv_caches]
        self._use_kernel = self.device.type == "cuda" if use_kernel is None else use_kernel
        self._addresses = _addresses([plane for layer in self.layers for plane in layer])

    def empty_packed(self, num_blocks: int, *, host: bool = False) -> Tensor:
        """Room for packed blocks, [num_blocks, num_planes, page_bytes] uint8.

        On the device, or on the host: pinned there if the device is a GPU.
        """
        shape = (num_blocks, self.num_planes, self.page_bytes)
        if not host:
            return torch.empty(shape, dtype=torch.uint8, device=self.device)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Copy block source[i] over block target[i] in every layer, for all i at once.

        Args:
            source, target: [n] int64 on the device. No target may occur twice or be a source:
                the order of the copies is not defined.
        """
        if self._use_kernel:
            self._move(*self._cache(target), *self._cache(source))
            return
        for layer in self.layers:
            layer[:, target] = layer[:, source]

    def gather(self, blocks: Tensor, packed: Tensor) -> None:
        """Copy block blocks[i] to packed[i]; both on the device, blocks [n] int64."""
        if self._use_kernel:
            self._move(*self._packed(packed, len(blocks)), *self._cache(blocks))
            return
        for i, layer in enumerate(self.layers):
            packed[: len(blocks), 2 * i : 2 * i + 2] = layer[:, blocks].transpose(0, 1)

    def scatter(self, packed: Tensor, blocks: Tensor) -> None:
        """Copy packed[i] over block blocks[i]; both on the device, blocks [n] int64 distinct."""
        if self._use_kernel:
            self._move(*self._cache(blocks), *self._packed(packed, len(blocks)))
            return
        for i, layer in enumerate(self.layers):
            layer[:, blocks] = packed[: len(blocks), 2 * i : 2 * i + 2].transpose(0, 1)

    def swap_out(self, blocks: Sequence[int], host: Tensor, host_blocks: Sequence[int]) -> None:
        """Copy block blocks[i] to host[host_blocks[i]]; host as from `empty_packed(host=True)`.

        Ordered on the current stream and not waited for: the host's bytes are whole once that
        stream has come so far.
        """
        packed = self.empty_packed(len(blocks))
        self.gather(self._on_device(blocks), packed)
        for start, end in runs(host_blocks):
            first = host_blocks[start]
            room = host[first : first + end - start]
            room.copy_(packed[start:end], non_blocking=True)

    def swap_in(self, host: Tensor, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """Copy host[host_blocks[i]] over block blocks[i]; ordered on the current stream."""
        packed = self.empty_packed(len(blocks))
        for start, end in runs(host_blocks):
            first = host_blocks[start]
            room = host[first : first + end - start]
            packed[start:end].copy_(room, non_blocking=True)
        self.scatter(packed, self._on_device(blocks))

    def _on_device(self, blocks: Sequence[int]) -> Tensor:
        return torch.tensor(blocks, dtype=torch.int64, device=self.device)

    def _cache(self, blocks: Tensor) -> tuple[Tensor, int, Tensor]:
        return self._addresses, self.page_bytes, blocks

    def _packed(self, packed: Tensor, num_blocks: int) -> tuple[Tensor, int, Tensor]:
        plane = torch.arange(self.num_planes, device=self.device)
        block = torch.arange(num_blocks, device=self.device)
        addresses = plane * self.page_bytes + packed.data_ptr()
        return addresses, self.num_planes * self.page_bytes, block

    def _move(
        self,
        target_addresses: Tensor,
        target_stride: int,
        target_blocks: Tensor,
        source_addresses: Tensor,
        source_stride: int,
        source_blocks: Tensor,
    ) -> None:
        if len(source_blocks) == 0:
            return
        words = min(WORDS, triton.next_power_of_2(self.page_bytes // 4))
        pieces = triton.cdiv(self.page_bytes // 4, words)
        _move_kernel[(len(source_blocks), self.num_planes, pieces)](
            target_addresses,
            source_addresses,
            target_blocks,
            source_blocks,
            target_stride // 4,
            source_stride // 4,
            self.page_bytes // 4,
            WORDS=words,
            num_warps=4,
        )


def _addresses(planes: Sequence[Tensor]) -> Tensor:
    """Where the planes begin, [num_planes] int64 on their device."""
    device, first = planes[0].device, planes[0].data_ptr()
    addresses = [plane.data_ptr() for plane in planes]
    steps = {after - before for before, after in pairwise(addresses)}
    if len(steps) == 1 and (step := steps.pop()) > 0:
        # planes of one tensor: nothing is copied from the host, so a graph can capture it
        return torch.arange(first, addresses[-1] + 1, step, dtype=torch.int64, device=device)
    return torch.tensor(addresses, dtype=torch.int64, device=device)


def runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Slices (start, end) of `numbers` within which each number is one more than the last.

    >>> runs([7, 8, 9, 3, 4])
    [(0, 3), (3, 5)]
    """
    breaks = [i for i in range(1, len(numbers)) if numbers[i] != numbers[i - 1] + 1]
    edges = [0, *breaks, len(numbers)]
    return [(start, end) for start, end in pairwise(edges) if end > start]
