"""`workbench bench latency`: one batch of equal requests again and again, without a server.

Knows iterations and percentiles. How a batch is served is `offline`'s.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.bench.offline import (
    ENGINE,
    World,
    compose,
    make_parser,
    open_world,
    run_offline,
    write_json,
)
from experiments.flag_parser import FlagParser
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

EXAMPLES = """\
examples:
  workbench bench latency outputs/demo_checkpoint --batch-size 4 --input-len 64 --output-len 32
  workbench bench latency qwen3_8b --backend simulator hardware=h100 --batch-size 32

Every iteration has other prompts, and the prefix cache is off unless --enable-prefix-caching turns
it on. A simulated batch takes the same time every time, so it is served once.
"""
PERCENTILES = (10, 25, 50, 75, 90, 99)


def parser() -> FlagParser:
    """Of the whole command line."""
    made = make_parser(
        "latency", "Time one batch of requests from begin to end, over many iterations.", EXAMPLES
    )
    for flag, default, text in (
        ("--batch-size", 8, "requests in the batch"),
        ("--input-len", 32, "tokens of a prompt"),
        ("--output-len", 128, "tokens of an answer"),
        ("--num-iters-warmup", 3, "iterations before those that count"),
        ("--num-iters", 10, "iterations"),
    ):
        made.add_argument(
            flag, type=int, default=default, metavar="N", help=f"{text} (default: %(default)s)"
        )
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    return run_offline(parser(), _run, arguments)


def _run(options: argparse.Namespace) -> int:
    for name in ("batch_size", "input_len", "output_len", "num_iters"):
        if getattr(options, name) < 1:
            flag = "--" + name.replace("_", "-")
            raise ConfigError(f"{flag} {getattr(options, name)} must be at least 1")
    if options.enable_prefix_caching is None:
        options.enable_prefix_caching = False
    world = open_world(compose(options), options, lambda line: print(line, flush=True))
    is_real = options.backend == ENGINE
    try:
        seconds = measure(
            world,
            (options.batch_size, options.input_len, options.output_len),
            options.num_iters_warmup if is_real else 0,
            options.num_iters if is_real else 1,
        )
    finally:
        world.close()
    told = statistics(seconds)
    _print(told, options.batch_size)
    write_json(options.output_json, {"backend": options.backend, **told})
    return 0


def measure(
    world: World, shape: tuple[int, int, int], num_warmups: int, num_iterations: int
) -> list[float]:
    """Seconds of each iteration that counts; `shape`: requests, prompt tokens, output tokens."""
    count, prompt, answer = shape
    seconds = []
    for iteration in range(num_warmups + num_iterations):
        items = [WorkloadRequest(f"{iteration}-{i}", 0.0, prompt, answer) for i in range(count)]
        served = world.serve(items)
        if iteration >= num_warmups:
            seconds.append(served.seconds)
    return seconds


def statistics(seconds: Sequence[float]) -> dict[str, Any]:
    """Under vLLM's names."""
    values = np.percentile(seconds, PERCENTILES).tolist()
    return {
        "avg_latency": float(np.mean(seconds)),
        "latencies": list(seconds),
        "percentiles": {str(p): value for p, value in zip(PERCENTILES, values, strict=True)},
    }


def _print(told: dict[str, Any], batch_size: int) -> None:
    iterations = len(told["latencies"])
    times = "1 iteration" if iterations == 1 else f"{iterations} iterations"
    print(f"one batch of {batch_size}: {told['avg_latency'] * 1e3:,.2f} ms on average of {times}")
    if iterations > 1:
        for percentile, value in told["percentiles"].items():
            print(f"  p{percentile:<3}{value * 1e3:12,.2f} ms")
