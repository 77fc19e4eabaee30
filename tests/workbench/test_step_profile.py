"""Measured steps as a CSV: there and back, and what is refused."""

from pathlib import Path

import pytest

from workbench.errors import ConfigError
from workbench.step_profile import (
    MeasuredStep,
    StepShape,
    check_columns,
    read_steps,
    write_steps,
)

STEPS = [
    MeasuredStep(StepShape(3, 120, [(64, 0), (17, 128)], 4), 0.0125, 0.0004, "run/0"),
    MeasuredStep(StepShape(1, 9, [], 1, num_swap_blocks=2, longest_decode=9), 0.003, source="grid"),
    MeasuredStep(StepShape(2, 90, [], 2, longest_decode=50, shared_context=32), 0.003, pace=2e-4),
    MeasuredStep(StepShape(1, 9, [], 1, prefill_tokens_before=64), 0.004),
]
COUNTS = "num_decodes,decode_context,prefills,num_samples,num_swap_blocks"
HEAD = f"{COUNTS},longest_decode,shared_context,prefill_tokens_before,seconds,host_s,source,pace"
OLDER_HEAD = f"{COUNTS},seconds,host_s,source"


def test_steps_come_back_from_a_file(tmp_path: Path) -> None:
    write_steps(tmp_path / "steps.csv", STEPS)
    written = (tmp_path / "steps.csv").read_text()
    assert written.startswith(HEAD + "\n3,120,64@0 17@128,4,0,0,0,0,0.0125")
    assert read_steps(tmp_path / "steps.csv") == STEPS


def test_columns_that_were_not_measured_may_be_absent(tmp_path: Path) -> None:
    file = tmp_path / "steps.csv"
    file.write_text("num_decodes,decode_context,prefills,num_samples,seconds\n2,10,,2,0.5\n")
    assert read_steps(file) == [MeasuredStep(StepShape(2, 10, [], 2), 0.5)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2,10,,2,0,0,0,", "seconds=0 must be above 0"),
        ("2,10,,2,0,0.1,0.2,", "host_s=0.2"),
        ("2,10,,2,0,nan,0,", "seconds=nan"),
        ("2,10,12,2,0,0.1,0,", "is no step"),
        ("two,10,,2,0,0.1,0,", "is no step"),
        ("2,10", "is no step"),
    ],
)
def test_a_line_that_is_no_step_is_named(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "steps.csv"
    file.write_text(f"{OLDER_HEAD}\n{line}\n")
    with pytest.raises(ConfigError, match="line 2") as caught:
        read_steps(file)
    assert message in str(caught.value)


def test_nobody_goes_on_with_a_file_of_other_columns(tmp_path: Path) -> None:
    file = tmp_path / "steps.csv"
    write_steps(file, STEPS)
    check_columns(file)
    file.write_text(f"{OLDER_HEAD}\n2,10,,2,0,0.1,0,\n")
    with pytest.raises(ConfigError, match=r"other columns .* name a new file"):
        check_columns(file)


def test_a_file_that_is_no_table_of_steps_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="do not exist"):
        read_steps(tmp_path / "none.csv")
    file = tmp_path / "steps.csv"
    file.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="lack the column num_decodes"):
        read_steps(file)
