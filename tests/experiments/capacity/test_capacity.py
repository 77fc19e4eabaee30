"""The whole command on servers whose capacity is known, and on input that is none."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from experiments.capacity import job, sweep_end
from experiments.capacity.__main__ import main, translate
from experiments.capacity.job import Search
from experiments.capacity.journal import FOLDER, Journal
from experiments.capacity.probe import load_of
from experiments.capacity.results import read_capacities
from experiments.report.__main__ import write_report
from experiments.run import compose_config
from experiments.run_folder import run_folders
from workbench.errors import ConfigError, WorkbenchError

# one request at a time, each of one step of 0.1 s: the queue M/D/1
SINGLE_SERVER = [
    "workload=poisson_fixed",
    "workload.prompt_lengths.tokens=8",
    "workload.output_lengths.tokens=1",
    "workload.arrivals.rate=5.0",
    "cost_model=constant",
    "cost_model.step_s=0.1",
    "scheduler.max_num_seqs=1",
]
QUIET = ["hydra/launcher=basic", "progress=false"]
FAST = ["capacity.requests_per_replica=100", "capacity.tolerance=0.2", "capacity.below=[0.5]",
        "capacity.beyond=[]"]  # fmt: skip
SERVICE_S = 0.1


def search(tmp_path: Path, *overrides: str) -> dict[str, object]:
    arguments = [*SINGLE_SERVER, "progress=false", *overrides]
    config = compose_config([a for a in translate(arguments) if a != "-m"], config_name="capacity")
    return Search(config, tmp_path, label="test").run()


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than searching."""
    monkeypatch.setattr(sweep_end, "figures", lambda capacities: ())


def command(folder: Path, *overrides: str) -> int:
    return main([*SINGLE_SERVER, *QUIET, *FAST, *overrides, f"hydra.run.dir={folder}"])


def test_a_mean_wait_is_met_up_to_the_load_that_theory_gives(tmp_path: Path) -> None:
    found = search(tmp_path, "slo.queue_mean=0.1", "capacity.requests_per_replica=2000",
                   "capacity.below=[]", "capacity.beyond=[]")  # fmt: skip
    load = 2 * 0.1 / (SERVICE_S + 2 * 0.1)
    assert found["status"] == "found"
    assert found["rate_per_s"] == pytest.approx(load / SERVICE_S, rel=0.08)
    assert found["limited_by"] == "queue_mean"


def test_without_a_limit_on_waiting_the_backlog_ends_it_at_full_load(tmp_path: Path) -> None:
    found = search(tmp_path, "slo.tpot_p99=0.011", "capacity.requests_per_replica=1000",
                   "capacity.below=[]")  # fmt: skip
    assert found["rate_per_s"] == pytest.approx(1 / SERVICE_S, rel=0.08)
    assert found["limited_by"] == "backlog"


def test_replicas_multiply_the_rate(tmp_path: Path) -> None:
    arguments = ("slo.queue_p90=0.2", "capacity.requests_per_replica=400", *FAST[1:])
    one, two = (search(tmp_path, *arguments, f"cluster.replicas={n}") for n in (1, 2))
    # round robin makes the arrivals of each replica more even, so it carries somewhat more
    assert 1.8 < float(str(two["rate_per_s"])) / float(str(one["rate_per_s"])) < 3.0
    assert two["gpus"] == 2


def test_data_parallel_ranks_count_as_gpus_and_as_rate(tmp_path: Path) -> None:
    arguments = ("slo.ttft_p95=0.5", *FAST, "parallel.data_parallel_size=2")
    one, two = search(tmp_path, *arguments[:-1]), search(tmp_path, *arguments)
    assert two["gpus"] == 2
    for name in ("rate_per_s", "output_tokens_per_s"):
        assert two[name] == pytest.approx(2 * float(str(one[name])))
    assert two["ttft_p95"] == one["ttft_p95"]


def test_a_limit_that_a_lone_request_misses_leaves_no_rate(tmp_path: Path) -> None:
    found = search(tmp_path, "slo.e2e_p50=0.05", "capacity.requests_per_replica=100")
    assert found["status"] == "none"
    assert found["rate_per_s"] == 0
    assert "E2E p50 100 ms > 50 ms" in str(found["why_not_more"])
    assert found["simulations"] == 2


def test_conversations_need_the_time_to_become_many(tmp_path: Path) -> None:
    talks = [
        "workload=multi_turn", "workload.arrivals.rate=0.5", "workload.sharing.turns.high=3",
        "workload.sharing.think_time.mean=1", "workload.output_lengths.maximum=1",
        "workload.output_lengths.median=1", "cost_model=constant", "cost_model.step_s=0.1",
        "scheduler.max_num_seqs=1", "scheduler.max_num_batched_tokens=16384", "progress=false",
        "++capacity.slo.queue_p90=0.3", *FAST[1:],
    ]  # fmt: skip

    def find(requests: int) -> dict[str, object]:
        size = f"capacity.requests_per_replica={requests}"
        config = compose_config([*talks, size], config_name="capacity")
        return Search(config, tmp_path, label="test").run()

    with pytest.raises(WorkbenchError, match=r"requests_per_replica \d+-fold"):
        find(20)
    found = find(400)
    assert found["arrivals"] == "conversations"
    assert 2.0 < float(str(found["rate_per_s"])) < 5.0  # of two turns of 0.1 s on average


