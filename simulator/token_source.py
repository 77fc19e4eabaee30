"""What the simulated model answers: how many tokens each row of a step gives, and which.

A source knows the requests' lengths from the steps it sees. It knows neither time nor cost.
"""

from abc import ABC, abstractmethod
from collections.abc import Collection

import numpy as np

from workbench.errors import ConfigError
from workbench.outputs import ModelRunnerOutput, SchedulerOutput

UNKNOWN_TOKEN = 0


class TokenSource(ABC):
    """The answers of a simulated model."""

    @abstractmethod
    def sample(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        """The answer of one step."""


class LengthTokenSource(TokenSource):
    """One token, of no particular id, for every row that owes one; requests end by their length."""

    _output = ModelRunnerOutput()

    def sample(self, scheduler_output: SchedulerOutput) -> ModelRunnerOutput:
        return self._output


class DraftTokenSource(TokenSource):
    """Speculative decoding: of k drafts, each is accepted with a probability if all before it were.

    Args:
        num_speculative_tokens: Drafts proposed after every sampled token.
        acceptance_rate: Probability that a draft is accepted (alpha in Leviathan et al., ICML
            2023; acceptances are independent).
        seed: Seed of the draws.
    """

    def __init__(self, num_speculative_tokens: int, acceptance_rate: float, seed: int) -> None:
        if not 0.0 <= acceptance_rate <= 1.0:
            raise ConfigError(f"acceptance_rate={acceptance_rate} must be in [0, 1]")
        self._drafts = [UNKNOWN_TOKEN] * num_speculative_tokens
        self._acceptance_rate = acceptance_rate
        self._random = np.random.default_rng(seed)
        self._num_prompt: dict[str, int] = {}
        self._num_sampled: dict[str, int] = {}
        self._num_computed: dict[str, int] = {}

    def sample(
        self, scheduler_output: SchedulerOutput, refusing: Collection[str] = ()
    ) -> ModelRunnerOutput:
        """The answer of one step; the requests of `refusing` accept no draft in it."""
        for request_id in scheduler_output.finished_req_ids:
            self._num_prompt.pop(request_id, None)
            self._num_sampled.pop(request_id, None)
            self._num_computed.pop(request_id, None)
        for new in scheduler_output.scheduled_new_reqs:
            self._num_prompt[new.request_id] = new.num_prompt_tokens
            self._num_sampled.setdefault(new.request_id, 0)
            self._num_computed[new.request_id] = new.num_computed_tokens
        drafts = scheduler_output.scheduled_spec_decode_tokens
        rows = [
            self._sample(
                request_id, num_tokens, len(drafts.get(request_id, ())), request_id not in refusing
            )
            for request_id, num_tokens in scheduler_output.num_scheduled_tokens.items()
        ]
        proposed = {
            request_id: list(self._drafts)
            for request_id, row in zip(scheduler_output.num_scheduled_tokens, rows, strict=True)
            if row
        }
        return ModelRunnerOutput(rows, proposed)

    def _sample(
        self, request_id: str, num_tokens: int, num_drafts: int, accepts: bool
    ) -> list[int]:
        computed = self._num_computed[request_id] + num_tokens - num_drafts
        if computed < self._num_prompt[request_id] + self._num_sampled[request_id]:
            self._num_computed[request_id] = computed
            return []
        num_accepted = 0
        while (
            accepts and num_accepted < num_drafts and self._random.random() < self._acceptance_rate
        ):
            num_accepted += 1
        self._num_sampled[request_id] += 1 + num_accepted
        self._num_computed[request_id] = computed + num_accepted
        return [UNKNOWN_TOKEN] * (1 + num_accepted)
