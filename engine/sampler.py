"""From logits to tokens: edits, then the largest logit or a draw, and log probabilities beside.

On a GPU the kernels of kernels/sampling draw; elsewhere numpy does, row by row, which is faster
there than anything that torch offers. The order of things is vLLM's: log probabilities of the
model's own logits; grammars, allowed tokens, bad words, min_tokens, bias, penalties; temperature,
min_p, top_k, top_p. Knows a plan, and no request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from torch import Tensor

from engine.draw import draw
from engine.logprobs import LogprobTensors, gather_logprobs
from engine.sampling_batch import RandomRows, SamplingPlan, settings_on_device
from engine.slot_rows import to_device

Draw = Callable[[Tensor, RandomRows, np.ndarray], tuple[Tensor, Tensor]]
"""Logits [N, V], settings of the M random rows, their positions [M] -> token ids and is_valid."""


@dataclass(frozen=True, slots=True)
class SamplerOutput:
    """What was drawn for the N rows of a step; tensors on the device of the logits.

    Attributes:
        token_ids: [N] int64.
        is_valid: [N] bool. False: the row's logits hold NaN or +inf, or leave nothing to choose;
            its token is within the vocabulary and means nothing.
        logprobs: Of the rows that want them, before any edit; None where none does.
        is_empty: [N] bool: the edits have left nothing to choose. None: no row is so.
    """

    token_ids: Tensor
    is_valid: Tensor
    logprobs: LogprobTensors | None = None
    is_empty: Tensor | None = None


class Sampler:
    """Samples one token for every row of logits.

    Args:
        use_kernels: Draw with the Triton kernels; None: on a GPU, where Triton is installed.
            Otherwise rows that are drawn at random are copied to the CPU.
    """

    def __init__(self, use_kernels: bool | None = None) -> None:
        self._has_triton = find_spec("triton") is not None
        self._use_kernels = use_kernels

    def __call__(self, logits: Tensor, plan: SamplingPlan) -> SamplerOutput:
        """Sample.

        Args:
            logits: [N, V] float32, contiguous; the edits change them in place.
            plan: Of these rows.
        """
        if plan.is_greedy:
            return SamplerOutput(*largest(logits))
        raw = self._raw_rows(logits, plan)
        for edit in plan.edits:
            edit(logits)
        token_ids, is_valid = self._choose(logits, plan)
        logprobs = self._logprobs(raw, token_ids, plan)
        is_empty = nothing_left(logits, is_valid) if plan.edits else None
        return SamplerOutput(token_ids, is_valid, logprobs, is_empty)

    @staticmethod
    def _raw_rows(logits: Tensor, plan: SamplingPlan) -> Tensor | None:
        """The rows that want log probabilities, as the model gave them."""
        if plan.logprob_rows is None:
            return None
        if len(plan.logprob_rows) == len(logits):
            return logits.clone() if plan.edits else logits
        return logits[to_device(plan.logprob_rows, logits.device)]

    def _choose(self, logits: Tensor, plan: SamplingPlan) -> tuple[Tensor, Tensor]:
        random = plan.random
        if random is None:
            return largest(logits)
        positions = plan.num_output_tokens[random.rows]
        token_ids, is_valid = self._draw(logits.device)(logits, random, positions)
        if len(random.rows) == len(logits):
            return token_ids, is_valid
        all_ids, all_valid = largest(logits)
        rows = random.on_device[-1] if random.on_device else to_device(random.rows, logits.device)
        all_ids[rows] = token_ids
        # a row is valid or not however it is drawn
        return all_ids, all_valid

    def _draw(self, device: torch.device) -> Draw:
        use = self._use_kernels
        if use is None:
            use = device.type == "cuda" and self._has_triton
        return draw_with_kernels if use else draw_on_cpu

    @staticmethod
    def _logprobs(
        raw: Tensor | None, token_ids: Tensor, plan: SamplingPlan
    ) -> LogprobTensors | None:
        if raw is None or plan.logprob_rows is None or plan.num_logprobs is None:
            return None
        chosen = token_ids
        if len(plan.logprob_rows) < len(token_ids):
            chosen = token_ids[to_device(plan.logprob_rows, token_ids.device)]
        return gather_logprobs(raw, chosen, plan.num_logprobs, plan.logprob_rows)


def largest(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The place of the largest logit of each row [N] int64, and whether the row is valid [N].

    NaN counts as largest, so one look at the winner tells of it.
    """
    if logits.device.type != "cpu":
        values, token_ids = logits.max(dim=-1)
        return token_ids, values.isfinite()
    rows = logits.detach().numpy()
    winners = rows.argmax(axis=1)
    is_valid = np.isfinite(rows[np.arange(len(rows)), winners])
    return torch.from_numpy(winners), torch.from_numpy(is_valid)


def nothing_left(logits: Tensor, is_valid: Tensor) -> Tensor | None:
    """Which rows hold -inf only [N] bool; None if the host can see that there is none."""
    # a look at what is on a GPU would wait for it, and a pass over the logits does not
    if logits.device.type == "cpu" and bool(is_valid.all()):
        return None
    return ~is_valid & (logits.amax(dim=-1) == float("-inf"))


def draw_on_cpu(logits: Tensor, random: RandomRows, positions: np.ndarray) -> tuple[Tensor, Tensor]:
    """Draw the random rows with numpy (see Draw); logits on a GPU are copied and waited for."""
    if logits.device.type == "cpu":
        rows, at = logits.detach().numpy(), random.rows.tolist()
    else:
        rows, at = logits[to_device(random.rows, logits.device)].cpu().numpy(), None
    settings = zip(
        range(len(random.rows)) if at is None else at,
        random.temperature.tolist(),
        random.top_k.tolist(),
        random.top_p.tolist(),
        random.min_p.tolist(),
        random.seeds.tolist(),
        positions.tolist(),
        strict=True,
    )
    drawn = [draw(rows[row], *values) for row, *values in settings]
    token_ids = torch.tensor([token_id for token_id, _ in drawn], dtype=torch.int64)
    is_valid = torch.tensor([is_valid for _, is_valid in drawn], dtype=torch.bool)
    return token_ids.to(logits.device), is_valid.to(logits.device)


def draw_with_kernels(
    logits: Tensor, random: RandomRows, positions: np.ndarray
) -> tuple[Tensor, Tensor]:
    """Draw the random rows with the Triton kernels (see Draw)."""
    from kernels.sampling.gumbel import gumbel_sample
    from kernels.sampling.top_k_top_p import top_k_top_p_sample

    device = logits.device
    columns = random.on_device
    if columns is None:
        arrays = (random.temperature, random.top_k, random.top_p, random.min_p, random.seeds)
        columns = settings_on_device((*arrays, random.rows), device)
    temperature, top_k, top_p, min_p, seeds, rows = columns
    at = to_device(positions, device)
    if len(random.rows) < len(logits):
        logits = logits[rows]
    if random.is_filtered:
        return top_k_top_p_sample(logits, temperature, top_k, top_p, min_p, seeds, at)
    return gumbel_sample(logits, temperature, seeds, at)
