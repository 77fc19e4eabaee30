"""Runs steps of nothing but decodes in a row, for a world that knows beforehand how long they take.

Between two events a simulated server repeats one decision: everybody decodes one token. Here these
steps are taken one after the other without asking the policies, whose answer is known. The
decisions, blocks and times are those of the ordinary way, step for step; where anything else could
happen (a request ends, a block could run short, something may arrive) the ordinary way goes on.
"""

from collections.abc import Callable
from operator import attrgetter

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
        cohort = self._state.cohort
        pool = self._state.kv_cache_manager.pool
        size = cohort.size
        shape = StepShape(size, cohort.context_tokens + size, [], size)
        ends: list[float] = []
        durations: list[float] = []
        used_blocks: list[int] = []
        end, num_told = now, 0
        num_used = pool.num_blocks - pool.num_free_blocks
        num_quiet = cohort.num_quiet_ticks()
        while True:
            if not num_quiet:
                cohort.run_ticks(len(ends) - num_told)
                used_blocks += [num_used] * (len(ends) - num_told)
                num_told = len(ends)
                if cohort.ends_next():
                    break
            duration = step_time(shape)
            if end + duration > horizon:
                break
            if not num_quiet:
                if not self._renew_due():
                    break
                num_used = pool.num_blocks - pool.num_free_blocks
                num_quiet = 1 + cohort.num_quiet_ticks(after=1)
            num_quiet -= 1
            end += duration
            shape.decode_context += size
            ends.append(end)
            durations.append(duration)
        cohort.run_ticks(len(ends) - num_told)
        cohort.add_times(ends)
        used_blocks += [num_used] * (len(ends) - num_told)
        self.starts = [now, *ends[:-1]] if ends else []
        self.durations, self.used_blocks = durations, used_blocks
        return end

    def _renew_due(self) -> bool:
        """Look after the members that are due before the next step; False if blocks run short."""
        state = self._state
        due = state.cohort.due_next()
        cache = state.kv_cache_manager
        if len(due) * len(cache.groups) > cache.num_free_blocks:
            return False
        for request in sorted(due, key=_ADMISSION_INDEX) if len(due) > 1 else due:
            state.renew_member(request)
        return True
