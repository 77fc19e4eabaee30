"""`workbench bench serve` as a function, and single streams, for the scripts in this folder."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from experiments.bench.arguments import serve_parser
from experiments.bench.http import Exchange
from experiments.bench.measure import measure
from experiments.bench.plan import make_plan
from experiments.bench.prompts import Vocabulary
from experiments.bench.request_body import COMPLETIONS, JSON_HEADERS, encoded
from experiments.bench.results import BenchResult
from experiments.bench.settings import settings_of
from experiments.bench.target import Target, with_body
from experiments.bench.timers import loop_factory


def bench(url: str, *words: Any) -> BenchResult:
    """The result of `workbench bench serve --base-url URL WORDS`."""
    argv = ["--base-url", url, *map(str, words)]
    settings = settings_of(serve_parser().parse_intermixed_args(argv))
    plan, vocabulary = make_plan(settings), Vocabulary.of_size(settings.vocab_size)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(measure(settings, plan, vocabulary, tell=lambda _: None)).result


def run(work: Any) -> Any:
    """Run a coroutine on the loop that the load client uses."""
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        return runner.run(work)


def stream(
    url: str,
    name: str,
    prompt: Sequence[int],
    max_tokens: int,
    on_end: Callable[[Exchange], None] | None = None,
    **more: Any,
) -> Exchange:
    """An exchange that streams a completion; not sent yet."""
    body = {
        "model": more.pop("model", "model"),
        "prompt": list(prompt),
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "ignore_eos": True,
        "stream": True,
        **more,
    }
    head = Target.of(url).head("POST", COMPLETIONS, JSON_HEADERS)
    return Exchange(name, with_body(head, encoded(body), name), on_end)


async def until(is_so: Callable[[], bool], limit_s: float) -> float:
    """Seconds until something is so, looked at in every turn of the loop. Raises TimeoutError."""
    start = time.perf_counter()
    while not is_so():
        if time.perf_counter() - start > limit_s:
            raise TimeoutError(f"not so after {limit_s:g} s")
        await asyncio.sleep(0.001)
    return time.perf_counter() - start


def spread_ms(seconds: NDArray[np.float64]) -> dict[str, float | int]:
    """Count, mean and percentiles, in milliseconds."""
    known = seconds[~np.isnan(seconds)] * 1e3
    if not len(known):
        return {"count": 0}
    points = {f"p{p}": float(np.percentile(known, p)) for p in (50, 90, 99)}
    return {"count": len(known), "mean": float(known.mean()), **points, "max": float(known.max())}
