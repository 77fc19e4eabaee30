"""How a step's batch is formed: who goes first, running requests or waiting ones, and with what.

A policy is one class with one method, asked once a step. It has two verbs and a few numbers:

    class MyBatching(BatchPolicy):
        def form_batch(self, batch: BatchBuilder) -> None:
            batch.continue_running()
            batch.admit_waiting()
"""

from abc import ABC, abstractmethod
from typing import Protocol

from workbench.errors import ConfigError


class BatchBuilder(Protocol):
    """What a batch policy may ask and order."""

    token_budget: int
    """Tokens that may still be scheduled in this step; a policy may lower it."""

    @property
    def num_scheduled_tokens(self) -> int:
        """Tokens scheduled so far."""

    @property
    def num_running(self) -> int:
        """Running requests."""

    @property
    def num_waiting(self) -> int:
        """Waiting requests."""

    @property
    def has_preempted(self) -> bool:
        """Whether this step has thrown a request out."""

    def continue_running(self, *, decodes: bool = True, prefills: bool = True) -> None:
        """Schedule running requests: those with one token to go, those with more, or both."""

    def admit_waiting(self, *, whole_prompts: bool = False) -> None:
        """Admit waiting requests while budget, slots and blocks last."""


class BatchPolicy(ABC):
    """Forms the batch of every step.

    Attributes:
        whole_prompts: The policy never splits a prompt, so the budget must hold the longest one.
        splits_prompts: The policy cannot do without splitting prompts.
        repeats_decodes: After a step of nothing but decodes, as long as nobody arrives or ends,
            every further step is the same. A simulator may then run such steps in a row without
            asking (see DecodeAhead). Leave it False if in doubt: it costs time only.
        decodes_first: Every step schedules all running decodes before it admits anybody. Leave it
            False if in doubt: it costs time only, under asynchronous scheduling.
    """

    whole_prompts = False
    splits_prompts = False
    repeats_decodes = False
    decodes_first = False

    @abstractmethod
    def form_batch(self, batch: BatchBuilder) -> None:
        """Fill the step."""


class UnifiedBatching(BatchPolicy):
    """vLLM v1's rule: running requests first, whatever they compute, then waiting ones.

    Nobody is admitted in a step that has thrown somebody out.
    """

    repeats_decodes = True
    decodes_first = True

    def form_batch(self, batch: BatchBuilder) -> None:
        batch.continue_running()
        if not batch.has_preempted:
            batch.admit_waiting()


class PrefillFirstBatching(BatchPolicy):
    """vLLM v0's rule: as long as a waiting prompt fits, a step computes whole prompts only.

    It keeps the time to first token short and stalls every running decode meanwhile
    (Yu et al., Orca, OSDI 2022, for iteration-level batching; the stall is described
    in Agrawal et al., Sarathi-Serve, OSDI 2024).
    """

    whole_prompts = True
    repeats_decodes = True

    def form_batch(self, batch: BatchBuilder) -> None:
        batch.admit_waiting(whole_prompts=True)
        if batch.num_scheduled_tokens == 0:
            batch.continue_running()


class SarathiBatching(BatchPolicy):
    """Sarathi-Serve's stall-free batching (Agrawal et al., OSDI 2024).

    Every decode first, then prompts in chunks: those begun, then new ones, until the step
    holds `chunk_size` tokens.

    Args:
        chunk_size: Tokens of a step, decodes included.
    """

    splits_prompts = True
    repeats_decodes = True
    decodes_first = True

    def __init__(self, chunk_size: int = 512) -> None:
        if chunk_size < 1:
            raise ConfigError(f"chunk_size={chunk_size} must be at least 1 token")
        self.chunk_size = chunk_size

    def form_batch(self, batch: BatchBuilder) -> None:
        batch.continue_running(prefills=False)
        room = max(self.chunk_size - batch.num_scheduled_tokens, 0)
        batch.token_budget = min(batch.token_budget, room)
        batch.continue_running(decodes=False)
        if not batch.has_preempted:
            batch.admit_waiting()


class StaticBatching(BatchPolicy):
    """Request-level batching, the classic baseline: a new batch only when the last one has ended.

    While a batch forms, prompts are computed and nobody decodes; it is closed by the first step
    that finds no prompt to compute, or no room for it. Requests that end early leave their place
    empty.
    """

    repeats_decodes = True

    def __init__(self) -> None:
        self._forming = True

    def form_batch(self, batch: BatchBuilder) -> None:
        if batch.num_running == 0:
            self._forming = True
        if self._forming:
            batch.continue_running(decodes=False)
            batch.admit_waiting()
            self._forming = batch.num_scheduled_tokens > 0 and not batch.has_preempted
        if not self._forming:
            batch.continue_running()
