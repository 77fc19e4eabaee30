"""Errors of a simulation: signs, percentiles, requests that only one side has."""

import math

import numpy as np
import pandas as pd
import pytest

from experiments.errors import NEEDED, latency_errors, means, request_latencies
from workbench.errors import ConfigError


def requests(ttft: list[float], tpot: float = 0.02, queue: float = 0.1) -> pd.DataFrame:
    """Requests of 11 output tokens that arrive one a second."""
    arrival = np.arange(len(ttft), dtype=np.float64)
    first = arrival + np.array(ttft)
    return pd.DataFrame(
        {
            "request_id": [f"r{i}" for i in range(len(ttft))],
            "arrival_s": arrival,
            "first_scheduled_s": arrival + queue,
            "first_token_s": first,
            "finish_s": first + 10 * tpot,
            "prompt_tokens": 100,
            "output_tokens": 11,
        }
    )


def test_a_simulation_that_is_too_slow_has_positive_errors() -> None:
    errors = latency_errors(requests([0.5, 0.5]), requests([0.55, 0.55], tpot=0.021))
    assert errors["ttft_mean_error"] == pytest.approx(0.1)
    assert errors["ttft_p99_error"] == pytest.approx(0.1)
    assert errors["tpot_mean_error"] == pytest.approx(0.05)
    assert errors["e2e_mape"] == pytest.approx(0.76 / 0.7 - 1)
    assert errors["output_tokens_per_s_error"] < 0
    assert errors["queue_mean_error"] == pytest.approx(0.0)


def test_errors_of_single_requests_do_not_cancel_in_the_mape() -> None:
    errors = latency_errors(requests([1.0, 1.0]), requests([1.1, 0.9]))
    assert errors["ttft_mean_error"] == pytest.approx(0.0)
    assert errors["ttft_mape"] == pytest.approx(0.1)


def test_the_mean_of_several_draws() -> None:
    draws = [latency_errors(requests([0.5]), requests([ttft])) for ttft in (0.5, 0.6)]
    found = means(draws)
    assert found["ttft_mean_error"] == pytest.approx(0.1)
    assert found["requests_matched"] == 1
    told = [{"a": 1, "b": None, "name": "x", "n": math.nan}, {"a": 4, "b": 2.0, "n": 1.0}]
    assert means(told)["a"] == 2.5
    assert set(means(told)) == {"a", "n"}
    assert math.isnan(means(told)["n"])


def test_the_order_of_the_rows_does_not_matter() -> None:
    measured, simulated = requests([0.1, 0.2, 0.3]), requests([0.2, 0.2, 0.2])
    assert latency_errors(measured, simulated) == latency_errors(measured[::-1], simulated)


def test_a_request_that_one_side_did_not_finish_is_counted_and_shifts_nothing() -> None:
    measured, simulated = requests([1.0, 9.0]), requests([1.0, 9.0])
    simulated.loc[1, ["first_token_s", "finish_s"]] = np.nan
    errors = latency_errors(measured, simulated)
    assert errors["finished_only_measured"] == 1
    assert errors["ttft_mean_error"] == 0
    only = latency_errors(measured, simulated[:1])
    assert (only["requests_matched"], only["requests_only_measured"]) == (1, 1)


def test_gaps_are_used_where_both_have_them() -> None:
    measured, simulated = requests([0.5]), requests([0.5])
    measured["itl_s"] = [np.full(10, 0.02)]
    simulated["itl_s"] = [np.full(10, 0.03)]
    assert latency_errors(measured, simulated)["tpot_mean_error"] == pytest.approx(0.5)
    without = latency_errors(measured.drop(columns="itl_s"), simulated)
    assert without["tpot_mean_error"] == pytest.approx(0.0)


def test_nothing_to_compare_is_no_number() -> None:
    empty = requests([])
    errors = latency_errors(empty, empty)
    assert math.isnan(errors["e2e_mape"])
    assert request_latencies(empty).empty


@pytest.mark.parametrize("column", NEEDED)
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(ConfigError, match=column):
        latency_errors(requests([1.0]).drop(columns=column), requests([1.0]))


def test_an_id_that_occurs_twice_is_refused() -> None:
    twice = requests([1.0, 1.0]).assign(request_id="same")
    with pytest.raises(ConfigError, match="'same' twice"):
        latency_errors(twice, twice)
