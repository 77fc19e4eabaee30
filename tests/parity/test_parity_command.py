"""The command parity: the engine and its replay in one go, and recordings of elsewhere."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from experiments.parity import main
from experiments.run import main as run
from experiments.run_folder import RECORDING
from tests.engine.checkpoints import make_checkpoint

NUM_REQUESTS = 14
WHOLE = "scheduler.max_num_batched_tokens=128"  # for prompts in one piece
SMALL = [
    "model=hf_config",
    "model.name=tiny",
    "scheduler.max_num_seqs=6",
    "scheduler.max_num_batched_tokens=64",
    "scheduler.max_model_len=128",
    "cache.num_gpu_blocks_override=14",
    "cache.swap_space_gib=0.0005",
    "hardware=a100",
    "cost_model=constant",
    "timeline=false",
    "charts=false",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("checkpoint")
    return f"model.path={make_checkpoint(folder, has_tokenizer=False, num_hidden_layers=2)}"


@pytest.fixture(scope="module")
def workload(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A burst of requests of two clients, in three priorities."""
    path = tmp_path_factory.mktemp("trace") / "trace.jsonl"
    rows = []
    for number in range(NUM_REQUESTS):
        length = 20 + 11 * number % 70
        private = range(100 * number + 100, 100 * number + 99 + length // 16)
        rows.append(
            {
                "arrived_at": 0.0,  # so that no decision depends on how fast this machine is
                "num_prefill_tokens": length,
                "num_decode_tokens": 5 + 7 * number % 30,
                "priority": number % 3,
                "client_id": "ab"[number % 2],
                "deadline": 1.0 - 0.05 * number,
                "hash_ids": [number % 2, *private],
            }
        )
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return ["workload=jsonl", f"workload.path={path}"]


def facts_of(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "parity.json").read_text())
    return facts


@pytest.fixture(scope="module")
def recorded(model: str, workload: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the engine with its recording."""
    folder = tmp_path_factory.mktemp("run")
    settings = ["backend=engine", "backend.record=true", f"hydra.run.dir={folder}"]
    assert run([model, *SMALL, *workload, *settings]) == 0
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        ["queue=fair_share"],
        ["scheduler=async", "queue=earliest_deadline", "victim=most_blocks"],
        ["scheduler=priority", "scheduler.num_speculative_tokens=3"],
        ["scheduler=swap", "victim=least_progress", "eviction=fifo"],
        ["batch_policy=prefill_first", WHOLE, "queue=shortest_job_first"],
    ],
    ids=["fair-share", "async", "drafts", "swap", "prefill-first"],
)
def test_the_engine_and_its_replay_in_one_go(
    settings: list[str],
    model: str,
    workload: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([model, *SMALL, *workload, *settings, f"hydra.run.dir={tmp_path}"]) == 0
    facts = facts_of(tmp_path)
    assert facts["is_equal"] is True
    assert facts["percent_equal"] == 100.0
    assert facts["steps_recorded"] == facts["steps_compared"] == facts["steps_equal"] > 50
    assert facts["requests"] == NUM_REQUESTS
    assert [row["engine"]["device"] for row in facts["runs"]] == ["cpu"]
    assert "decided alike (100 %)" in capsys.readouterr().out
    assert (tmp_path / "report.html").read_text().count("num_scheduled_tokens")
    assert (tmp_path / "engine" / "DONE").exists()


def test_the_replay_has_the_counters_of_the_run(recorded: Path, tmp_path: Path) -> None:
    assert main([f"run={recorded}", f"hydra.run.dir={tmp_path}"]) == 0
    (row,) = facts_of(tmp_path)["runs"]
    summary = json.loads((recorded / "summary.json").read_text())
    for name in ("requests", "preemptions"):
        assert row[name] == summary[name] > 0
    assert row["prefix_hit_tokens"] == summary["prefix_hit_tokens"] > 0


def test_every_recording_of_a_sweep_is_replayed(recorded: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / "sweep" / name).mkdir(parents=True)
        (tmp_path / "sweep" / name / RECORDING).write_bytes((recorded / RECORDING).read_bytes())
    assert main([f"run={tmp_path / 'sweep'}", f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    facts = facts_of(tmp_path / "out")
    assert [Path(row["recording"]).parent.name for row in facts["runs"]] == ["one", "two"]
    assert facts["steps_equal"] == 2 * facts["runs"][0]["steps_recorded"]


def test_a_recording_of_elsewhere_needs_neither_torch_nor_the_model(
    recorded: Path, tmp_path: Path
) -> None:
    (tmp_path / "received").mkdir()
    (tmp_path / "received" / RECORDING).write_bytes((recorded / RECORDING).read_bytes())
    program = (
        "import sys; sys.modules.update(torch=None, transformers=None, triton=None); "
        "from experiments.parity import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = [f"run={tmp_path / 'received'}", f"hydra.run.dir={tmp_path / 'out'}"]
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = facts_of(tmp_path / "out")
    assert facts["is_equal"]
    assert facts["runs"][0]["engine"] is None


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ("scheduler.max_num_batched_tokens=50", "num_scheduled_tokens"),
        ("num_blocks=13", ""),
        ("queue=priority", ""),
        ("batch_policy=sarathi batch_policy.chunk_size=24", ""),
        ("cache.enable_prefix_caching=false", ""),
    ],
)
def test_a_changed_decision_is_named_with_its_step(
    change: str, place: str, recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([f"run={recorded}", *change.split(), f"hydra.run.dir={tmp_path}"]) == 1
    facts = facts_of(tmp_path)
    (row,) = facts["runs"]
    found = row["difference"]
    assert row["steps_equal"] == found["step"] < row["steps_recorded"]
    assert json.dumps(found["expected"]) != json.dumps(found["got"])
    assert (facts["is_equal"], facts["changes"]) == (False, change.split())
    line = capsys.readouterr().out.splitlines()[0]
    assert f"first difference: step {found['step']}, {place}" in line
    assert "First differences" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run=nowhere"], "run=nowhere holds no recording.jsonl.gz"),
        (["backend=simulator"], "backend=simulator: parity records a run of backend=engine"),
        (["run={run}", "scheduler.budget=3"], "scheduler.budget=3: a replay has no such setting"),
        (["run={run}", "speed=3"], "speed=3: a replay has no such setting; it has: scheduler"),
        (["run={run}", "queue=magic"], "queue=magic: there is no such queue"),
        (["run={run}", "scheduler.max_num_seqs=0"], "max_num_seqs=0 must be at least 1"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str],
    message: str,
    recorded: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = [argument.format(run=recorded) for argument in arguments]
    assert main([*given, f"hydra.run.dir={tmp_path}"]) == 2
    text = capsys.readouterr().err.strip()
    assert message in text
    assert "\n" not in text
    assert not (tmp_path / "parity.json").exists()


def test_a_run_that_fails_is_not_replayed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["model=llama3_8b", "cluster.replicas=2", f"hydra.run.dir={tmp_path}"]) == 1
    assert "cluster.replicas=2" in capsys.readouterr().err
    assert not (tmp_path / "parity.json").exists()


def test_an_ordinary_run_leaves_no_recording(
    model: str, workload: list[str], tmp_path: Path
) -> None:
    (tmp_path / "provenance.json").write_text("{}")  # a run was here
    (tmp_path / RECORDING).write_bytes(b"of an earlier run")
    settings = ["backend=engine", f"hydra.run.dir={tmp_path}"]
    assert run([model, *SMALL, *workload, *settings]) == 0
    assert not (tmp_path / RECORDING).exists()
