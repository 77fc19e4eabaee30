"""A core in a process of its own: signals, deaths of both sides, and what is left behind."""

import asyncio
import os
import select
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.async_llm import AsyncLLM
from engine.core_host import ProcessHost
from engine.core_process import BEAT_S
from engine.errors import EngineDeadError, ModelLoadError
from engine.served_core import CoreSpec
from tests.engine.served import FACTORY, run
from tests.engine.streams import ask, check_clean, collect, joined, until
from workbench.errors import ConfigError

REPOSITORY = Path(__file__).parents[2]
LONGEST_S = 30.0


@pytest.fixture(autouse=True)
def own_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Sockets are made in a folder that can be looked at, and nothing is left there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield tmp_path
    assert not list(tmp_path.glob("workbench-core-*"))


def test_a_core_in_a_process_answers_and_ends() -> None:
    pids: list[int] = []

    async def body(llm: AsyncLLM) -> None:
        pids.append(llm.info.pid)
        assert llm.info.pid != os.getpid()
        assert await llm.call("pid") == llm.info.pid
        outputs = await collect(llm.generate("abc", ask(7, logprobs=1, prompt_logprobs=0), "r"))
        assert joined(outputs)[0] == "abcabca"
        assert len(outputs[-1].prompt_logprobs or ()) == 3
        many = (collect(llm.generate(str(i), ask(20), str(i))) for i in range(300))
        for number, each in enumerate(await asyncio.gather(*many)):
            assert joined(each)[0] == (str(number) * 20)[:20]
        # Ctrl-C is not its affair
        os.kill(llm.info.pid, signal.SIGINT)
        assert joined(await collect(llm.generate("z", ask(3), "r")))[0] == "zzz"
        await check_clean(llm)

    run(body, in_thread=False)
    assert not Path(f"/proc/{pids[0]}").exists()


@pytest.mark.parametrize(
    ("number", "told"),
    [(signal.SIGKILL, "killed by signal 9, SIGKILL"), (signal.SIGTERM, "exit code 143")],
)
def test_a_core_that_is_killed_under_load_fails_every_stream(number: int, told: str) -> None:
    async def body(llm: AsyncLLM) -> None:
        tasks = [
            asyncio.create_task(collect(llm.generate("x", ask(1900), str(i)))) for i in range(200)
        ]
        await until(lambda: llm.stats is not None and llm.stats.num_running == 64)
        pending_call = asyncio.create_task(llm.call("no_answer_comes"))
        os.kill(llm.info.pid, number)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {(type(result), str(result)) for result in results} == {
            (EngineDeadError, f"the engine core died ({told}): start it again")
        }
        assert told in await llm.wait_dead()
        await asyncio.wait([pending_call])
        assert pending_call.exception() is not None
        old = llm.info.pid
        await llm.restart()
        assert llm.info.pid != old
        assert joined(await collect(llm.generate("x", ask(5), "0")))[0] == "xxxxx"
        await check_clean(llm)

    run(body, in_thread=False, step_s=0.001)


def test_a_step_that_breaks_off_says_why_across_processes(
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def body(llm: AsyncLLM) -> None:
        with pytest.raises(EngineDeadError, match="RuntimeError: the device fell off the bus"):
            await collect(llm.generate("x", ask(9), "r"))

    run(body, in_thread=False, script="fail_third")
    assert "the core cannot go on" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("spec", "kind", "message"),
    [
        (CoreSpec(FACTORY, {"fails": ModelLoadError("no weights")}), ModelLoadError, "^no weights"),
        (CoreSpec("nowhere:factory"), ConfigError, "factory='nowhere:factory' cannot be found"),
        (CoreSpec(FACTORY, {"exits": 7}), EngineDeadError, r"could not start: exit code 7"),
    ],
)
def test_why_a_core_does_not_start(spec: CoreSpec, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        asyncio.run(AsyncLLM.start(spec))


def test_a_start_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(EngineDeadError, match=r"not ready after 0\.2 s: allow more"):
        asyncio.run(AsyncLLM.start(CoreSpec(FACTORY, {"hangs": True}), start_timeout=0.2))


def test_a_shutdown_breaks_off_a_restart() -> None:
    async def body(llm: AsyncLLM) -> None:
        restart = asyncio.create_task(llm.restart())
        for _ in range(3):
            await asyncio.sleep(0)
        await llm.shutdown()
        with pytest.raises(EngineDeadError, match="shut down"):
            await restart

    run(body, in_thread=False)


PARENT = """
import asyncio, sys
from tests.engine.served import served_llm
from workbench.sampling_params import SamplingParams

async def main(is_busy):
    async with served_llm(in_thread=False, step_s=0.001) as llm:
        if is_busy:
            stream = llm.generate([1, 2], SamplingParams(max_tokens=2000, ignore_eos=True), "r")
            await anext(stream)
        print(llm.info.pid, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(sys.argv[1] == "busy"))
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_core_does_not_outlive_its_parent(state: str, own_temporary_folder: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, state],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY), "TMPDIR": str(own_temporary_folder)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert parent.stdout is not None
        core = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
        gone, _, _ = select.select([core], [], [], LONGEST_S)
        assert gone, "the core still lives"
        os.close(core)
    finally:
        parent.kill()
        parent.communicate()


LIGHT = """
import sys
import engine.async_llm, engine.core_process, engine.request_listener
heavy = {"torch", "transformers", "triton", "simpy", "hydra"} & set(sys.modules)
assert not heavy, heavy
from engine import AsyncLLM
assert AsyncLLM is engine.async_llm.AsyncLLM
"""


def test_the_front_and_the_core_process_import_neither_torch_nor_transformers() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIGHT],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_stopped_process_is_silent_and_one_in_a_long_step_is_not() -> None:
    async def body(llm: AsyncLLM) -> None:
        assert llm._core._client is not None
        host = llm._core._client._host
        assert isinstance(host, ProcessHost)
        beats = host.signs._beat
        pid = llm.info.pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: llm.signs.silence_s > 4 * BEAT_S)
        os.kill(pid, signal.SIGCONT)
        await until(lambda: llm.signs.silence_s < 2 * BEAT_S)
        assert llm.signs.stall_s == 0.0
        # a step that takes an hour
        task = asyncio.create_task(collect(llm.generate("x", ask(3), "r")))
        await until(lambda: llm.num_unfinished_requests == 1)
        for _ in range(3):
            last = beats.value
            await until(lambda last=last: beats.value > last)
        # the loop tells that it is still in it
        assert llm.signs.stall_s > BEAT_S
        llm.kill_core()
        await llm.wait_dead()
        assert llm.signs.silence_s == llm.signs.stall_s == 0.0
        with pytest.raises(EngineDeadError, match="SIGKILL"):
            await task

    run(body, in_thread=False, step_s=3600.0)
