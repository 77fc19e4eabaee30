"""The running requests that do nothing but decode: one token a step until a step known in advance.

A decode step changes one number a request. Instead of changing it request by request, the cohort
counts its own steps ("ticks") and a member's counts are its counts at joining plus the ticks since.
Two calendars say at which tick a member needs attention: when a step is scheduled (a block
boundary, the end of its scheduling) and when one returns (its last token). So a step costs as much
as changes in it, not as much as is running.

The cohort decides nothing. It knows neither blocks nor budgets; the scheduler asks it who is due.
"""

from array import array

from workbench.request import Request


class DecodeCohort:
    """Requests scheduled together with one token each.

    Attributes:
        size: Members.
        num_scheduled: Ticks scheduled so far.
        num_returned: Ticks whose results have come back, at most num_scheduled.
        return_times: Seconds at which tick i + 1 returned (float64).
        context_tokens: Sum of the members' computed tokens.
        uses_placeholders: Whether promised tokens count as placeholders (asynchronous scheduling).
    """

    __slots__ = (
        "_finish_calendar",
        "_wake_calendar",
        "context_tokens",
        "num_returned",
        "num_scheduled",
        "return_times",
        "size",
        "uses_placeholders",
    )

    def __init__(self, uses_placeholders: bool) -> None:
        self.uses_placeholders = uses_placeholders
        self.size = 0
        self.num_scheduled = 0
        self.num_returned = 0
        self.context_tokens = 0
        self.return_times = array("d")
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
        self.size -= 1
        self.context_tokens -= request._num_computed_tokens

    def in_flight_since(self, joined_tick: int) -> int:
        """Ticks scheduled after `joined_tick` that have not returned."""
        return self.num_scheduled - max(self.num_returned, joined_tick)

    def due_next(self) -> list[Request]:
        """Members that need attention before the next tick is scheduled.

        An entry holds as long as its member has not left, or moved its date, since.
        """
        tick = self.num_scheduled + 1
        entries = self._wake_calendar.get(tick, ())
        return [r for r in entries if r._wake_tick == tick and r._cohort is self]

    def wakes_next(self) -> bool:
        """Whether a member may be due before the next tick is scheduled."""
        return self.num_scheduled + 1 in self._wake_calendar

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
        self.return_times.append(now)
        entries = self._finish_calendar.pop(tick, ())
        return [r for r in entries if r._finish_tick == tick and r._cohort is self]

    def return_quietly(self, now: float) -> None:
        """`return_tick` where `ends_next` has said no."""
        self.num_returned += 1
        self.return_times.append(now)
