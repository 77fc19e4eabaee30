"""Shortest job first: the queue that orders by the work a request still needs.

It knows a length predictor and the request's own counts, not how good the predictor is.
"""

from typing import Any

from workbench.errors import ConfigError
from workbench.request import Request
from workbench.scheduler.length_predictor import LengthPredictor
from workbench.scheduler.request_queue import KeyedQueue


class ShortestJobFirstQueue(KeyedQueue):
    """The request with the least predicted remaining work first.

    Serving the shortest first gives the least mean waiting time of all orders (Smith, 1956); with a
    predictor it is what Fu et al. ("Efficient LLM Scheduling by Learning to Rank", NeurIPS 2024)
    study. Long requests may starve: `aging` bounds their wait. As every request ages at one rate,
    `work - aging x waited` and `work + aging x arrival` give one order, so no key ever changes.

    Args:
        predictor: Predicts the answer's length.
        prompt_weight: What a prompt token still to be computed counts, in output tokens.
        aging: Output tokens that one second of waiting is worth.

    Raises:
        ConfigError: a negative weight.
    """

    def __init__(
        self, predictor: LengthPredictor, prompt_weight: float = 0.1, aging: float = 0.0
    ) -> None:
        super().__init__()
        if prompt_weight < 0 or aging < 0:
            raise ConfigError(
                f"prompt_weight={prompt_weight} and aging={aging} must be at least 0; "
                "0 leaves the prompt, or the waiting time, out of the order"
            )
        self._predictor = predictor
        self._prompt_weight = prompt_weight
        self._aging = aging

    def remaining_work(self, request: Request) -> float:
        """Predicted work still to be done, in output tokens."""
        num_output_tokens = self._predictor.predict(request) - request.num_output_tokens
        num_uncomputed_tokens = request.num_tokens - request.num_computed_tokens
        return max(1.0, num_output_tokens) + self._prompt_weight * num_uncomputed_tokens

    def key(self, request: Request) -> tuple[Any, ...]:
        aged_work = self.remaining_work(request) + self._aging * request.arrival_time
        return (aged_work, request.arrival_time, request.arrival_index)
