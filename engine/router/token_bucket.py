"""A token bucket: how often something may happen, with bursts. Time is an argument."""

from workbench.errors import ConfigError


class TokenBucket:
    """Fills at `rate` a second up to `capacity`, and starts full.

    What is dearer than the whole bucket is let through when the bucket is full, and leaves a debt;
    otherwise it could never be served.

    Args:
        rate: Units a second, above 0.
        capacity: Units, above 0.

    Raises:
        ConfigError: A value is not above 0.
    """

    def __init__(self, rate: float, capacity: float, now: float) -> None:
        for name, value in (("rate", rate), ("capacity", capacity)):
            if not value > 0:
                raise ConfigError(f"{name}={value} of a rate limit must be above 0")
        self._rate = rate
        self._capacity = capacity
        self._level = float(capacity)
        self._at = now

    def level(self, now: float) -> float:
        """Units in the bucket; below 0: a debt."""
        filled = self._rate * max(0.0, now - self._at)
        return min(self._capacity, self._level + filled)

    def wait(self, amount: float, now: float) -> float:
        """Seconds until `amount` may be taken; 0: now."""
        lacking = min(amount, self._capacity) - self.level(now)
        return lacking / self._rate if lacking > 0 else 0.0

    def take(self, amount: float, now: float) -> None:
        """Take units, whether they are there or not; a negative amount gives some back."""
        self._level = min(self._capacity, self.level(now) - amount)
        self._at = max(self._at, now)
