"""The Pareto front, and charts of results that are odd."""

import numpy as np
import pandas as pd
from hypothesis import given
from hypothesis import strategies as st

from experiments.capacity.capacity_page import _objectives
from experiments.capacity.charts import capacity_bars, cost_vs_latency, figures, latency_vs_rate
from experiments.capacity.results import Capacities, csv_table, pareto

numbers = st.floats(0.0, 10.0) | st.integers(0, 3).map(float) | st.just(float("nan"))


@given(st.lists(st.tuples(numbers, numbers), max_size=30))
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = pareto(points)

    def beats(i: int, j: int) -> bool:
        (a, b), (c, d) = points[i], points[j]
        return a <= c and b <= d and (a, b) != (c, d)

    known = [i for i, p in enumerate(points) if not np.isnan(p).any()]
    assert set(front) <= set(known)
    assert {points[i] for i in front} == {
        points[j] for j in known if not any(beats(i, j) for i in known)
    }
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def capacities(labels: list[str], priced: bool = True) -> Capacities:
    rows, probes = [], []
    for i, label in enumerate(labels):
        rate = 5.0 * i  # the first has none
        cost = 1.0 / rate if rate and priced else float("nan")
        rows.append({"label": label, "configuration": label, "group": label, "gpus": 1,
                     "limited_by": "", "output_tokens_per_s": rate,
                     "status": "found" if rate else "none",
                     "rate_per_s": rate, "rate_per_gpu_per_s": rate, "arrivals": "requests",
                     "cost_per_million_output_tokens": cost, "limit_ttft_p99": 0.5})  # fmt: skip
        probes += [
            {"label": label, "rate_per_s": r, "passes": r <= rate, "ttft_p99": 0.1 * r / (rate + 1),
             "tpot_p99": None, "cost": 1.0 / r if priced else float("nan")}
            for r in (1.0, 0.9 * rate + 0.1, rate + 0.2, 2 * rate + 1)
        ]  # fmt: skip
    return Capacities(pd.DataFrame(rows), pd.DataFrame(), pd.DataFrame(probes), [])


def test_every_chart_can_be_drawn_of_odd_results() -> None:
    for labels in (
        ["none at all"],
        ["none", "one"],
        [f"a rather long name {i}" for i in range(15)],
    ):
        for priced in (True, False):
            given_results = capacities(labels, priced)
            drawn = dict(figures(given_results))
            assert "capacity" in drawn
            assert ("cost_vs_latency" in drawn) == priced
    assert list(figures(Capacities(pd.DataFrame(), pd.DataFrame(), pd.DataFrame(), []))) == []


def test_charts_show_the_limits_and_the_names() -> None:
    results = capacities(["slow", "fast"])
    limits = results.objectives
    assert limits == {"ttft_p99": 0.5}
    figure = latency_vs_rate(results.table, results.probes, limits)
    (ax,) = figure.axes
    assert ax.get_title(loc="left") == "TTFT p99"
    assert any(np.allclose(line.get_ydata(), 0.5) for line in ax.get_lines())
    bars = capacity_bars(results.over_seeds)
    assert [t.get_text() for t in bars.axes[0].get_yticklabels()] == ["slow", "fast"]
    assert len(cost_vs_latency(results.table, results.probes, limits).axes) == 1


def test_the_table_begins_with_what_matters() -> None:
    table = csv_table(capacities(["a", "b"]))
    assert list(table.columns[:3]) == ["configuration", "status", "rate_per_s"]
    assert len(table) == 2


def test_seeds_are_averaged_and_their_range_is_told() -> None:
    results = capacities(["none", "one", "two"])
    table = results.table.assign(group=["none", "server", "server"])
    over = Capacities(table, results.failed, results.probes, ["seed"]).over_seeds
    assert list(over["label"]) == ["none", "server"]
    assert list(over["seeds"]) == [1, 2]
    assert list(over["rate_per_s"]) == [0.0, 7.5]
    assert (over["rate_per_s_low"][1], over["rate_per_s_high"][1]) == (5.0, 10.0)
    assert {"capacity", "latency_vs_rate", "cost_vs_latency"} == set(
        dict(figures(Capacities(table, results.failed, results.probes, ["seed"])))
    )


def test_a_limit_that_some_lack_is_no_objective_of_all() -> None:
    limits = {"limit_ttft_p99": [1.0, 1.0], "limit_tpot_p99": [0.05, None], "limit_e2e_p99": None}
    capacities = Capacities(pd.DataFrame(limits), pd.DataFrame(), pd.DataFrame(), [])
    assert capacities.objectives == {"ttft_p99": 1.0}
    assert capacities.limited == ["ttft_p99", "tpot_p99"]
    assert _objectives(capacities) == "TTFT p99 ≤ 1 s, TPOT p99 not the same for all"
