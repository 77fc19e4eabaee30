"""Flags about the model, its scheduler and its KV cache; see `flags`.

Their destinations are the full names of settings of a run.
"""

import argparse

from experiments.serving.flag_types import add_switch, whole_number


def add_model(parser: argparse.ArgumentParser) -> None:
    """What is served, and in which number formats."""
    group = parser.add_argument_group("model")
    add = group.add_argument
    add("--tokenizer", metavar="FOLDER", help="folder of the tokenizer [MODEL's]")
    add("--skip-tokenizer-init", action="store_true", default=None, help="token ids only")
    add("--dtype", dest="backend.dtype", metavar="TYPE", help="auto, float32, bfloat16 … [auto]")
    add(
        "--load-format",
        dest="backend.load_format",
        metavar="FORMAT",
        help="engine: auto, safetensors, or dummy for random weights [auto]",
    )
    add(
        "--device",
        dest="backend.device",
        metavar="NAME",
        help="engine: auto, cpu, cuda or cuda:N [auto]",
    )
    add(
        "--attention-backend",
        dest="backend.attention_backend",
        metavar="NAME",
        help="engine: auto, triton, torch or reference [auto]",
    )
    add_switch(group, "enforce-eager", "backend.enforce_eager", "engine: capture no CUDA graphs")
    add(
        "--kv-cache-dtype",
        dest="backend.kv_cache_dtype",
        metavar="TYPE",
        help="auto or fp8 [auto]",
    )
    for short, name in (("-tp", "tensor"), ("-pp", "pipeline")):
        add(
            short,
            f"--{name}-parallel-size",
            dest=f"parallel.{name}_parallel_size",
            type=int,
            metavar="N",
            help="simulated GPUs that share the layers; the engine runs on one device [1]",
        )


def add_scheduler(parser: argparse.ArgumentParser) -> None:
    """Limits of a step and of a request."""
    group = parser.add_argument_group("scheduler")
    add = group.add_argument
    for name, text in (
        ("max-model-len", "most tokens of prompt and answer [the model's own]"),
        ("max-num-seqs", "most requests in a batch [256]"),
        ("max-num-batched-tokens", "most tokens in a step [2048]"),
        ("long-prefill-token-threshold", "most prompt tokens of one request in a step [no limit]"),
        ("num-speculative-tokens", "draft tokens a step [0]"),
    ):
        dest = f"scheduler.{name.replace('-', '_')}"
        add(f"--{name}", dest=dest, type=whole_number, metavar="N", help=text)
    add(
        "--scheduling-policy",
        choices=("fcfs", "priority"),
        help="first come first served, or by the requests' priority [fcfs]",
    )
    add_switch(
        group,
        "enable-chunked-prefill",
        "scheduler.enable_chunked_prefill",
        "compute long prompts over several steps [yes]",
    )
    add_switch(
        group,
        "async-scheduling",
        "scheduler.async_scheduling",
        "schedule a step while the one before runs [no]",
    )


def add_cache(parser: argparse.ArgumentParser) -> None:
    """Blocks, and what is kept in them."""
    group = parser.add_argument_group("KV cache")
    add = group.add_argument
    for name, text in (
        ("block-size", "tokens a block [16]"),
        ("num-gpu-blocks-override", "KV blocks [as many as the memory holds]"),
    ):
        dest = f"cache.{name.replace('-', '_')}"
        add(f"--{name}", dest=dest, type=whole_number, metavar="N", help=text)
    add(
        "--kv-cache-memory-bytes",
        dest="backend.kv_cache_memory_bytes",
        type=whole_number,
        metavar="N",
        help="engine: bytes of the KV cache [measured]",
    )
    add(
        "--gpu-memory-utilization",
        dest="cache.gpu_memory_utilization",
        type=float,
        metavar="SHARE",
        help="share of the GPU's memory that may be used [0.9]",
    )
    add_switch(
        group,
        "enable-prefix-caching",
        "cache.enable_prefix_caching",
        "keep the blocks of prompts for others that begin alike [yes]",
    )
    add(
        "--prefix-caching-hash-algo",
        dest="cache.prefix_caching_hash_algo",
        metavar="NAME",
        help="blake2b or sha256 [blake2b]",
    )
