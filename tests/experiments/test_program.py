"""How commands end: help, interrupts, expected errors in one line, others as they are."""

import pytest

from experiments.program import FAILED, INTERRUPTED, USAGE, run_program
from workbench.errors import ConfigError, CostModelError


def raising(error: BaseException) -> int:
    raise error


def test_help_is_printed_and_nothing_done(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["a=1", "--help"], "what it does", lambda argv: 7) == 0
    assert capsys.readouterr().out == "what it does\n"


def test_the_work_gets_the_words_and_gives_the_status() -> None:
    assert run_program(["a=1", "b"], "", len) == 2


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (ConfigError("a=1 is wrong"), USAGE, "error: a=1 is wrong\n"),
        (CostModelError("too far"), FAILED, "error: too far\n"),
        (KeyboardInterrupt(), INTERRUPTED, "stopped\n"),
    ],
)
def test_an_expected_end_is_one_line(
    error: BaseException, status: int, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run_program(
        [],
        "",
        lambda argv: raising(error),
        on_interrupt="stopped",
        failures=(CostModelError,),
    )
    assert ended == status
    assert capsys.readouterr().err == told


def test_a_mistake_of_the_program_keeps_its_trace() -> None:
    with pytest.raises(ZeroDivisionError):
        run_program([], "", lambda argv: raising(ZeroDivisionError()))
