"""Errors of both worlds: of single runs, and of means over repetitions."""

from typing import Any

import pytest

from experiments.validation.compare import AT_ITS_SPEED, GOALS, errors_of_means, verdicts

NUMBERS = [number for _, number, _, _ in GOALS]


def case(policy: str, repeat: int, measured: float, simulated: float) -> dict[str, Any]:
    errors = {key: simulated / measured - 1 for key, *_ in GOALS}
    return {
        "load": 0.5,
        "policy": policy,
        "repeat": repeat,
        "engine": dict.fromkeys(NUMBERS, measured),
        "simulator": dict.fromkeys(NUMBERS, simulated),
        AT_ITS_SPEED: dict.fromkeys(NUMBERS, measured),
        "errors": errors,
        "errors_at_its_speed": errors,
    }


def test_what_a_machine_does_from_run_to_run_cancels_in_means() -> None:
    cases = [
        case("chunked_prefill", 0, 9.0, 10.0),
        case("chunked_prefill", 1, 11.0, 10.0),
        case("static_batching", 0, 10.0, 12.0),
        case("static_batching", 1, 10.0, 12.0),
    ]
    means = errors_of_means(cases)
    assert [(row["policy"], row["runs"]) for row in means] == [
        ("chunked_prefill", 2),
        ("static_batching", 2),
    ]
    assert means[0]["ttft_mean_error"] == pytest.approx(0.0)
    assert means[1]["ttft_mean_error"] == pytest.approx(0.2)
    for goal in verdicts(cases):
        assert goal["errors"]["runs"] == 4
        assert goal["errors"]["runs_within"] == (1 if goal["limit"] == 0.1 else 0)
        assert goal["errors_of_means"]["runs"] == 2
        assert goal["errors_of_means"]["runs_within"] == 1
        assert goal["errors_of_means"]["largest"] == pytest.approx(0.2)
        assert goal["errors_of_means_at_its_speed"]["largest"] == 0.0


def test_a_number_that_a_world_lacks_is_left_out() -> None:
    cases = [case("chunked_prefill", 0, 10.0, 10.0)]
    cases[0]["engine"]["tpot_s_mean"] = None
    cases[0]["errors"]["tpot_mean_error"] = float("nan")
    found = {goal["goal"]: goal for goal in verdicts(cases)}
    assert found["TPOT mean"]["errors"]["runs"] == 0
    assert found["TPOT mean"]["errors_of_means"]["mean_absolute"] is None
    assert found["TTFT mean"]["errors_of_means"]["runs_within"] == 1
    assert errors_of_means(cases)[0]["tpot_mean_error"] is None
