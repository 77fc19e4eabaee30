"""Simulated time beside real time: waits, idle times, and a host that comes late."""

import pytest

from simulator.scaled_clock import ScaledClock
from tests.simulator.real_time_worlds import Wall
from workbench.errors import ConfigError


def busy_clock(speed: float = 1.0, overshoot: float = 0.0) -> tuple[ScaledClock, Wall]:
    wall = Wall(overshoot)
    clock = ScaledClock(speed, wall, wall.sleep)
    clock.watch(lambda: True)
    return clock, wall


@pytest.mark.parametrize("speed", [0.01, 0.5, 1.0, 40.0, 1000.0])
def test_idle_time_passes_at_the_speed(speed: float) -> None:
    wall = Wall()
    clock = ScaledClock(speed, wall, wall.sleep)
    assert clock() == 0.0
    wall.time += 3.0
    assert clock() == pytest.approx(3.0 * speed)
    assert clock.from_wall(clock.to_wall(1.25)) == pytest.approx(1.25)


def test_a_wait_ends_at_its_time_and_that_is_the_time() -> None:
    clock, wall = busy_clock(speed=10.0, overshoot=50e-6)
    begin = wall()
    assert clock.timeout_at(2.0, "value").result() == "value"
    assert wall() - begin == pytest.approx(0.2, abs=1e-4)
    assert clock() == 2.0


def test_late_ends_of_waits_do_not_add_up() -> None:
    clock, wall = busy_clock(overshoot=500e-6)
    begin = wall()
    for _ in range(200):
        clock.timeout_at(clock() + 0.005).result()
    assert clock() == pytest.approx(1.0)
    assert wall() - begin == pytest.approx(1.0, abs=2e-3)
    assert clock.lost_s == 0.0


def test_a_pause_of_the_host_is_made_good_by_the_following_steps() -> None:
    clock, wall = busy_clock()
    clock.timeout_at(clock() + 0.01).result()
    wall.time += 0.03
    for _ in range(9):
        clock.timeout_at(clock() + 0.01).result()
    assert clock.lost_s == 0.0
    assert wall() == pytest.approx(clock.to_wall(0.1), abs=1e-4)


def test_a_host_that_is_slower_than_the_steps_loses_time() -> None:
    clock, wall = busy_clock(speed=1000.0)
    for _ in range(100):
        clock.timeout_at(clock() + 0.01).result()
        wall.time += 0.001
    # a step of 10 us, and a host that needs a millisecond for each
    assert clock() == pytest.approx(1000 * 100 * 0.001, rel=0.05)
    assert clock.lost_s == pytest.approx(clock() - 1.0, rel=0.05)
    assert not wall.sleeps


def test_without_cost_the_time_is_that_of_the_wall() -> None:
    clock, wall = busy_clock()
    for _ in range(50):
        clock.timeout_at(clock()).result()
        wall.time += 0.001
    assert clock() == pytest.approx(0.05, abs=2e-3)
    assert not wall.sleeps


def test_time_never_goes_back() -> None:
    wall = Wall()
    clock = ScaledClock(3.0, wall, wall.sleep)
    has_work = [True]
    clock.watch(lambda: has_work[0])
    seen = [clock()]
    for number in range(300):
        has_work[0] = number % 7 != 0
        if number % 3 == 0:
            clock.timeout_at(clock() + 0.002 * (number % 5)).result()
        wall.time += 0.001 * (number % 4)
        seen.append(clock())
    assert seen == sorted(seen)


def test_idle_time_is_not_lost_time() -> None:
    wall = Wall()
    clock = ScaledClock(1.0, wall, wall.sleep)
    has_work = [True]
    clock.watch(lambda: has_work[0])
    clock()
    clock.timeout_at(0.01).result()
    has_work[0] = False
    wall.time += 5.0
    assert clock() == pytest.approx(5.01, abs=1e-3)
    has_work[0] = True
    wall.time += 0.2  # until its first step begins, a request is only on its way
    assert clock() == pytest.approx(5.21, abs=1e-3)
    assert clock.lost_s == 0.0


@pytest.mark.parametrize("speed", [0.0, 0.001, 1001.0, float("nan"), float("inf"), -1.0])
def test_absurd_speeds_are_refused_by_name(speed: float) -> None:
    with pytest.raises(ConfigError, match="speed="):
        ScaledClock(speed)
