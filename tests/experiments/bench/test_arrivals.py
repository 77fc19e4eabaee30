"""Rates, burstiness and ramps."""

import math

import numpy as np
import pytest

from experiments.bench.arrivals import ArrivalSettings, RampOverRequests
from workbench.errors import ConfigError
from workbench.workload.arrivals import GammaArrivals


def gaps(process, n=4000, seed=0):
    return np.diff(process.times(n, np.random.default_rng(seed)), prepend=0.0)


@pytest.mark.parametrize(("burstiness", "variation"), [(1.0, 1.0), (4.0, 0.5), (0.25, 2.0)])
def test_rate_and_burstiness(burstiness, variation):
    found = gaps(ArrivalSettings(request_rate=5.0, burstiness=burstiness).process())
    assert found.mean() == pytest.approx(0.2, rel=0.1)
    assert found.std() / found.mean() == pytest.approx(variation, rel=0.1)


def test_an_infinite_rate_sends_everything_at_once():
    settings = ArrivalSettings()
    assert settings.is_unlimited
    assert not gaps(settings.process(), 10).any()


def test_a_linear_ramp_adds_and_an_exponential_one_multiplies():
    assert RampOverRequests(1.0, 9.0).rates(5).tolist() == [1, 3, 5, 7, 9]
    assert RampOverRequests(1.0, 16.0, "exponential").rates(5) == pytest.approx([1, 2, 4, 8, 16])


def test_the_gaps_of_a_ramp_follow_its_rates():
    ramp = ArrivalSettings(ramp="linear", ramp_start=0.0, ramp_end=100.0).process()
    found = gaps(ramp, 8000)
    for part in (slice(3000, 4000), slice(7000, 8000)):
        expected = (1 / ramp.rates(8000)[part]).mean()
        assert found[part].mean() == pytest.approx(expected, rel=0.1)


def test_a_flat_ramp_is_no_ramp():
    ramp = RampOverRequests(5.0, 5.0, burstiness=2.0)
    assert gaps(ramp, 50) == pytest.approx(gaps(GammaArrivals(5.0, 2.0), 50))


@pytest.mark.parametrize("burstiness", [0.1, 1.0, 10.0])
def test_there_are_enough_requests_for_a_duration(burstiness):
    settings = ArrivalSettings(request_rate=20.0, burstiness=burstiness)
    for seed in range(20):
        times = settings.process().times(settings.enough_for(3.0), np.random.default_rng(seed))
        assert times[-1] > 3.0


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"request_rate": 0.0}, "--request-rate 0"),
        ({"request_rate": math.nan}, "--request-rate nan"),
        ({"request_rate": 1.0, "burstiness": 0.0}, "--burstiness 0"),
        ({"ramp": "linear"}, "--ramp-up-start-rps"),
        ({"ramp_start": 1.0}, "--ramp-up-strategy"),
        ({"ramp": "sudden", "ramp_start": 1.0, "ramp_end": 2.0}, "sudden"),
        ({"ramp": "exponential", "ramp_start": 0.0, "ramp_end": 2.0}, "exponential"),
        ({"ramp": "linear", "ramp_start": 1.0, "ramp_end": math.inf}, "finite"),
        (
            {"request_rate": 2.0, "ramp": "linear", "ramp_start": 1.0, "ramp_end": 2.0},
            "use one",
        ),
    ],
)
def test_what_makes_no_sense_is_refused(wrong, text):
    with pytest.raises(ConfigError, match=text):
        ArrivalSettings(**wrong)
