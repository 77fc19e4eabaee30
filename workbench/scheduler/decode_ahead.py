"""Runs steps of nothing but decodes in a row, for a world that knows beforehand how long they take.

Between two events a simulated server repeats one decision: everybody decodes one token. Here these
steps are taken one after the other without asking the policies, whose answer is known. The
decisions, blocks and times are those of the ordinary way, step for step; where anything else could
happen (a request ends, a block could run short, something may arrive) the ordinary way goes on.
"""

import sys
from collections.abc import Callable
from operator import attrgetter

from workbench.errors import CostModelError
from workbench.scheduler.state import SchedulerState
from workbench.step_profile import StepShape

MAX_SECONDS = sys.float_info.max
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
        self._num_used_blocks = 0

    def run(self, now: float, horizon: float, step_time: Callable[[StepShape], float]) -> float:
        """Take every step that ends by `horizon` and changes nothing but counts and blocks.

        Args:
            now: Seconds; when the first step starts.
            horizon: Seconds; nothing arrives before.
            step_time: Seconds of a step; where it has none, the ordinary way goes on and says so.

        Returns: When the last step ended; `now` if none was taken.
        """
        cohort, durations = self._state.cohort, self._begin()
        size = cohort.size
        shared = self._state.kv_cache_manager.num_shared_tokens  # decodes share nothing new
        shape = StepShape(size, cohort.context_tokens + size, [], size, shared_context=shared)
        ends: list[float] = []
        end, last_end = now, min(horizon, MAX_SECONDS)
        num_quiet = cohort.num_quiet_ticks()
        while True:
            if not num_quiet:
                self._tell_cohort()
                if cohort.ends_next():
                    break
            try:
                duration = step_time(shape)
            except CostModelError:
                break  # the ordinary way will ask again
            if duration < 0.0 or not end + duration <= last_end:
                break
            if not num_quiet:
                if not self._renew_due():
                    break
                self._note_used_blocks()
                num_quiet = 1 + cohort.num_quiet_ticks(after=1)
            num_quiet -= 1
            end += duration
            shape.decode_context += size
            ends.append(end)
            durations.append(duration)
        self._close(now, ends)
        return end

    def _begin(self) -> list[float]:
        """Forget the steps of the call before; the list for the durations of this one."""
        self.durations, self.used_blocks = [], []
        self._note_used_blocks()
        return self.durations

    def _close(self, now: float, ends: list[float]) -> None:
        self._tell_cohort()
        self._state.cohort.add_times(ends)
        self.starts = [now, *ends[:-1]] if ends else []

    def _note_used_blocks(self) -> None:
        """Look how many blocks the steps from here on use."""
        pool = self._state.kv_cache_manager.pool
        self._num_used_blocks = pool.num_blocks - pool.num_free_blocks

    def _tell_cohort(self) -> None:
        """Let the cohort count the steps that it has not been told of."""
        num_new = len(self.durations) - len(self.used_blocks)
        self._state.cohort.run_ticks(num_new)
        self.used_blocks += [self._num_used_blocks] * num_new

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
