"""The interface between a replica and the models that price its steps."""

from typing import Protocol

from workbench.errors import CostModelError
from workbench.step_profile import StepShape

# a question further than this many times the largest measured value is refused
FAR = 8.0


class CostModel(Protocol):
    """Prices steps.

    Attributes:
        num_extrapolated: Steps priced so far with a value outside of what was measured.
        is_repeatable: Whether equal shapes have equal prices, however often and in whatever order
            they are asked for.
    """

    num_extrapolated: int
    is_repeatable: bool

    def step_time(self, shape: StepShape) -> float:
        """Seconds that the step keeps the replica busy, host overhead included.

        Raises:
            CostModelError: The shape is so far outside the model's data that no answer is honest.
        """
        ...

    def host_time(self, shape: StepShape) -> float:
        """Seconds of `step_time` in which the device waits for the host.

        Asynchronous scheduling hides them behind the step before.
        """
        ...


def refuse_far(what: str, value: float, largest: float, cure: str) -> None:
    """Raise if `value` exceeds 8 times the largest measured one.

    Raises:
        CostModelError: Naming value, limit and cure.
    """
    if value > FAR * largest:
        raise CostModelError(
            f"{what} of {value:g} is more than {FAR:g} times the largest measured value"
            f" ({largest:g}): {cure}"
        )
