"""The KV cache's tensors, its groups, its sizes, and the copies to the host."""

import pytest
import torch

from engine.attention.backend import AttentionSpec
from engine.config import EngineConfig
from engine.kv_cache import KVCacheLayout, assign_groups
from engine.kv_capacity import _full_step
from engine.loader import load_model
from engine.models.registry import read_hf_config
from engine.profile_batch import profile_batch
from engine.swap_space import SwapSpace
from tests.engine.tiny import tiny
from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.outputs import BlockCopy

FULL = AttentionSpec(4, 2, 16, 0.25)
WINDOW = AttentionSpec(4, 2, 16, 0.25, sliding_window=8)
CPU = torch.device("cpu")


def test_layers_of_different_groups_share_tensors() -> None:
    specs, cache_config = assign_groups([FULL, WINDOW, WINDOW], CacheConfig(), "recompute")
    assert [spec.group for spec in specs] == [0, 1, 1]
    assert cache_config.hybrid_window == 8
    layout = KVCacheLayout.of(specs, 16, torch.bfloat16)
    assert layout.tensor_of_layer == (0, 0, 1)
    assert layout.block_bytes == 2 * 2 * (2 * 16 * 16) * 2
    tensors = layout.allocate(5, CPU)
    assert sum(tensor.nbytes for tensor in tensors) == 5 * layout.block_bytes
    assert [t.data_ptr() for t in layout.by_layer(tensors)][:2] == [tensors[0].data_ptr()] * 2


def test_all_layers_slide_or_keep_everything_to_be_swapped() -> None:
    specs, cache_config = assign_groups([WINDOW, WINDOW], CacheConfig(), "recompute")
    assert (cache_config.sliding_window, specs[0].group) == (8, 0)
    specs, cache_config = assign_groups([FULL, WINDOW], CacheConfig(), "swap")
    assert cache_config.hybrid_window is None
    assert [spec.group for spec in specs] == [0, 0]
    assert specs[1].sliding_window == 8


def test_layers_that_do_not_fit_together_are_refused() -> None:
    other = AttentionSpec(4, 4, 16, 0.25)
    with pytest.raises(ConfigError, match=r"\(2, 16\), \(4, 16\)"):
        KVCacheLayout.of([FULL, other], 16, torch.float32)
    wider = AttentionSpec(4, 2, 16, 0.25, sliding_window=9)
    with pytest.raises(ConfigError, match=r"\[8, 9\] tokens in one model"):
        assign_groups([WINDOW, wider], CacheConfig(), "recompute")
    with pytest.raises(ConfigError, match="hybrid_window=8, but the model's is None"):
        assign_groups([FULL], CacheConfig(hybrid_window=8), "recompute")


def numbered(num_blocks: int) -> list[torch.Tensor]:
    layout = KVCacheLayout.of([FULL, FULL], 4, torch.float32)
    tensors = layout.allocate(num_blocks, CPU)
    for tensor in tensors:
        tensor += torch.arange(num_blocks).view(1, -1, 1, 1, 1)
    return tensors


def block_values(tensor: torch.Tensor) -> list[float]:
    assert (tensor == tensor[:1, :, :1, :1, :1]).all()
    return tensor[0, :, 0, 0, 0].tolist()


def test_blocks_go_to_the_host_and_come_back_elsewhere() -> None:
    tensors = numbered(6)
    space = SwapSpace(tensors, 4)
    space.copy([BlockCopy("a", (2, 5), (3, 0))], [])
    for tensor in tensors:
        tensor[:, [2, 5]] = -1.0
    space.copy([], [BlockCopy("a", (4, 1), (3, 0))])
    for tensor in tensors:
        assert block_values(tensor) == [0, 5, -1, 3, 2, -1]


def test_copies_of_one_step_that_share_blocks() -> None:
    tensors = numbered(6)
    space = SwapSpace(tensors, 2)
    space.copy([BlockCopy("a", (1,), (0,))], [])
    # b leaves block 2, into which a comes back; then c takes a's room on the host
    space.copy(
        [BlockCopy("b", (2,), (1,)), BlockCopy("c", (3,), (0,))], [BlockCopy("a", (2,), (0,))]
    )
    assert block_values(tensors[0]) == [0, 1, 1, 3, 4, 5]
    # and one that leaves and comes back in one step finds what it left
    space.copy(
        [BlockCopy("d", (5,), (0,))], [BlockCopy("d", (4,), (0,)), BlockCopy("b", (0,), (1,))]
    )
    assert block_values(tensors[0]) == [2, 1, 1, 3, 5, 5]


@pytest.mark.parametrize(("num_tokens", "max_rows"), [(17, 4), (5, 8), (64, 64), (100, 33)])
def test_the_profile_step_uses_all_tokens_and_rows(num_tokens: int, max_rows: int) -> None:
    batch = profile_batch(num_tokens, max_rows, CPU)
    batch.check_integrity()
    assert batch.num_rows == min(num_tokens, max_rows)
    assert int(batch.query_lens_cpu.sum()) == num_tokens
    assert all((slots == -1).all() for slots in batch.slot_mappings)


@pytest.mark.parametrize("backend", ["torch", "reference"])
def test_the_profile_step_runs_without_a_cache(backend: str) -> None:
    folder = str(tiny("hybrid").folder)
    model = load_model(read_hf_config(folder), folder)
    config = EngineConfig(model=folder, attention_backend=backend)
    limits = SchedulerConfig(max_num_batched_tokens=90, max_num_seqs=7)
    with torch.inference_mode():
        _full_step(config, limits, model, CPU)
