"""Arrival processes against what theory says of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import WorkloadError
from workbench.workload.arrivals import (
    Arrivals,
    BatchArrivals,
    ClosedLoopArrivals,
    ConstantArrivals,
    GammaArrivals,
    OnOffArrivals,
    PoissonArrivals,
    RampArrivals,
)
from workbench.workload.durations import (
    ConstantDuration,
    ExponentialDuration,
    LognormalDuration,
)

rates = st.floats(0.01, 1000)
spans = st.floats(0.1, 100)
processes = st.one_of(
    st.builds(PoissonArrivals, rates),
    st.builds(GammaArrivals, rates, st.floats(0.05, 50)),
    st.builds(ConstantArrivals, rates),
    st.builds(BatchArrivals, st.floats(0, 100)),
    st.builds(RampArrivals, st.floats(0, 100), rates, spans),
    st.builds(OnOffArrivals, rates, spans, spans, st.just(0.0) | rates, st.booleans()),
    st.builds(ClosedLoopArrivals, st.integers(1, 50), st.none(), st.floats(0, 5)),
)


def draw(arrivals: Arrivals, n: int, seed: int = 0) -> np.ndarray:
    return arrivals.times(n, np.random.default_rng(seed))


@settings(deadline=None, max_examples=100)
@given(processes, st.integers(0, 200), st.integers(0, 2**32))
def test_times_are_sorted_finite_and_reproducible(arrivals, n, seed):
    times = draw(arrivals, n, seed)
    assert len(times) <= n
    assert np.isfinite(times).all()
    assert (times >= 0).all()
    assert (np.diff(times) >= 0).all()
    assert times.tobytes() == draw(arrivals, n, seed).tobytes()


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_gamma_gaps_have_the_rate_and_the_variation_of_their_burstiness(burstiness):
    n = 40_000
    gaps = np.diff(draw(GammaArrivals(5.0, burstiness), n), prepend=0.0)
    deviation = 0.2 / np.sqrt(burstiness)
    assert abs(gaps.mean() - 0.2) < 4 * deviation / np.sqrt(n)
    assert gaps.std() / gaps.mean() == pytest.approx(1 / np.sqrt(burstiness), rel=0.05)


def test_poisson_counts_have_equal_mean_and_variance():
    times = draw(PoissonArrivals(10.0), 50_000)
    counts = np.bincount(times.astype(int))[:-1]
    assert abs(counts.mean() - 10.0) < 4 * np.sqrt(10.0 / len(counts))
    assert counts.var() == pytest.approx(10.0, rel=0.1)


def test_constant_arrivals_are_evenly_spaced():
    assert draw(ConstantArrivals(4.0), 5).tolist() == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_a_ramp_reaches_its_expected_counts():
    times = draw(RampArrivals(10.0, 30.0, 100.0), 5000)
    first_half, second_half = np.sum(times < 50), np.sum((times >= 50) & (times < 100))
    after = times[times >= 100]
    assert abs(first_half - 750) < 4 * np.sqrt(750)  # 10 to 20 a second
    assert abs(second_half - 1250) < 4 * np.sqrt(1250)  # 20 to 30 a second
    assert np.diff(after).mean() == pytest.approx(1 / 30, rel=0.1)


@pytest.mark.parametrize(("start", "end"), [(0.0, 20.0), (20.0, 1.0), (10.0, 10.0)])
def test_a_ramp_may_begin_at_nothing_fall_or_stay(start, end):
    times = draw(RampArrivals(start, end, 50.0), 3000)
    expected = (start + end) / 2 * 50
    assert abs(np.sum(times < 50) - expected) < 4 * np.sqrt(expected)


@pytest.mark.parametrize("random_phases", [False, True])
def test_on_off_keeps_its_long_run_rate(random_phases):
    arrivals = OnOffArrivals(20.0, 2.0, 3.0, 5.0, random_phases)
    times = draw(arrivals, 40_000)
    rate = (20 * 2 + 5 * 3) / 5
    assert len(times) / times[-1] == pytest.approx(rate, rel=0.05)


def test_nothing_arrives_in_an_off_phase_of_rate_0():
    times = draw(OnOffArrivals(10.0, 1.0, 2.0), 1000)
    assert (times % 3.0 <= 1.0 + 1e-6).all()


def test_a_closed_loop_starts_its_users_only():
    arrivals = ClosedLoopArrivals(3, ConstantDuration(2.0), stagger=0.5)
    assert draw(arrivals, 10).tolist() == [0.0, 0.5, 1.0]
    assert draw(arrivals, 2).tolist() == [0.0, 0.5]
    assert arrivals.think_times(4, np.random.default_rng(0)).tolist() == [2.0] * 4


def test_durations_have_their_mean_or_median():
    rng = np.random.default_rng(1)
    assert ExponentialDuration(3.0).sample(20_000, rng).mean() == pytest.approx(3.0, rel=0.05)
    lognormal = LognormalDuration(3.0, 1.0).sample(20_000, rng)
    assert np.median(lognormal) == pytest.approx(3.0, rel=0.05)
    assert ConstantDuration().sample(2, rng).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PoissonArrivals(0), "rate is 0, but it must be above 0; change rate"),
        (lambda: PoissonArrivals(float("nan")), "rate is nan, but it must be finite"),
        (lambda: PoissonArrivals("5"), "rate is '5', which is not a number"),
        (lambda: GammaArrivals(1, -1), "burstiness is -1, but it must be above 0"),
        (lambda: RampArrivals(-1, 1, 1), "start_rate is -1, but it must be at least 0"),
        (lambda: RampArrivals(1, 0, 1), "end_rate is 0"),
        (lambda: OnOffArrivals(1, 0, 1), "on_duration is 0"),
        (lambda: ClosedLoopArrivals(0), "concurrency is 0, but it must be at least 1"),
        (lambda: ClosedLoopArrivals(2.5), "concurrency is 2.5, which is not a whole number"),
        (lambda: ClosedLoopArrivals(True), "concurrency is True, which is not a whole number"),
        (lambda: ClosedLoopArrivals(1, 3.0), "think_time is a float"),
        (lambda: ExponentialDuration(-1), "mean is -1"),
    ],
)
def test_numbers_out_of_range_are_named(make, message):
    with pytest.raises(WorkloadError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
