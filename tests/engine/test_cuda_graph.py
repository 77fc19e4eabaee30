"""Captured decode steps, with a stand-in that replays without a GPU."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.build import EngineParts
from engine.cuda_graph import CudaGraphs, GraphBuffers, capture_sizes
from engine.errors import OutOfMemoryError
from tests.engine.harness import generate, make_engine
from tests.engine.tiny import NUM_TOKENS, tiny


def test_sizes() -> None:
    assert capture_sizes(20) == [1, 2, 4, 8, 16, 20]
    assert capture_sizes(300)[-4:] == [256, 272, 288, 300]
    assert capture_sizes(8, (2, 5, 99)) == [2, 5, 8]


class ReplayedEagerly(CudaGraphs):
    """Runs the model on the fixed buffers where a graph would be replayed."""

    def _capture(self, size: int, pool: Any) -> Any:
        graphs = self

        class Graph:
            num_replays = 0

            def pool(self) -> tuple[int, int]:
                return (0, 1)

            def replay(self) -> None:
                self.num_replays += 1
                buffers = graphs._buffers
                batch = buffers.batch(size, graphs._max_model_len)
                step = graphs._backend.build(batch)
                hidden = graphs._model(buffers.token_ids[:size], batch.positions, step)
                graphs._hidden[size] = hidden

        graph = Graph()
        self._graphs[size] = graph  # type: ignore[assignment]
        return graph


def with_graphs(engine: EngineParts, sizes: list[int]) -> ReplayedEagerly:
    backend = engine.runner.backend
    max_model_len = engine.scheduler_config.max_model_len or 0
    width = -(-max_model_len // backend.block_size)
    groups = len(engine.runner.input_batch.block_tables)
    buffers = GraphBuffers(sizes[-1], width, groups, engine.device)
    graphs = ReplayedEagerly(engine.model, backend, sizes, max_model_len, buffers)
    graphs.capture()
    engine.runner._graphs = graphs
    return graphs


@pytest.mark.parametrize("name", ["llama", "hybrid"])
def test_padded_batches_give_the_same_tokens(name: str) -> None:
    model = tiny(name)
    engine = make_engine(model.folder, attention_backend="reference", max_num_seqs=8)
    graphs = with_graphs(engine, [2, 5, 8])
    run = generate(engine, model.prompts, [3 + i % 5 for i in range(len(model.prompts))])
    assert run.token_ids == [a[: 3 + i % 5] for i, a in enumerate(model.answers)]
    assert all(graph.num_replays for graph in graphs._graphs.values())  # type: ignore[attr-defined]
    assert NUM_TOKENS >= 7


def test_padding_rows_are_nobodys() -> None:
    buffers = GraphBuffers(4, 3, 1, torch.device("cpu"))
    full, part = buffers.batch(4, 12), buffers.batch(2, 12)
    full.seq_lens.fill_(7)
    full.slot_mappings[0].fill_(3)
    other = GraphBuffers(2, 2, 1, torch.device("cpu")).batch(2, 12)
    other.seq_lens.copy_(torch.tensor([5, 6]))
    other.block_tables[0].fill_(9)
    buffers.fill(torch.tensor([41, 42]), other, 4)
    assert buffers.token_ids.tolist() == [41, 42, 0, 0]
    assert full.seq_lens.tolist() == [5, 6, 0, 0]
    assert full.slot_mappings[0].tolist() == [-1, -1, -1, -1]
    assert part.block_tables[0].tolist() == [[9, 9, 0], [9, 9, 0]]
    assert np.array_equal(full.query_start_loc.numpy(), range(5))


def test_a_mixed_or_larger_batch_is_not_covered() -> None:
    buffers = GraphBuffers(4, 3, 1, torch.device("cpu"))
    graphs = CudaGraphs(None, None, [1, 4], 12, buffers)  # type: ignore[arg-type]
    batch = buffers.batch(4, 12)
    assert graphs.covers(batch)
    batch.num_decode_rows = 3
    assert not graphs.covers(batch)
    assert not graphs.covers(GraphBuffers(5, 3, 1, torch.device("cpu")).batch(5, 12))


def test_no_memory_left_for_a_graph() -> None:
    class Full(CudaGraphs):
        def _capture(self, size: int, pool: Any) -> Any:
            raise torch.OutOfMemoryError("no")

    buffers = GraphBuffers(4, 3, 1, torch.device("cpu"))
    graphs = Full(None, None, [1, 4], 12, buffers)  # type: ignore[arg-type]
    with pytest.raises(OutOfMemoryError, match=r"graph of 4 rows.*enforce_eager=True"):
        graphs.capture()
