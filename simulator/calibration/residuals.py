"""Errors of fitted prices: which steps are held back together, and what a file says of the rest."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from workbench.step_profile import MeasuredStep, StepShape

Array = NDArray[np.float64]
FOLDS = 5


def folds_of(steps: Sequence[MeasuredStep]) -> NDArray[np.int64]:
    """A fifth each of the distinct shapes, dealt out in the order in which they appear."""
    seen: dict[tuple[Any, ...], int] = {}
    return np.array([seen.setdefault(_key(s.shape), len(seen)) % FOLDS for s in steps])


def _key(shape: StepShape) -> tuple[Any, ...]:
    rows = (shape.num_decodes, tuple(shape.prefills), shape.num_samples, shape.num_swap_blocks)
    contexts = (shape.decode_context, shape.longest_decode, shape.shared_context)
    return (*rows, *contexts, shape.prefill_tokens_before)


def told(log_ratios: Array) -> dict[str, Any]:
    """What a file says of residuals; `mean_error` is predicted / measured - 1."""
    if not len(log_ratios):
        return {"steps": 0}
    errors = np.expm1(-log_ratios)
    return {
        "steps": len(errors),
        "mean_error": float(errors.mean()),
        "mean_absolute_error": float(np.abs(errors).mean()),
        "median_absolute_error": float(np.median(np.abs(errors))),
        "p90_absolute_error": float(np.quantile(np.abs(errors), 0.9)),
    }
