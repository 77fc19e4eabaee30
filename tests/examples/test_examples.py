"""The examples do what they say, against a server as a newcomer starts it."""

import io
import queue
import re
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.without_torch import run_without_torch

REPOSITORY = Path(__file__).resolve().parents[2]
EXAMPLES = REPOSITORY / "examples"
COMMAND = (
    *(sys.executable, "-m", "experiments.cli", "serve", "llama3_8b", "--backend", "simulator"),
    *("cost_model=zero", "--port", "0", "--grpc-port", "0"),
)
PATIENCE_S = 60.0

Run = Callable[..., str]


@pytest.fixture(scope="module")
def banner() -> Iterator[str]:
    """What a server has said when it serves; it ends by itself when it is told to."""
    server = subprocess.Popen(
        COMMAND, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    assert server.stdout is not None
    lines: queue.Queue[str] = queue.Queue()
    reader = threading.Thread(target=lambda: [lines.put(line) for line in server.stdout or ()])
    reader.start()
    try:
        said = ""
        while "Ctrl-C ends it." not in said:
            said += lines.get(timeout=PATIENCE_S)
        yield said
        server.send_signal(signal.SIGTERM)
        assert server.wait(PATIENCE_S) == 0
    finally:
        server.kill()
        server.wait(PATIENCE_S)
        reader.join(PATIENCE_S)
        server.stdout.close()


@pytest.fixture
def url(banner: str) -> str:
    found = re.search(r"at (http://\S+/v1)", banner)
    assert found is not None
    return found[1]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run an example as a program; what it printed."""

    def run_example(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return run_example


def test_every_example_says_how_it_is_run_and_compiles() -> None:
    paths = sorted(EXAMPLES.glob("*.py"))
    assert len(paths) >= 7
    for path in paths:
        source = path.read_text()
        compile(source, str(path), "exec")
        assert f"python examples/{path.name}" in source


def test_a_chat_goes_on_until_an_empty_line(
    url: str, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\nAnd you?\n\n"))
    said = run("chat.py", "--base-url", url, "--max-tokens", "8")
    answers = said.split("> ")
    assert len(answers) == 4
    assert answers[1].strip()
    assert answers[2].strip()


def test_streams_run_together(url: str, run: Run) -> None:
    said = run("streaming_client.py", "--base-url", url, "--streams", "3", "--max-tokens", "12")
    assert sorted(re.findall(r"stream (\d): first token .* 12 tokens", said)) == ["0", "1", "2"]


def test_answers_fit_a_schema_and_a_choice(url: str, run: Run) -> None:
    said = run("structured.py", "--base-url", url)
    assert '"population": ' in said
    assert said.splitlines()[-1] in ("yes", "no")


def test_a_tool_is_called_and_answered(url: str, run: Run) -> None:
    said = run("tools.py", "--base-url", url)
    assert said.startswith("the model calls get_weather({'city': ")


def test_an_answer_comes_over_grpc(banner: str, run: Run) -> None:
    found = re.search(r"gRPC\s+port (\d+)", banner)
    assert found is not None
    said = run("grpc_client.py", "--address", f"127.0.0.1:{found[1]}")
    assert "health: SERVING" in said
    assert said.endswith("\n32 tokens\n")


def test_the_page_says_how_gradio_is_installed(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SystemExit) as ended:
        run("gradio_page.py")
    assert ended.value.code == 1
    assert "pip install gradio" in capsys.readouterr().err


def test_answers_without_a_server(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from engine.demo_checkpoint import write_demo_checkpoint

    said = run("offline.py", str(write_demo_checkpoint(tmp_path / "demo")))
    assert len(re.findall(" -> ", said)) == 3


def test_without_torch_one_line_says_what_to_install() -> None:
    done = run_without_torch(
        "import runpy; sys.argv = ['offline.py', 'no_folder']; "
        f"runpy.run_path({str(EXAMPLES / 'offline.py')!r}, run_name='__main__')"
    )
    assert done.returncode == 1
    assert done.stderr == "error: the engine needs torch: pip install -e '.[engine]'\n"
