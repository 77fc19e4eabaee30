"""Clients that go away: whether the server lets go of what they held, and how soon.

    python benchmarks/serving/disconnects.py [REQUESTS]

`random`: 1,000 clients hang up at random, some while they wait in the queue, some while their
prompt is computed, some in the middle of their answer; afterwards no request and no KV block may
be held. `one`: while other streams go on, one client hangs up, many times over; how many steps
later its place and its blocks are free, as /metrics tells. The engine is simulated.
"""

import asyncio
import random
import re
import sys
import time
import urllib.request
from collections import Counter
from typing import Any

from load_client import run, stream, until
from server_process import MODEL, ServerProcess, report, simulated, wait_until

from experiments.bench.http import Exchange, HttpClient
from experiments.bench.target import Target
from experiments.provenance import Stopwatch

REQUESTS = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
STEP_S = 0.01
SLOW_STEP_S = 0.1
TRIALS = 20
BLOCKS = 1024
LIMITS = ("--max-num-seqs", "16", "--max-num-batched-tokens", "256")
LIMITS = (*LIMITS, "--num-gpu-blocks-override", str(BLOCKS))


def constant(step_s: float) -> tuple[str, ...]:
    """The words of a server whose steps all take so long."""
    return simulated(f"cost_model.step_s={step_s}", *LIMITS, cost_model="constant")


def prompt(number: int, length: int) -> list[int]:
    """Token ids that no other prompt begins with."""
    return [3 + (number // 250**i) % 250 for i in range(3)] + [7] * (length - 3)


def at_random() -> dict[str, Any]:
    """All of them, and what is held afterwards."""
    with ServerProcess(*constant(STEP_S)) as server:
        before = {"load": server.load(), "memory_mb": server.memory_mb()}
        stages, seconds = run(_hang_up(server))
        freed = wait_until(server.is_idle, 60)
        after = {"load": server.load(), "memory_mb": server.memory_mb()}
        works = run(_one_more(server))
        return {
            "clients": REQUESTS,
            "hung_up": dict(stages),
            "seconds": seconds,
            "seconds_until_idle_after_the_last": freed,
            "before": before,
            "after": after,
            "serves_afterwards": works,
            "errors_in_the_log": server.said().count("Traceback"),
        }


async def _hang_up(server: ServerProcess) -> tuple[Counter[str], float]:
    """Sends waves of requests and hangs up on each at a random moment."""
    draw = random.Random(0)
    stages: Counter[str] = Counter()
    client = HttpClient(Target.of(server.url), 60.0)
    start = time.perf_counter()
    places = asyncio.Semaphore(32)  # twice what the batch takes: the rest waits in the queue

    async def one(number: int) -> None:
        async with places:
            exchange = stream(server.url, f"d{number}", prompt(number, 200), 200, model=MODEL)
            waiting = asyncio.ensure_future(client.ask(exchange))
            # a prompt takes a step at least and an answer 200; the queue is a batch deep
            await asyncio.sleep(draw.choice((0.002, 0.1, 0.5, 2.0)) * draw.random() * 2)
            if exchange.is_over:
                stages["answered before"] += 1
            elif exchange.pieces:
                stages["in the middle of the answer"] += 1
            else:
                stages["before the first token"] += 1
            exchange.cancel()
            await waiting

    await asyncio.gather(*(one(number) for number in range(REQUESTS)))
    await client.close()
    return stages, time.perf_counter() - start


async def _one_more(server: ServerProcess) -> bool:
    client = HttpClient(Target.of(server.url), 60.0)
    exchange = await client.ask(stream(server.url, "last", prompt(1, 64), 8, model=MODEL))
    await client.close()
    return exchange.failure is None and exchange.status == 200


def one_by_one() -> dict[str, Any]:
    """Steps between a hang-up and the step whose statistics no longer know the request."""
    with ServerProcess(*constant(SLOW_STEP_S)) as server:
        found = {stage: run(_trials(server, stage)) for stage in ("answer", "prefill", "queue")}
        wait_until(server.is_idle, 30)
        return {"step_s": SLOW_STEP_S, "trials": TRIALS, "steps_until_freed": found}


async def _trials(server: ServerProcess, stage: str) -> dict[str, Any]:
    """A batch of others that goes on; a victim hangs up mid-answer, mid-prefill or mid-queue."""
    client = HttpClient(Target.of(server.url), 120.0)
    others = 16 if stage == "queue" else 4
    steps, most_seconds = [], 0.0
    for trial in range(TRIALS):
        names = [f"{stage}-{trial}-other-{i}" for i in range(others)]
        background = [
            stream(server.url, n, prompt(i, 16), 500, model=MODEL) for i, n in enumerate(names)
        ]
        tasks = [asyncio.ensure_future(client.ask(each)) for each in background]
        await until(lambda b=background: all(each.pieces for each in b), 30)
        victim = stream(server.url, f"{stage}-{trial}", prompt(900 + trial, 1000), 500, model=MODEL)
        tasks.append(asyncio.ensure_future(client.ask(victim)))
        await _reached(server, victim, stage, others)
        count, _ = await _steps(server)
        start = time.perf_counter()
        victim.cancel()
        while True:
            now, held = await _steps(server)
            if held == others:
                break
            await asyncio.sleep(0.002)
        most_seconds = max(most_seconds, time.perf_counter() - start)
        steps.append(now - count)
        for each in background:
            each.cancel()
        await asyncio.gather(*tasks)
        while (await _steps(server))[1]:
            await asyncio.sleep(0.01)
    await client.close()
    return {"steps": dict(sorted(Counter(steps).items())), "most_seconds": most_seconds}


async def _reached(server: ServerProcess, victim: Exchange, stage: str, others: int) -> None:
    """Waits until the victim is where it is to hang up."""
    if stage == "answer":
        await until(lambda: len(victim.pieces) > 2, 30)
        return
    while (await _steps(server))[1] <= others:
        await asyncio.sleep(0.005)


async def _steps(server: ServerProcess) -> tuple[int, int]:
    """(steps so far, requests that run or wait), from /metrics."""
    text = await asyncio.to_thread(_metrics, server.url)
    names = ("vllm:iteration_tokens_total_count", "vllm:num_requests_running")
    steps, running = (_sum(text, name) for name in names)
    return int(steps), int(running + _sum(text, "vllm:num_requests_waiting"))


def _metrics(url: str) -> str:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:
        return str(answer.read().decode())


def _sum(text: str, name: str) -> float:
    pattern = rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$"
    return sum(float(value) for value in re.findall(pattern, text, re.M))


def main() -> None:
    stopwatch = Stopwatch()
    report({"random": at_random(), "one": one_by_one()}, stopwatch)


if __name__ == "__main__":
    main()
