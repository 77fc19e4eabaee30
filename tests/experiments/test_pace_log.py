"""What probes write is read as it grows."""

from pathlib import Path

import pytest

from experiments.pace_log import PaceLog


def test_paces_are_read_as_they_come(tmp_path: Path) -> None:
    files = [tmp_path / "pace_0", tmp_path / "pace_1"]
    log = PaceLog(files)
    assert log.near(0.0) == 0.0
    files[0].write_text("1.0 1000000\n2.0 1200000\n3.0 14")  # a line that is being written
    assert log.during(0.0, 10.0).tolist() == pytest.approx([1e-3, 1.2e-3])
    with files[0].open("a") as file:
        file.write("00000\n")
    files[1].write_text("2.5 1600000\n")
    assert log.during(2.0, 3.0).tolist() == pytest.approx([1.2e-3, 1.6e-3, 1.4e-3])
    assert log.so_far().tolist() == pytest.approx([1e-3, 1.2e-3, 1.6e-3, 1.4e-3])
    assert log.near(2.6) == pytest.approx(1.5e-3)
    assert log.near(7.0) == 0.0


def test_work_that_was_interrupted_says_nothing(tmp_path: Path) -> None:
    file = tmp_path / "pace_0"
    rows = [f"{at / 10} {9_000_000 if at == 5 else 1_000_000}" for at in range(20)]
    file.write_text("\n".join(rows) + "\n")
    assert set(PaceLog([file]).during(0.0, 2.0)) == {1e-3}
    assert PaceLog([file]).during(0.5, 0.5).tolist() == []
