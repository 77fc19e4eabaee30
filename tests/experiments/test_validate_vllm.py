"""The whole command with a small server in vLLM's place, and what it says to bad input."""

import json
import lzma
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from experiments.live_vllm.checkpoint import ModelSizes, write_checkpoint
from experiments.live_vllm.client import Answer
from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.recording import Head, RecordingWriter, SeenPhase
from experiments.live_vllm.server import Launch, VllmServer, session_cpu_s
from experiments.live_vllm.settings import VllmSettings
from experiments.own_settings import part_command_line
from experiments.validate_vllm import main
from tests.experiments.live_vllm import fake_server
from workbench.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def fake_python(tmp_path):
    """A Python in which `vllm` is the small server."""

    def make(body=f'exec {sys.executable} {fake_server.__file__} "$@"', has_vllm=True, says=""):
        script = tmp_path / "python"
        find = f"echo {says}; exit {int(not has_vllm)}"
        head = f'#!/bin/sh\nexport PYTHONPATH="{REPOSITORY}:$PYTHONPATH"\n'
        script.write_text(f'{head}if [ "$1" = "-c" ]; then {find}; fi\n{body}\n')
        script.chmod(0o755)
        return str(script)

    return make


SMALL = [
    "vllm.max_num_seqs=4",
    "vllm.max_num_batched_tokens=64",
    "vllm.tries=1",
    "vllm.parts=2",
    "vllm.disturbed=64",
    "workload.num_requests=12",
    "progress=false",
]


def test_the_whole_command(fake_python, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = [f"vllm.python={fake_python()}", f"hydra.run.dir={out}", *SMALL]
    assert main(arguments) == 0
    errors = json.loads((out / "errors.json").read_text())
    assert list(errors) == ["low", "medium", "overload"]
    for told in errors.values():
        assert told["requests_matched"] == 12
        assert told["steps"] == told["steps_decided_alike"] > 0
        assert told["finished_only_measured"] == told["finished_only_simulated"] == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["calibration_steps"] == summary["calibration_steps_decided_alike"] > 100
    assert summary["log_agrees_with_recorder"] is None
    page = (out / "report.html").read_text()
    assert "Load: overload" in page
    for name in ("calibration.json", "front_end.json", "calibration_steps.csv"):
        assert (out / name).exists()
    assert (out / "low" / "measured_requests.parquet").exists()
    assert "steps decided alike" in capsys.readouterr().out
    check_again(out, tmp_path / "again")
    check_difference(out, tmp_path / "changed", capsys)


def check_again(out, again):
    """A recording, compressed or not, says what the run has said."""
    recording = out / "recording.jsonl"
    packed = recording.with_name("recording.jsonl.xz")
    packed.write_bytes(lzma.compress(recording.read_bytes()))
    for file in (recording, packed):
        assert main([f"vllm.recorded={file}", f"hydra.run.dir={again}", "progress=false"]) == 0
        for name in ("errors.json", "front_end.json", "calibration_steps.csv"):
            assert (again / name).read_text() == (out / name).read_text()
        told, before = (json.loads((f / "summary.json").read_text())["facts"] for f in (again, out))
        assert told.pop("simulated again").startswith(f"{file.name} at revision ")
        assert before.pop("wall_s") > 0
        assert told == before
    assert not (again / "recording.jsonl").exists()  # nothing was measured


def check_difference(out, again, capsys):
    """A step that is decided otherwise now ends the command, which names it."""
    head, *lines = (out / "recording.jsonl").read_text().splitlines()
    place = next(i for i, line in enumerate(lines) if '"source":"low.1"' in line)
    phase = json.loads(lines[place])
    third = [event for event in phase["events"] if event[0] == "schedule"][2]
    third[6] -= 1  # free blocks
    lines[place] = json.dumps(phase)
    again.mkdir()
    (again / "report.html").write_text("of another run")
    (again / "changed.jsonl").write_text("\n".join([head, *lines]) + "\n")
    words = [f"vllm.recorded={again}/changed.jsonl", f"hydra.run.dir={again}", "progress=false"]
    assert main(words) == 1
    assert "step 2 of low.1 was decided otherwise than here: used blocks" in capsys.readouterr().err
    assert main([f"vllm.recorded={out}/recording.jsonl", f"hydra.run.dir={out}"]) == 2
    assert "has a recording of its own" in capsys.readouterr().err
    assert (out / "report.html").exists()


def test_words_are_read_as_they_were_meant():
    settings = VllmSettings(
        python="p", dtype=None, disturbed=1e-5, arguments="--a b: 'c' --d=1e3", enforce_eager=False
    )
    words = [f"vllm.recorded={__file__}", *settings.words()]
    again, _, rest = part_command_line(words, "vllm", VllmSettings)
    assert replace(again, recorded=None, python="p") == settings
    assert rest == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["workload.num_requests=9"], "workload.num_requests=9 is what the recording has it to be"),
        (["vllm.python=python"], "beside vllm.recorded give only vllm.draws, progress, hydra"),
        (["quickly"], "quickly is what the recording has it to be"),
        (["vllm.recorded=nowhere.jsonl"], "nowhere.jsonl cannot be read"),
        (["vllm.recorded=pyproject.toml"], "pyproject.toml is no recording"),
    ],
)
def test_what_is_no_recording_is_named(tmp_path, capsys, change, message):
    file = tmp_path / "recording.jsonl"
    RecordingWriter(file, Head(SMALL, fake_server.SETTINGS))
    arguments = [f"vllm.recorded={file}", f"hydra.run.dir={tmp_path}/out", *change]
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1


