"""The same command in two worlds: backend=engine leaves what backend=simulator leaves."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from experiments.assemble import part
from experiments.backend import EngineBackend
from experiments.run import compose_config, main
from experiments.run_folder import RunFolder
from experiments.schema import group_options
from tests.engine.checkpoints import make_checkpoint
from tests.without_torch import run_without_torch

TIMES = {"start_s", "duration_s"}
REQUEST_TIMES = {"first_scheduled_s", "first_token_s", "finish_s", "itl_s"}
SMALL = [
    "scheduler.max_num_seqs=4",
    "scheduler.max_num_batched_tokens=64",
    "scheduler.max_model_len=128",
    "cache.num_gpu_blocks_override=12",
    "hardware=a100",
    "cost_model=constant",
    "timeline=false",
    "charts=false",
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("checkpoint"), has_tokenizer=False)


@pytest.fixture(scope="module")
def trace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Requests that all come at time 0, so that no decision depends on how long a step takes."""
    path = tmp_path_factory.mktemp("trace") / "burst.csv"
    rows = [f"0.0,{20 + 11 * i % 70},{5 + 7 * i % 30}" for i in range(9)]
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(rows) + "\n")
    return path


def run(folder: Path, checkpoint: Path, *overrides: str) -> int:
    model = ["model=hf_config", f"model.path={checkpoint}", "model.name=tiny"]
    return main([*model, *SMALL, *overrides, f"hydra.run.dir={folder}"])


def summary_of(folder: Path) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads((folder / "summary.json").read_text())
    return summary


