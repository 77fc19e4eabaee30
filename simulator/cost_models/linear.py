"""Step times by a straight line: for tests and queueing theory, and for fits by hand.

Knows counts of tokens and contexts only.
"""

from simulator.bounds import check_number
from simulator.cost_models.base import CostModel
from workbench.errors import ConfigError
from workbench.step_profile import StepShape


class LinearCostModel(CostModel):
    """base + per_token x query tokens + per_context_token x keys read + per_request x rows.

    Args:
        base_s: Seconds of every step.
        per_token_s: Seconds a query token.
        per_context_token_s: Seconds a key token read (context of decodes and of prompt chunks).
        per_request_s: Seconds a row.
        per_swap_block_s: Seconds a KV block copied to or from the host.

    Raises:
        ConfigError: A value that is negative or not finite.
    """

    def __init__(
        self,
        base_s: float = 0.0,
        per_token_s: float = 0.0,
        per_context_token_s: float = 0.0,
        per_request_s: float = 0.0,
        per_swap_block_s: float = 0.0,
    ) -> None:
        for name, value in (
            ("base_s", base_s),
            ("per_token_s", per_token_s),
            ("per_context_token_s", per_context_token_s),
            ("per_request_s", per_request_s),
            ("per_swap_block_s", per_swap_block_s),
        ):
            check_number(f"cost_model.{name}", value)
        self._base, self._token, self._context = base_s, per_token_s, per_context_token_s
        self._request, self._swap = per_request_s, per_swap_block_s

    def step_time(self, shape: StepShape) -> float:
        """Seconds of a step."""
        tokens, context, rows = shape.num_decodes, shape.decode_context, shape.num_decodes
        for query, cached in shape.prefills:
            tokens += query
            context += query + cached
            rows += 1
        seconds = self._base + tokens * self._token + context * self._context
        return seconds + rows * self._request + shape.num_swap_blocks * self._swap


class ConstantCostModel(LinearCostModel):
    """Every step takes the same time.

    Args:
        step_s: Seconds a step, above 0.

    Raises:
        ConfigError: A value that is not positive and finite.
    """

    def __init__(self, step_s: float = 0.01) -> None:
        check_number("cost_model.step_s", step_s)
        if step_s == 0:
            raise ConfigError("cost_model.step_s=0 must be above 0: time would stand still")
        super().__init__(base_s=step_s)
