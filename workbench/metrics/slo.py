"""Service level objectives: which requests were served well enough.

Knows thresholds on the latencies of one request, and nothing of rates or time: goodput is made
from the mask in ``summary``.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from workbench.errors import ConfigError
from workbench.metrics.columns import RequestColumns


@dataclass(frozen=True, slots=True)
class SLO:
    """Upper limits in seconds; None sets no limit. Raises ConfigError unless every limit is > 0."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    e2e_s: float | None = None

    def __post_init__(self) -> None:
        for name in ("ttft_s", "tpot_s", "e2e_s"):
            limit = getattr(self, name)
            if limit is not None and not 0 < limit < math.inf:
                raise ConfigError(
                    f"slo.{name}={limit} must be > 0 s and finite; use null for no limit"
                )

    @property
    def is_empty(self) -> bool:
        return self.ttft_s is None and self.tpot_s is None and self.e2e_s is None

    def met(self, requests: RequestColumns) -> NDArray[np.bool_]:
        """Mask of shape (requests,): completed and within every limit that is set.

        A completed request that has no TPOT (one token) meets the TPOT limit: nobody waited
        between tokens. A request that did not complete meets nothing, nor does one whose answer was
        cut by the model's length: it did not get what it asked for.
        """
        good = requests.completed & ~requests.truncated
        for limit, values in (
            (self.ttft_s, requests.ttft_s),
            (self.tpot_s, requests.tpot_s),
            (self.e2e_s, requests.e2e_s),
        ):
            if limit is not None:
                good &= ~(values > limit)
        return good
