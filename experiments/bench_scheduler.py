"""What the scheduler costs on the CPU: per request and step, per arrival, per abort.

    python -m experiments.bench_scheduler --running 256 [--prefix-caching | --no-prefix-caching]

N requests with prompts U(100, 1024) and answers U(100, 400), blocks of 16 tokens, 100,000 blocks,
a budget of 8,192 tokens. The model is faked: it returns one real token id for
every row that owes one. Times are CPU time of this process.
"""

import argparse
import gc
import json
import sys
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np

from workbench.config import CacheConfig, SchedulerConfig
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.scheduler.scheduler import Scheduler

BLOCK_SIZE = 16
NUM_BLOCKS = 100_000
TOKEN_BUDGET = 8192
NUM_WAITING = 20_000
NUM_ABORTS = 2_000
ADDED_TOKENS = 562
SAMPLED = [7]
NOTHING: list[int] = []


class _Slotted:
    __slots__ = ("a",)

    def __init__(self) -> None:
        self.a = 0


def calibration_ns(num_iterations: int = 200_000, repeats: int = 5) -> float:
    """CPU time of one iteration of `o.a += 1; d[i & 1023] = o.a`, best of `repeats`, ns."""
    best = float("inf")
    for _ in range(repeats):
        o, d = _Slotted(), {}
        start = time.process_time_ns()
        for i in range(num_iterations):
            o.a += 1
            d[i & 1023] = o.a
        best = min(best, (time.process_time_ns() - start) / num_iterations)
    return best


def make_scheduler(num_running: int, prefix_caching: bool, policy: str = "fcfs") -> Scheduler:
    """The scheduler under test."""
    return Scheduler(
        SchedulerConfig(
            max_num_seqs=num_running,
            max_num_batched_tokens=TOKEN_BUDGET,
            max_model_len=4096,
            policy=policy,
        ),
        CacheConfig(block_size=BLOCK_SIZE, enable_prefix_caching=prefix_caching),
        NUM_BLOCKS,
    )


def make_request(
    request_id: str, prompt: list[int], max_tokens: int, prefix_caching: bool
) -> Request:
    """A request with real tokens, its prompt hashed where prefix caching is on."""
    request = Request(request_id, len(prompt), max_tokens, prompt_token_ids=prompt)
    if prefix_caching:
        request.block_hashes = TokenBlockHashes(prompt, request.output_token_ids, BLOCK_SIZE)
    return request


def random_requests(count: int, seed: int, prefix_caching: bool) -> list[Request]:
    """Prompts U(100, 1024) of random tokens, answers U(100, 400)."""
    random = np.random.default_rng(seed)
    prompts = random.integers(100, 1025, count).tolist()
    answers = random.integers(100, 401, count).tolist()
    return [
        make_request(str(i), random.integers(0, 128_000, p).tolist(), a, prefix_caching)
        for i, (p, a) in enumerate(zip(prompts, answers, strict=True))
    ]


def answer(output: SchedulerOutput, prefills: dict[str, int], known: dict[str, int]) -> Any:
    """One token for every row whose prompt is complete after this step."""
    if not prefills and not output.scheduled_new_reqs:
        return ModelRunnerOutput([SAMPLED] * len(output.num_scheduled_tokens))
    for new in output.scheduled_new_reqs:
        prefills[new.request_id] = new.num_prompt_tokens
        known[new.request_id] = new.num_computed_tokens
    rows = []
    for request_id, num_tokens in output.num_scheduled_tokens.items():
        if request_id in prefills:
            known[request_id] += num_tokens
            if known[request_id] < prefills[request_id]:
                rows.append(NOTHING)
                continue
            del prefills[request_id], known[request_id]
        rows.append(SAMPLED)
    return ModelRunnerOutput(rows)


