"""Comparisons with measured runs: small made-up ones, and the shared ones where they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from experiments.compare_measured import main
from experiments.measured.balancer import DataParallelBalancer
from experiments.measured.prices import all_reduce_table, has_skew_sweep
from experiments.measured.run_files import read_measured
from experiments.measured.settings import MeasuredSettings, read_settings
from experiments.measured.system import model_named, system_of
from workbench.errors import ConfigError

KWARGS: dict[str, Any] = {
    "tensor_parallel_size": 1,
    "data_parallel_size": 1,
    "enable_expert_parallel": False,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 256,
    "max_model_len": None,
}


@pytest.fixture
def made_up(tmp_path: Path) -> Path:
    """A run of 12 requests on a GPU that has no profile, and the file that was sent."""
    folder = tmp_path / "A100" / "Llama-3.1-8B"
    folder.mkdir(parents=True)
    sent, measured = [], []
    for i in range(12):
        prompt, answer = 40 + 16 * i, 5 + i
        ids = [1000 * i + n for n in range((prompt + answer) // 16)]
        sent.append({
            "input_toks": prompt, "output_toks": answer, "arrival_time_ns": 10**8 * i,
            "prompt_block_ids16": ids[: prompt // 16], "full_block_ids16": ids,
        })  # fmt: skip
        at = 500.0 + 0.1 * i
        measured.append({
            "request_id": f"bench-{i}", "input_toks": prompt, "output_toks": answer,
            "arrival_time": 1e9 + 0.1 * i - 0.01, "queued_ts": at, "scheduled_ts": at + 1e-5,
            "first_token_ts": at + 0.03, "last_token_ts": at + 0.03 + 0.012 * (answer - 1),
        })  # fmt: skip
    _lines(folder.parent.parent / "sent.jsonl", sent)
    _lines(folder / "requests.jsonl", measured)
    meta = {"model": "meta-llama/Llama-3.1-8B", "vllm_version": "0.19.0", "engine_kwargs": KWARGS}
    (folder / "meta.json").write_text(json.dumps(meta))
    timeline = "t,prompt_throughput,gen_throughput,running,waiting,kv_cache_pct\n"
    (folder / "timeseries.csv").write_text(timeline + "1.0,500,60,1,0,0.5\n2.0,300,40,0,0,0.1\n")
    return folder


def _lines(file: Path, rows: list[dict[str, Any]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def words(folder: Path, out: Path, **more: str) -> list[str]:
    settings = {"measured": str(folder), "requests": str(folder.parent.parent / "sent.jsonl"),
                "profile": "none", "profiles_dir": str(out / "nothing"),
                "hydra.run.dir": str(out)} | more  # fmt: skip
    return [f"{key}={value}" for key, value in settings.items()]


def test_a_run_is_compared_and_everything_is_written(made_up: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(words(made_up, out)) == 0
    errors = json.loads((out / "errors.json").read_text())
    statistics = ("mean", "p50", "p90", "p95", "p99")
    names = [f"{n}_{s}_error" for n in ("ttft", "tpot", "e2e") for s in statistics]
    assert {*names, "e2e_mape", "output_tokens_per_s_error", "fitted_constants"} <= errors.keys()
    assert all(np.isfinite(errors[name]) for name in names)
    assert errors["requests_matched"] == 12
    assert errors["prices_from"] == "formulas"
    assert all(entry["fitted_on"] for entry in errors["fitted_constants"].values())
    assert len(pd.read_csv(out / "requests.csv")) == 12
    for name in ("timelines", "latency_cdfs", "requests"):
        assert (out / "charts" / f"{name}.png").stat().st_size > 5000
    assert "errors" in (out / "report.html").read_text().lower()


def test_the_same_words_give_the_same_errors(made_up: Path, tmp_path: Path) -> None:
    found = []
    for name in "ab":
        main(words(made_up, tmp_path / name))
        facts = json.loads((tmp_path / name / "errors.json").read_text())
        found.append({k: v for k, v in facts.items() if "seconds" not in k})
    assert found[0] == found[1]


@pytest.mark.parametrize(("change", "said"), [
    ({"measured": "/nowhere"}, "/nowhere does not exist"),
    ({"requests": "/nowhere.jsonl"}, "nowhere.jsonl"),
    ({"profile": "/nowhere"}, "/nowhere does not exist"),
    ({"hardware": "tpu"}, "'tpu' is not known"),
    ({"model": "gpt9"}, "gpt9"),
    ({"launch_gap_s": "soon"}, "launch_gap_s"),
    ({"profil": "x"}, "did you mean profile?"),
])  # fmt: skip
def test_wrong_words_give_one_line(
    made_up: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: dict[str, str],
    said: str,
) -> None:
    assert main(words(made_up, tmp_path / "out", **change)) == 2
    output = capsys.readouterr().err
    assert said in output
    assert output.count("\n") == 1
    assert not (tmp_path / "out" / "errors.json").exists()


def test_a_folder_of_runs_names_one_of_them(
    made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    above = words(made_up, tmp_path / "out", measured=str(made_up.parent))
    assert main(above) == 2
    error = capsys.readouterr().err
    assert f"measured={made_up.parent} holds runs in folders of their own: name {made_up}" in error


def test_files_that_are_not_what_they_should_be(
    made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [json.loads(line) for line in (made_up / "requests.jsonl").read_text().splitlines()]

    def said(changed: list[dict[str, Any]]) -> str:
        _lines(made_up / "requests.jsonl", changed)
        assert main(words(made_up, tmp_path / "out")) == 2
        return capsys.readouterr().err

    without = [{k: v for k, v in row.items() if k != "first_token_ts"} for row in rows]
    assert "first_token_ts" in said(without)
    assert "12 requests and the measured run 11" in said(rows[:-1])
    assert "prompt_tokens=7" in said([rows[0] | {"input_toks": 7}, *rows[1:]])
    assert "cannot be read" in said([]) or "lacks the column" in said([])
    (made_up / "meta.json").write_text('{"model": "unheard/of", "engine_kwargs": {}}')
    assert "'unheard/of' is not known" in said(rows)


def test_limits_that_cut_answers_short_are_told(
    made_up: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    meta = json.loads((made_up / "meta.json").read_text())
    meta["engine_kwargs"] |= {"max_model_len": 228}
    (made_up / "meta.json").write_text(json.dumps(meta))
    assert main(words(made_up, tmp_path / "out")) == 2
    assert "requests were served and cannot be in the simulation" in capsys.readouterr().err


def test_settings_are_those_of_the_server(made_up: Path) -> None:
    system = system_of(read_measured(made_up))
    assert system.hardware.name == "a100"
    assert system.scheduler.max_num_seqs == 8
    assert system.scheduler.max_model_len == 131_072
    assert system.scheduler.async_scheduling
    assert max(system.graph_sizes) == 16
    meta = json.loads((made_up / "meta.json").read_text())
    meta["kv_cache"] = {"num_gpu_blocks": 100, "block_size": 16}
    meta["resolved_config"] = {
        "scheduler_config": {"async_scheduling": False, "max_num_seqs": 9},
        "compilation_config": {"max_cudagraph_capture_size": 512},
    }
    meta["hardware"] = {"device_name": "NVIDIA RTX PRO 6000 Blackwell Server Edition"}
    (made_up / "meta.json").write_text(json.dumps(meta))
    system = system_of(read_measured(made_up))
    assert (system.num_blocks, system.told_blocks) == (99, True)
    assert system.hardware.name == "rtx_pro_6000"
    assert system.scheduler.max_num_seqs == 9
    assert not system.scheduler.async_scheduling
    assert max(system.graph_sizes) == 512


def test_ranks_that_share_experts_step_together(made_up: Path, tmp_path: Path) -> None:
    meta = json.loads((made_up / "meta.json").read_text())
    shared = KWARGS | {"data_parallel_size": 2, "enable_expert_parallel": True}
    meta |= {"model": "Qwen/Qwen3-30B-A3B-Instruct-2507", "engine_kwargs": shared}
    (made_up / "meta.json").write_text(json.dumps(meta))
    system = system_of(read_measured(made_up))
    assert system.lock_step
    assert (system.replicas, system.parallel.data_parallel_size) == (2, 2)
    out = tmp_path / "out"
    assert main(words(made_up, out)) == 0
    assert json.loads((out / "errors.json").read_text())["requests_matched"] == 12
    meta |= {"model": "meta-llama/Llama-3.1-8B"}
    (made_up / "meta.json").write_text(json.dumps(meta))
    system = system_of(read_measured(made_up))
    assert not system.lock_step
    assert system.parallel.data_parallel_size == 1


def test_the_door_is_never_after_the_queue(made_up: Path) -> None:
    requests = read_measured(made_up).requests
    assert (requests["door_s"] <= requests["arrival_s"] + 1e-12).all()
    assert (requests["arrival_s"] - requests["door_s"]).max() < 1e-3


def test_prompts_of_tokens_are_read_as_well(made_up: Path, tmp_path: Path) -> None:
    sent = made_up.parent.parent / "sent.jsonl"
    rows = [json.loads(line) for line in sent.read_text().splitlines()]
    tokens = [
        {"input_toks": r["input_toks"], "output_toks": r["output_toks"],
         "input_tok_ids": list(range(r["input_toks"]))}
        for r in rows
    ]  # fmt: skip
    _lines(sent, tokens)
    assert main(words(made_up, tmp_path / "out")) == 0
    facts = json.loads((tmp_path / "out" / "errors.json").read_text())
    assert facts["prefix_hit_tokens"] > 0
    _lines(sent, [{"input_toks": 1}])
    assert main(words(made_up, tmp_path / "out")) == 2


def test_names_of_models() -> None:
    assert model_named("meta-llama/Llama-3.1-8B-Instruct").num_hidden_layers == 32
    assert model_named("Qwen/Qwen3-30B-A3B-Instruct-2507").num_experts == 128
    assert model_named("Qwen/Qwen3-32B", "fp8").dtype == "fp8"
    with pytest.raises(ConfigError, match="is not known"):
        model_named("Qwen/Qwen9")


def test_the_table_of_the_servers_version_is_taken(tmp_path: Path) -> None:
    for version in ("0.9.0", "0.19.0", "0.24.0"):
        file = tmp_path / "comm" / "vllm" / version / "custom_allreduce_perf.parquet"
        file.parent.mkdir(parents=True)
        file.touch()

    def taken(version: str) -> str:
        table = all_reduce_table(tmp_path, version)
        assert table is not None
        return table.parent.name

    assert taken("0.19.0") == taken("0.20.1") == "0.19.0"
    assert (taken("0.5.0"), taken("1.0.0")) == ("0.9.0", "0.24.0")
    assert all_reduce_table(tmp_path / "none", "0.19.0") is None


def test_a_profile_says_whether_unequal_rows_were_measured(tmp_path: Path) -> None:
    assert not has_skew_sweep(tmp_path)
    (tmp_path / "meta.yaml").write_text("skew_profile:\n  enabled: true\n")
    assert has_skew_sweep(tmp_path / "tp1")
    (tmp_path / "meta.yaml").write_text("skew_profile:\n  enabled: false\n")
    assert not has_skew_sweep(tmp_path)


def test_the_balancer_counts_what_it_sent() -> None:
    class View:
        num_waiting, num_running = 0, 0

    views = [View(), View()]
    balancer = DataParallelBalancer()
    views[0].num_running = 5
    chosen = [balancer.choose(None, views, now) for now in (0.0, 0.01, 0.02, 0.03)]
    assert chosen == [1, 1, 0, 1]
    views[0].num_running, views[1].num_running = 0, 5
    assert balancer.choose(None, views, 0.2) == 0


def test_a_word_that_is_no_setting() -> None:
    with pytest.raises(ConfigError, match="give KEY=VALUE"):
        read_settings(["measured"], MeasuredSettings)
    with pytest.raises(ConfigError, match="measured is not set"):
        read_settings([], MeasuredSettings)


@pytest.mark.parametrize("gpu", ["RTX4090", "RTXPRO6000"])
def test_the_shared_runs_are_met(shared_dir: Path, tmp_path: Path, gpu: str) -> None:
    """The goals of the comparison, without a fitted constant."""
    sent = shared_dir / "measured/sharegpt-llama-3.1-8b-300-sps10.jsonl"
    status = main([
        f"measured={shared_dir}/measured/{gpu}/Llama-3.1-8B", f"requests={sent}",
        f"profile={shared_dir}/profiles/layerwise/{gpu}/meta-llama/Llama-3.1-8B",
        f"profiles_dir={shared_dir}/profiles", f"hydra.run.dir={tmp_path}",
    ])  # fmt: skip
    assert status == 0
    errors = json.loads((tmp_path / "errors.json").read_text())
    assert errors["e2e_mape"] < 0.01
    assert abs(errors["ttft_mean_error"]) < 0.02
    assert abs(errors["tpot_mean_error"]) < 0.005
    assert all(abs(errors[f"{name}_p99_error"]) < 0.02 for name in ("ttft", "tpot", "e2e"))


def test_kernel_tables_alone_come_close(shared_dir: Path, tmp_path: Path) -> None:
    sent = shared_dir / "measured/sharegpt-llama-3.1-8b-300-sps10.jsonl"
    status = main([
        f"measured={shared_dir}/measured/RTXPRO6000/Llama-3.1-8B", f"requests={sent}",
        f"profiles_dir={shared_dir}/profiles", f"hydra.run.dir={tmp_path}",
    ])  # fmt: skip
    assert status == 0
    assert json.loads((tmp_path / "errors.json").read_text())["e2e_mape"] < 0.08
