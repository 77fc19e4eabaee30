"""kill -9 of the engine core under load: how soon clients know, and what goes on.

    python benchmarks/serving/crash.py

`alone`: every open request must get a clear error, /health must say 503. `restart`: the same with
--max-core-restarts 1: how soon it serves again. `router`: two servers behind `workbench route`, the
core of one is killed: requests that have begun fail, all others are served. The engine is simulated
with steps of 50 ms.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from typing import Any

from load_client import run, stream, until
from server_process import MODEL, ServerProcess, report, simulated, wait_until

from experiments.bench.answer import read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.target import Target
from experiments.provenance import Stopwatch

STREAMS = 200
WORDS = simulated("cost_model.step_s=0.05", cost_model="constant")


def alone(*more: str) -> dict[str, Any]:
    """One server; with --max-core-restarts also until it serves again."""
    with ServerProcess(*WORDS, *more) as server:
        told = run(_killed(server))
        if more:
            again = run(_served_again(server, told.pop("killed_at")))
            return told | again
        told["seconds_until_health_says_503"] = wait_until(
            lambda: server.status("/health") == 503, 10
        )
        del told["killed_at"]
        told["front_process_is_alive"] = server.process.poll() is None
        return told


def _streams(url: str, name: str, count: int, tokens: int) -> list[Exchange]:
    return [stream(url, f"{name}-{i}", [3 + i] * 16, tokens, model=MODEL) for i in range(count)]


async def _killed(server: ServerProcess) -> dict[str, Any]:
    """Kills the core; what its clients saw, seconds since."""
    client = HttpClient(Target.of(server.url), 60.0)
    streams = _streams(server.url, "s", STREAMS, 1000)
    tasks = [asyncio.ensure_future(client.ask(each)) for each in streams]
    await until(lambda: all(each.pieces for each in streams), 60)
    core = server.core_pid()
    killed_at = time.perf_counter()
    os.kill(core, signal.SIGKILL)
    await asyncio.gather(*tasks)
    await client.close()
    waits = sorted(each.ended_at - killed_at for each in streams)
    errors = Counter(read_answer(each).error or "answered" for each in streams)
    return {
        "open_requests": STREAMS,
        "seconds_until_an_error": {
            "first": waits[0],
            "median": waits[STREAMS // 2],
            "last": waits[-1],
        },
        "errors": dict(errors),
        "killed_at": killed_at,
    }


async def _served_again(server: ServerProcess, killed_at: float) -> dict[str, Any]:
    """Asks until somebody answers."""
    client = HttpClient(Target.of(server.url), 60.0)
    told: Counter[str] = Counter()
    while time.perf_counter() - killed_at < 60:
        exchange = await client.ask(_streams(server.url, "again", 1, 4)[0])
        answer = read_answer(exchange)
        told[answer.error or "answered"] += 1
        if answer.failure is None:
            break
        await asyncio.sleep(0.02)
    await client.close()
    return {
        "seconds_until_served_again": time.perf_counter() - killed_at,
        "asked_meanwhile": dict(told),
        "health": server.status("/health"),
    }


def behind_a_router() -> dict[str, Any]:
    """Two servers behind the router; one loses its core under load."""
    with ServerProcess(*WORDS) as first, ServerProcess(*WORDS) as second:
        backends = ("--backend", first.url, "--backend", second.url)
        with ServerProcess(*backends, module="experiments.route") as router:
            return run(_failed_over(router, first))


async def _failed_over(router: ServerProcess, first: ServerProcess) -> dict[str, Any]:
    client = HttpClient(Target.of(router.url), 60.0)
    open_ones = _streams(router.url, "open", 60, 200)
    tasks = [asyncio.ensure_future(client.ask(each)) for each in open_ones]
    await until(lambda: all(each.pieces for each in open_ones), 60)
    killed_at = time.perf_counter()
    os.kill(first.core_pid(), signal.SIGKILL)
    later = []
    for each in _streams(router.url, "later", 100, 5):
        later.append(asyncio.ensure_future(client.ask(each)))
        await asyncio.sleep(0.02)
    answers = [read_answer(each) for each in await asyncio.gather(*later)]
    told_later = Counter(answer.error or "answered" for answer in answers)
    await asyncio.gather(*tasks)
    await client.close()
    failed = [each for each in open_ones if read_answer(each).failure is not None]
    errors = Counter(read_answer(each).error or "answered" for each in open_ones)
    return {
        "open_requests": len(open_ones),
        "open_requests_told": dict(errors),
        "seconds_until_the_last_error": max((e.ended_at for e in failed), default=killed_at)
        - killed_at,
        "requests_sent_in_the_2_s_after": len(later),
        "they_were_told": dict(told_later),
    }


def main() -> None:
    stopwatch = Stopwatch()
    report(
        {
            "alone": alone(),
            "restart": alone("--max-core-restarts", "1"),
            "router": behind_a_router(),
        },
        stopwatch,
    )


if __name__ == "__main__":
    main()
