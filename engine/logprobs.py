"""Log probabilities of the tokens that were chosen, and of the most likely ones beside them.

Knows what is computed from one matrix of logits and how it leaves the device. The logits are the
model's own: before temperature, penalties and whatever else changes the draw.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from workbench.token_logprobs import TokenLogprobs

MOST_WITH_KERNEL = 32
ALL_TOKENS = -1
"""As a number of log probabilities: those of the whole vocabulary."""


@dataclass(frozen=True)
class LogprobTensors:
    """Log probabilities of M positions, still on the device (or on their way to the host).

    Attributes:
        rows: [M] numpy; row of the step's logits that each position belongs to.
        counts: [M] numpy; number of most likely tokens asked for, never above K.
        token_ids: [M, 1 + K] int64: the chosen token, then the most likely ones.
        logprobs: [M, 1 + K] float32.
        ranks: [M] int64; of the chosen tokens, from 1.
    """

    rows: np.ndarray
    counts: np.ndarray
    token_ids: Tensor
    logprobs: Tensor
    ranks: Tensor

    def to_host(self) -> "LogprobTensors":
        """The same on the CPU; on CUDA the copies run asynchronously in the current stream."""
        if self.token_ids.device.type == "cpu":
            return self
        tensors = (self.token_ids, self.logprobs, self.ranks)
        copies = (tensor.to("cpu", non_blocking=True) for tensor in tensors)
        return LogprobTensors(self.rows, self.counts, *copies)

    @cached_property
    def by_row(self) -> dict[int, TokenLogprobs]:
        """The positions by row of the logits; the tensors must be on the CPU, and complete."""
        columns = zip(
            self.rows.tolist(),
            self.counts.tolist(),
            self.token_ids.tolist(),
            self.logprobs.tolist(),
            self.ranks.tolist(),
            strict=True,
        )
        return {
            row: TokenLogprobs(token_ids[: 1 + count], logprobs[: 1 + count], rank)
            for row, count, token_ids, logprobs, rank in columns
        }

    def as_list(self) -> list[TokenLogprobs]:
        """The positions in order; the tensors must be on the CPU, and complete."""
        return list(self.by_row.values())


def gather_logprobs(
    logits: Tensor,
    token_ids: Tensor,
    num_logprobs: int | np.ndarray,
    rows: np.ndarray | Sequence[int] | None = None,
) -> LogprobTensors:
    """Log probabilities of given tokens and of the most likely ones.

    Args:
        logits: [M, V] floating, unchanged by this.
        token_ids: [M] int64: the token of each position (chosen, or next in the prompt).
        num_logprobs: Most likely tokens to tell, one number for all or [M]; -1: the vocabulary.
        rows: [M] what the positions are called in the result; None: 0 … M - 1.
    """
    num_rows, vocab_size = logits.shape
    counts = np.broadcast_to(np.asarray(num_logprobs, dtype=np.int64), (num_rows,))
    counts = np.where(counts == ALL_TOKENS, vocab_size, np.minimum(counts, vocab_size))
    most = int(counts.max(initial=0))
    names = np.arange(num_rows) if rows is None else np.asarray(rows)
    # the kernel finds the best one after the other, so it is not for whole vocabularies
    gather = with_kernel if logits.is_cuda and most <= MOST_WITH_KERNEL else with_torch
    return LogprobTensors(names, counts, *gather(logits, token_ids, most))


def with_torch(logits: Tensor, token_ids: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids [M, 1 + most], their log probabilities, and the ranks of the first ones."""
    logprobs = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    chosen = token_ids.view(-1, 1)
    # ranks and order from the logits: distinct ones may round to the same log probability
    ranks = (logits >= logits.gather(1, chosen)).sum(1)
    told = torch.cat((chosen, logits.topk(most, dim=1).indices), 1)
    return told, logprobs.gather(1, told), ranks


def with_kernel(logits: Tensor, token_ids: Tensor, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same in one pass over the logits, with our Triton kernel."""
    from kernels.sampling.logprobs import token_logprobs

    chosen, ranks, top_logprobs, top_ids = token_logprobs(logits, token_ids, most)
    told = torch.cat((token_ids.view(-1, 1), top_ids), 1)
    return told, torch.cat((chosen.view(-1, 1), top_logprobs), 1), ranks
