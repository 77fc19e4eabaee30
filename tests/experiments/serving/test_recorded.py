"""A served core that is recorded: what is left of it when its process is killed."""

import asyncio
import logging
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from engine.async_llm import AsyncLLM
from engine.errors import EngineDeadError
from engine.served_core import CoreSpec, ServedCore
from experiments.parity import main as parity
from experiments.parity import replay_all
from experiments.run_folder import RECORDING
from experiments.serving.recorded import RecordingFile, recorded
from tests.engine.served import LONGEST_TEST_S, scripted_core
from tests.engine.streams import ask, collect, until
from workbench.recording import (
    RecordedSettings,
    RecordingWriter,
    ScheduleEvent,
    read_recording,
)

FACTORY = f"{__name__}:recorded_core"


def recorded_core(settings: Mapping[str, Any]) -> ServedCore:
    """A scripted core, recorded in the folder settings["record"]."""
    served = scripted_core(settings)
    scheduler = served.core.scheduler
    made_of = RecordedSettings(
        scheduler=scheduler.config,
        cache=served.cache_config,
        num_blocks=scheduler.kv_cache_manager.pool.num_blocks,
        max_concurrent_batches=2 if scheduler.config.async_scheduling else 1,
    )
    make_writer = partial(RecordingWriter, made_of, flush_s=settings["flush_s"])
    return recorded(served, make_writer, Path(settings["record"]))


def num_steps(file: Path) -> int:
    """Steps that another process has written so far."""
    events = read_recording(file).events
    return sum(isinstance(event, ScheduleEvent) for event in events)


async def serve_and_kill(folder: Path, is_async: bool) -> None:
    """One core that is killed at rest, and one that is killed in the middle of its work."""
    settings = {"record": str(folder), "step_s": 0.001, "async_scheduling": is_async}
    settings["flush_s"] = 0.02
    first, second = (folder / name / RECORDING for name in "01")
    async with asyncio.timeout(LONGEST_TEST_S):
        llm = await AsyncLLM.start(CoreSpec(FACTORY, settings))
        try:
            for name in ("a", "b"):
                await collect(llm.generate([1, 2, 3], ask(20), name))
            await until(lambda: num_steps(first) >= 40)
            await llm.restart()
            stream = llm.generate([1] * 40, ask(1900), "long")
            await anext(stream)
            await until(lambda: num_steps(second) >= 5)
            llm.kill_core()
            with pytest.raises(EngineDeadError):
                await collect(stream)
        finally:
            await llm.shutdown()


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_what_a_killed_core_has_written_is_replayed(
    is_async: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(serve_and_kill(tmp_path / "records", is_async))
    rested, busy = replay_all(tmp_path / "records")
    assert (rested.path.parent.name, busy.path.parent.name) == ("0", "1")
    for replayed in (rested, busy):
        assert not replayed.recording.is_whole
        assert replayed.result.difference is None
    assert rested.result.num_equal == rested.result.num_recorded >= 40
    assert rested.result.counters["requests"] == 2
    assert busy.result.num_equal == busy.result.num_recorded >= 5
    assert busy.result.counters["requests"] == 1
    assert parity([f"run={tmp_path / 'records'}", f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    assert capsys.readouterr().out.count("the recording has no end") == 2
    assert "without its end" in (tmp_path / "out" / "report.html").read_text()


def test_a_full_disk_ends_the_recording_and_not_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # the log settings of a run in this process may have silenced those who logged before
    monkeypatch.setattr(logging.getLogger("experiments.serving.recorded"), "disabled", False)
    file = RecordingFile(tmp_path / "recording")
    file.write(b"before")
    file._file.close()
    with Path("/dev/full").open("wb", buffering=0) as full, caplog.at_level(logging.ERROR):
        file._file = full
        for _ in range(3):
            file.write(b"more")
    file.close()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "No space left on device" in told[0]
    assert (tmp_path / "recording").read_bytes() == b"before"
