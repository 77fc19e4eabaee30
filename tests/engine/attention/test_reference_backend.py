"""The reference backend beside attention over whole sequences, without pages."""

import pytest
import torch
from torch import Tensor

from engine.attention.backend import AttentionBatch, AttentionSpec, backend_class
from engine.attention.reference import ReferenceBackend, rotate
from workbench.errors import ConfigError

BLOCK, LENGTH, HEADS, KV_HEADS, DIM = 4, 11, 4, 2, 8


def whole_sequence(q: Tensor, k: Tensor, v: Tensor, window: int, softcap: float) -> Tensor:
    """[LENGTH, HEADS, DIM] of rotated q and k, by a mask over all pairs."""
    k, v = (x.repeat_interleave(HEADS // KV_HEADS, dim=1) for x in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * DIM**-0.5
    if softcap:
        scores = softcap * (scores / softcap).tanh()
    distance = torch.arange(LENGTH)[:, None] - torch.arange(LENGTH)
    scores[:, (distance < 0) | (distance >= window)] = float("-inf")
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), v)


def one_row(start: int, end: int, table: list[int]) -> AttentionBatch:
    positions = torch.arange(start, end)
    blocks = torch.tensor(table)
    seq_lens = torch.tensor([end], dtype=torch.int32)
    query_lens = torch.tensor([end - start], dtype=torch.int32)
    return AttentionBatch(
        num_tokens=end - start,
        num_rows=1,
        num_decode_rows=int(end - start == 1),
        max_query_len=end - start,
        max_seq_len=end,
        positions=positions,
        query_start_loc=torch.tensor([0, end - start], dtype=torch.int32),
        seq_lens=seq_lens,
        block_tables=(blocks[None].int(),),
        slot_mappings=(blocks[positions // BLOCK] * BLOCK + positions % BLOCK,),
        query_lens_cpu=query_lens.numpy(),
        seq_lens_cpu=seq_lens.numpy(),
    )


@pytest.mark.parametrize("chunk", [1, 3, LENGTH])
@pytest.mark.parametrize(("window", "softcap"), [(None, 0.0), (5, 0.0), (1, 0.0), (None, 2.0)])
def test_chunks_in_pages_equal_the_whole_sequence(
    chunk: int, window: int | None, softcap: float
) -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(LENGTH, n, DIM).double() for n in (HEADS, KV_HEADS, KV_HEADS))
    angles = torch.arange(LENGTH)[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03])
    cos_sin = torch.cat((angles.cos(), angles.sin()), -1)
    cache = torch.full((2, 6, KV_HEADS, BLOCK, DIM), float("nan"), dtype=torch.float64)
    spec = AttentionSpec(HEADS, KV_HEADS, DIM, DIM**-0.5, window, softcap)
    backend = ReferenceBackend([spec], cos_sin, [cache], BLOCK)
    outputs = []
    for start in range(0, LENGTH, chunk):
        batch = one_row(start, min(start + chunk, LENGTH), [3, 1, 5])
        batch.check_integrity()
        part = slice(start, start + chunk)
        outputs.append(backend.build(batch).forward(0, q[part], k[part], v[part]))
    q, k = rotate(q, cos_sin.double()), rotate(k, cos_sin.double())
    expected = whole_sequence(q, k, v, window or LENGTH, softcap)
    torch.testing.assert_close(torch.cat(outputs), expected)
    assert cache[:, 0].isnan().all(), "the null block was written"


def test_rotation_keeps_lengths_and_depends_on_distance_only() -> None:
    angles = torch.arange(9).double()[:, None] * torch.tensor([1.0, 0.3, 0.1, 0.03]).double()
    cos_sin = torch.cat((angles.cos(), angles.sin()), -1)
    q, k = torch.randn(1, 1, DIM).double(), torch.randn(1, 1, DIM).double()
    turned_q, turned_k = rotate(q.expand(9, 1, DIM), cos_sin), rotate(k.expand(9, 1, DIM), cos_sin)
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm(dim=-1).expand(9, 1))
    scores = torch.einsum("qhd,khd->qk", turned_q, turned_k)
    for distance in range(9):
        diagonal = scores.diagonal(-distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))


def test_padding_rows_and_tokens_change_nothing_and_give_zeros() -> None:
    cache = torch.full((2, 3, KV_HEADS, BLOCK, DIM), float("nan"))
    spec = AttentionSpec(HEADS, KV_HEADS, DIM, 1.0)
    backend = ReferenceBackend([spec], torch.ones(4, DIM), [cache], BLOCK)
    batch = one_row(0, 1, [1])
    batch.seq_lens.zero_()
    batch.slot_mappings[0].fill_(-1)
    q, k = torch.randn(1, HEADS, DIM), torch.randn(1, KV_HEADS, DIM)
    assert backend.build(batch).forward(0, q, k, k).count_nonzero() == 0
    assert cache.isnan().all()


def test_backends_are_found_by_name() -> None:
    assert backend_class("reference", torch.device("cpu")) is ReferenceBackend
    with pytest.raises(ConfigError, match="'flash' is unknown: choose one of auto, triton"):
        backend_class("flash", torch.device("cpu"))


def test_one_cache_a_layer_is_required() -> None:
    spec = AttentionSpec(HEADS, KV_HEADS, DIM, 1.0)
    with pytest.raises(ConfigError, match="0 KV caches for 1 layers"):
        ReferenceBackend([spec], torch.ones(4, DIM), [], BLOCK)
