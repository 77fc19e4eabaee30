"""LLM and calls that break off: Ctrl-C, an error in a step, a shutdown."""

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from engine import LLM
from engine.errors import EngineDeadError
from tests.engine.scripted_core import scripted_engine
from tests.engine.small_llm import GREEDY, load, quiet, tokens


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Python's own handler, also where tests run in the background, which ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_ctrl_c_ends_the_call_and_the_next_one_works(is_async: bool) -> None:
    presses = iter([3])

    def script(request: Any, count: int) -> int:
        if count == 3 and next(presses, None):
            os.kill(os.getpid(), signal.SIGINT)
        return 65

    handler = signal.getsignal(signal.SIGINT)
    llm = LLM.from_engine(scripted_engine(script, is_async=is_async))
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1], [2]], **quiet)
    assert signal.getsignal(signal.SIGINT) is handler
    assert llm.llm_engine.num_unfinished_requests == 0
    assert llm.llm_engine.core.scheduler.num_unfinished_requests == 0
    assert [len(each) for each in tokens(llm.generate([[1], [2]], **quiet))] == [16, 16]
    llm.llm_engine.core.scheduler.kv_cache_manager.check_integrity([])


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_ctrl_c_leaves_a_real_model_in_step_with_its_scheduler(
    folder: str, llm: LLM, is_async: bool
) -> None:
    interrupted = load(folder, async_scheduling=is_async)
    executor: Any = interrupted.llm_engine.core.executor
    runner = executor.runner
    execute, presses = runner.execute_model, iter([False, False, True])

    def execute_and_press(output: Any) -> None:
        execute(output)
        if next(presses, False):
            os.kill(os.getpid(), signal.SIGINT)

    runner.execute_model = execute_and_press
    prompts = [list(range(i, i + 20)) for i in range(5)]
    with pytest.raises(KeyboardInterrupt):
        interrupted.generate(prompts, GREEDY.clone(max_tokens=40), **quiet)
    assert tokens(interrupted.generate(prompts, GREEDY, **quiet)) == tokens(
        llm.generate(prompts, GREEDY, **quiet)
    )
    runner.input_batch.check_integrity()


@pytest.mark.usefixtures("ctrl_c")
def test_a_second_ctrl_c_does_not_wait() -> None:
    def script(request: Any, count: int) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("not reached")

    llm = LLM.from_engine(scripted_engine(script))
    with pytest.raises(KeyboardInterrupt):
        llm.generate([[1]], **quiet)
    with pytest.raises(EngineDeadError, match=r"a step broke off, KeyboardInterrupt\)"):
        llm.generate([[1]], **quiet)


def test_an_engine_whose_step_broke_off_says_so() -> None:
    def broken(request: Any, count: int) -> int:
        if count == 3:
            raise RuntimeError("no device\nand more")
        return 65

    llm = LLM.from_engine(scripted_engine(broken))
    with pytest.raises(RuntimeError, match="no device") as first:
        llm.generate([[1], [2]], **quiet)
    assert llm.llm_engine.num_unfinished_requests == 0
    assert llm.llm_engine.core.scheduler.num_unfinished_requests == 0
    message = r"cannot go on \(a step broke off, RuntimeError: no device\): make a new one"
    with pytest.raises(EngineDeadError, match=message) as caught:
        llm.generate([[1]], **quiet)
    assert caught.value.__cause__ is first.value
    with pytest.raises(EngineDeadError, match=message):
        llm.llm_engine.step()


def test_an_engine_can_be_shut_down(folder: str) -> None:
    llm = load(folder, async_scheduling=True)
    assert len(llm.generate([[1]], GREEDY, **quiet)) == 1
    llm.llm_engine.shutdown()
    with pytest.raises(EngineDeadError, match=r"cannot go on \(it was shut down\)"):
        llm.generate([[1]], GREEDY, **quiet)
