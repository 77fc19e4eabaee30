"""What a step leaves behind while the device still works on it, and how it becomes plain values.

Knows rows and how tokens leave the device. Does not know requests' histories.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batch_inputs import BatchInputs
from engine.logprobs import LogprobTensors
from engine.verification import Accepted
from workbench.outputs import ModelRunnerOutput
from workbench.token_logprobs import PromptLogprobs, TokenLogprobs

FAILED_TOKEN = -1
EMPTY_TOKEN = -2
NAN_REASON = (
    "the model's logits are not a number: check the checkpoint, or use dtype='bfloat16' or "
    "'float32' if the weights overflow float16"
)
EMPTY_REASON = (
    "nothing is left to choose: allowed_token_ids, bad words, stop tokens before min_tokens, "
    "logit_bias and structured_outputs leave no token; allow more or forbid less"
)
REASONS = {FAILED_TOKEN: NAN_REASON, EMPTY_TOKEN: EMPTY_REASON}


@dataclass(frozen=True, slots=True)
class PromptRows:
    """Prompt tokens of one request whose log probabilities a step computed."""

    request_id: str
    start: int
    logprobs: LogprobTensors


class Finished:
    """A pending output that is there already."""

    def __init__(self, output: ModelRunnerOutput) -> None:
        self._output = output

    def result(self) -> ModelRunnerOutput:
        """The output."""
        return self._output


class StepResult:
    """The pending output of a step without draft tokens. `result()` waits for the device.

    Args:
        inputs: The step.
        token_ids: [S] int64 on the device: the token of each row that samples; FAILED_TOKEN where
            the logits were not numbers, EMPTY_TOKEN where they left nothing to choose.
        logprobs: Of the sampled tokens, or None.
        prompt_logprobs: Of prompt tokens.
    """

    def __init__(
        self,
        inputs: BatchInputs,
        token_ids: Tensor,
        logprobs: LogprobTensors | None,
        prompt_logprobs: Sequence[PromptRows] = (),
    ) -> None:
        self._inputs = inputs
        self._token_ids, self._arrived = to_host(token_ids)
        self._logprobs = logprobs and logprobs.to_host()
        self._prompt_logprobs = [
            PromptRows(rows.request_id, rows.start, rows.logprobs.to_host())
            for rows in prompt_logprobs
        ]
        if self._arrived is not None:
            self._arrived.record()
        self._output: ModelRunnerOutput | None = None

    def result(self) -> ModelRunnerOutput:
        """The output; waits until it has arrived."""
        if self._output is None:
            if self._arrived is not None:
                self._arrived.synchronize()
            self._output = self._make_output()
        return self._output

    def _make_output(self) -> ModelRunnerOutput:
        rows = self._inputs.rows
        sampled: list[list[int]] = self._token_ids.view(-1, 1).tolist()
        output = ModelRunnerOutput(sampled_token_ids=sampled)
        is_plain = len(sampled) == rows.num_rows and rows.order is None
        if not is_plain or self._logprobs is not None or self._has_failed():
            self._place(output, sampled)
        if self._prompt_logprobs:
            output.prompt_logprobs = prompt_logprobs_of(self._prompt_logprobs)
        return output

    def _has_failed(self) -> bool:
        return bool((self._token_ids < 0).any())

    def _place(self, output: ModelRunnerOutput, sampled: list[list[int]]) -> None:
        """Put every row at its place in the scheduler's order."""
        rows, places = self._inputs.rows, scheduler_places(self._inputs)
        in_order: list[list[int]] = [[] for _ in range(rows.num_rows)]
        failed = {}
        for place, token_ids in zip(places, sampled, strict=True):
            if token_ids[0] < 0:
                failed[rows.request_ids[place]] = REASONS[token_ids[0]]
            else:
                in_order[place] = token_ids
        output.sampled_token_ids = in_order
        output.failed = failed
        if self._logprobs is not None:
            by_row = self._logprobs.by_row
            output.logprobs = {
                rows.request_ids[places[row]]: [logprobs] for row, logprobs in by_row.items()
            }


def scheduler_places(inputs: BatchInputs) -> list[int]:
    """[S] place in the scheduler's order of each row that samples."""
    order, sample_rows = inputs.rows.order, inputs.sample_rows
    places: list[int] = (sample_rows if order is None else order[sample_rows]).tolist()
    return places


def why_failed(accepted: Sequence[Accepted], is_empty: Tensor | None) -> dict[str, str]:
    """The reason of each verified row that keeps a token from logits that gave none, by request id.

    Args:
        accepted: What every row keeps.
        is_empty: [N] bool of the rows of the logits: they left nothing to choose; None: none.
    """
    empty = [] if is_empty is None else is_empty.tolist()
    failed = {}
    for row in accepted:
        if not row.is_valid:
            rows = slice(row.first_logits_row, row.first_logits_row + len(row.token_ids))
            failed[row.request_id] = EMPTY_REASON if any(empty[rows]) else NAN_REASON
    return failed


def prompt_logprobs_of(rows: Sequence[PromptRows]) -> dict[str, PromptLogprobs]:
    """Prompt log probabilities by request id; the tensors must have arrived."""
    return {row.request_id: PromptLogprobs(row.start, row.logprobs.as_list()) for row in rows}


def sampled_logprobs(
    logprobs: LogprobTensors, accepted: Sequence[Accepted]
) -> dict[str, list[TokenLogprobs]]:
    """Log probabilities of the tokens that verified rows keep, by request id."""
    by_row = logprobs.by_row
    return {
        row.request_id: [by_row[row.first_logits_row + i] for i in range(len(row.token_ids))]
        for row in accepted
        if row.first_logits_row in by_row
    }


def to_host(tensor: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
    """The tensor on the host, and what tells when it has arrived (to be recorded); None: now."""
    if tensor.device.type == "cpu":
        return tensor, None
    pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    pinned.copy_(tensor, non_blocking=True)
    return pinned, torch.cuda.Event()
