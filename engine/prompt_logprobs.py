"""Log probabilities of prompt tokens: which positions of a step predict one that was asked for.

Knows the requests that ask, their prompts' lengths, and how many logits may be in memory at once.
What a log probability is, `logprobs` knows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from engine.batch_inputs import BatchInputs
from engine.logprobs import LogprobTensors, gather_logprobs
from workbench.outputs import NewRequestData

MOST_POSITIONS = 512
"""Positions whose logits are in memory at once."""


@dataclass(frozen=True, slots=True)
class PromptSpan:
    """Consecutive positions of one row that predict prompt tokens.

    Attributes:
        request_id: The request.
        tokens: Indices into the step's tokens whose logits predict.
        next_ids: [n] int64 the prompt tokens they predict.
        start: Place in the prompt of the first of these.
        num_logprobs: How many beside each, -1 for the whole vocabulary.
    """

    request_id: str
    tokens: slice
    next_ids: np.ndarray
    start: int
    num_logprobs: int


class PromptLogprobsBatch:
    """The requests of the batch that ask for log probabilities of their prompt.

    One that comes back with an answer has been told already. A prompt whose beginning was found in
    the prefix cache is told of from there on: whoever wants all of it keeps it out of that cache.
    """

    def __init__(self) -> None:
        self._asked: dict[int, tuple[str, int]] = {}

    def add(self, slot: int, new: NewRequestData) -> None:
        """Note a request that joins, if it asks."""
        params = new.sampling_params
        if params is None or params.prompt_logprobs is None or new.output_token_ids:
            return
        self._asked[slot] = (new.request_id, params.prompt_logprobs)

    def remove(self, slot: int) -> None:
        """Forget a slot."""
        self._asked.pop(slot, None)

    def plan(
        self, inputs: BatchInputs, token_ids: np.ndarray, num_prompt: np.ndarray
    ) -> list[PromptSpan]:
        """The spans of a step.

        Args:
            inputs: The step.
            token_ids: [slots, length] tokens of every slot.
            num_prompt: [slots] prompt tokens.
        """
        if not self._asked:
            return []
        spans = []
        for row, slot in enumerate(inputs.rows.slots.tolist()):
            asked = self._asked.get(slot)
            if asked is None:
                continue
            first = int(inputs.query_start_loc[row])
            start = int(inputs.positions[first])
            length = min(int(inputs.rows.query_lens[row]), int(num_prompt[slot]) - 1 - start)
            if length > 0:
                next_ids = token_ids[slot, start + 1 : start + 1 + length].astype(np.int64)
                tokens = slice(first, first + length)
                spans.append(PromptSpan(asked[0], tokens, next_ids, start + 1, asked[1]))
            else:
                del self._asked[slot]
        return spans


def gather_in_parts(
    compute_logits: Callable[[Tensor], Tensor],
    hidden: Tensor,
    next_ids: Tensor,
    num_logprobs: int,
    most_positions: int = MOST_POSITIONS,
) -> LogprobTensors:
    """Log probabilities of consecutive prompt tokens, with the logits of a few at a time.

    Args:
        compute_logits: [n, hidden] to [n, vocab].
        hidden: [M, hidden] of the positions that predict, at least one.
        next_ids: [M] int64 the tokens they predict.
        num_logprobs: How many beside each, -1 for the whole vocabulary.
        most_positions: Positions at a time.
    """
    parts = [
        gather_logprobs(compute_logits(rows), token_ids, num_logprobs)
        for rows, token_ids in zip(
            hidden.split(most_positions), next_ids.split(most_positions), strict=True
        )
    ]
    if len(parts) == 1:
        return parts[0]
    return LogprobTensors(
        np.arange(len(hidden)),
        np.concatenate([part.counts for part in parts]),
        torch.cat([part.token_ids for part in parts]),
        torch.cat([part.logprobs for part in parts]),
        torch.cat([part.ranks for part in parts]),
    )
