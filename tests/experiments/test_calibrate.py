"""Calibration and validation of a tiny engine, in small: files, resuming, refusals."""

import io
import json
from contextlib import redirect_stderr
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from experiments import validate as validation
from experiments.calibrate import main as calibrate
from experiments.calibration_session import CalibrateSettings, median_steps
from experiments.steady_cpus import SteadyCpus
from experiments.uncertainty import drawn_runs
from experiments.validate import main as validate
from experiments.validation import runs
from experiments.validation.plan import Plan
from experiments.validation.settings import ValidateSettings
from simulator.calibration import Calibration
from tests.engine.checkpoints import make_checkpoint
from workbench.step_profile import MeasuredStep, StepShape, read_steps

LIMITS = [
    "scheduler.max_num_seqs=4",
    "scheduler.max_num_batched_tokens=64",
    "scheduler.max_model_len=128",
    "cache.num_gpu_blocks_override=40",
]
SHORT = [
    "calibrate.rounds=2",
    "calibrate.repeats=1",
    "calibrate.serve_s=0.1",
    "calibrate.budgets=[24,64]",
    "calibrate.disturbed=64",
    "calibrate.slowed=64",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = make_checkpoint(tmp_path_factory.mktemp("checkpoint"), has_tokenizer=False)
    return ["model=hf_config", f"model.path={folder}", "model.name=tiny"]


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory: pytest.TempPathFactory, model: list[str]) -> Path:
    folder = tmp_path_factory.mktemp("calibration")
    argv = ["backend=engine", *model, *LIMITS, *SHORT, f"hydra.run.dir={folder}"]
    told = io.StringIO()
    with redirect_stderr(told):
        assert calibrate(argv) == 0
    (folder / "told.txt").write_text(told.getvalue())
    return folder


def test_a_log_gets_a_line_a_round(calibrated: Path) -> None:
    lines = [f"round {number} of 2 is measured\n" for number in (1, 2)]
    assert (calibrated / "told.txt").read_text() == "".join(lines)


def test_a_calibration_leaves_its_measurements(calibrated: Path) -> None:
    calibration = Calibration.load(calibrated / "calibration.json")
    assert calibration.facts["device"] == "cpu"
    assert calibration.facts["grid_points"] > 20
    assert calibration.typical_s(StepShape(2, 60, [], 2)) > 0
    assert calibration.host(StepShape(2, 60, [], 2)) > 0
    assert calibration.residuals["grid"]["out_of_sample"]["steps"] > 20
    grid = read_steps(calibrated / "grid.csv")
    assert {step.source for step in grid} == {"grid/0", "grid/1"}
    assert len(grid) == 2 * calibration.facts["grid_points"]
    assert calibration.facts["steps"]["grid"] == calibration.facts["grid_points"]
    recorded = read_steps(calibrated / "run_1.csv")
    assert {step.source for step in recorded} == {"first/1", "run/1"}
    assert all((step.host_s > 0) == (step.source == "run/1") for step in recorded)
    assert all(step.shape.prefills for step in recorded if step.source == "first/1")
    assert "Microseconds" in (calibrated / "report.html").read_text()


