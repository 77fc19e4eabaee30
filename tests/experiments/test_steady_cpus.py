"""CPUs are kept awake and watched while a block runs, and let go after it."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.machine_watch import Disturbance
from experiments.steady_cpus import SteadyCpus, _slowed

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="CPUs are told apart on Linux")


@needs_linux
def test_helpers_run_beside_the_block_and_end_with_it() -> None:
    before = os.sched_getaffinity(0)
    with SteadyCpus(1) as cpus:
        assert os.sched_getaffinity(0) == {max(before)}
        pids = [helper.pid for helper in cpus._helpers]
        since, end = time.monotonic(), time.monotonic() + 30
        while cpus.slowed(since) is None:
            assert time.monotonic() < end, "the CPU's pace was never told"
            time.sleep(0.05)
        assert cpus.slowed(since) >= 0.0
        assert cpus.helpers_cpu_s() > 0.0
        assert os.sched_getscheduler(pids[0]) == os.SCHED_IDLE
    assert os.sched_getaffinity(0) == before
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)


def test_without_cpus_nothing_is_done_and_nothing_known() -> None:
    with SteadyCpus(0) as cpus:
        assert cpus.slowed(0.0) is None
        assert cpus.helpers_cpu_s() == 0.0
        seen = cpus.watch().seen()
    assert seen.slowed is None
    assert cpus.wait(disturbed=1e9, slowed=0.0, patience_s=0.0) == Disturbance()


def test_a_slow_time_is_told_from_the_best() -> None:
    rng = np.random.default_rng(3)
    took = np.where(np.arange(200) < 100, 5e-4, 6e-4) * rng.uniform(1.0, 1.02, 200)
    took[::25] *= 4  # something came between
    assert _slowed(took, took) == pytest.approx(0.1, abs=0.04)
    assert _slowed(took[100:], took) == pytest.approx(0.2, abs=0.03)
    assert _slowed(took[-2:], took) is None  # too little to say anything


def test_what_is_not_known_does_not_disturb() -> None:
    assert Disturbance(None, None).is_within(0.0, 0.0)
    assert Disturbance(0.1, 0.02).is_within(0.15, 0.05)
    assert not Disturbance(0.2, 0.02).is_within(0.15, 0.05)
    assert not Disturbance(0.1, 0.06).is_within(0.15, 0.05)
    assert Disturbance(0.1, 0.3).harm > Disturbance(0.1, 0.0).harm
