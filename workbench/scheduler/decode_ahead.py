"""Runs steps of nothing but decodes in a row, for a world that knows beforehand how long they take.

Between two events a simulated server repeats one decision: everybody decodes one token. Here these
steps are taken one after the other without asking the policies, whose answer is known. The
decisions, blocks and times are those of the ordinary way, step for step; where anything else could
happen (a request ends, a block could run short, something may arrive) the ordinary way goes on.
"""

from collections.abc import Callable
from operator import attrgetter

from workbench.kv_cache.kv_cache_manager import NO_BLOCKS
from workbench.scheduler.state import SchedulerState
from workbench.step_profile import StepShape

_ADMISSION_INDEX = attrgetter("admission_index")


class DecodeAhead:
    """Decode-only steps of one scheduler.

    Args:
        state: The scheduler's lists.

    Attributes:
        starts, durations, used_blocks: Of the steps of the last call: seconds, seconds, and KV
            blocks referenced after scheduling.
    """

    def __init__(self, state: SchedulerState) -> None:
        self._state = state
        self.starts: list[float] = []
        self.durations: list[float] = []
        self.used_blocks: list[int] = []

    def run(self, now: float, horizon: float, step_time: Callable[[StepShape], float]) -> float:
        """Take every step that ends by `horizon` and changes nothing but counts and blocks.

        Args:
            now: Seconds; when the first step starts.
            horizon: Seconds; nothing arrives before.
            step_time: Seconds of a step.

        Returns:
            When the last step ended; `now` if none was taken.
        """
        state = self._state
        cohort, pool = state.cohort, state.kv_cache_manager.pool
        size = cohort.size
        num_groups = len(state.kv_cache_manager.groups)
        shape = StepShape(size, cohort.context_tokens + size, [], size)
        starts: list[float] = []
        durations: list[float] = []
        used_blocks: list[int] = []
        num_free = pool.num_free_blocks
        while not cohort.ends_next():
            duration = step_time(shape)
            end = now + duration
            if end > horizon:
                break
            if cohort.wakes_next():
                due = cohort.due_next()
                if len(due) * num_groups > num_free:
                    break
                if len(due) > 1:
                    due.sort(key=_ADMISSION_INDEX)
                changed = [state.renew_member(r) is not NO_BLOCKS for r in due]
                if True in changed:
                    num_free = pool.num_free_blocks
            cohort.schedule_tick()
            cohort.return_quietly(end)
            shape.decode_context += size
            starts.append(now)
            durations.append(duration)
            used_blocks.append(pool.num_blocks - num_free)
            now = end
        self.starts, self.durations, self.used_blocks = starts, durations, used_blocks
        return now
