"""`bench serve` as a whole, against a small server."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from experiments.bench.__main__ import main
from experiments.bench.arguments import serve_parser
from experiments.bench.run_files import command_without_keys
from experiments.bench.settings import settings_of
from experiments.cli import main as workbench
from experiments.tables import read_request_columns
from tests.experiments.bench.fake_server import FakeServer, Script
from workbench.errors import ConfigError
from workbench.metrics import StepLog, summarize

REPOSITORY = Path(__file__).parents[3]


def bench(server, *words):
    return main(["serve", "--base-url", server.url, "--disable-tqdm", *map(str, words)])


def settings(*words):
    return settings_of(serve_parser().parse_intermixed_args(list(words)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two load tests in a folder: one with failures, one of another rate."""
    place = tmp_path_factory.mktemp("bench")
    common = ("--random-input-len", 20, "--random-output-len", 4, "--goodput", "ttft:5000")
    with FakeServer(Script(statuses=[503, 503])) as server:
        assert bench(server, *common, "--num-prompts", 12, "--out", place / "a") == 0
    with FakeServer() as server:
        words = ("--num-prompts", 8, "--request-rate", 200, "--no-charts", "--save-detailed")
        assert bench(server, *common, *words, "--out", place / "b") == 0
    return place


def test_the_summary_is_computed_from_the_table(folder):
    summary = json.loads((folder / "a" / "summary.json").read_text())
    columns = read_request_columns(folder / "a" / "requests.parquet")
    again = summarize(columns, StepLog(), duration_s=summary["duration_s"])
    for name in ("requests", "error", "ttft_s_p50", "itl_s_mean", "output_tokens_per_s"):
        assert summary[name] == pytest.approx(again[name]), name
    assert summary["failures"] == {"status 503": 2}
    assert summary["slo_attainment"] == pytest.approx(10 / 12)
    assert (folder / "a" / "not_served.txt").read_text().count("said 503") == 2


def test_the_result_file_has_vllms_names(folder):
    told = json.loads((folder / "b" / "bench.json").read_text())
    assert (told["completed"], told["failed"], told["request_rate"]) == (8, 0, 200.0)
    assert told["model_id"] == "fake"
    assert len(told["ttfts"]) == 8
    assert {"mean_ttft_ms", "p99_itl_ms", "std_tpot_ms", "median_e2el_ms"} <= set(told)


def test_the_folder_can_be_plotted_compared_and_reported(folder, capsys):
    assert workbench(["plot", str(folder)]) == 0
    assert (folder / "b" / "charts" / "latency_cdf.png").exists()
    assert not (folder / "b" / "charts" / "queue_over_time.png").exists()
    assert workbench(["compare", str(folder)]) == 0
    assert "request_rate" in capsys.readouterr().out
    assert workbench(["report", str(folder / "a")]) == 0
    page = (folder / "a" / "report.html").read_text()
    assert "A load test of http://127.0.0.1" in page
    assert "workbench rerun" not in page
    assert workbench(["report", str(folder)]) == 0


def test_a_load_test_cannot_be_run_again_without_its_server(folder, tmp_path, capsys):
    assert workbench(["rerun", str(folder / "a"), "--out", str(tmp_path / "new")]) == 1
    assert "load test" in capsys.readouterr().err


def test_the_config_says_what_was_asked(folder):
    config = yaml.safe_load((folder / "b" / "config.yaml").read_text())
    assert config["workload"]["arrivals"]["rate"] == 200.0
    assert config["bench"]["request_rate"] == 200.0
    assert "table" not in config["workload"]["prompt_lengths"]
    assert config["slo"] == {"ttft_s": 5.0, "tpot_s": None, "e2e_s": None}


def test_a_conversation_repeats_the_answers(tmp_path):
    words = ("workload=multi_turn", "workload.num_requests=6", "workload.sharing.turns.low=3")
    words += ("workload.sharing.think_time.mean=0.001", "workload.rate_scale=1000")
    words += ("workload.prompt_lengths.maximum=40", "workload.output_lengths.maximum=40")
    with FakeServer(Script(ids=True)) as server:
        assert bench(server, *words, "--return-token-ids", "--out", tmp_path / "c") == 0
    summary = json.loads((tmp_path / "c" / "summary.json").read_text())
    assert (summary["finished"], summary["num_unlearned"]) == (6, 0)
    lengths = [len(body["prompt"]) for body in server.bodies]
    longer = [body for body in server.bodies if 5 in body["prompt"]]
    assert len(lengths) == 6
    assert any(body["prompt"].count(5) > 16 for body in longer)  # 5: what the server answers


def test_a_trace_of_the_project_at_another_rate(tmp_path):
    rows = "arrived_at,num_prefill_tokens,num_decode_tokens\n" + "\n".join(
        f"{100 * i},{5 + i},3" for i in range(5)
    )
    (tmp_path / "trace.csv").write_text(rows + "\n")
    words = ("workload=csv", f"workload.path={tmp_path / 'trace.csv'}", "--request-rate", "500")
    with FakeServer() as server:
        assert bench(server, *words, "--num-prompts", 4) == 0
    assert [len(body["prompt"]) for body in server.bodies] == [5, 6, 7, 8]