def test_the_same_search_gives_the_same_answer(tmp_path: Path) -> None:
    arguments = ("slo.ttft_p99=0.5", *FAST)
    one, two = search(tmp_path / "a", *arguments), search(tmp_path / "b", *arguments)
    del one["simulations_cpu_s"], two["simulations_cpu_s"]
    assert one == two


def test_a_trace_without_arrivals_over_time_is_refused() -> None:
    for workload in ("closed_loop", "poisson_fixed"):
        config = compose_config([f"workload={workload}"])
        if workload == "closed_loop":
            with pytest.raises(ConfigError, match="no rate"):
                load_of(config)
        else:
            assert load_of(config).arrivals == "requests"
    assert load_of(compose_config(["workload=multi_turn"])).arrivals == "conversations"


def test_configurations_beside_each_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "slo.ttft_p99=0.5", "hardware=a100,l40s", "cluster.replicas=1,2") == 0
    table = pd.read_csv(tmp_path / "capacity.csv")
    assert len(table) == 4
    assert list(table.columns[:3]) == ["configuration", "hardware", "cluster.replicas"]
    for row in table.to_dict("records"):
        assert row["status"] == "found"
        assert row["ttft_p99"] <= 0.5 < row["above_ttft_p99"]
        assert row["rate_per_s"] < row["above_rate_per_s"] <= 1.2001 * row["rate_per_s"]
        if row["hardware"] == "a100":
            hourly = row["price_per_gpu_hour"] * row["gpus"]
            cost = hourly / 3600 / row["output_tokens_per_s"] * 1e6
            assert row["cost_per_million_output_tokens"] == pytest.approx(cost)
        else:
            assert pd.isna(row["cost_per_million_output_tokens"])  # nobody gave a price
    page = (tmp_path / "report.html").read_text()
    assert "TTFT p99" in page
    charts = {path.stem for path in (tmp_path / "charts").glob("*.png")}
    assert charts == {"capacity", "latency_vs_rate", "cost_vs_latency"}
    assert "a100, replicas=2" in capsys.readouterr().out
    again = write_report(tmp_path, tmp_path / "again.html")  # from the files alone
    assert again.read_text() == page


@pytest.mark.usefixtures("without_charts")
def test_a_configuration_that_fails_is_recorded_and_the_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "slo.ttft_p99=0.5", "model=llama3_8b,llama3_70b") == 1
    captured = capsys.readouterr()
    assert "does not fit" in captured.err
    assert "Traceback" not in captured.err
    table = pd.read_csv(tmp_path / "capacity.csv")
    assert list(table["status"]) == ["found", "failed"]
    assert "does not fit" in (tmp_path / "report.html").read_text()


@pytest.mark.usefixtures("without_charts")
def test_a_killed_search_goes_on_behind_its_last_simulation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ran = job.run_probe, []

    def killed_at_the_fourth(assembly: object, load: object, scale: float, warmup: float) -> object:
        ran.append(scale)
        if len(ran) == 4:
            raise KeyboardInterrupt
        return run(assembly, load, scale, warmup)

    monkeypatch.setattr(job, "run_probe", killed_at_the_fourth)
    assert command(tmp_path, "slo.ttft_p99=0.5") == 130
    assert [run.marker() for run in run_folders(tmp_path)] == []
    (journal,) = (tmp_path / FOLDER).iterdir()
    with journal.open("a") as file:
        file.write('{"scale": 3.0, "ttft')  # torn: the power went
    before = len(ran) - 1
    assert command(tmp_path, "slo.ttft_p99=0.5") == 0
    rest = ran[before + 1 :]
    assert not set(rest) & set(ran[:before])
    clean = search(tmp_path / "clean", "slo.ttft_p99=0.5", *FAST)
    table = pd.read_csv(tmp_path / "capacity.csv")
    assert table["rate_per_s"][0] == pytest.approx(clean["rate_per_s"])
    count = len(ran)
    assert command(tmp_path, "slo.ttft_p99=0.5") == 0
    assert len(ran) == count, "a finished search is kept"


@pytest.mark.usefixtures("without_charts")
def test_other_limits_use_the_simulations_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, ran = job.run_probe, []

    def counted(assembly: object, load: object, scale: float, warmup: float) -> object:
        ran.append(scale)
        return run(assembly, load, scale, warmup)

    monkeypatch.setattr(job, "run_probe", counted)
    assert command(tmp_path, "slo.ttft_p99=0.5") == 0
    assert command(tmp_path, "slo.ttft_p99=0.5,0.6") == 0
    assert len(ran) == len(set(ran))
    table = pd.read_csv(tmp_path / "capacity.csv")
    assert sorted(table["capacity.slo.ttft_p99"]) == [0.5, 0.6]


