"""Takes the tokens that a grammar forbids out of a step's logits.

Knows bitmasks and rows of logits. Does not know grammars.
"""

from collections.abc import Mapping
from functools import cache

import numpy as np
import torch
from torch import Tensor

from engine.logit_rules import Edit
from engine.slot_rows import to_device
from workbench.structured_output import GrammarOutput

BITS_PER_BYTE = 8


def grammar_edit(
    output: GrammarOutput, slot_of: Mapping[str, int], logits_slots: np.ndarray
) -> Edit:
    """The edit of a step's logits; nothing is waited for.

    Args:
        output: What the rows with a grammar may sample.
        slot_of: Slot by request id.
        logits_slots: [N] slot of each row of the logits; equal ones stand together.
    """
    rows = _rows(output, slot_of, logits_slots)

    def edit(logits: Tensor) -> None:
        if logits.device.type == "cpu":
            _mask_on_cpu(logits.detach().numpy(), output.bitmask, rows)
        else:
            _mask_on_device(logits, output.bitmask, rows)

    return edit


def _rows(
    output: GrammarOutput, slot_of: Mapping[str, int], logits_slots: np.ndarray
) -> np.ndarray:
    """[M] int64 row of the logits that each row of the bitmask belongs to."""
    slots, firsts = np.unique(logits_slots, return_index=True)
    wanted = np.array([slot_of[request_id] for request_id in output.request_ids])
    counts = np.array(output.num_rows)
    starts = np.repeat(firsts[np.searchsorted(slots, wanted)], counts)
    ends = np.cumsum(counts)
    return starts + np.arange(len(starts)) - np.repeat(ends - counts, counts)


def _mask_on_cpu(logits: np.ndarray, bitmask: np.ndarray, rows: np.ndarray) -> None:
    vocab_size = logits.shape[1]
    for row, words in zip(rows.tolist(), bitmask, strict=True):
        forbidden = np.unpackbits(~words.view(np.uint8), count=vocab_size, bitorder="little")
        np.copyto(logits[row], -np.inf, where=forbidden.view(np.bool_))


def _mask_on_device(logits: Tensor, bitmask: np.ndarray, rows: np.ndarray) -> None:
    device, vocab_size = logits.device, logits.shape[1]
    packed = to_device(bitmask.view(np.uint8), device).to(torch.int64)
    forbidden = _forbidden_bits(device)[packed].view(len(rows), -1)[:, :vocab_size]
    if len(rows) == len(logits) and np.array_equal(rows, np.arange(len(rows))):
        logits.masked_fill_(forbidden, float("-inf"))
        return
    at = to_device(rows, device)
    logits[at] = logits[at].masked_fill(forbidden, float("-inf"))


@cache
def _forbidden_bits(device: torch.device) -> Tensor:
    """[256, 8] bool: which bits of each byte are not set, lowest first."""
    byte = torch.arange(1 << BITS_PER_BYTE, device=device).unsqueeze(1)
    bit = torch.arange(BITS_PER_BYTE, device=device)
    return (byte >> bit) & 1 == 0
