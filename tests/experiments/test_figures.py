"""Every chart draws, has labelled axes and data, and survives empty and tiny runs."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from experiments import figures
from experiments.figures import comparison, curves, legend, sampling, style
from experiments.tables import requests_frame, steps_frame
from workbench.metrics import SLO, RequestRecord, StepLog, summarize


def make_run(count, replicas=1, seed=0):
    """A run with uneven times, a preemption, and one refused request."""
    random = np.random.default_rng(seed)
    records, steps = [], StepLog()
    for i in range(count):
        arrival = 0.2 * i
        gaps = random.gamma(8, 0.004, 20)
        gaps[3] = 1.0 if i == 2 else gaps[3]
        times = arrival + 0.1 + np.concatenate([[random.random()], gaps]).cumsum()
        records.append(
            RequestRecord(
                f"r{i}", i % replicas, arrival, arrival + 0.05, float(times[-1]), 100, len(times),
                16, int(i == 2), "stop", times,
            )
        )  # fmt: skip
    if count > 1:
        records.append(RequestRecord("no", 0, 0.3, None, 0.3, 9, 0, 0, 0, "ignored", np.empty(0)))
    for i in range(3 * count):
        prefill = 100 if i % 5 == 0 else 0
        steps.append(i % replicas, 0.08 * i, 0.07, prefill + 4, prefill, 4, 4, i % 3, i == 7, 40)
    return records, steps


def frames(count, replicas=1):
    records, steps = make_run(count, replicas)
    return requests_frame(records), steps_frame(steps)


def drawn(figure):
    """Whether some axes hold data."""
    return any(ax.lines or ax.patches or ax.collections for ax in figure.axes)


def check_axes(figure):
    assert isinstance(figure, Figure)
    visible = [ax for ax in figure.axes if ax.axison]
    assert visible
    for ax in visible:
        shares_x = ax.get_subplotspec() is not None and not ax.get_subplotspec().is_last_row()
        rows = ax.get_yticklabels() and any(t.get_text() for t in ax.get_yticklabels())
        assert ax.get_xlabel() or shares_x
        assert ax.get_ylabel() or rows or not ax.get_subplotspec().is_first_col()


@pytest.mark.parametrize(
    ("count", "slo"), [(0, None), (1, SLO(e2e_s=1.0)), (40, SLO(ttft_s=0.5, tpot_s=0.03))]
)
def test_charts_of_a_run(tmp_path, count, slo):
    names = []
    for name, figure in figures.run_figures(*frames(count), slo=slo, num_kv_blocks=100):
        check_axes(figure)
        assert drawn(figure) == (count > 0), name
        figures.save(figure, tmp_path / f"{name}.png")
        names.append(name)
    assert len(names) == len(set(names)) == 8


def test_save_run_charts_writes_files(tmp_path):
    paths = figures.save_run_charts(tmp_path / "charts", *frames(5))
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in paths)


def test_same_run_same_picture(tmp_path):
    for name in ("1.png", "2.png"):
        figures.save(figures.latency_cdf(frames(10)[0]), tmp_path / name)
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


def test_requests_without_a_token_draw():
    records = [RequestRecord("x", 0, 1.0, None, 1.0, 9, 0, 0, 0, "ignored", np.empty(0))]
    for _, figure in figures.run_figures(requests_frame(records), steps_frame(StepLog())):
        check_axes(figure)


@pytest.mark.parametrize(("replicas", "capacity"), [(3, 50), (6, None), (6, [50] * 6)])
def test_kv_usage_of_several_replicas(replicas, capacity):
    figure = figures.kv_usage_over_time(frames(30, replicas)[1], capacity)
    check_axes(figure)
    assert len(figure.axes[0].lines) == (replicas if replicas <= 4 else 1)


def log_axes(figure):
    """Labels of the logarithmic axes that have one."""
    axes = [axis for ax in figure.axes for axis in (ax.xaxis, ax.yaxis)]
    labels = [a.get_label_text() for a in axes if a.get_scale() == "log"]
    return [label for label in labels if label]


def test_a_logarithmic_axis_says_so():
    requests, _ = frames(40)
    assert set(log_axes(figures.itl_distribution(requests))) == {
        "gap (ms), log scale",
        "gaps longer than this (%), log scale",
    }
    runs = compared(3)
    wide = runs.assign(ttft_s_p99=[0.1, 1.0, 9.0])
    for figure in (
        comparison.latency_percentiles(wide),
        curves.latency_vs_throughput(wide, "rate"),
        curves.metrics_vs_parameter(runs.assign(rate=[1, 4, 16]), "rate"),
    ):
        assert log_axes(figure)
        assert all(label.endswith(", log scale") for label in log_axes(figure))
    linear = [ax.get_xlabel() for ax in figures.latency_cdf(requests).axes]
    assert any(not label.endswith("log scale") for label in linear)


@pytest.mark.parametrize(("ttft_s", "shown"), [(1.0, True), (50.0, False)])
def test_the_legend_names_a_limit_only_where_it_is_to_be_seen(ttft_s, shown):
    figure = figures.latency_over_time(frames(40)[0], SLO(ttft_s=ttft_s))
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["request", "median", "p95", "SLO limit"][: 4 if shown else 3]
    dashed = [line for line in figure.axes[0].lines if line.get_linestyle() == "--"]
    assert len(dashed) == shown
    low, high = figure.axes[0].get_ylim()
    assert all(low <= line.get_ydata()[0] <= high for line in dashed)


@pytest.mark.parametrize(("replicas", "note"), [(1, []), (3, ["sum of 3 replicas"])])
def test_charts_that_add_up_replicas_say_so(replicas, note):
    requests, steps = frames(30, replicas)
    for figure in (figures.queue_over_time(steps), figures.throughput_over_time(requests, steps)):
        assert [text.get_text() for text in figure.texts[1:]] == note


def test_counts_have_ticks_at_whole_numbers_only():
    runs = compared(3).assign(preemptions=[0, 1, 2])
    curve = curves.metrics_vs_parameter(runs, "rate", metrics=["preemptions"])
    bars = comparison.metric_bars(runs, ["preemptions"], "Other")
    queue = figures.queue_over_time(frames(3)[1])
    for axis in (curve.axes[0].yaxis, bars.axes[0].xaxis, queue.axes[0].yaxis):
        assert len(axis.get_ticklocs()) > 1
        assert all(float(tick).is_integer() for tick in axis.get_ticklocs())


def test_gantt_cuts_a_bar_where_a_request_was_preempted():
    requests, _ = frames(5)
    decode = figures.request_gantt(requests).axes[0].collections[2]
    assert len(decode.get_paths()) == 6


def test_gantt_of_a_load_test_claims_nothing_that_a_client_cannot_see():
    requests, _ = frames(5)
    requests["first_scheduled_s"] = float("nan")
    figure = figures.request_gantt(requests)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [
        "to first token",
        "decode",
    ]
    waits = figure.axes[0].collections[0].get_paths()
    ends = [path.vertices[:, 0].max() for path in waits]
    requests = requests.sort_values("arrival_s", kind="stable")
    assert ends == requests["first_token_s"].fillna(requests["finish_s"]).tolist()


def compared(count):
    rows = []
    for i in range(count):
        records, steps = make_run(12, seed=i)
        summary = summarize(records, steps, SLO(ttft_s=0.5), num_kv_blocks=100)
        rows.append({"label": f"run {i}", "rate": str(i + 1), "queue": "fs"[i % 2], **summary})
    columns = ["label", "rate", "queue"]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


@pytest.mark.parametrize(("count", "group"), [(0, None), (1, "queue"), (12, "queue")])
def test_charts_of_comparisons(tmp_path, count, group):
    runs = compared(count)
    made = [
        comparison.metric_bars(runs),
        comparison.metric_bars(runs, ["preemptions", "no_such_metric"], "Other"),
        comparison.latency_percentiles(runs),
        curves.latency_vs_throughput(runs, "rate", group),
        curves.slo_attainment(runs, "rate", group),
        curves.metrics_vs_parameter(runs, "rate", group),
    ]
    for figure in made:
        check_axes(figure)
        assert drawn(figure) == (count > 0)
        style.save(figure, tmp_path / "x.png")


def test_curves_show_prefix_hits_where_there_are_some_and_name_their_axes():
    runs = compared(3)
    figure = curves.metrics_vs_parameter(runs, "rate")
    titles = [ax.get_title(loc="left") for ax in figure.axes if ax.axison]
    assert "prefix cache hit rate" in titles
    assert {ax.get_xlabel() for ax in figure.axes if ax.axison} == {"arrival rate (requests/s)"}
    none = curves.metrics_vs_parameter(runs.assign(prefix_hit_rate=0.0, preemptions=0), "rate")
    assert "prefix cache hit rate" not in [ax.get_title(loc="left") for ax in none.axes]
    named = curves.metrics_vs_parameter(runs, "rate", None, "arrival rate (conversations/s)")
    assert {ax.get_xlabel() for ax in named.axes if ax.axison} == {"arrival rate (conversations/s)"}


def test_no_point_lies_on_the_edge():
    runs = compared(3).assign(output_tokens_per_s=[100.0, 108.0, 112.0])
    for ax in curves.latency_vs_throughput(runs, "rate").axes:
        assert ax.get_xlim() == (0, pytest.approx(112 * 1.05))


@pytest.mark.parametrize("length", [5, 25, 90])
def test_overlay_with_short_and_long_labels(tmp_path, length):
    runs = {f"{i} " + "long word " * (length // 10) + "end": frames(8)[0] for i in range(4)}
    figure = comparison.cdf_overlay(runs)
    check_axes(figure)
    assert [len(ax.lines) for ax in figure.axes] == [4, 4, 4, 4]
    style.save(figure, tmp_path / "x.png")
    canvas = figure.canvas.get_renderer()
    box = figure.legends[0].get_window_extent(canvas)
    assert box.x1 <= figure.bbox.x1 + 1
    assert not any(box.overlaps(ax.get_window_extent(canvas)) for ax in figure.axes)


def test_overlay_of_nothing():
    check_axes(comparison.cdf_overlay({}))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01234, "0.0123"), (1.5, "1.5"), (980, "980"), (1500, "1,500"), (12345, "12.3k"),
     (4.56e6, "4.56M"), (-2.5, "-2.5")],
)  # fmt: skip
def test_compact_numbers(value, text):
    assert style.compact(value) == text


def test_wrapped_labels_are_bounded():
    lines = style.wrapped("word " * 60).split("\n")
    assert len(lines) == 3
    assert max(map(len, lines)) <= 34
    assert lines[-1].endswith("…")
    assert legend.text_inches(lines, 8) > legend.text_inches(["word"], 8) > 0


def test_time_average_is_exact():
    start, duration = np.array([0.0, 3.0]), np.array([1.0, 1.0])
    mean = sampling.held_mean(start, duration, np.array([4.0, 2.0]), np.array([0.0, 2.0, 4.0]))
    assert mean.tolist() == [2.0, 1.0]


def test_a_short_pause_belongs_to_the_step_before():
    start, duration = np.array([0.0, 1.5]), np.array([1.0, 0.5])
    mean = sampling.held_mean(start, duration, np.array([4.0, 4.0]), np.array([0.0, 1.0, 2.0]))
    assert mean.tolist() == [4.0, 4.0]


def test_rates_conserve_what_they_count():
    times = np.random.default_rng(0).random(1000) * 10
    edges = sampling.time_edges(10.0)
    assert (sampling.rate(times, edges) * np.diff(edges)).sum() == pytest.approx(1000)


def test_the_last_bin_holds_its_end():
    edges = sampling.time_edges(4.0, bins=4)
    times, values = np.array([0.0, 0.5, 1.0, 4.0]), np.array([1.0, 3.0, 5.0, 7.0])
    (median,) = sampling.binned_percentiles(times, values, edges, [50])
    np.testing.assert_array_equal(median, [2.0, 5.0, np.nan, 7.0])


def test_the_median_of_latencies_reaches_the_last_arrival():
    requests, _ = frames(40)
    last = requests["arrival_s"].to_numpy() == requests["arrival_s"].max()
    requests = requests.assign(ttft_s=np.where(last, 8.0, np.nan))
    requests.loc[requests.index[0], "ttft_s"] = 1.0
    dots, median, *_ = figures.latency_over_time(requests).axes[0].get_lines()
    assert median.get_ydata()[-1] == dots.get_ydata().max() > 1


def test_cdf_keeps_the_ends():
    values = np.random.default_rng(0).random(10_000)
    x, share = sampling.cdf_points(values)
    assert len(x) < 700
    assert (x[0], x[-1], share[-1]) == (values.min(), values.max(), 1.0)
    assert (np.diff(share) > 0).all()


@pytest.mark.parametrize(
    ("low", "high"), [(6.3, 15.4), (11.0, 76.0), (9.0, 11.9), (0.9, 1.3), (2.0, 500.0), (1, 1e6)]
)
def test_a_log_axis_has_ticks_to_read_it_by(low, high):
    ax = Figure().subplots()
    style.log_axis(ax, "x", low, high)
    labels = [label.get_text() for label in ax.get_xticklabels()]
    assert 3 <= len(set(labels)) == len(labels) <= 8


def test_the_dots_of_the_first_and_the_last_request_are_whole():
    requests, _ = frames(40)
    ax = figures.latency_over_time(requests).axes[-1]
    low, high = ax.get_xlim()
    assert low < 0 <= requests["arrival_s"].max() < high
    for panel in figures.latency_over_time(requests).axes:
        assert panel.get_xlim() == (low, high)