def test_a_recording_that_was_cut_off(tmp_path, capsys):
    file = tmp_path / "recording.jsonl"
    writer = RecordingWriter(file, Head(SMALL, fake_server.SETTINGS))
    arguments = [f"vllm.recorded={file}", f"hydra.run.dir={tmp_path}/out"]
    assert main(arguments) == 1
    assert "ends before warm/0: it was cut off" in capsys.readouterr().err
    answer = Answer("stranger-0", 1.0, [1.5])
    writer.add(SeenPhase("other", "", [answer], [], [], None, 0.5))
    assert main(arguments) == 1
    assert "has 1 requests of other where 4 of warm/0 come now" in capsys.readouterr().err
    file.write_text(file.read_text()[:-20])
    assert main(arguments) == 2
    assert "cut off or damaged (JSONDecodeError)" in capsys.readouterr().err


def test_the_server_does_not_outlive_the_command(fake_python, tmp_path):
    command = [sys.executable, "-m", "experiments.validate_vllm", f"vllm.python={fake_python()}"]
    with subprocess.Popen(
        [*command, f"hydra.run.dir={tmp_path}/out", *SMALL],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    ) as process:
        for line in process.stdout:
            if line.startswith("calibrating"):
                process.terminate()
                break
        _, told = process.communicate()
    assert process.returncode == 130
    assert told == "interrupted: the server was stopped\n"
    servers = [
        stat
        for stat in Path("/proc").glob("[0-9]*/cmdline")
        if str(tmp_path) in stat.read_text(errors="replace")
    ]
    assert not servers
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_server_that_runs_already(tmp_path):
    engine = fake_server.FakeEngine(tmp_path / "steps.jsonl")
    with fake_server.FakeServer(engine) as server:
        engine.submit("of-yesterday", [1, 2, 3], 1).get()
        places = [f"vllm.url={server.url}", f"vllm.steps={engine.record}"]
        assert main([*places, f"hydra.run.dir={tmp_path}/out", *SMALL, "vllm.parts=1"]) == 0
    told = json.loads((tmp_path / "out" / "errors.json").read_text())["overload"]
    assert told["steps"] == told["steps_decided_alike"] > 0
    assert told["cpus_used_by_others"] is None


def test_no_vllm(fake_python, tmp_path, capsys):
    arguments = [f"hydra.run.dir={tmp_path}", *SMALL]
    assert main([f"vllm.python={fake_python(has_vllm=False)}", *arguments]) == 1
    assert "has no vLLM" in capsys.readouterr().err
    assert main([f"vllm.python={tmp_path}/nothing", *arguments]) == 1
    assert "cannot be started" in capsys.readouterr().err


def test_a_server_that_dies_shows_its_last_lines(fake_python, tmp_path, capsys):
    python = fake_python("echo 'ValueError: no such model'; exit 3")
    assert main([f"vllm.python={python}", f"hydra.run.dir={tmp_path}", *SMALL]) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert "ended before it could serve" in told
    assert "ValueError: no such model" in told
    assert not (tmp_path / "report.html").exists()


