"""A bucket lets through what its rate and its size allow, and tells how long to wait."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.token_bucket import TokenBucket
from workbench.errors import ConfigError

amounts = st.floats(0.1, 30)
asks = st.lists(st.tuples(st.floats(0, 5), amounts), max_size=60)


@given(asks=asks, rate=st.floats(0.1, 20), capacity=st.floats(1, 20))
@settings(max_examples=50, deadline=None)
def test_never_more_than_rate_and_burst(
    asks: list[tuple[float, float]], rate: float, capacity: float
) -> None:
    bucket, now, taken, dearest = TokenBucket(rate, capacity, 0.0), 0.0, 0.0, 0.0
    for pause, amount in asks:
        now += pause
        wait = bucket.wait(amount, now)
        if wait == 0:
            bucket.take(amount, now)
            taken += amount
            dearest = max(dearest, amount - capacity)
        else:
            assert bucket.wait(amount, now + wait * 0.5) > 0
            assert bucket.wait(amount, now + wait) == pytest.approx(0, abs=1e-6)
        assert bucket.level(now) <= capacity
    assert taken <= (capacity + rate * now + dearest) * (1 + 1e-9)


@given(asks=asks)
@settings(max_examples=50, deadline=None)
def test_time_does_not_run_backwards_and_what_is_given_back_never_overflows(
    asks: list[tuple[float, float]],
) -> None:
    bucket = TokenBucket(1.0, 10.0, 50.0)
    for past, amount in asks:
        bucket.take(amount, 50.0 - past)
        bucket.take(-2 * amount, 50.0)
        assert bucket.level(50.0) <= 10.0


@pytest.mark.parametrize(("rate", "capacity"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1)])
def test_a_bucket_without_rate_or_room_is_refused(rate: float, capacity: float) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        TokenBucket(rate, capacity, 0.0)