def test_both_worlds_leave_the_same_files_and_decisions(
    tmp_path: Path, checkpoint: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    workload = ["workload=csv", f"workload.path={trace}", "charts=true", "timeline=true"]
    for world in ("simulator", "engine"):
        assert run(tmp_path / world, checkpoint, f"backend={world}", *workload) == 0
    assert "requests finished" in capsys.readouterr().out
    real, simulated = tmp_path / "engine", tmp_path / "simulator"
    names = {file.relative_to(simulated) for file in simulated.rglob("*.*")}
    assert names == {file.relative_to(real) for file in real.rglob("*.*")}
    for table, times in (("steps", TIMES), ("requests", REQUEST_TIMES)):
        one, other = (pq.read_table(folder / f"{table}.parquet") for folder in (real, simulated))
        assert one.schema.names == other.schema.names
        decisions = [name for name in one.schema.names if name not in times]
        assert one.select(decisions).equals(other.select(decisions)), table
    assert pq.read_table(real / "steps.parquet")["preempted"].to_numpy().sum() > 0
    _check_summaries(summary_of(real), summary_of(simulated))


def _check_summaries(real: dict[str, Any], simulated: dict[str, Any]) -> None:
    costs = {"cpu_s", "wall_s", "peak_rss_mb"}
    own = {f"simulation_{name}" for name in costs} | {"extrapolated_steps"}
    assert simulated.keys() - real.keys() == own - {"simulation_cpu_s"}
    assert real.keys() - simulated.keys() == {f"serving_{name}" for name in costs}
    for name in (
        "requests",
        "finished",
        "preemptions",
        "steps",
        "num_kv_blocks",
        "prefix_hit_rate",
    ):
        assert real[name] == simulated[name], name


def test_the_provenance_names_the_engine(tmp_path: Path, checkpoint: Path, trace: Path) -> None:
    overrides = ["backend=engine", "workload=csv", f"workload.path={trace}"]
    for name, own, weights, dtype in (
        ("real", [], "checkpoint", "float32"),
        ("dummy", ["backend.load_format=dummy", "backend.dtype=bfloat16"], "random", "bfloat16"),
    ):
        assert run(tmp_path / name, checkpoint, *overrides, *own) == 0
        provenance = json.loads((tmp_path / name / "provenance.json").read_text())
        engine = provenance["engine"]
        assert provenance["backend"] == "engine"
        assert (engine["weights"], engine["dtype"]) == (weights, dtype)
        assert engine["device"] == "cpu"
        assert engine["torch"]


def test_a_config_without_weights_says_that_they_are_random(
    tmp_path: Path, checkpoint: Path, trace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((checkpoint / "config.json").read_text())
    overrides = ["backend=engine", "workload=csv", f"workload.path={trace}"]
    assert run(tmp_path / "out", bare / "config.json", *overrides) == 0
    assert "note: the weights are random" in capsys.readouterr().out
    (bare / "pytorch_model.bin").write_bytes(b"")
    assert run(tmp_path / "refused", bare, *overrides) == 1
    assert "safetensors" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["backend.device=tpu"], "backend.device=tpu must be one of auto, cpu, cuda"),
        (["backend.attention_backend=flash"], "backend.attention_backend 'flash' is unknown"),
        (["backend.dtype=int8"], "backend.dtype 'int8' is not supported"),
        (["backend.kv_cache_memory_bytes=-1"], "backend.kv_cache_memory_bytes=-1 must be at least"),
        (["backend.devise=cpu"], "there is no setting 'backend.devise'"),
        (["model.dtype=fp8"], "model.dtype=fp8 cannot be had"),
        (["cluster.replicas=2"], "cluster.replicas=2: backend=engine runs one replica"),
        (["parallel=tp2", "hardware=h100"], "parallel.tensor_parallel_size=2"),
        (["eviction=belady"], "a real engine does not"),
        (["cache.num_gpu_blocks_override=2"], "the cache has 2"),
        (["workload=csv", "workload.path=nowhere.csv"], "nowhere.csv"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    overrides: list[str],
    message: str,
    tmp_path: Path,
    checkpoint: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(tmp_path, checkpoint, "backend=engine", *overrides) in (1, 2)
    text = capsys.readouterr().err.strip()
    assert message in text
    assert "\n" not in text
    assert not (tmp_path / "DONE").exists()


def test_a_missing_gpu_is_told_with_what_to_type_instead(
    tmp_path: Path,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert run(tmp_path, checkpoint, "backend=engine", "backend.device=cuda") == 1
    told = "error: backend.device=cuda, but torch sees no GPU: set backend.device=cpu "
    assert capsys.readouterr().err.startswith(told)


def test_a_model_that_does_not_fit_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import engine.loader

    monkeypatch.setattr(engine.loader, "available_bytes", lambda device: 4 << 30)
    overrides = ["backend=engine", "backend.device=cpu", "model=llama3_8b", "workload=constant"]
    assert main([*overrides, f"hydra.run.dir={tmp_path}"]) == 1
    text = capsys.readouterr().err.strip()
    assert "the model's weights need 15.0 GiB on cpu, 4.0 GiB are free: choose a smaller" in text
    assert "\n" not in text


def test_without_torch_one_line_says_what_to_install(tmp_path: Path) -> None:
    done = run_without_torch(
        "from experiments.run import main; "
        f"sys.exit(main(['backend=engine', 'hydra.run.dir={tmp_path}']))"
    )
    assert done.returncode == 1
    assert "backend=engine needs torch, which is not installed: pip install -e" in done.stderr
    assert "\n" not in done.stderr.strip()


def test_an_interrupted_run_is_not_marked(
    tmp_path: Path,
    checkpoint: Path,
    trace: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from engine.step_recorder import StepRecorder

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(StepRecorder, "log", interrupt)
    assert (
        run(tmp_path, checkpoint, "backend=engine", "workload=csv", f"workload.path={trace}") == 130
    )
    assert "interrupted" in capsys.readouterr().err
    folder = RunFolder(tmp_path)
    assert folder.marker() is None
    assert folder.failure() is None


def test_the_backends_are_listed_and_their_defaults_are_said_once() -> None:
    assert set(group_options()["backend"]) == {"simulator", "engine"}
    assert part(compose_config(["backend=engine"]), "backend") == EngineBackend()
