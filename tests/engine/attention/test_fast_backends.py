"""The fast backends beside the reference, on mixed batches whose unused memory is NaN."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from engine.attention.backend import AttentionBackend, AttentionBatch, AttentionSpec
from engine.attention.buckets import by_query_len, by_width
from engine.attention.reference import ReferenceBackend
from engine.attention.torch_backend import TorchBackend
from engine.attention.triton_backend import TritonBackend
from workbench.errors import ConfigError

SPARE_PAGES = 64
HEADS, KV_HEADS, DIM = 4, 2, 16
MAX_LEN = 96
# (query tokens, context before the step) of each row: decodes first
STEPS: list[list[tuple[int, int]]] = [
    [(7, 0), (33, 0), (16, 0), (5, 0), (2, 0)],
    [(1, 7), (1, 33), (1, 16), (30, 5), (4, 2)],
    [(1, 8), (1, 34), (1, 17), (1, 35), (17, 6)],
    [(1, 9), (1, 35), (3, 18), (3, 36), (2, 23)],
]
# for the interpreter, which takes its time
SMALL_STEPS = [[(9, 0), (3, 0)], [(1, 9), (2, 3)], [(1, 10), (1, 5)]]
SPECS = [
    AttentionSpec(HEADS, KV_HEADS, DIM, DIM**-0.5),
    AttentionSpec(HEADS, KV_HEADS, DIM, 0.3, sliding_window=11),
    AttentionSpec(HEADS, KV_HEADS, DIM, DIM**-0.5, sliding_window=40, softcap=3.0),
    AttentionSpec(HEADS, KV_HEADS, DIM, DIM**-0.5, softcap=2.0),
]


def make_batch(rows: Sequence[tuple[int, int]], tables: np.ndarray, size: int) -> AttentionBatch:
    """The batch of some rows; `tables` [R, W] are their blocks."""
    query_lens = np.array([query_len for query_len, _ in rows], dtype=np.int32)
    seq_lens = np.array([sum(row) for row in rows], dtype=np.int32)
    positions = np.concatenate([np.arange(context, context + n) for n, context in rows])
    row_of = np.repeat(np.arange(len(rows)), query_lens)
    slots = tables[row_of, positions // size].astype(np.int64) * size + positions % size
    starts = np.concatenate(([0], query_lens.cumsum())).astype(np.int32)
    return AttentionBatch(
        num_tokens=len(positions),
        num_rows=len(rows),
        num_decode_rows=int((query_lens == 1).sum()),
        max_query_len=int(query_lens.max()),
        max_seq_len=int(seq_lens.max()),
        positions=torch.from_numpy(positions),
        query_start_loc=torch.from_numpy(starts),
        seq_lens=torch.from_numpy(seq_lens),
        block_tables=(torch.from_numpy(tables.astype(np.int32)),),
        slot_mappings=(torch.from_numpy(slots),),
        query_lens_cpu=query_lens,
        seq_lens_cpu=seq_lens,
    )


def run(
    kind: type[AttentionBackend],
    size: int,
    dtype: torch.dtype,
    specs: Sequence[AttentionSpec],
    steps: Sequence[list[tuple[int, int]]] = STEPS,
) -> list[Tensor]:
    """The outputs of all steps and layers; rows of the tables are followed through the steps."""
    generator = torch.Generator().manual_seed(0)
    rng = np.random.default_rng(1)
    num_rows, width = len(steps[0]), MAX_LEN // size
    tables = rng.permutation(num_rows * width).reshape(num_rows, width) + 1
    shape = (2, num_rows * width + 1, KV_HEADS, size, DIM)
    caches = [torch.full(shape, float("nan"), dtype=dtype) for _ in specs]
    angles = torch.arange(MAX_LEN)[:, None] / 10.0 ** torch.arange(DIM // 2)
    backend = kind(specs, torch.cat((angles.cos(), angles.sin()), -1), caches, size)
    outputs = []
    for rows in steps:
        batch = make_batch(rows, tables, size)
        batch.check_integrity()
        step = backend.build(batch)
        for layer in range(len(specs)):
            fused = torch.randn(batch.num_tokens, HEADS + 2 * KV_HEADS, DIM, generator=generator)
            q, k, v = fused.to(dtype).split((HEADS, KV_HEADS, KV_HEADS), dim=1)
            outputs.append(step.forward(layer, q, k, v))
    return outputs


@pytest.mark.parametrize("workspace_pages", [1000, 3])
@pytest.mark.parametrize("size", [4, 8, 12, 16])
def test_torch_equals_the_reference(
    size: int, workspace_pages: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "engine.attention.torch_backend.WORKSPACE_BYTES",
        workspace_pages * KV_HEADS * size * DIM * 4,
    )
    expected = run(ReferenceBackend, size, torch.float32, SPECS)
    for ours, exact in zip(run(TorchBackend, size, torch.float32, SPECS), expected, strict=True):
        torch.testing.assert_close(ours, exact, atol=2e-6, rtol=2e-6)


@pytest.mark.parametrize(("dtype", "error"), [(torch.bfloat16, 2e-2), (torch.float16, 2.5e-3)])
def test_torch_in_half_precision(dtype: torch.dtype, error: float) -> None:
    expected = run(ReferenceBackend, 8, dtype, SPECS)
    for ours, exact in zip(run(TorchBackend, 8, dtype, SPECS), expected, strict=True):
        torch.testing.assert_close(ours, exact, atol=error, rtol=error)


def test_triton_equals_the_reference() -> None:
    specs = SPECS[:2]
    expected = run(ReferenceBackend, 16, torch.float32, specs, SMALL_STEPS)
    found = run(TritonBackend, 16, torch.float32, specs, SMALL_STEPS)
    for ours, exact in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, exact, atol=2e-6, rtol=2e-6)


def test_shapes_that_a_backend_lacks_are_refused() -> None:
    cache = torch.zeros(2, 3, KV_HEADS, 8, 12)
    spec = AttentionSpec(HEADS, KV_HEADS, 12, 1.0)
    with pytest.raises(ConfigError, match="head_dim=12"):
        TritonBackend([spec], torch.ones(4, 12), [cache], 8)
    with pytest.raises(ConfigError, match="block_size=12 is no power of two"):
        TritonBackend([SPECS[0]], torch.ones(4, DIM), [cache], 12)
    with pytest.raises(ConfigError, match="kv_cache_dtype='auto'"):
        TorchBackend([spec], torch.ones(4, 12), [cache.to(torch.float8_e4m3fn)], 8)


def test_triton_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triton.knobs.runtime.interpret", False)
    cache = torch.zeros(2, 3, KV_HEADS, 16, DIM)
    with pytest.raises(ConfigError, match=r"needs a GPU.*use attention_backend='torch'"):
        TritonBackend([SPECS[0]], torch.ones(4, DIM), [cache], 16)


def test_buckets_hold_every_row_once_and_pad_little() -> None:
    rng = np.random.default_rng(3)
    for _ in range(50):
        widths = rng.integers(1, 80, rng.integers(1, 200))
        query_lens = rng.integers(2, 300, len(widths))
        for buckets in (
            list(by_width(widths, 500, SPARE_PAGES)),
            list(by_query_len(query_lens, widths, 500, SPARE_PAGES)),
        ):
            assert sorted(np.concatenate(buckets)) == list(range(len(widths)))
            for rows in buckets:
                padding = widths[rows].max() * len(rows) - widths[rows].sum()
                assert padding <= SPARE_PAGES
                assert widths[rows].max() * len(rows) <= 500
        for rows in by_query_len(query_lens, widths, 500, SPARE_PAGES):
            assert query_lens[rows].max() < 2 * query_lens[rows].min()
