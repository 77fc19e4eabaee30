"""Who may ask, and how often: keys compared in constant time, and a token bucket for each limit.

Knows neither HTTP nor the file that the keys came from.
"""

import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from engine.router.errors import RouterError
from engine.router.token_bucket import TokenBucket
from workbench.config import at_least, check_types
from workbench.errors import ConfigError

NOBODY = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """One client.

    Attributes:
        name: Who it is, in metrics and logs.
        key: What it sends as `Authorization: Bearer KEY`.
        requests_per_second: None: no limit.
        burst: Requests at once; None: a second's worth, at least 1.
        tokens_per_minute: Prompt and answer; also the most at once. None: no limit.
    """

    name: str
    key: str
    requests_per_second: float | None = None
    burst: int | None = None
    tokens_per_minute: float | None = None

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("name", "key"):
            value = getattr(self, name)
            if not value or not value.isascii() or not value.isprintable():
                raise ConfigError(f"{name} must be text of printable ASCII characters, not empty")
        at_least(self, 1e-6, "requests_per_second", "tokens_per_minute")
        at_least(self, 1, "burst")
        if self.burst is not None and self.requests_per_second is None:
            raise ConfigError(f"burst={self.burst} of {self.name!r} needs requests_per_second")


class KeyRing:
    """The known keys. An empty one lets everybody in.

    Raises:
        ConfigError: Two clients with one name or one key.
    """

    def __init__(self, keys: Iterable[ApiKey] = ()) -> None:
        self._keys = [(sha256(key.key.encode()).digest(), key) for key in keys]
        for what in ("name", "key"):
            values = [getattr(key, what) for _, key in self._keys]
            if len(set(values)) < len(values):
                twice = next(v for v in values if values.count(v) > 1)
                shown = f"{twice!r} " if what == "name" else ""
                raise ConfigError(f"the {what} {shown}is given to two API keys: one each")

    @property
    def is_open(self) -> bool:
        """Whether no key is asked for."""
        return not self._keys

    def find(self, authorization: str | None) -> ApiKey | None:
        """The client of a header `Bearer KEY`. Takes as long for every wrong key."""
        scheme, _, token = (authorization or "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        digest = sha256(token.strip().encode(errors="surrogateescape")).digest()
        found = None
        for known, key in self._keys:
            if hmac.compare_digest(known, digest):
                found = key
        return found


class RateLimits:
    """The buckets of all clients. Times in seconds on one clock."""

    def __init__(self) -> None:
        self._requests: dict[str, TokenBucket] = {}
        self._tokens: dict[str, TokenBucket] = {}

    def admit(self, key: ApiKey | None, num_tokens: float, now: float) -> None:
        """Charge a request and its expected tokens, or refuse it and charge nothing.

        Raises:
            RouterError: 429, with the time after which it would be let through.
        """
        if key is None:
            return
        requests, tokens = self._buckets(key, now)
        if requests is not None and (wait := requests.wait(1, now)):
            limit = f"{key.requests_per_second:g} requests a second"
            raise _limited(key, limit, wait, "requests")
        if tokens is not None and (wait := tokens.wait(num_tokens, now)):
            limit = f"{key.tokens_per_minute:g} tokens a minute, and this request may need"
            raise _limited(key, f"{limit} {num_tokens:g}", wait, "tokens")
        if requests is not None:
            requests.take(1, now)
        if tokens is not None:
            tokens.take(num_tokens, now)

    def settle(self, key: ApiKey | None, charged: float, used: float, now: float) -> None:
        """Replace the expected tokens of a request by those it used."""
        bucket = self._tokens.get(key.name) if key is not None else None
        if bucket is not None:
            bucket.take(used - charged, now)

    def _buckets(self, key: ApiKey, now: float) -> tuple[TokenBucket | None, TokenBucket | None]:
        rate, per_minute = key.requests_per_second, key.tokens_per_minute
        if rate is not None and key.name not in self._requests:
            capacity = key.burst if key.burst is not None else max(1.0, rate)
            self._requests[key.name] = TokenBucket(rate, capacity, now)
        if per_minute is not None and key.name not in self._tokens:
            self._tokens[key.name] = TokenBucket(per_minute / 60, per_minute, now)
        return self._requests.get(key.name), self._tokens.get(key.name)


def _limited(key: ApiKey, limit: str, wait: float, code: str) -> RouterError:
    return RouterError(
        429,
        f"the rate limit of {key.name!r} is {limit}: try again in {wait:.2g} s",
        "RateLimitError",
        code=f"rate_limit_{code}",
        retry_after_s=wait,
    )