def test_text_and_chat(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({letter: i for i, letter in enumerate(alphabet)}, [])
    tokenizers.Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    words = ("--backend", "openai-chat", "--tokenizer", tmp_path, "--num-prompts", 3)
    with FakeServer() as server:
        assert bench(server, *words, "--random-input-len", 11) == 0
    assert all(len(body["messages"][0]["content"]) >= 11 for body in server.bodies)


def test_the_key_is_sent_and_never_kept(tmp_path):
    with FakeServer() as server:
        out = (
            "--api-key",
            "s3cret",
            "--header",
            "X-A=s3cret",
            "--no-charts",
            "--out",
            tmp_path / "k",
        )
        assert bench(server, "--num-prompts", 2, *out) == 0
    assert all("Authorization: Bearer s3cret" in head for head in server.heads)
    for file in (tmp_path / "k").rglob("*"):
        assert not file.is_file() or b"s3cret" not in file.read_bytes(), file


def test_keys_are_taken_out_of_a_command():
    words = ["bench", "--api-key", "s", "--header", "a=1", "b=2", "--seed", "3", "--api-key=s"]
    hidden = ["bench", "--api-key", "***", "--header", "***", "***", "--seed", "3", "--api-key=***"]
    assert command_without_keys(words) == hidden


def test_nobody_there(capsys):
    assert main(["serve", "--base-url", "http://127.0.0.1:9", "--num-prompts", "1"]) == 1
    assert "workbench serve" in capsys.readouterr().err


def test_nothing_succeeded(capsys):
    with FakeServer(Script(statuses=[429] * 3)) as server:
        assert bench(server, "--num-prompts", 3) == 1
    assert "3 x status 429" in capsys.readouterr().out


def test_requests_that_the_server_will_refuse_are_announced(capsys):
    with FakeServer() as server:
        assert bench(server, "--num-prompts", 1, "--random-input-len", 600) == 0
    assert "takes 512" in capsys.readouterr().out


def test_warm_up_requests_are_not_counted_and_have_other_prompts():
    with FakeServer() as server:
        assert bench(server, "--num-prompts", 2, "--num-warmups", 3) == 0
    prompts = [tuple(body["prompt"]) for body in server.bodies]
    assert len(set(prompts)) == 5


def test_a_folder_that_is_taken_is_refused_before_anything_is_sent(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("mine")
    with FakeServer() as server:
        assert bench(server, "--num-prompts", 1, "--out", tmp_path) == 2
    assert f"--out {tmp_path} holds" in capsys.readouterr().err
    assert not server.bodies


def test_little_memory_changes_nothing(monkeypatch, tmp_path):
    words = ("--num-prompts", 5, "--no-charts", "--random-output-len", 7)
    monkeypatch.setattr("experiments.bench.sender.PREPARED_BYTES", 0)
    monkeypatch.setattr("experiments.bench.sender.RAW_BYTES", 0)
    with FakeServer() as server:
        assert bench(server, *words, "--out", tmp_path / "m") == 0
    summary = json.loads((tmp_path / "m" / "summary.json").read_text())
    assert (summary["finished"], summary["output_tokens"]) == (5, 35)


def test_vllms_result_file(tmp_path):
    with FakeServer() as server:
        words = ("--num-prompts", 2, "--result-dir", tmp_path / "r", "--metadata", "version=7")
        assert bench(server, *words, "--result-filename", "x.json") == 0
    assert json.loads((tmp_path / "r" / "x.json").read_text())["version"] == "7"


def test_ctrl_c_keeps_what_was_measured(tmp_path):
    with FakeServer(Script(statuses=[503], hangs=True)) as server:
        words = ["--base-url", server.url, "--num-prompts", "5", "--out", str(tmp_path / "i")]
        program = subprocess.Popen(
            [sys.executable, "-m", "experiments.bench", "serve", *words, "--no-charts"],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            deadline = time.monotonic() + 30
            while len(server.bodies) < 5 and time.monotonic() < deadline:
                time.sleep(0.01)
            os.kill(program.pid, signal.SIGINT)
            out, _ = program.communicate(timeout=30)
        finally:
            program.kill()
    assert program.returncode == 130
    assert "interrupted" in out
    summary = json.loads((tmp_path / "i" / "summary.json").read_text())
    assert summary["interrupted"] is True
    assert (summary["requests"], summary["unfinished"], summary["error"]) == (5, 4, 1)
    assert (tmp_path / "i" / "DONE").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--duration", "5"], "--max-concurrency"),
        (["--duration", "-5"], "--duration"),
        (["--duration", "inf", "--request-rate", "3"], "--duration inf"),
        (["--num-prompts", "0"], "--num-prompts"),
        (["--goodput", "ttfs:5"], "ttfs"),
        (["--goodput", "ttft:x"], "no number"),
        (["--goodput", "tpot:50", "ttft=5"], "write --goodput ttft:5"),
        (["--percentile-metrics", "ttft,speed"], "speed"),
        (["--metric-percentiles", "101"], "101"),
        (["--extra-body", "[1]"], "JSON object"),
        (["--extra-body", "{"], "no JSON"),
        (["--header", "x"], "KEY=VALUE"),
        (["--random-range-ratio", "1"], "range-ratio"),
        (["--random-output-len", "0"], "output-len"),
        (["--backend", "openai-chat", "--prompts", "ids"], "chat"),
        (["workload=azure_conv", "--burstiness", "2"], "--request-rate"),
    ],
)
def test_wrong_words(words, text):
    with pytest.raises(ConfigError, match=text):
        settings(*words)


def test_words_of_a_workload_may_stand_anywhere():
    found = settings("--goodput", "ttft:500", "workload=azure_conv", "--seed", "3", "slo=server")
    assert found.overrides == ("slo=server", "workload=azure_conv")
    assert found.slo.ttft_s == 0.5
    assert found.arrivals is None


def test_help_and_unknown_commands(capsys):
    assert main(["--help"]) == 0
    assert "throughput" in capsys.readouterr().out
    assert main([]) == 2
    assert main(["serv"]) == 2
    assert "serv" in capsys.readouterr().err


def test_a_wrong_override_is_explained(capsys):
    assert main(["serve", "workload=azure_con"]) == 2
    assert "azure_conv" in capsys.readouterr().err
