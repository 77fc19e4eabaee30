"""How each request of the batch samples: kept by slot, changed by differences, planned by step.

Adding and removing a request touches its slot; a step's plan says only what its rows need, and one
without any wishes costs a look at their flags. Knows no logits and no tokens but those it is given.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.bad_words import BadWordsRule
from engine.logit_rules import AdditiveRule, Edit, LogitRule, MinTokensRule, StepRows
from engine.penalties import PenaltyRule
from engine.slot_rows import to_device
from workbench.sampling_params import SamplingParams

GREEDY_TEMPERATURE = 1e-5
"""Temperatures below this one are taken for 0, as in vLLM."""

RANDOM, FILTERED, LOGPROBS, FIRST_RULE = 1, 2, 4, 8


@dataclass(frozen=True, slots=True)
class RandomRows:
    """The rows of a step that are drawn at random, M of them; numpy.

    Attributes:
        rows: [M] int64 rows of the logits.
        temperature: [M] float64, above 0.
        top_k: [M] int32, 0: off. top_p: [M] float64, 1: off. min_p: [M] float64, 0: off.
        seeds: [M] int64.
        is_filtered: Whether any of them has top_k, top_p or min_p on.
        on_device: temperature, top_k, top_p, min_p, seeds and rows as tensors, the floating ones
            float32; None on a CPU.
    """

    rows: np.ndarray
    temperature: np.ndarray
    top_k: np.ndarray
    top_p: np.ndarray
    min_p: np.ndarray
    seeds: np.ndarray
    is_filtered: bool
    on_device: tuple[Tensor, ...] | None


@dataclass(frozen=True, slots=True)
class SamplingPlan:
    """What the N rows of one step's logits need.

    Attributes:
        num_rows: N.
        num_output_tokens: [N] int64; tokens of each answer before this one.
        random: The rows to draw at random; None: all are greedy.
        edits: What changes the logits before, in order.
        logprob_rows: [K] int64 rows that want log probabilities.
        num_logprobs: [K] int64; how many beside the drawn token, -1: the whole vocabulary.
    """

    num_rows: int
    num_output_tokens: np.ndarray
    random: RandomRows | None = None
    edits: tuple[Edit, ...] = ()
    logprob_rows: np.ndarray | None = None
    num_logprobs: np.ndarray | None = None

    @property
    def is_greedy(self) -> bool:
        """Whether every row is its largest logit and nothing else is asked for."""
        return self.random is None and not self.edits and self.logprob_rows is None

    def after(self, edit: Edit) -> "SamplingPlan":
        """The same with one more edit before the others."""
        return replace(self, edits=(edit, *self.edits))


class SamplingBatch:
    """Sampling settings and counts of up to `max_num_seqs` requests.

    Args:
        max_num_seqs: Slots.
        vocab_size: Columns of the logits.
        device: Where the logits are.
        seed: The engine's, for requests that bring none.
    """

    def __init__(
        self, max_num_seqs: int, vocab_size: int, device: torch.device | str, seed: int = 0
    ) -> None:
        self._device = torch.device(device)
        self._vocab_size = vocab_size
        self._engine_seed = seed
        self._flags = np.zeros(max_num_seqs, dtype=np.int64)
        self._temperature = np.zeros(max_num_seqs)
        self._top_k = np.zeros(max_num_seqs, dtype=np.int32)
        self._top_p = np.ones(max_num_seqs)
        self._min_p = np.zeros(max_num_seqs)
        self._seeds = np.zeros(max_num_seqs, dtype=np.int64)
        self._num_logprobs = np.zeros(max_num_seqs, dtype=np.int64)
        # In the order in which they are applied, which is vLLM's.
        self._rules: tuple[LogitRule, ...] = (
            AdditiveRule(max_num_seqs, vocab_size, self._device),
            BadWordsRule(max_num_seqs, self._device),
            MinTokensRule(max_num_seqs, self._device),
            PenaltyRule(max_num_seqs, vocab_size, self._device),
        )
        self._num_users = [0] * len(self._rules)
        self._last_slots: np.ndarray | None = None
        self._last_random: RandomRows | None = None

    def add(
        self,
        slot: int,
        request_id: str,
        params: SamplingParams,
        prompt_token_ids: Sequence[int],
        output_token_ids: Sequence[int] = (),
        stop_token_ids: Iterable[int] | None = None,
    ) -> None:
        """Put a request into a free slot, for the first time or again after a preemption.

        Args:
            slot: Below max_num_seqs.
            request_id: Seeds the request's random stream if params.seed is None.
            params: With bad words as token ids.
            prompt_token_ids: The prompt, for the repetition penalty.
            output_token_ids: The answer so far.
            stop_token_ids: Masked until min_tokens, beside those of params.
        """
        self._last_slots = None
        if stop_token_ids and params.min_tokens:
            ids = (*(params.stop_token_ids or ()), *stop_token_ids)
            params = replace(params, stop_token_ids=ids)
        flags = 0
        if params.temperature >= GREEDY_TEMPERATURE:
            flags |= RANDOM
            top_k = params.top_k if 0 < params.top_k < self._vocab_size else 0
            if top_k or params.top_p < 1.0 or params.min_p > 0.0:
                flags |= FILTERED
            self._temperature[slot] = params.temperature
            self._top_k[slot] = top_k
            self._top_p[slot] = params.top_p
            self._min_p[slot] = params.min_p
            self._seeds[slot] = _stream_seed(params.seed, self._engine_seed, request_id)
        if params.logprobs is not None:
            flags |= LOGPROBS
            self._num_logprobs[slot] = params.logprobs
        for i, rule in enumerate(self._rules):
            if rule.add(slot, params, prompt_token_ids, output_token_ids):
                flags |= FIRST_RULE << i
                self._num_users[i] += 1
        self._flags[slot] = flags

    def remove(self, slot: int) -> None:
        """Empty a slot; an empty one is passed over."""
        flags = int(self._flags[slot])
        self._flags[slot] = 0
        for i, rule in enumerate(self._rules):
            if flags & FIRST_RULE << i:
                rule.remove(slot)
                self._num_users[i] -= 1

    def plan(
        self,
        slots: np.ndarray,
        num_output_tokens: np.ndarray,
        draft_token_ids: np.ndarray | None = None,
    ) -> SamplingPlan:
        """What the rows of a step need.

        Args:
            slots: [N] int64 slot of each row of the logits; rows of one request stand together,
                in the order of their positions.
            num_output_tokens: [N] int64 tokens of the answer before the one each row draws,
                tokens in flight and drafts that the row takes for accepted included.
            draft_token_ids: [N] int64 for rows that verify drafts: the draft before the row's
                token, -1 for the first row of a request. Penalties and bad words then count a
                row's earlier drafts; None: they count recorded tokens only.
        """
        flags = self._flags[slots]
        union = int(np.bitwise_or.reduce(flags)) if len(flags) else 0
        if not union:
            return SamplingPlan(len(slots), num_output_tokens)
        edits: tuple[Edit, ...] = ()
        if union >= FIRST_RULE:
            edits = self._plan_edits(flags, _step_rows(slots, num_output_tokens, draft_token_ids))
        logprob_rows = np.flatnonzero(flags & LOGPROBS) if union & LOGPROBS else None
        return SamplingPlan(
            len(slots),
            num_output_tokens,
            self._random_rows(slots, flags) if union & RANDOM else None,
            edits,
            logprob_rows,
            None if logprob_rows is None else self._num_logprobs[slots[logprob_rows]],
        )

    def record(self, slots: Tensor, token_ids: Tensor) -> None:
        """Count tokens that were drawn and kept; nothing is waited for.

        Args:
            slots: [N] int64 on the device; several tokens of a request in order.
            token_ids: [N] int64 on the device; negative: no token (a rejected draft).
        """
        for num_users, rule in zip(self._num_users, self._rules, strict=True):
            if num_users:
                rule.record(slots, token_ids)

    def _random_rows(self, slots: np.ndarray, flags: np.ndarray) -> RandomRows:
        """Settings of the rows drawn at random; the last ones again if nothing has changed."""
        if (
            self._last_random is not None
            and self._last_slots is not None
            and np.array_equal(self._last_slots, slots)
        ):
            return self._last_random
        rows = np.flatnonzero(flags & RANDOM)
        chosen = slots[rows]
        columns = (
            self._temperature[chosen],
            self._top_k[chosen],
            self._top_p[chosen],
            self._min_p[chosen],
            self._seeds[chosen],
        )
        on_device = None
        if self._device.type != "cpu":
            on_device = settings_on_device((*columns, rows), self._device)
        is_filtered = bool((flags[rows] & FILTERED).any())
        self._last_random = RandomRows(rows, *columns, is_filtered, on_device)
        self._last_slots = slots.copy()
        return self._last_random

    def _plan_edits(self, flags: np.ndarray, step: StepRows) -> tuple[Edit, ...]:
        edits = []
        for i, rule in enumerate(self._rules):
            rows = np.flatnonzero(flags & FIRST_RULE << i)
            edit = rule.plan(step, rows) if len(rows) else None
            if edit is not None:
                edits.append(edit)
        return tuple(edits)


def settings_on_device(columns: Sequence[np.ndarray], device: torch.device) -> tuple[Tensor, ...]:
    """Arrays as tensors on a device, floating ones as float32."""
    return tuple(
        to_device(column.astype(np.float32) if column.dtype == np.float64 else column, device)
        for column in columns
    )


def _step_rows(
    slots: np.ndarray, num_output_tokens: np.ndarray, draft_token_ids: np.ndarray | None
) -> StepRows:
    if draft_token_ids is None:
        return StepRows(slots, num_output_tokens)
    index = np.arange(len(slots))
    firsts = np.flatnonzero(np.r_[True, slots[1:] != slots[:-1]])
    rank = index - np.repeat(firsts, np.diff(np.r_[firsts, len(slots)]))
    return StepRows(slots, num_output_tokens, rank, draft_token_ids)


def _stream_seed(seed: int | None, engine_seed: int, request_id: str) -> int:
    """64 bits as a signed integer."""
    if seed is None:
        name = f"{engine_seed}/{request_id}".encode()
        return int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little", signed=True)
    return (seed + 2**63) % 2**64 - 2**63
