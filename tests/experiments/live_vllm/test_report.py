"""The tables of a live validation's page."""

from types import SimpleNamespace
from typing import Any

from experiments.live_vllm.report import GOALS, goal_table


def load(name: str, error: float, at_its_pace: float) -> Any:
    errors = {key: error for key, _, _ in GOALS}
    return SimpleNamespace(
        name=name,
        rate=1.0,
        errors=errors,
        errors_at_its_pace=dict.fromkeys(errors, at_its_pace),
    )


def test_goals_are_judged_with_and_without_the_pace() -> None:
    table = goal_table([load("low", 0.01, 0.2), load("high", -0.04, 0.0)])
    told = {row[0]: row[1:] for row in table.rows}
    assert told["all four met"] == ["yes", "no"]
    assert told["all four met, at the machine's pace"] == ["no", "yes"]
    assert told["mean TTFT (goal ±5 %)"] == ["+1.00 %", "-4.00 %"]