def test_a_port_that_is_taken(fake_python, tmp_path, capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        arguments = [f"vllm.port={port}", f"hydra.run.dir={tmp_path}", *SMALL]
        assert main([f"vllm.python={fake_python()}", *arguments]) == 1
    assert f"vllm.port={port} is taken" in capsys.readouterr().err


def test_a_start_that_takes_too_long(fake_python, tmp_path):
    launch = Launch(
        python=fake_python("exec sleep 60"), model="m", served_model_name="m", timeout_s=0.0
    )
    server = VllmServer(launch, tmp_path)
    with pytest.raises(ServerError, match="startup_timeout_s=0"), server:
        pass
    assert not server.is_alive


def test_a_server_is_stopped_with_all_its_processes(fake_python, tmp_path):
    settings = VllmSettings(python=fake_python(), max_num_seqs=4)
    with VllmServer(settings.launch(tmp_path), tmp_path) as server:
        leader = server._process.pid
        assert server.cpu_s() > 0
        assert (tmp_path / "model" / "config.json").exists()
    assert session_cpu_s(leader) is None
    assert not server.is_alive


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "vllm.python, url and recorded: give one of them"),
        (["vllm.url=http://x"], "vllm.steps is not set"),
        (["vllm.python=p", "vllm.url=u", "vllm.steps=s"], "give one of them"),
        (["vllm.python=p", "vllm.port=70000"], "vllm.port=70000 must be at most 65535"),
        (["vllm.python=p", "vllm.low=0"], "vllm.low=0 must be at least 0.01"),
        (["vllm.python=p", "vllm.speed=1"], "vllm has: python, url"),
        (["vllm.python=p", "workload.num_requets=3"], "num_requests"),
    ],
)
def test_bad_settings(arguments, says, tmp_path, capsys):
    assert main([*arguments, f"hydra.run.dir={tmp_path}"]) == 2
    told = capsys.readouterr().err
    assert says in told
    assert told.count("\n") == 1


def test_a_url_where_nobody_is(tmp_path, capsys):
    (tmp_path / "steps").write_text("")
    arguments = ["vllm.url=http://127.0.0.1:9", f"vllm.steps={tmp_path}/steps"]
    assert main([*arguments, f"hydra.run.dir={tmp_path}/out"]) == 1
    assert "no server answers" in capsys.readouterr().err


def test_help(capsys):
    assert main(["--help"]) == 0
    assert "vllm.python=PYTHON" in capsys.readouterr().out


def test_the_command_line_of_a_server(tmp_path):
    settings = VllmSettings(
        python="python", async_scheduling=True, block_size=32, arguments="--seed 3"
    )
    command = settings.launch(tmp_path).command(1234)
    assert command[:4] == ["python", "-m", "vllm.entrypoints.cli.main", "serve"]
    assert command[-2:] == ["--seed", "3"]
    assert "vllm_step_recorder.RecordingAsyncScheduler" in command
    assert command[command.index("--block-size") + 1] == "32"
    assert command[command.index("--load-format") + 1] == "dummy"
    named = VllmSettings(python="python", model="org/model", dtype=None).launch(tmp_path)
    assert named.command(1)[4] == "org/model"
    assert "--dtype" not in named.command(1)
    assert "--worker-cls" not in command
    on_cpu = settings.launch(tmp_path).command(1234, is_on_cpu=True)
    assert on_cpu[on_cpu.index("--worker-cls") + 1] == "vllm_paced_worker.PacedCpuWorker"


@pytest.mark.parametrize(("says", "is_on_cpu"), [("vllm 0.32.0+cpu", True), ("vllm 0.32.0", False)])
def test_a_vllm_for_cpus_tells_the_pace_of_its_workers(says, is_on_cpu, fake_python, tmp_path):
    python = fake_python('echo "$@" >&2; exit 3', says=says)
    settings = VllmSettings(python=python, max_num_seqs=4)
    stale = tmp_path / "server_steps.jsonl.pace.1"
    stale.write_text("1.0 1000\n")
    with pytest.raises(ServerError), VllmServer(settings.launch(tmp_path), tmp_path):
        pass
    assert ("PacedCpuWorker" in (tmp_path / "server.log").read_text()) == is_on_cpu
    assert not stale.exists()


def test_a_checkpoint_without_weights(tmp_path):
    write_checkpoint(tmp_path, ModelSizes(vocab_size=20), 128)
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(20))
    assert json.loads((tmp_path / "config.json").read_text())["max_position_embeddings"] == 128
    with pytest.raises(ConfigError, match="multiple of num_attention_heads=8"):
        ModelSizes(hidden_size=100)
