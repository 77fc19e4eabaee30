"""`workbench serve` as a user starts it: the simulated server without torch, and errors."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from experiments.serve import main, missing_package
from workbench.errors import WorkbenchError

REPOSITORY = Path(__file__).resolve().parents[2]
SERVER = ["-m", "experiments.serve", "qwen3_0_6b", "--backend", "simulator", "cost_model=zero"]
SIMULATED = ("qwen3_0_6b", "--backend", "simulator")
LIMIT_S = 120


@contextmanager
def server(folder: Path, *words: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A server, where to import torch is an error, and its port."""
    (folder / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    path = os.pathsep.join([str(folder), str(REPOSITORY)])
    process = subprocess.Popen(
        [sys.executable, *SERVER, "--port", "0", "--max-model-len", "512", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path},
    )
    try:
        assert process.stdout is not None
        first = process.stdout.readline()
        if not first.startswith("serving"):
            raise AssertionError(process.communicate(timeout=LIMIT_S))
        yield process, int(first.rpartition(":")[2].partition("/")[0])
    finally:
        process.kill()
        process.communicate(timeout=LIMIT_S)


def ask(port: int, path: str, body: dict[str, Any] | None = None) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LIMIT_S)
    headers = {"Content-Type": "application/json"}
    connection.request("GET" if body is None else "POST", path, body and json.dumps(body), headers)
    response = connection.getresponse()
    text = response.read().decode()
    is_json = (response.getheader("content-type") or "").startswith("application/json")
    return response.status, json.loads(text) if is_json else text


def test_a_preset_is_served_without_torch(tmp_path: Path) -> None:
    with server(tmp_path, "--served-model-name", "tiny") as (process, port):
        status, answer = ask(port, "/v1/completions", {"prompt": "Hello", "max_tokens": 7})
        assert (status, answer["usage"]["completion_tokens"]) == (200, 7)
        chat = {"messages": [{"role": "user", "content": "hi"}], "max_completion_tokens": 90}
        chat["response_format"] = {"type": "json_object"}
        status, answer = ask(port, "/v1/chat/completions", {"model": "tiny", **chat})
        assert status == 200
        assert isinstance(json.loads(answer["choices"][0]["message"]["content"]), dict)
        for path in ("/health", "/view", "/metrics", "/docs", "/v1/models"):
            assert ask(port, path)[0] == 200
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=LIMIT_S)
        assert process.returncode == 0
        assert "Traceback" not in errors
        assert "torch was imported" not in errors


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert main(["qwen3_0_6b", "--backend", "simulator", "--port", port]) == 2
    assert_one_line(capsys, f"port={port}")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "MODEL is missing"),
        (["nowhere"], "no such folder"),
        (["qwen3_0_6b", "--frobnicate"], "--help lists them"),
        (["qwen3_0_6b", "--max-num-seq", "3"], "--max-num-seqs? workbench serve --help"),
        (["qwen3_0_6b"], "did you mean --backend simulator?"),
        ([*SIMULATED, "--tool-call-parser", "x"], "--tool-call-parser='x' is not known"),
        (["qwen3_0_6b", "--backend", "simulator", "cost_model=rofline"], "did you mean roofline"),
        (["qwen3_0_6b", "--backend", "simulator", "scheduler.max_num_seq=1"], "max_num_seqs"),
        (["qwen3_0_6b", "--backend", "simulator", "--max-num-seqs", "0"], "max_num_seqs=0"),
        (["qwen3_0_6b", "--backend", "simulator", "--port", "99999"], "--port"),
        (["qwen3_0_6b", "--backend", "simulator", "--enable-auto-tool-choice"], "tool-call-parser"),
        (["qwen3_0_6b", "--backend", "simulator", "--chat-template", "no.jinja"], "no.jinja"),
    ],
)
def test_errors_are_one_line_with_a_cure(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    assert_one_line(capsys, told)


def assert_one_line(capsys: pytest.CaptureFixture[str], told: str) -> None:
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert told in err


def test_help_tells_a_newcomer_what_to_type(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    for word in ("llama3_8b --backend simulator", "--speed", "/view", "--api-key", "[8000]"):
        assert word in text


def test_a_package_that_is_missing_is_named() -> None:
    error = missing_package(ModuleNotFoundError("no", name="uvicorn.config"))
    assert isinstance(error, WorkbenchError)
    assert "pip install -e '.[serve]'" in str(error)
    with pytest.raises(ModuleNotFoundError):
        missing_package(ModuleNotFoundError("no", name="engine.nothing"))
