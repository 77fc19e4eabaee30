"""What a synthetic request carries besides its lengths: priority, client, deadline."""

from collections.abc import Mapping

import numpy as np

from workbench.errors import WorkloadError
from workbench.workload.base import FloatArray, IntArray
from workbench.workload.bounds import check_integer, check_number
from workbench.workload.popularity import sample_zipf


class Priorities:
    """Priorities drawn with given weights, e.g. `{0: 0.2, 1: 0.8}`; the lower goes first."""

    def __init__(self, weights: Mapping[int, float]) -> None:
        self.levels = np.array([check_integer("priority", level) for level in weights], np.int64)
        self.weights = np.array(
            [check_number("weight", weight, at_least=0) for weight in weights.values()]
        )
        if self.weights.sum() <= 0:
            raise WorkloadError(f"the weights {dict(weights)} add up to 0; give one above 0")

    def sample(self, n: int, rng: np.random.Generator) -> IntArray:
        """Draw n priorities."""
        return rng.choice(self.levels, n, p=self.weights / self.weights.sum())


class Clients:
    """Clients "client-0" … ; client k sends with weight 1 / (k + 1) ** `zipf_exponent`."""

    def __init__(self, count: int, zipf_exponent: float = 0.0) -> None:
        self.count = check_integer("count", count, at_least=1)
        self.zipf_exponent = check_number("zipf_exponent", zipf_exponent, at_least=0)

    def sample(self, n: int, rng: np.random.Generator) -> list[str]:
        """Draw n client ids."""
        names = [f"client-{i}" for i in range(self.count)]
        return [names[i] for i in sample_zipf(self.count, self.zipf_exponent, n, rng).tolist()]


class DeadlineSlack:
    """Time until the deadline: `base` + `per_output_token` * output tokens [s].

    Each slack is multiplied by a number drawn evenly from 1 - `spread` … 1 + `spread`.
    """

    def __init__(self, base: float, per_output_token: float = 0.0, spread: float = 0.0) -> None:
        self.base = check_number("base", base, at_least=0)
        self.per_output_token = check_number("per_output_token", per_output_token, at_least=0)
        self.spread = check_number("spread", spread, at_least=0, at_most=1)

    def sample(self, outputs: IntArray, rng: np.random.Generator) -> FloatArray:
        """Draw the slack [s] of requests with the given output tokens."""
        factors = rng.uniform(1 - self.spread, 1 + self.spread, len(outputs))
        return (self.base + self.per_output_token * outputs) * factors
