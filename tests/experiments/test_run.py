"""Runs from the command line into a folder: what they leave, and how they fail."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from experiments import job
from experiments.run import main
from experiments.run_folder import RunFolder

TINY = [
    "workload=poisson_fixed",
    "workload.num_requests=20",
    "cost_model=constant",
    "progress=false",
]
PLAIN = [*TINY, "charts=false", "timeline=false"]
SUMMARY_KEYS = {
    "requests",
    "duration_s",
    "output_tokens_per_s",
    *(
        f"{name}_{statistic}"
        for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s")
        for statistic in ("mean", "p50", "p90", "p95", "p99")
    ),
    "preemptions",
    "prefix_hit_rate",
    "goodput_requests_per_s",
    "steps",
    "simulation_cpu_s",
    "simulation_wall_s",
    "startup_cpu_s",
    "peak_rss_mb",
    "extrapolated_steps",
    "seed",
}


def run(folder: Path, *overrides: str) -> int:
    return main([*overrides, f"hydra.run.dir={folder}"])


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    text = capsys.readouterr().err.strip()
    assert "\n" not in text
    assert "Traceback" not in text
    return text


def test_a_run_leaves_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, *TINY) == 0
    assert str(tmp_path) in capsys.readouterr().out
    assert (tmp_path / "DONE").exists()
    assert not (tmp_path / "FAILED").exists()
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary.keys() >= SUMMARY_KEYS
    assert summary["requests"] == 20
    assert pq.read_table(tmp_path / "requests.parquet").num_rows == 20
    assert pq.read_table(tmp_path / "steps.parquet").num_rows == summary["steps"]
    assert json.loads((tmp_path / "timeline.json").read_text())["traceEvents"]
    assert list((tmp_path / "charts").glob("*.png"))
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    assert provenance.keys() >= {"revision", "argv", "packages", "python", "cpu", "wall_s", "cpu_s"}
    assert provenance["seed"] == 0


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert run(tmp_path / name, *PLAIN, f"seed={seed}") == 0
    for name in ("requests.parquet", "steps.parquet"):
        first, same, other = ((tmp_path / run / name).read_bytes() for run in "abc")
        assert first == same
        assert first != other


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["scheduler.max_num_seq=3"], "did you mean scheduler.max_num_seqs?"),
        (["scheduler.max_num_seqs=abc"], "scheduler.max_num_seqs=abc: expected a whole number"),
        (["model=llama3_8bb"], "there is no such model; did you mean llama3_8b?"),
        (["modle=llama3_8b"], "did you mean model?"),
        (["rate=3"], "did you mean workload.arrivals.rate?"),
        (["scheduler.block_size=3"], "did you mean cache.block_size?"),
        (["cost_model.base=1"], "cost_model has: constants, host_overhead_s"),
        (["schedulr.max_num_seqs=4"], "did you mean scheduler?"),
        (["queue=fcfs,priority"], "add -m"),
        (["scheduler.max_num_seqs=[1"], "cannot be read"),
        (
            ["batch_policy=sarathi", "batch_policy.chunksize=3"],
            "did you mean batch_policy.chunk_size?",
        ),
        (
            ["router=longest_prefix", "router.cache_threshold=0.5"],
            "write +router.cache_threshold=0.5",
        ),
        (["hydra.run.dri=x"], "did you mean hydra.run.dir?"),
        (["scheduler=3"], "there is no such scheduler; it is one of: async, default"),
        (["queue=true"], "there is no such queue"),
        (["model=meta-llama/Llama-3.1-8B"], "model=hf_config model.path=PATH/config.json"),
    ],
)
def test_a_command_line_that_makes_no_config(
    overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", *overrides) == 2
    line = one_line(capsys)
    assert message in line
    assert overrides[-1] in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=-1", "seed=-1 must be at least 0"),
        ("seed=abc", "seed='abc' must be of type int"),
        ("charts=maybe", "charts='maybe' must be of type bool"),
        ("+speed=fast", "speed: nothing reads this setting"),
        (
            "++scheduler.foo=1",
            "scheduler.foo=1: there is no setting 'scheduler.foo'; scheduler has:",
        ),
        ("++cache.blocksize=1", "did you mean cache.block_size?"),
        ("~scheduler", "scheduler is missing, and every run needs it"),
        ("~seed", "seed is missing"),
    ],
)
def test_the_top_of_a_config_is_checked_before_a_folder_is_begun(
    override: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path / "out", override) == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["workload=csv", "workload.path=nowhere.csv"], "nowhere.csv"),
        (["workload=csv"], "workload.path is not set"),
        (["model=llama3_70b"], "does not fit"),
        (["scheduler.max_num_seqs=0"], "scheduler.max_num_seqs=0 must be at least 1"),
        (["cost_model=constant", "cost_model.step_s=abc"], "cost_model.step_s='abc': expected"),
    ],
)
def test_a_run_that_cannot_start(
    overrides: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *overrides) == 1
    assert message in one_line(capsys)
    folder = RunFolder(tmp_path)
    assert folder.marker() is None
    assert message in (folder.failure() or "")
    assert "Traceback" in (tmp_path / "error.txt").read_text()


def test_an_old_success_does_not_outlive_a_failure(tmp_path: Path) -> None:
    assert run(tmp_path, *PLAIN) == 0
    assert run(tmp_path, *PLAIN, "cache.block_size=0") == 1
    assert not (tmp_path / "DONE").exists()
    assert not (tmp_path / "summary.json").exists()


def test_an_interrupted_run_carries_no_marker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *PLAIN) == 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job, "_run_and_write", interrupt)
    capsys.readouterr()
    assert run(tmp_path, *PLAIN) == 130
    assert "interrupted" in one_line(capsys)
    assert not (tmp_path / "DONE").exists()
    assert not (tmp_path / "FAILED").exists()


def test_a_defect_is_told_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def break_down(*_: object) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(job, "_run_and_write", break_down)
    assert run(tmp_path, *PLAIN) == 1
    assert one_line(capsys).startswith("error in the program: ZeroDivisionError: by zero")


def test_a_request_that_is_too_long_is_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    rows = ["arrived_at,num_prefill_tokens,num_decode_tokens", "0.0,100,5", "0.1,5000,5", "0.2,9,5"]
    trace.write_text("\n".join(rows) + "\n")
    long = [*PLAIN[2:], "workload=csv", f"workload.path={trace}", "scheduler.max_model_len=4096"]
    assert run(tmp_path / "out", *long) == 0
    summary = RunFolder(tmp_path / "out").summary()
    assert (summary["requests"], summary["finished"], summary["ignored"]) == (3, 2, 1)
    assert "5000" in (tmp_path / "out" / "not_served.txt").read_text()
    assert "1 request was not served" in capsys.readouterr().out


def test_a_budget_that_follows_from_others_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, *PLAIN, "batch_policy=prefill_first") == 0
    assert "note: scheduler.max_num_batched_tokens=131072" in capsys.readouterr().out
    summary = RunFolder(tmp_path).summary()
    assert (summary["max_num_batched_tokens"], summary["max_model_len"]) == (131072, 131072)


def test_a_request_that_outgrows_the_cache_is_counted_and_told(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,100,5\n0.1,100,500\n")
    small = ["workload=csv", f"workload.path={trace}", "cache.num_gpu_blocks_override=20"]
    assert run(tmp_path / "out", *PLAIN[2:], *small) == 0
    summary = RunFolder(tmp_path / "out").summary()
    assert (summary["finished"], summary["ignored"] + summary["error"]) == (1, 1)
    (line,) = (tmp_path / "out" / "not_served.txt").read_text().splitlines()
    assert "blocks" in line
    rows = pq.read_table(tmp_path / "out" / "requests.parquet")["finish_detail"].to_pylist()
    assert [row for row in rows if row] == [line.partition("): ")[2]]


def test_an_answer_that_the_model_length_cuts_is_counted_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n0.0,100,5\n0.1,100,500\n")
    short = ["workload=csv", f"workload.path={trace}", "scheduler.max_model_len=128"]
    assert run(tmp_path / "out", *PLAIN[2:], *short) == 0
    summary = RunFolder(tmp_path / "out").summary()
    assert [summary[key] for key in ("finished", "length", "truncated")] == [2, 2, 1]
    (line,) = (tmp_path / "out" / "not_served.txt").read_text().splitlines()
    assert line.startswith("1 (length): the answer was cut at 28 of 500 tokens")
    assert "1 request was not served to the end" in capsys.readouterr().out


def test_a_step_without_a_price_ends_the_run_and_keeps_what_was_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = tmp_path / "recorded.csv"
    steps.write_text("duration_s\n" + "0.01\n" * 10)
    replay = ["cost_model=replay", f"cost_model.path={steps}"]
    assert run(tmp_path / "out", *PLAIN, *replay) != 0
    folder = RunFolder(tmp_path / "out")
    err = capsys.readouterr().err
    assert "error: " in err
    assert "the run was stopped at" in err
    assert folder.marker() is None
    assert folder.failure()
    assert len(pq.read_table(tmp_path / "out" / "steps.parquet")) == 10
    summary = folder.summary()
    assert summary["unfinished"] > 0
    assert summary["requests"] == summary["finished"] + summary["unfinished"]


def test_the_queue_that_is_chosen_is_the_queue_that_is_used(tmp_path: Path) -> None:
    crowded = [
        *PLAIN[2:],
        "workload=default",
        "workload.num_requests=60",
        "workload.arrivals.rate=100",
        "scheduler.max_num_seqs=2",
    ]
    for queue in ("fcfs", "shortest_job_first"):
        assert run(tmp_path / queue, *crowded, f"queue={queue}") == 0
    mean = {
        q: RunFolder(tmp_path / q).summary()["queue_s_mean"] for q in ("fcfs", "shortest_job_first")
    }
    assert mean["shortest_job_first"] < 0.9 * mean["fcfs"]


@pytest.mark.parametrize("group", ["queue", "workload", "model"])
def test_a_group_without_an_option_is_refused_in_one_line(
    group: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"{group}=null"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {group}=null: a run needs one of the group; choose ")
    assert error.count("\n") == 1
