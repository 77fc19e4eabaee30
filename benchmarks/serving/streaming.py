"""What the server adds to an engine that costs nothing, and how much it can stream.

    python benchmarks/serving/streaming.py [PART …]      (latency, paced, throughput, many)

The engine is simulated with steps of no time, so everything measured is server, loopback and
client. `latency`: one stream at a time (of one token, and of 64, which the
engine has ready at once), and 256. `paced`: 256 streams of an engine with steps of
50 ms: what the server adds to each where it is not the limit. `throughput`: tokens a second with
256 streams. `many`: 2,000 open streams, three times over: none lost, each complete and in order,
and the server's memory before, meanwhile and after.
"""

import asyncio
import sys
import time
from typing import Any

import numpy as np
from load_client import bench, run, spread_ms, stream
from server_process import ServerProcess, report, simulated

from experiments.bench.answer import read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.results import BenchResult
from experiments.bench.target import Target
from experiments.provenance import Stopwatch

STREAMS = 256
MANY = 2000
STEP_S = 0.05
ROUNDS = 3


def seen(result: BenchResult) -> dict[str, Any]:
    """What the client saw, from sending."""
    columns = result.from_sending
    return {
        "requests": len(result.records),
        "failed": result.num_failed,
        "ttft_ms": spread_ms(columns.ttft_s),
        "itl_ms": spread_ms(columns.itl_s),
        "e2e_ms": spread_ms(columns.e2e_s),
        "output_tokens_per_s": float(columns.output_tokens.sum()) / result.duration_s,
    }


def latency() -> dict[str, Any]:
    """One stream at a time, and 256 at a time."""
    found = {}
    with ServerProcess(*simulated("--max-num-seqs", str(STREAMS))) as server:
        for streams, requests, tokens in ((1, 200, 1), (1, 200, 64), (STREAMS, 2 * STREAMS, 128)):
            words = ("--random-input-len", 32, "--random-output-len", tokens)
            load = ("--num-prompts", requests, "--max-concurrency", streams, "--num-warmups", 20)
            found[f"{streams}_streams_of_{tokens}_tokens"] = seen(bench(server.url, *words, *load))
    return found


def paced() -> dict[str, Any]:
    """256 streams of an engine whose steps take 50 ms each."""
    step = f"cost_model.step_s={STEP_S}"
    words = simulated(step, "--max-num-seqs", str(STREAMS), cost_model="constant")
    with ServerProcess(*words) as server:
        lengths = ("--random-input-len", 32, "--random-output-len", 100)
        load = ("--num-prompts", STREAMS, "--num-warmups", 20)
        result = bench(server.url, *lengths, *load)
    gaps = result.columns.itl_s
    added = np.abs(gaps - STEP_S)
    tpot = result.columns.tpot_s - STEP_S
    told = {"itl_minus_step_ms": spread_ms(added), "tpot_minus_step_ms": spread_ms(tpot)}
    return {"step_s": STEP_S, **seen(result), **told}


def throughput() -> dict[str, Any]:
    """Tokens a second with 256 streams of 1,000 tokens."""
    with ServerProcess(*simulated("--max-num-seqs", str(STREAMS))) as server:
        words = ("--random-input-len", 32, "--random-output-len", 1000)
        bench(server.url, *words, "--num-prompts", STREAMS // 8)
        return {"streams": STREAMS, **seen(bench(server.url, *words, "--num-prompts", STREAMS))}


def many() -> dict[str, Any]:
    """2,000 open streams at a time, in rounds on one server."""
    words = ("--max-num-seqs", str(MANY), "--max-num-batched-tokens", "8192")
    with ServerProcess(*simulated(*words)) as server:
        before = server.memory_mb()
        rounds = [run(_many(server, number)) for number in range(ROUNDS)]
        return {"streams": MANY, "memory_before_mb": before, "rounds": rounds}


async def _many(server: ServerProcess, number: int) -> dict[str, Any]:
    """All streams opened at once; they end together, so that all are open at a time."""
    client = HttpClient(Target.of(server.url), 300.0)
    options = {"include_usage": True, "continuous_usage_stats": True}
    tokens = 200
    exchanges = [
        stream(
            server.url,
            f"many-{number}-{i}",
            [3 + (i + j) % 250 for j in range(16)],
            tokens,
            model="outputs/demo_checkpoint",
            stream_options=options,
            return_token_ids=True,
        )
        for i in range(MANY)
    ]
    start = time.perf_counter()
    waits = [asyncio.ensure_future(client.ask(each)) for each in exchanges]
    most_open, meanwhile = 0, server.memory_mb()
    while not all(wait.done() for wait in waits):
        await asyncio.sleep(0.25)
        most_open = max(most_open, sum(bool(e.pieces) and not e.is_over for e in exchanges))
        now = server.memory_mb()
        meanwhile = {name: max(meanwhile[name], now[name]) for name in now}
    seconds = time.perf_counter() - start
    await client.close()
    await asyncio.sleep(1.0)
    return {
        "seconds": seconds,
        "tokens_per_s": MANY * tokens / seconds,
        "most_streams_open": most_open,
        **_checked(exchanges, tokens),
        "memory_meanwhile_mb": meanwhile,
        "memory_after_mb": server.memory_mb(),
        "is_idle": server.is_idle(),
    }


def _checked(exchanges: list[Exchange], tokens: int) -> dict[str, int]:
    """How many streams came whole, with every running count one piece further than the last."""
    answers = [read_answer(each) for each in exchanges]
    whole = [a for a in answers if a.failure is None and len(a.token_ids or ()) == tokens]
    return {
        "lost": sum(answer.failure is not None for answer in answers),
        "complete": len(whole),
        "in_order": sum(_is_in_order(each, tokens) for each in exchanges),
    }


def _is_in_order(exchange: Exchange, tokens: int) -> bool:
    """Whether the counts that the server sends beside its tokens only grow, up to the end."""
    import json

    from experiments.bench.answer import DONE, events

    reached = 0
    pieces = zip(exchange.times, exchange.pieces, strict=True)
    for data in (data for _, data in events(pieces) if data != DONE):
        event = json.loads(data)
        count = event["usage"]["completion_tokens"]
        new = sum(len(choice["token_ids"] or ()) for choice in event["choices"])
        if count != reached + new:
            return False
        reached = count
    return reached == tokens


PARTS = {"latency": latency, "paced": paced, "throughput": throughput, "many": many}


def main() -> None:
    stopwatch = Stopwatch()
    chosen = sys.argv[1:] or list(PARTS)
    report({name: PARTS[name]() for name in chosen}, stopwatch)


if __name__ == "__main__":
    main()
