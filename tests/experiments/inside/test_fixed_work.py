"""Work that tells a CPU's pace, and time that a host took from it."""

import os
import sys
from pathlib import Path

import pytest

from experiments.inside import fixed_work
from experiments.inside.fixed_work import FixedWork, PaceTeller, StolenTime
from experiments.pace_log import PaceLog

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="CPUs are told apart on Linux")


def test_the_work_takes_time() -> None:
    work = FixedWork()
    assert all(work.nanoseconds() > 10_000 for _ in range(3))


@pytest.fixture
def steal(monkeypatch, tmp_path):
    """Sets the ticks that were stolen from each CPU, and the clock."""
    usable = sorted(os.sched_getaffinity(0))
    now = [50.0]
    monkeypatch.setattr(fixed_work, "STAT", tmp_path / "stat")
    monkeypatch.setattr(fixed_work.time, "monotonic", lambda: now[0])

    def told(at: float, ticks: int) -> None:
        now[0] = at
        rows = ["cpu  9 9 9 9 9 9 9 999999 0 0"]
        rows += [f"cpu{number} 1 2 3 4 5 6 7 {ticks} 9 10" for number in usable]
        rows += ["cpu9999 1 2 3 4 5 6 7 5555 9 10", "intr 4 5 6"]
        (tmp_path / "stat").write_text("\n".join(rows))

    return told


@needs_linux
def test_stolen_time_is_that_of_the_own_cpus(steal) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    steal(50.0, 1000)
    stolen = StolenTime()
    steal(52.0, 1000 + ticks // 2)
    assert stolen.share() == pytest.approx(0.25)
    assert stolen.share() == 0.0  # no time has passed
    steal(54.0, 1000 + 9 * ticks)
    assert stolen.share() == fixed_work.MOST_STOLEN


@needs_linux
def test_a_pace_counts_what_was_stolen(steal, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FixedWork, "nanoseconds", lambda self: 600_000)
    steal(50.0, 0)
    teller = PaceTeller(tmp_path / "pace")
    steal(51.0, 0)
    teller.tell()
    steal(52.0, os.sysconf("SC_CLK_TCK") // 4)
    teller.tell()
    assert PaceLog([tmp_path / "pace"]).so_far().tolist() == pytest.approx([6e-4, 8e-4])


def test_where_nothing_is_told_nothing_was_stolen(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(fixed_work, "STAT", tmp_path / "none")
    assert StolenTime().share() == 0.0