def run_to_end(scheduler: Scheduler, requests: list[Request]) -> tuple[list[float], float]:
    """(CPU seconds a request of every pure-decode step, CPU seconds of scheduler work in all)."""
    clock = time.process_time
    prefills: dict[str, int] = {}
    known: dict[str, int] = {}
    costs = []
    total = 0.0
    start = clock()
    for request in requests:
        scheduler.add_request(request, 0.0)
    total += clock() - start
    while scheduler.has_requests:
        start = clock()
        output = scheduler.schedule(0.0)
        middle = clock()
        is_decode = not prefills and not output.scheduled_new_reqs
        # What a device needs every step, so it belongs to the cost of scheduling.
        num_rows = len(output.num_scheduled_tokens)
        asked = clock()
        model_output = answer(output, prefills, known)
        update = clock()
        scheduler.update_from_output(output, model_output, 0.0)
        cost = middle - start + asked - middle + clock() - update
        total += cost
        if is_decode and num_rows == len(requests):
            costs.append(cost / num_rows)
    return costs, total


def bench_decode(num_running: int, prefix_caching: bool) -> dict[str, float]:
    """Cost a request and step while all requests decode, and requests a CPU second over a run."""
    costs, total = run_to_end(
        make_scheduler(num_running, prefix_caching), random_requests(num_running, 0, prefix_caching)
    )
    return {
        # The mean: block boundaries make some steps dearer than others, and all count.
        "us_per_request_per_step": sum(costs) / len(costs) * 1e6,
        "us_per_request_per_step_median": median(costs) * 1e6,
        "decode_steps": len(costs),
        "requests_per_cpu_s": num_running / total,
    }


def bench_add(prefix_caching: bool, repeats: int = 9, count: int = 200) -> float:
    """Building, hashing and adding one request of 562 tokens, µs; median over repeats."""
    random = np.random.default_rng(1)
    times = []
    for _ in range(repeats):
        scheduler = make_scheduler(256, prefix_caching)
        prompts = [random.integers(0, 128_000, ADDED_TOKENS).tolist() for _ in range(count)]
        gc.collect()  # or the first collection inside walks what was just made for the benchmark
        start = time.process_time()
        for i, prompt in enumerate(prompts):
            scheduler.add_request(make_request(str(i), prompt, 100, prefix_caching), 0.0)
        times.append((time.process_time() - start) / count)
    return median(times) * 1e6


def bench_abort(policy: str) -> float:
    """Abort of one of 20,000 waiting requests, µs; mean over aborts spread over the queue."""
    scheduler = make_scheduler(256, False, policy)
    for i in range(NUM_WAITING):
        scheduler.add_request(Request(str(i), 100, 100, float(i), priority=i % 7), 0.0)
    ids = [str(i * (NUM_WAITING // NUM_ABORTS)) for i in range(NUM_ABORTS)]
    start = time.process_time()
    for request_id in ids:
        scheduler.abort_requests((request_id,))
    return (time.process_time() - start) / NUM_ABORTS * 1e6


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="bench_scheduler", description=__doc__.splitlines()[0])
    parser.add_argument("--running", type=int, default=256, help="requests (default: 256)")
    parser.add_argument(
        "--prefix-caching", action=argparse.BooleanOptionalAction, default=True, help="default: on"
    )
    args = parser.parse_args(argv)
    if not 1 <= args.running <= 1400:
        print(
            f"--running={args.running} must be between 1 and 1400: more do not fit the KV cache of "
            f"{NUM_BLOCKS} blocks together",
            file=sys.stderr,
        )
        return 2
    before = calibration_ns()
    figures: dict[str, Any] = {"running": args.running, "prefix_caching": args.prefix_caching}
    figures |= bench_decode(args.running, args.prefix_caching)
    figures["us_add_request"] = bench_add(args.prefix_caching)
    figures["us_abort_waiting"] = bench_abort("fcfs")
    figures["us_abort_waiting_priority"] = bench_abort("priority")
    figures["calibration_ns"] = min(before, calibration_ns())
    print(json.dumps(figures, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
