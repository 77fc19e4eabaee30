"""The interface between a replica and the models that price its steps."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from workbench.errors import CostModelError
from workbench.step_profile import StepShape

# a question further than this many times the largest measured value is refused
FAR = 8.0


class CostModel(ABC):
    """Prices steps. It keeps no count of them: a price that is asked for may never be paid.

    Attributes:
        is_repeatable: Whether equal shapes have equal prices, however often and in whatever order
            they are asked for.
        is_bounded: Whether there are shapes whose price is extrapolated; where False,
            `is_extrapolated` need not be asked.
        wants_time: Whether a price depends on when the step begins.
        now: When that is, in seconds of simulated time; told where it is wanted.
        is_replay: Whether prices are the times of recorded steps, one after the other: they are
            those of one run only, and a drafter's share is in them.
        wants_longest_decode: Whether a price depends on `StepShape.longest_decode`, which costs a
            simulation some time to find.
    """

    is_repeatable: bool = True
    is_bounded: bool = False
    wants_time: bool = False
    now: float = 0.0
    is_replay: bool = False
    wants_longest_decode: bool = False

    def tell_time(self, now: float) -> None:
        """Be told when the steps begin that are asked for next, in seconds of simulated time."""
        self.now = now

    @abstractmethod
    def step_time(self, shape: StepShape) -> float:
        """Seconds that the step keeps the replica busy, host overhead included.

        Raises:
            CostModelError: The shape is so far outside the model's data that no answer is honest.
        """

    def group_step_time(self, shapes: Sequence[StepShape]) -> float:
        """Seconds of one step of data-parallel ranks that step together, one shape a rank.

        A rank without work has an empty shape. Here the ranks share nothing but their pace.
        """
        return max(self.step_time(shape) for shape in shapes if shape.num_tokens)

    def host_time(self, shape: StepShape) -> float:
        """Seconds of `step_time` in which the device waits for the host.

        Asynchronous scheduling hides them behind the step before.
        """
        return 0.0

    def is_extrapolated(self, shape: StepShape) -> bool:
        """Whether the price of this shape rests on values outside of what was measured.

        Of two shapes that differ in `decode_context` only, the larger is if the smaller is.
        """
        return False

    def for_replica(self, number: int) -> "CostModel":
        """The model that prices replica `number`, from 0: itself where replicas are alike.

        Raises:
            ConfigError: The model has no prices for this replica.
        """
        return self


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
