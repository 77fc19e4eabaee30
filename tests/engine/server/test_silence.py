"""When an engine core counts as silent, and what becomes of one that is."""

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

from engine.server.settings import ServerSettings
from engine.server.silence import silence_of
from engine.server.supervisor import kill_silent

SETTINGS = ServerSettings(restart_silence=0.002, max_core_restarts=1)
LONGEST_S = 30.0


def engine(silence_s: float = 0.0, stall_s: float = 0.0, speed: float = 1.0) -> Any:
    signs = SimpleNamespace(silence_s=silence_s, stall_s=stall_s)
    return SimpleNamespace(signs=signs, info=SimpleNamespace(pid=7, speed=speed))


@pytest.mark.parametrize(
    ("core", "max_step_time", "seconds", "told"),
    [
        (engine(), 300.0, 0.0, "no sign of life"),
        (engine(0.1, 299.0), 300.0, 0.1, "no sign of life"),
        (engine(0.1, 301.0), 300.0, 301.0, "has not got on for 301.0 s, and a step may take 300 s"),
        # a process that stands still is told as that, whatever its loop was at
        (engine(20.0, 15.0), 300.0, 20.0, "no sign of life for 20.0 s"),
        (engine(0.1, 9e9), 0.0, 0.1, "no sign of life"),
        # a simulation at a tenth of time takes ten times as long; a quick one has no less time
        (engine(0.1, 2999.0, 0.1), 300.0, 0.1, "no sign of life"),
        (engine(0.1, 3001.0, 0.1), 300.0, 3001.0, "a step may take 3000 s"),
        (engine(0.1, 299.0, 50.0), 300.0, 0.1, "no sign of life"),
    ],
)
def test_a_step_may_take_its_time_and_no_more(
    core: Any, max_step_time: float, seconds: float, told: str
) -> None:
    silence = silence_of(core, max_step_time)
    assert silence.seconds == seconds
    assert told in silence.what
    assert silence.is_longer(0.05) is (seconds > 0.05)
    assert not silence.is_longer(0.0)


class SilentEngine:
    """An engine whose core is silent for so long at each look; the last look is for ever."""

    info = SimpleNamespace(pid=7, speed=1.0)

    def __init__(self, *silences: float) -> None:
        self._silences: Iterator[float] = iter(silences)
        self.num_kills = 0

    @property
    def signs(self) -> Any:
        silence = next(self._silences, None)
        if silence is None:
            raise asyncio.CancelledError
        return SimpleNamespace(silence_s=silence, stall_s=0.0)

    def kill_core(self) -> None:
        self.num_kills += 1

    async def wait_dead(self) -> str:
        return "killed"


@pytest.mark.parametrize(
    ("looks", "num_kills"),
    [
        ([0.001] * 5, 0),
        ([0.003, 0.003], 1),
        # the machine was paused: at the next look the core has given a sign
        ([0.0, 900.0, 0.0, 900.0, 0.001, 0.0], 0),
        # the one that was started after it is looked at anew
        ([0.003, 0.003, 0.003, 0.0], 1),
    ],
)
def test_only_a_core_that_stays_silent_is_killed(looks: list[float], num_kills: int) -> None:
    core: Any = SilentEngine(*looks)

    async def body() -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.wait_for(kill_silent(core, SETTINGS), LONGEST_S)

    asyncio.run(body())
    assert core.num_kills == num_kills
