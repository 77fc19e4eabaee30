"""SIGTERM under load: what becomes of open requests, of new ones, and of the process.

    python benchmarks/serving/shutdown.py

`drain`: answers that fit the limit end whole, new requests are refused with 503, the exit status is
0. `limit`: answers that take longer than --drain-timeout are ended at the limit. `second`: a second
signal ends them at once. The engine is simulated with steps of 20 ms.
"""

import asyncio
import signal
import subprocess
import time
from collections import Counter
from typing import Any

from load_client import run, stream, until
from server_process import MODEL, ServerProcess, report, simulated

from experiments.bench.answer import read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.target import Target
from experiments.provenance import Stopwatch

STREAMS = 100
STEP_S = 0.02
# case -> tokens an answer, limit of the drain [s], signals
CASES = {"drain": (100, 30.0, 1), "limit": (500, 2.0, 1), "second": (500, 30.0, 2)}


def case(tokens: int, drain_s: float, signals: int) -> dict[str, Any]:
    """One server, loaded and told to end."""
    words = (f"cost_model.step_s={STEP_S}", "--drain-timeout", str(drain_s))
    with ServerProcess(*simulated(*words, cost_model="constant")) as server:
        told = run(_ended(server, tokens, signals))
        seen = time.perf_counter()
        try:
            status: int | str = server.process.wait(60)
        except subprocess.TimeoutExpired:
            status = "still there after 60 s"
        after = time.perf_counter() - seen
        return {
            "streams": STREAMS,
            "tokens_of_an_answer": tokens,
            "drain_timeout_s": drain_s,
            "signals": signals,
            **told,
            "exit_status": status,
            "seconds_from_last_answer_to_exit": after,
            "errors_in_the_log": server.said().count("Traceback"),
        }


async def _ended(server: ServerProcess, tokens: int, signals: int) -> dict[str, Any]:
    """Signals to a server under load; what the clients saw."""
    client = HttpClient(Target.of(server.url), 120.0)
    streams = [
        stream(server.url, f"s{i}", [3 + i] * 16, tokens, model=MODEL) for i in range(STREAMS)
    ]
    tasks = [asyncio.ensure_future(client.ask(each)) for each in streams]
    await until(lambda: all(each.pieces for each in streams), 60)
    start = time.perf_counter()
    server.process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.25)
    refused = await _new_requests(client, server)
    if signals == 2:
        start = time.perf_counter()
        server.process.send_signal(signal.SIGTERM)
    await asyncio.gather(*tasks)
    answers = [read_answer(each) for each in streams]
    await client.close()
    return {
        "new_requests": refused,
        "answered_whole": sum(a.failure is None and len(a.token_times) == tokens for a in answers),
        "how_they_ended": dict(Counter(a.error or str(a.finish_reason) for a in answers)),
        "seconds_from_signal_to_last_answer": max(e.ended_at for e in streams) - start,
    }


async def _new_requests(client: HttpClient, server: ServerProcess) -> dict[str, int]:
    """What new requests are told while the server drains."""
    found = [await client.ask(_one(server, i)) for i in range(10)]
    return dict(Counter(read_answer(each).error or "answered" for each in found))


def _one(server: ServerProcess, number: int) -> Exchange:
    return stream(server.url, f"new-{number}", [5] * 8, 4, model=MODEL)


def main() -> None:
    stopwatch = Stopwatch()
    report({name: case(*values) for name, values in CASES.items()}, stopwatch)


if __name__ == "__main__":
    main()