def test_a_recording_is_served_with_every_budget(calibrated: Path) -> None:
    for number in (0, 1):
        sizes = [num_tokens(step.shape) for step in read_steps(calibrated / f"run_{number}.csv")]
        assert sizes.count(24) > 0
        assert 24 < max(sizes) <= 64
        assert max(sizes[: len(sizes) // 4]) <= 24
    calibration = Calibration.load(calibrated / "calibration.json")
    assert calibration.facts["recorded_budgets"] == [24, 64]
    assert calibration.facts["max_num_batched_tokens"] == 64


def num_tokens(shape: StepShape) -> int:
    return shape.num_decodes + sum(chunk for chunk, _ in shape.prefills)


def test_it_goes_on_where_it_was_killed(calibrated: Path, model: list[str]) -> None:
    grid, run = calibrated / "grid.csv", calibrated / "run_1.csv"
    lines = grid.read_text().splitlines()
    grid.write_text("\n".join(lines[:-2]) + "\n3,17,")
    run.unlink()
    argv = ["backend=engine", *model, *LIMITS, *SHORT, f"hydra.run.dir={calibrated}"]
    assert calibrate(argv) == 0
    again = grid.read_text().splitlines()
    assert again[: len(lines) - 2] == lines[:-2]
    assert len(again) == len(lines)
    assert run.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["backend=simulator"], "calibrate backend=engine"),
        (["backend=engine", "scheduler.max_num_seqs=3"], "holds measurements of another engine"),
        (["backend=engine", "scheduler.max_model_len=32"], "timed with requests of at least 56"),
        (["backend=engine", "calibrate.rounds=0"], "calibrate.rounds=0 must be at least 1"),
        (["backend=engine", "calibrate.budgets=24"], "calibrate.budgets=24 must be a list"),
        (["backend=engine", "calibrate.budgets=[0]"], "must be a list of tokens a step"),
        (["backend=engine", "calibrate.budgets=[2]"], "below scheduler.max_num_seqs=4"),
        (["backend=engine", "calibrate.budgets=[65]"], "exceeds the 64 that the engine was built"),
    ],
)
def test_what_cannot_be_calibrated_is_named(
    calibrated: Path,
    model: list[str],
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    names = {item.partition("=")[0] for item in change}
    limits = [item for item in LIMITS if item.partition("=")[0] not in names]
    assert calibrate([*model, *limits, *change, f"hydra.run.dir={calibrated}"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_passes_over_the_grid_become_medians() -> None:
    shape = StepShape(2, 30, [(8, 0)], 3)
    steps = [MeasuredStep(shape, s, source=f"grid/{i}") for i, s in enumerate((3.0, 1.0, 2.0))]
    other = MeasuredStep(StepShape(1, 9, [], 1), 5.0, source="grid/0")
    assert median_steps([*steps, other]) == [
        MeasuredStep(shape, 2.0, source="grid"),
        MeasuredStep(other.shape, 5.0, source="grid"),
    ]


def test_even_and_uneven_contexts_stay_two_points() -> None:
    even, uneven = (StepShape(2, 30, [], 2, longest_decode=longest) for longest in (15, 25))
    found = median_steps([MeasuredStep(even, 1.0), MeasuredStep(uneven, 2.0)])
    assert [step.shape for step in found] == [even, uneven]


VALIDATE = [
    "workload=validation",
    "workload.prompt_lengths.high=30",
    "workload.output_lengths.high=12",
    "workload.sharing.prefix_length=16",
    "validate.loads=[0.5,1.5]",
    "validate.policies=[chunked_prefill,static_batching]",
    "validate.seconds=0.5",
    "validate.runs=3",
    "validate.disturbed=64",
    "validate.slowed=64",
]


def test_a_validation_compares_both_worlds(
    calibrated: Path,
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seeds: list[int] = []

    def draw(assembly: Any, runs: int, seed: int) -> Any:
        seeds.append(seed)
        return drawn_runs(assembly, runs, seed)

    monkeypatch.setattr(validation, "drawn_runs", draw)
    file = calibrated / "calibration.json"
    argv = [*model, *LIMITS, *VALIDATE, f"validate.calibration={file}", f"hydra.run.dir={tmp_path}"]
    assert validate(argv) == 0
    result = json.loads((tmp_path / "validation.json").read_text())
    assert [(c["load"], c["policy"]) for c in result["cases"]] == [
        (0.5, "chunked_prefill"), (0.5, "static_batching"),
        (1.5, "chunked_prefill"), (1.5, "static_batching"),
    ]  # fmt: skip
    for case in result["cases"]:
        assert case["errors"]["requests_matched"] == case["engine"]["requests"]
        assert case["engine"]["prefix_hit_rate"] is not None
        assert set(case["bands"]["ttft_s_mean"]) == {"low", "high", "measured", "inside"}
    assert len(set(seeds)) == len(seeds) == 4  # each band from errors of its own
    assert result["coverage"]["level"] == 0.5  # of three runs
    assert result["rankings"]
    page = (tmp_path / "report.html").read_text()
    assert "Ranking of the policies" in page
    assert "pairs of policies in the same order" in capsys.readouterr().out
    done = [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("engine/DONE"))]
    assert validate(argv) == 0
    assert [p.stat().st_mtime_ns for p in sorted(tmp_path.rglob("engine/DONE"))] == done


def test_a_calibration_records_with_the_budget_of_every_policy(tmp_path: Path) -> None:
    fields = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64,
              "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
              "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 1024,
              "torch_dtype": "float32"}  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(fields))
    words = ["experiment=demo_engine", f"model.path={tmp_path}"]
    policies = ("prefill_first_1k", "chunked_prefill", "static_batching")
    plan = Plan(words, ValidateSettings(policies=policies))
    small, large = plan.budgets()  # whole prompts need the larger one
    config = plan.calibration_config()
    assert small == 256 < large == config.scheduler.max_num_batched_tokens
    assert "Prefill" not in config.batch_policy._target_  # which would refuse the small one


def test_one_slow_burst_does_not_make_the_capacity(
    model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, int]] = []

    def serve(folder: Path, config: Any, *rest: object) -> SimpleNamespace:
        number = int(folder.name)
        workload = config.workload
        seen.append((number, config.seed, workload.num_requests))
        assert workload.rate_scale == 1e6  # all at once
        duration_s = (2.0, 8.0, 2.5)[number]  # the second in a slow moment
        return SimpleNamespace(
            summary={"finished": workload.num_requests, "duration_s": duration_s}
        )

    monkeypatch.setattr(runs, "run_on_engine", serve)
    settings = ValidateSettings()
    plan = Plan([*model, *LIMITS, "workload=validation", "seed=7"], settings)
    with SteadyCpus(0) as cpus:
        assert validation._capacity(plan, tmp_path, settings, cpus) == 24 / 2.5
    assert seen == [(0, 7, 24), (1, 8, 24), (2, 9, 24)]  # six times as many as there are rows


