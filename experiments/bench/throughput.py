"""`workbench bench throughput`: many requests at once, without a server.

Knows which requests and which rates. How they are served is `offline`'s.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from omegaconf import OmegaConf

from experiments.assemble import part
from experiments.bench.arguments import add_random_lengths
from experiments.bench.arrivals import ArrivalSettings
from experiments.bench.offline import (
    ENGINE,
    World,
    compose,
    make_parser,
    open_world,
    run_offline,
    write_json,
)
from experiments.bench.plan import random_workload
from experiments.bench.settings import RandomRequests
from experiments.flag_parser import FlagParser
from experiments.instantiate import build
from workbench.errors import ConfigError
from workbench.workload.base import Workload, WorkloadRequest

EXAMPLES = """\
examples:
  workbench bench throughput outputs/demo_checkpoint --num-prompts 64
  workbench bench throughput qwen3_8b --backend simulator hardware=h100 --num-prompts 1000
  workbench bench throughput outputs/demo_checkpoint workload=demo_engine
"""
WARM_UP_REQUESTS = 4
WARM_UP_TOKENS = 8
NUM_PROMPTS = 100


def parser() -> FlagParser:
    """Of the whole command line."""
    made = make_parser(
        "throughput",
        "Give an engine many requests at once and tell how many tokens a second it"
        " makes. No server, no network: token ids in, token ids out.",
        EXAMPLES,
    )
    add = made.add_argument
    add("--num-prompts", type=int, metavar="N", help="requests (default: 100; all of a workload)")
    add_random_lengths(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    return run_offline(parser(), _run, arguments)


def _run(options: argparse.Namespace) -> int:
    config = compose(options)
    items = _requests(options, config)
    world = open_world(config, options, lambda line: print(line, flush=True))
    try:
        told = measure(world, items, is_warmed=options.backend != ENGINE)
    finally:
        world.close()
    told = {"backend": options.backend, "num_requests": len(items)} | told
    _print(told, options.backend)
    write_json(options.output_json, told)
    return 0


def measure(
    world: World, items: Sequence[WorkloadRequest], *, is_warmed: bool = False
) -> dict[str, Any]:
    """Serve them, a few short ones first; rates under vLLM's names."""
    if not is_warmed:
        few = [_short(item, number) for number, item in enumerate(items[:WARM_UP_REQUESTS])]
        world.serve(few)
    served = world.serve(items)
    inputs = sum(item.num_prompt_tokens for item in items)
    seconds = max(served.seconds, 1e-9)
    return {
        "elapsed_time": served.seconds,
        "total_input_tokens": inputs,
        "total_output_tokens": served.num_output_tokens,
        "total_num_tokens": inputs + served.num_output_tokens,
        "requests_per_second": len(items) / seconds,
        "tokens_per_second": (inputs + served.num_output_tokens) / seconds,
        "output_tokens_per_second": served.num_output_tokens / seconds,
    }


def _short(item: WorkloadRequest, number: int) -> WorkloadRequest:
    """A small request that leaves nothing in the prefix cache for the others."""
    output = min(item.num_output_tokens, WARM_UP_TOKENS)
    return replace(
        item,
        request_id=f"warm-up-{number}",
        num_output_tokens=output,
        hash_ids=None,
        output_hash_ids=None,
        prompt_token_ids=None,
    )


def _requests(options: argparse.Namespace, config: Any) -> list[WorkloadRequest]:
    """All at time 0. Raises ConfigError for a workload whose requests wait for others."""
    if not any(word.lstrip("+~").startswith("workload") for word in options.words):
        return random_requests(options)
    workload: Workload = part(config, "workload")
    if not workload.is_open_loop:
        raise ConfigError(
            "the requests of this workload follow one another, and offline all are there at once:"
            " choose an open loop, such as workload=azure_like"
        )
    items = list(islice(workload.initial(), options.num_prompts))
    return [replace(item, arrival_time=0.0) for item in items]


def random_requests(options: argparse.Namespace) -> list[WorkloadRequest]:
    """Random ones with the lengths that the flags give."""
    count = NUM_PROMPTS if options.num_prompts is None else options.num_prompts
    if count < 1:
        raise ConfigError(f"--num-prompts {count} must be at least 1")
    lengths = RandomRequests.of(options)
    node = random_workload(lengths, ArrivalSettings(), count, options.seed)
    workload: Workload = build(OmegaConf.create(node), "workload", Workload)
    return list(workload.initial())


def _print(told: dict[str, Any], backend: str) -> None:
    where = "the engine" if backend == ENGINE else "the simulated engine"
    print(
        f"{told['num_requests']:,} requests in {told['elapsed_time']:.2f} s on {where}:"
        f" {told['requests_per_second']:.2f} requests/s,"
        f" {told['tokens_per_second']:,.1f} tokens/s in all,"
        f" {told['output_tokens_per_second']:,.1f} output tokens/s"
    )
    print(f"input tokens: {told['total_input_tokens']:,}")
    print(f"output tokens: {told['total_output_tokens']:,}")
