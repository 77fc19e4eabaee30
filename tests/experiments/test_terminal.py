"""Numbers are whole, however narrow the terminal is."""

import io
from typing import Any

import pytest
from rich.console import Console

from experiments.terminal import open_console, print_numbers
from experiments.validation.report import print_result

NAMES = ("run", "throughput", *(f"error {i}\nof it" for i in range(9)))
ROWS = [
    [f"load {load}, chunked prefill", f"+{load}03.7 %", *(f"-{load}{i}.25 %" for i in range(9))]
    for load in range(1, 5)
]


def printed(width: int, names: Any = NAMES, rows: Any = ROWS) -> str:
    file = io.StringIO()
    print_numbers(Console(file=file, width=width), names, rows, "errors")
    return file.getvalue()


@pytest.mark.parametrize("width", [30, 60, 80, 140, 400])
def test_no_number_is_cut(width: int) -> None:
    text = printed(width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for row in ROWS:
        assert all(number in text for number in row[1:])


def test_what_fits_is_one_table_and_what_does_not_names_its_rows_again() -> None:
    assert printed(400).count("load 1, chunked prefill") == 1
    assert printed(100).count("load 1, chunked prefill") == 2
    assert printed(100).count("errors") == 1


def test_a_number_wider_than_the_terminal_is_broken_and_whole() -> None:
    text = printed(12, ("a", "b"), [["x", "1234567890123456789"]])
    assert "…" not in text
    assert sorted(filter(str.isdigit, text)) == sorted("1234567890123456789")


def test_rows_may_be_short_and_names_alone() -> None:
    assert "no value" in printed(80, ("name", "mean"), [["no value"]])
    assert "alone" in printed(80, ("name",), [["alone"]])


def test_a_pipe_is_wide(capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert open_console().width == 140


def test_a_validation_in_a_pipe_has_all_its_numbers(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    keys = [f"{name}_{what}_error" for name in ("ttft", "tpot", "e2e")
            for what in ("mean", "p50", "p99")]  # fmt: skip
    errors = {key: 2.037 + i for i, key in enumerate(keys)} | {"e2e_mape": 0.512}
    told = {"mean_absolute": 2.037, "largest": 3.037, "runs_within": 0, "runs": 12}
    print_result(
        {
            "goals": [
                {
                    "goal": "throughput",
                    "limit": 0.03,
                    "errors": told,
                    "errors_at_its_speed": told,
                    "errors_of_means": told,
                    "errors_of_means_at_its_speed": told,
                }
            ],
            "errors_of_means": [{"runs": 3}],
            "cases": [{"load": 0.5, "policy": "chunked_prefill", "repeat": 0, "errors": errors}],
            "rankings": [],
            "rankings_at_its_speed": [],
            "coverage": {"all": None},
        }
    )
    text = capsys.readouterr().out
    assert "…" not in text
    assert "throughput" in text
    for number in ("+203.7 %", "+303.7 %", "+1003.7 %", "51.2 %"):
        assert number in text
