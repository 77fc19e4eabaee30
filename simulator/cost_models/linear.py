"""Step times by a straight line: for tests and queueing theory, and for fits by hand.

Knows counts of tokens and contexts only; model and GPU are accepted and ignored.
"""

from typing import Any

from workbench.errors import ConfigError
from workbench.step_profile import StepShape


class LinearCostModel:
    """base + per_token x query tokens + per_context_token x keys read + per_request x rows.

    Args:
        base_s: Seconds of every step.
        per_token_s: Seconds a query token.
        per_context_token_s: Seconds a key token read (context of decodes and of prompt chunks).
        per_request_s: Seconds a row.
        per_swap_block_s: Seconds a KV block copied to or from the host.
        model, hardware, parallel: Ignored.

    Raises:
        ConfigError: A negative value.
    """

    def __init__(
        self,
        base_s: float = 0.0,
        per_token_s: float = 0.0,
        per_context_token_s: float = 0.0,
        per_request_s: float = 0.0,
        per_swap_block_s: float = 0.0,
        model: Any = None,
        hardware: Any = None,
        parallel: Any = None,
    ) -> None:
        del model, hardware, parallel
        for name, value in (
            ("base_s", base_s),
            ("per_token_s", per_token_s),
            ("per_context_token_s", per_context_token_s),
            ("per_request_s", per_request_s),
            ("per_swap_block_s", per_swap_block_s),
        ):
            if not isinstance(value, int | float) or not value >= 0:
                raise ConfigError(f"cost_model.{name}={value!r} must be a number of at least 0")
        self.num_extrapolated = 0
        self.is_repeatable = True
        self._base, self._token, self._context = base_s, per_token_s, per_context_token_s
        self._request, self._swap = per_request_s, per_swap_block_s

    def host_time(self, shape: StepShape) -> float:
        """0: no part of a step is the host's; see CostModel."""
        return 0.0

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
        model, hardware, parallel: Ignored.
    """

    def __init__(
        self, step_s: float = 0.01, model: Any = None, hardware: Any = None, parallel: Any = None
    ) -> None:
        if not isinstance(step_s, int | float) or not step_s > 0:
            raise ConfigError(f"cost_model.step_s={step_s!r} must be a number above 0")
        super().__init__(base_s=step_s)