@pytest.mark.usefixtures("without_charts")
def test_prices_are_the_users(tmp_path: Path) -> None:
    assert command(tmp_path, "slo.ttft_p99=0.5", "price.a100=10") == 0
    assert pd.read_csv(tmp_path / "capacity.csv")["price_per_gpu_hour"][0] == 10
    assert command(tmp_path, "slo.ttft_p99=0.5", "price.a100=20") == 0  # nothing runs again
    table = pd.read_csv(tmp_path / "capacity.csv")
    assert list(table["price_per_gpu_hour"]) == [20]
    page = (tmp_path / "report.html").read_text()
    assert "price.a100=20" in page
    assert "++hydra" not in page
    assert "price_source" not in page


@pytest.mark.usefixtures("without_charts")
def test_seeds_show_how_much_is_chance(tmp_path: Path) -> None:
    assert command(tmp_path, "slo.ttft_p99=0.5", "seed=0,1", "scheduler.max_num_seqs=1") == 0
    over = read_capacities(tmp_path, {}).over_seeds
    assert list(over["seeds"]) == [2]
    assert over["rate_per_s_low"][0] < over["rate_per_s"][0] < over["rate_per_s_high"][0]
    assert "Means over the seeds" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "at least one"),
        (["slo.ttft_p98=1"], "no such objective"),
        (["slo.ttft_p99=soon"], "expected a number"),
        (["slo.ttft_p99=1", "price.h100=cheap"], "expected a number"),
        (["slo.ttft_p99=1", "price.h100=-1"], "0 or more"),
        (["slo.ttft_p99=1", "hardware=h10"], "did you mean h100"),
        (["slo.ttft_p99=1", "capacity.tolerence=0.1"], "did you mean capacity.tolerance"),
    ],
)
def test_bad_input_is_told_in_one_line(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments, *QUIET, f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("capacity.tolerance=2", "capacity.tolerance=2"),
        ("capacity.warmup=1", "capacity.warmup=1"),
        ("capacity.below=0.5", "expected a list of numbers"),
        ("capacity.beyond=[0.5]", "capacity.beyond"),
        ("capacity.requests_per_replica=many", "expected a whole number"),
        ("backend=engine", "backend=simulator"),
        ("workload=closed_loop", "no rate"),
        ("workload.rate_scale=2.0", "the search sets it itself"),
        ("capacity.max_simulations=3", "max_simulations"),
    ],
)
def test_settings_that_cannot_be_fail_by_name(override: str, message: str, tmp_path: Path) -> None:
    server = [] if override == "workload=closed_loop" else [*SINGLE_SERVER, *FAST[:2]]
    config = compose_config(
        [*server, "progress=false", "++capacity.slo.ttft_p99=1", override], config_name="capacity"
    )
    with pytest.raises(WorkbenchError, match=re.escape(message)):
        Search(config, tmp_path, label="test").run()


def test_the_number_of_requests_is_the_users_if_given() -> None:
    assert "capacity.requests_per_replica=null" in translate(
        ["slo.ttft_p99=1", "workload.num_requests=50"]
    )
    assert translate(["slo.ttft_p99=1", "-m"]) == ["-m", "++capacity.slo.ttft_p99=1"]
    assert translate(["--help"]) == ["--help"]


def test_limits_of_single_requests_stay_with_the_slo_group() -> None:
    assert translate(["slo.attainment=0.9", "slo.ttft_s=0.2"])[1:] == [
        "++capacity.slo.attainment=0.9",
        "slo.ttft_s=0.2",
    ]


def test_a_journal_tells_of_another_revision(tmp_path: Path) -> None:
    Journal(tmp_path, {"a": 1}, 0.1, "one").add({"scale": 1.0, "ttft_p99": None})
    again = Journal(tmp_path, {"a": 1, "capacity": {"slo": {}}}, 0.1, "two")
    assert again.get(1.0) is not None
    assert again.foreign
    assert Journal(tmp_path, {"a": 2}, 0.1, "one").get(1.0) is None
    assert Journal(tmp_path, {"a": 1}, 0.2, "one").get(1.0) is None
    again.forget()
    assert Journal(tmp_path, {"a": 1}, 0.1, "one").get(1.0) is None


@pytest.mark.usefixtures("without_charts")
def test_what_is_read_back_is_what_was_found(tmp_path: Path) -> None:
    assert command(tmp_path, "slo.ttft_p99=0.5") == 0
    capacities = read_capacities(tmp_path, {"a100": 1.0})
    assert capacities.objectives == {"ttft_p99": 0.5}
    row = capacities.table.iloc[0]
    passing = capacities.probes[capacities.probes["passes"]]
    assert passing["rate_per_s"].max() == pytest.approx(row["rate_per_s"])
    (run,) = run_folders(tmp_path)
    assert json.loads((run.path / "summary.json").read_text())["status"] == "found"
