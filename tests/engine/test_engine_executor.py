"""The executors: in the caller's thread, or in one worker thread, in order."""

import threading
from typing import Any

import numpy as np
import pytest
import torch

from engine.clock import WallClock
from engine.executor import InlineExecutor, ThreadedExecutor
from engine.step_result import Finished
from engine.transfer import Transfer, torch_dtype
from workbench.outputs import ModelRunnerOutput


class Recorder:
    """A runner that writes down what is asked of it, and in which thread."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.threads: set[int] = set()

    def execute_model(self, output: Any) -> None:
        self.threads.add(threading.get_ident())
        self.calls.append(output)
        if output == "bad":
            raise ValueError("bad step")

    def sample_tokens(self, grammar_output: Any) -> Finished:
        self.calls.append(("sample", self.calls[-1]))
        return Finished(ModelRunnerOutput(sampled_token_ids=[[len(self.calls)]]))


def threaded(runner: Any) -> ThreadedExecutor:
    return ThreadedExecutor(runner, torch.device("cpu"))


@pytest.mark.parametrize("kind", [InlineExecutor, threaded])
def test_steps_run_in_order(kind: Any) -> None:
    runner = Recorder()
    executor = kind(runner)
    pendings = []
    for step in ("one", "two", "three"):
        executor.execute_model(step)
        pendings.append(executor.sample_tokens(None))
    rows = [pending.result().sampled_token_ids for pending in pendings]
    executor.shutdown()
    assert rows == [[[2]], [[4]], [[6]]]
    assert runner.calls[:4] == ["one", ("sample", "one"), "two", ("sample", "two")]
    assert (threading.get_ident() in runner.threads) == (kind is InlineExecutor)
    assert len(runner.threads) == 1


def test_an_error_in_the_thread_belongs_to_its_step() -> None:
    executor = threaded(Recorder())
    executor.execute_model("bad")  # type: ignore[arg-type]
    pending = executor.sample_tokens(None)
    with pytest.raises(ValueError, match="bad step"):
        pending.result()
    executor.shutdown()


def test_the_clock_begins_at_zero_and_goes_on() -> None:
    clock = WallClock()
    first = clock()
    assert 0 <= first <= clock()


def test_on_a_cpu_tensors_share_the_arrays() -> None:
    array = np.arange(3)
    (tensor,) = Transfer(torch.device("cpu")).put(array)
    array[0] = 9
    assert tensor.tolist() == [9, 1, 2]


@pytest.mark.parametrize("name", ["bool", "uint8", "int32", "int64", "longlong", "float32"])
def test_a_copy_keeps_the_type_of_the_array(name: str) -> None:
    array = np.ones(3, dtype=name)
    assert torch_dtype(array.dtype) == torch.from_numpy(array).dtype