def test_rounds_of_the_calibration_stand_between_the_runs(
    calibrated: Path, model: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = Calibration.load(calibrated / "calibration.json")
    seen: list[str | int] = []

    def calibrate_more(
        config: Any, folder: Path, settings: CalibrateSettings, cpus: SteadyCpus
    ) -> None:
        seen.append(settings.rounds)
        facts = {**known.facts, "rounds": settings.rounds}
        replace(known, facts=facts).save(folder / "calibration.json")

    monkeypatch.setattr(validation, "calibrate", calibrate_more)
    monkeypatch.setattr(validation, "_capacity", lambda *given: 10.0)
    monkeypatch.setattr(
        runs, "run_on_engine", lambda folder, *rest: seen.append(folder.parent.name)
    )
    settings = ValidateSettings(loads=(0.5, 1.5), policies=("chunked_prefill", "static_batching"))
    plan = Plan([*model, *LIMITS, "workload=validation"], settings)
    file, capacity = validation._measure(plan, tmp_path, settings)
    chunked, static = settings.policies
    assert seen == [1, chunked, 2, static, 3, chunked, static, 4]
    assert (file, capacity) == (tmp_path / "calibration" / "calibration.json", 10.0)
    seen.clear()
    validation._measure(plan, tmp_path, settings)
    assert seen == [chunked, static, chunked, static]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["validate.calibration=none.json"], "calibration none.json does not exist"),
        (["validate.loads=0.5"], "validate.loads=0.5 must be a list"),
        (["validate.loads=[0]"], "validate.loads=0 must be above 0"),
        (["validate.policies=[nonsense]"], "there is no such variant"),
    ],
)
def test_what_cannot_be_validated_is_named(
    model: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: list[str],
    message: str,
) -> None:
    argv = [*model, *LIMITS, "workload=validation", *change, f"hydra.run.dir={tmp_path}"]
    assert validate(argv) == 2
    assert message in capsys.readouterr().err


def test_a_calibration_of_another_machine_is_refused(
    calibrated: Path, model: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (calibrated / "calibration.json").read_text().replace('"float32"', '"bfloat16"')
    other = tmp_path / "other.json"
    other.write_text(text)
    argv = [*model, *LIMITS, *VALIDATE, f"validate.calibration={other}"]
    assert validate([*argv, f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    assert (
        "was measured with dtype=bfloat16, and this engine has float32" in capsys.readouterr().err
    )
