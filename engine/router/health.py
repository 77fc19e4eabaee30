"""Whether a backend may be sent requests: ejected after failures, back after good checks.

A state machine without a clock, a socket or a task: what happened and when are told to it.
"""

from dataclasses import dataclass

from engine.router.settings import HealthSettings


@dataclass(frozen=True, slots=True)
class Transition:
    """A backend came up or went down, and why."""

    is_up: bool
    reason: str


class BackendHealth:
    """The state of one backend. It starts down, and the first good check brings it up.

    Every method takes `now` in seconds on one clock and returns the transition, if there was one.
    """

    def __init__(self, settings: HealthSettings) -> None:
        self._settings = settings
        self.is_up = False
        self.reason = "not checked yet"
        self.since = 0.0
        self.num_ejections = 0
        self._was_up = False
        self._good_checks = 0
        self._bad_checks = 0
        self._failures = 0
        self._ejections_in_row = 0
        self._held_until = 0.0

    def check_passed(self, now: float) -> Transition | None:
        """A health check was answered well."""
        self._bad_checks = 0
        if self.is_up:
            return None
        self._good_checks += 1
        needed = self._settings.healthy_after if self._was_up else 1
        if self._good_checks < needed or now < self._held_until:
            return None
        self.is_up = self._was_up = True
        self._failures = 0
        return self._note("checks passed", now)

    def check_failed(self, reason: str, now: float) -> Transition | None:
        """A health check timed out or was answered with an error."""
        self._good_checks = 0
        self._bad_checks += 1
        if not self.is_up:
            self.reason = reason
            return None
        if self._bad_checks < self._settings.unhealthy_after:
            return None
        return self._eject(reason, now)

    def refused(self, reason: str, now: float) -> Transition | None:
        """No connection could be made, by a check or for a request: nobody is there."""
        self._good_checks = 0
        if not self.is_up:
            self.reason = reason
            return None
        return self._eject(reason, now)

    def request_failed(self, reason: str, now: float) -> Transition | None:
        """A request was broken off or answered with a server's error."""
        if not self.is_up:
            return None
        self._failures += 1
        if self._failures < self._settings.max_failures:
            return None
        return self._eject(reason, now)

    def request_succeeded(self) -> None:
        """A request was answered."""
        if self.is_up:
            self._failures = 0
            self._ejections_in_row = 0

    def _eject(self, reason: str, now: float) -> Transition:
        settings = self._settings
        # two to the power of any more would be longer than any limit
        hold = settings.ejection_s * 2.0 ** min(self._ejections_in_row, 60)
        self._held_until = now + min(hold, settings.max_ejection_s)
        self._ejections_in_row += 1
        self.num_ejections += 1
        self.is_up = False
        self._good_checks = self._bad_checks = self._failures = 0
        return self._note(reason, now)

    def _note(self, reason: str, now: float) -> Transition:
        self.reason, self.since = reason, now
        return Transition(self.is_up, reason)
