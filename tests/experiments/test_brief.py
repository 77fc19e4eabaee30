"""The few lines that a run ends with on the terminal."""

import pytest

from experiments.brief import brief


@pytest.mark.parametrize(
    ("key", "value", "shown"),
    [
        ("ttft_s_p99", 222.8, "222.8 s"),
        ("ttft_s_p50", 0.04454, "44.54 ms"),
        ("ttft_s_p50", 0.9996, "999.6 ms"),
        ("itl_s_p99", 1.5, "1.5 s"),
        ("ttft_s_p99", 12345.6, "12,346 s"),
        ("tpot_s_p50", 0.0, "0 ms"),
        ("output_tokens_per_s", 123456.7, "123,457 /s"),
        ("prefix_hit_rate", 0.5, "50 %"),
        ("preemptions", 1234, "1,234"),
        ("duration_s", 86400.0, "86,400 s"),
    ],
)
def test_numbers_are_in_units_that_read_well(key: str, value: float, shown: str) -> None:
    (line,) = brief({key: value}).splitlines()
    assert line.endswith(f" {shown}")


def test_intervals_stand_beside_their_numbers_in_the_same_unit() -> None:
    told = {"ttft_s_p99": 0.98, "ttft_s_p99_low": 0.9, "ttft_s_p99_high": 1.25, "finished": 3}
    lines = brief(told | {"uncertainty_level": 0.9, "uncertainty_runs": 20}).splitlines()
    assert lines[0].endswith(" 3")
    assert " 980 ms " in lines[1]
    assert lines[1].endswith("[900, 1,250]")
    assert lines[2].strip() == "[low, high]: 90 % intervals, from 20 simulations with errors drawn"


def test_without_intervals_there_is_no_word_of_them() -> None:
    assert "[" not in brief({"ttft_s_p99": 0.98})
