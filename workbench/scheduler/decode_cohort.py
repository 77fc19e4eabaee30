"""The running requests that do nothing but decode: one token a step until a step known in advance.

A decode step changes one number a request. Instead of changing it request by request, the cohort
counts its own steps ("ticks") and a member's counts are its counts at joining plus the ticks since.
Two calendars say at which tick a member needs attention: when a step is scheduled (a block
boundary, the end of its scheduling) and when one returns (its last token). So a step costs as much
as changes in it, not as much as is running.

The cohort decides nothing. It knows neither blocks nor budgets; the scheduler asks it who is due.
"""

from array import array
from collections.abc import Sequence

from workbench.request import Request

TRIM_AT = 4096


class DecodeCohort:
    """Requests scheduled together with one token each.

    Attributes:
        size: Members.
        num_scheduled: Ticks scheduled so far.
        num_returned: Ticks whose results have come back, at most num_scheduled.
        context_tokens: Sum of the members' computed tokens.
        uses_placeholders: Whether promised tokens count as placeholders (asynchronous scheduling).
    """

    __slots__ = (
        "_finish_calendar",
        "_num_trimmed",
        "_return_times",
        "_trim_at",
        "_wake_calendar",
        "context_tokens",
        "num_returned",
        "num_scheduled",
        "size",
        "uses_placeholders",
    )

    def __init__(self, uses_placeholders: bool) -> None:
        self.uses_placeholders = uses_placeholders
        self.size = 0
        self.num_scheduled = 0
        self.num_returned = 0
        self.context_tokens = 0
        # When tick i + 1 + _num_trimmed returned; older ones are dropped once no member needs them.
        self._return_times = array("d")
        self._num_trimmed = 0
        self._trim_at = TRIM_AT
        # Dicts for their keys: a member that left and came back may be entered twice.
        self._wake_calendar: dict[int, dict[Request, None]] = {}
        self._finish_calendar: dict[int, dict[Request, None]] = {}

    def join(self, request: Request, ticks_to_wake: int, ticks_to_finish: int) -> None:
        """Take in a request whose next tokens are one a tick.

        Args:
            request: Must be decoding, with all its tokens but one scheduled.
            ticks_to_wake: Which coming tick it is due at when scheduled; at least 1.
            ticks_to_finish: Which coming tick returns its last token; at least 1.
        """
        self.context_tokens += request.num_computed_tokens
        self.size += 1
        request._cohort = self
        request._joined_tick = self.num_scheduled
        request._finish_tick = tick = self.num_scheduled + ticks_to_finish
        self._finish_calendar.setdefault(tick, {})[request] = None
        self.wake_after(request, ticks_to_wake)

    def wake_after(self, request: Request, ticks: int) -> None:
        """Enter a member in the calendar of coming ticks."""
        request._wake_tick = tick = self.num_scheduled + ticks
        entries = self._wake_calendar.get(tick)
        if entries is None:
            self._wake_calendar[tick] = {request: None}
        else:
            entries[request] = None

    def leave(self, request: Request) -> None:
        """Let a member go with its counts as they stand now."""
        in_flight = self.in_flight_since(request._joined_tick)
        request._num_computed_tokens = request.num_computed_tokens
        request._num_output_tokens = request.num_output_tokens
        request._token_times = request.token_times
        request._in_flight_tokens += in_flight
        if self.uses_placeholders:
            request._output_placeholders += in_flight
        request._cohort = None
        entries = self._finish_calendar.get(request._finish_tick)
        if entries is not None:
            del entries[request]
            if not entries:
                del self._finish_calendar[request._finish_tick]
        self.size -= 1
        self.context_tokens -= request._num_computed_tokens

    def in_flight_since(self, joined_tick: int) -> int:
        """Ticks scheduled after `joined_tick` that have not returned."""
        return self.num_scheduled - max(self.num_returned, joined_tick)

    def times_since(self, joined_tick: int) -> "array[float]":
        """Seconds at which each tick after a member's `joined_tick` returned (float64)."""
        skipped = self._num_trimmed
        return self._return_times[joined_tick - skipped : self.num_returned - skipped]

    def due_next(self) -> list[Request]:
        """Members that need attention before the next tick is scheduled.

        An entry holds as long as its member has not left, or moved its date, since.
        """
        tick = self.num_scheduled + 1
        entries = self._wake_calendar.get(tick)
        if entries is None:
            return []
        return [r for r in entries if r._wake_tick == tick and r._cohort is self]

    def num_quiet_ticks(self, after: int = 0) -> int:
        """Coming ticks before one that may be a member's last, or before which one may be due.

        Only with no tick in flight, and with members.

        Args:
            after: Ticks to pass over first.
        """
        wakes, finishes = self._wake_calendar, self._finish_calendar
        first = tick = self.num_scheduled + 1 + after
        while tick not in wakes and tick not in finishes:
            tick += 1
        return tick - first

    def ends_next(self) -> bool:
        """Whether the next tick to return may be a member's last one."""
        return self.num_returned + 1 in self._finish_calendar

    def schedule_tick(self) -> int:
        """Schedule one token of every member; the tick's number."""
        self.num_scheduled = tick = self.num_scheduled + 1
        self._wake_calendar.pop(tick, None)
        self.context_tokens += self.size
        return tick

    def return_tick(self, now: float) -> list[Request]:
        """Count one tick as returned at `now`; the members for which it was the last one."""
        self.num_returned = tick = self.num_returned + 1
        self._return_times.append(now)
        if len(self._return_times) >= self._trim_at:
            self._trim()
        entries = self._finish_calendar.pop(tick, None)
        if entries is None:
            return []
        return [r for r in entries if r._finish_tick == tick and r._cohort is self]

    def run_ticks(self, num_ticks: int) -> None:
        """Schedule and return ticks in a row that are nobody's last one; `add_times` must follow.

        Args:
            num_ticks: Only before the first of them may members be due, and have been looked after.
        """
        if num_ticks:
            self._wake_calendar.pop(self.num_scheduled + 1, None)
            self.num_scheduled += num_ticks
            self.num_returned += num_ticks
            self.context_tokens += num_ticks * self.size

    def add_times(self, times: Sequence[float]) -> None:
        """Say when the ticks of `run_ticks` returned, seconds."""
        self._return_times.extend(times)
        if len(self._return_times) >= self._trim_at:
            self._trim()

    def _trim(self) -> None:
        """Drop the times that no member needs, so that a long run keeps few of them."""
        joined = [
            request._joined_tick
            for entries in self._finish_calendar.values()
            for request in entries
        ]
        num_needless = min([*joined, self.num_returned]) - self._num_trimmed
        if num_needless > 0:
            del self._return_times[:num_needless]
            self._num_trimmed += num_needless
        self._trim_at = max(TRIM_AT, 2 * len(self._return_times))
