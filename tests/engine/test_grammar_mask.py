"""The bitmask takes what is forbidden out of the right rows, on a CPU as on a GPU."""

from typing import Any

import numpy as np
import pytest
import torch

from engine.grammar_mask import _mask_on_device, grammar_edit
from workbench.structured_output import GrammarOutput

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VOCAB = 77


def bitmask(rows: np.ndarray) -> np.ndarray:
    """[n, vocab] bool as words."""
    padded = np.zeros((len(rows), 96), dtype=np.uint8)
    padded[:, :VOCAB] = rows
    return np.packbits(padded, axis=1, bitorder="little").view(np.int32)


def draw_rows(count: int) -> np.ndarray:
    rows = np.random.default_rng(count).random((count, VOCAB)) < 0.3
    rows[:, 31] = True
    return rows


@pytest.mark.parametrize("device", sorted({"cpu", DEVICE}))
def test_only_what_is_forbidden_in_rows_with_a_grammar_goes(device: str) -> None:
    allowed = draw_rows(4)
    output = GrammarOutput(["c", "a"], [1, 3], bitmask(allowed))
    # a: three rows for its drafts, b: without a grammar, c: one row
    slots = np.array([5, 5, 5, 2, 9])
    logits = torch.randn(5, VOCAB, device=device)
    before = logits.clone()
    grammar_edit(output, {"a": 5, "b": 2, "c": 9}, slots)(logits)
    assert (logits[3] == before[3]).all()
    for row, mask in zip([4, 0, 1, 2], allowed, strict=True):
        is_allowed = torch.from_numpy(mask).to(device)
        assert (logits[row][is_allowed] == before[row][is_allowed]).all()
        assert (logits[row][~is_allowed] == float("-inf")).all()


@pytest.mark.parametrize("rows", [[0, 1, 2], [2, 0]])
def test_the_expression_for_gpus_does_the_same(rows: list[int]) -> None:
    allowed = draw_rows(len(rows))
    logits: Any = torch.randn(3, VOCAB, device=DEVICE)
    expected = logits.clone()
    for row, mask in zip(rows, allowed, strict=True):
        expected[row][torch.from_numpy(~mask).to(DEVICE)] = float("-inf")
    _mask_on_device(logits, bitmask(allowed), np.array(rows))
    assert (logits == expected).all()
