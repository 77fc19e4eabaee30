"""What the prompts of a synthetic workload share: nothing, system prompts, growing sessions.

Takes the lengths of new text and answers, gives whole prompts with ids of their blocks. Knows
nothing of arrival times.
"""

from abc import ABC, abstractmethod

import numpy as np

from workbench.errors import WorkloadError
from workbench.workload.base import IntArray
from workbench.workload.block_ids import BlockIdColumn
from workbench.workload.bounds import check_instance, check_integer, check_number
from workbench.workload.durations import ConstantDuration, Durations
from workbench.workload.lengths import Lengths
from workbench.workload.popularity import sample_zipf
from workbench.workload.sessions import SessionPlan, session_blocks, session_numbers


class Sharing(ABC):
    """A rule that turns new text and answers into prompts that share blocks."""

    @abstractmethod
    def plan(
        self,
        prompts: IntArray,
        outputs: IntArray,
        rng: np.random.Generator,
        think_rng: np.random.Generator,
    ) -> SessionPlan:
        """Plan n requests.

        `prompts` and `outputs` [n]: tokens of new text and of the answer of each request; `rng`
        draws who shares what, `think_rng` the think times.
        """


class NoSharing(Sharing):
    """Every prompt is new from its first token."""

    def plan(
        self,
        prompts: IntArray,
        outputs: IntArray,
        rng: np.random.Generator,
        think_rng: np.random.Generator,
    ) -> SessionPlan:
        n = len(prompts)
        return SessionPlan(
            turns=np.zeros(n, np.int64), think_times=np.zeros(n), num_prompt_tokens=prompts
        )


class _Prefixes:
    """The system prompts that sessions begin with.

    Prefix k is chosen with weight 1 / (k + 1) ** `zipf_exponent`. Only whole blocks of `block_size`
    tokens are shared. `at_least`: of the number and the length.
    """

    def __init__(
        self,
        num_prefixes: int,
        prefix_length: int,
        zipf_exponent: float,
        block_size: int,
        at_least: int,
    ) -> None:
        self.num = check_integer("num_prefixes", num_prefixes, at_least=at_least)
        self.length = check_integer("prefix_length", prefix_length, at_least=at_least)
        self.zipf_exponent = check_number("zipf_exponent", zipf_exponent, at_least=0)
        self.block_size = check_integer("block_size", block_size, at_least=1)

    def blocks(
        self, turns: IntArray, whole: IntArray, outputs: IntArray, rng: np.random.Generator
    ) -> tuple[BlockIdColumn, BlockIdColumn]:
        """Ids of the blocks of whole prompts and of answers; `rng` draws each session's prefix."""
        n = len(turns)
        drawn = sample_zipf(max(self.num, 1), self.zipf_exponent, n, rng)
        num_shared = self.length // self.block_size
        return session_blocks(
            turns,
            whole,
            outputs,
            self.block_size,
            shared_first=drawn[session_numbers(turns)] * num_shared,
            num_shared=np.full(n, num_shared),
            own_first=self.num * num_shared,
        )


class SystemPrompts(Sharing):
    """Each prompt begins with one of `num_prefixes` texts of `prefix_length` tokens.

    Prefix k is chosen with weight 1 / (k + 1) ** `zipf_exponent`; the drawn prompt length comes
    after it. Only whole blocks of `block_size` tokens are shared.
    """

    def __init__(
        self,
        num_prefixes: int,
        prefix_length: int,
        zipf_exponent: float = 1.0,
        block_size: int = 16,
    ) -> None:
        self.prefixes = _Prefixes(num_prefixes, prefix_length, zipf_exponent, block_size, 1)

    def plan(
        self,
        prompts: IntArray,
        outputs: IntArray,
        rng: np.random.Generator,
        think_rng: np.random.Generator,
    ) -> SessionPlan:
        n = len(prompts)
        whole = prompts + self.prefixes.length
        turns = np.zeros(n, np.int64)
        hash_ids, _ = self.prefixes.blocks(turns, whole, outputs, rng)
        return SessionPlan(
            turns=turns,
            think_times=np.zeros(n),
            num_prompt_tokens=whole,
            hash_ids=hash_ids,
            hash_block_size=self.prefixes.block_size,
        )


class MultiTurn(Sharing):
    """Sessions that grow: a turn's prompt is the one before, its answer, and new text.

    `turns`: how many turns a session has. A turn comes `think_time` after the end of the one
    before. Sessions may begin with one of `num_prefixes` system prompts of `prefix_length` tokens
    (Zipf as in `SystemPrompts`). `max_session_tokens`: a turn whose prompt and answer would exceed
    it begins a new session instead (a first turn may still be longer).
    """

    def __init__(
        self,
        turns: Lengths,
        think_time: Durations | None = None,
        num_prefixes: int = 0,
        prefix_length: int = 0,
        zipf_exponent: float = 1.0,
        block_size: int = 16,
        max_session_tokens: int | None = None,
    ) -> None:
        check_instance("turns", turns, Lengths)
        self.turns = turns
        self.think_time = ConstantDuration(0.0) if think_time is None else think_time
        check_instance("think_time", self.think_time, Durations)
        self.prefixes = _Prefixes(num_prefixes, prefix_length, zipf_exponent, block_size, 0)
        if (num_prefixes == 0) != (prefix_length == 0):
            raise WorkloadError(
                f"num_prefixes is {num_prefixes} and prefix_length is {prefix_length}; "
                "set both, or both to 0"
            )
        self.max_session_tokens: float = float("inf")
        if max_session_tokens is not None:
            self.max_session_tokens = check_integer(
                "max_session_tokens", max_session_tokens, at_least=1
            )

    def plan(
        self,
        prompts: IntArray,
        outputs: IntArray,
        rng: np.random.Generator,
        think_rng: np.random.Generator,
    ) -> SessionPlan:
        n = len(prompts)
        turns, whole = self._grow(prompts, outputs, self.turns.sample(n, rng))
        hash_ids, output_hash_ids = self.prefixes.blocks(turns, whole, outputs, rng)
        return SessionPlan(
            turns=turns,
            think_times=np.where(turns > 0, self.think_time.sample(n, think_rng), 0.0),
            num_prompt_tokens=whole,
            hash_ids=hash_ids,
            hash_block_size=self.prefixes.block_size,
            output_hash_ids=output_hash_ids,
        )

    def _grow(
        self, prompts: IntArray, outputs: IntArray, turns_of_sessions: IntArray
    ) -> tuple[IntArray, IntArray]:
        limit = self.max_session_tokens
        sessions = iter(turns_of_sessions.tolist())
        turns, whole = [], []
        left = turn = context = 0
        for new, answer in zip(prompts.tolist(), outputs.tolist(), strict=True):
            if left == 0 or context + new + answer > limit:
                left, turn, context = next(sessions), 0, self.prefixes.length
            turns.append(turn)
            whole.append(context + new)
            context += new + answer
            left -= 1
            turn += 1
        return np.array(turns, np.int64), np.array(whole, np.int64)
