"""The worker that tells its CPU's pace, on a vLLM that is only a name."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import experiments.inside
from experiments.pace_log import PaceLog

FOLDER = Path(experiments.inside.__file__).parent


class Worker:
    def __init__(self, rank: int) -> None:
        self.rank, self.log = rank, []

    def init_device(self) -> str:
        self.log.append("init_device")
        return "device"

    def execute_model(self, step: str, *, grammar: int = 0) -> tuple[str, int]:
        self.log.append(step)
        return step, grammar


@pytest.fixture
def paced(monkeypatch):
    """The module, loaded as a vLLM server would."""
    vllm = ModuleType("vllm.v1.worker.cpu_worker")
    vllm.CPUWorker = Worker
    for name in ("vllm", "vllm.v1", "vllm.v1.worker"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, "vllm.v1.worker.cpu_worker", vllm)
    monkeypatch.delitem(sys.modules, "fixed_work", raising=False)
    monkeypatch.syspath_prepend(str(FOLDER))
    spec = importlib.util.spec_from_file_location("paced", FOLDER / "vllm_paced_worker.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_steps_are_vllms_and_the_pace_is_told_now_and_then(paced, monkeypatch, tmp_path):
    monkeypatch.setenv("VLLM_STEP_RECORD", str(tmp_path / "steps"))
    now = [100.0]
    monkeypatch.setattr(paced.time, "monotonic", lambda: now[0])
    worker = paced.PacedCpuWorker(rank=3)
    assert worker.init_device() == "device"
    for step in range(8):
        now[0] = 100 + step / 16  # every other step comes too soon
        assert worker.execute_model(str(step), grammar=step) == (str(step), step)
    assert worker.log == ["init_device", *map(str, range(8))]
    log = PaceLog([tmp_path / "steps.pace.3"])
    assert len(log.so_far()) == 4
    assert len(log.during(100.2, 100.3)) == 1
    assert all(log.so_far() > 1e-5)
