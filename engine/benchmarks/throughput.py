"""Offline throughput: 256 requests at once, our engine or transformers' continuous batching.

    python -m engine.benchmarks.throughput --model FOLDER --out FILE.jsonl
        [--who workbench|transformers] [--dry-run]

Prompts and answers of U(100, 1024) tokens, greedy, dummy weights. transformers' attention gathers
all KV before every layer: a weak baseline, but the one that is installed wherever we are.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from engine.benchmarks.models import model_fields
from kernels.bench import Results

NUM_REQUESTS = 256
LENGTHS = (100, 1024)
WARM_UP_TOKENS = 32
TOY_REQUESTS = 4
TOY_LENGTHS = (4, 12)
Request = tuple[list[int], int]
"""A prompt's token ids and the number of tokens to answer."""
Run = Callable[[list[Request]], list[int]]


def requests(vocab_size: int, is_dry_run: bool, seed: int = 0) -> list[Request]:
    """The same requests for everybody."""
    random = np.random.default_rng(seed)
    count = TOY_REQUESTS if is_dry_run else NUM_REQUESTS
    low, high = TOY_LENGTHS if is_dry_run else LENGTHS
    prompts, answers = random.integers(low, high + 1, (2, count))
    return [
        (random.integers(3, vocab_size, length).tolist(), int(answer))
        for length, answer in zip(prompts, answers, strict=True)
    ]


def workbench(fields: dict[str, Any], is_dry_run: bool, closing: ExitStack) -> Run:
    """Our engine."""
    from engine import LLM, SamplingParams

    llm = LLM(
        model=fields,
        load_format="dummy",
        dtype="float32" if is_dry_run else "bfloat16",
        skip_tokenizer_init=True,
        max_model_len=64 if is_dry_run else 2048,
        max_num_seqs=4 if is_dry_run else NUM_REQUESTS,
        max_num_batched_tokens=16 if is_dry_run else 8192,
        async_scheduling=True,
        num_gpu_blocks_override=64 if is_dry_run else None,
    )

    def run(items: list[Request]) -> list[int]:
        params = [
            SamplingParams(temperature=0.0, max_tokens=answer, ignore_eos=True)
            for _, answer in items
        ]
        prompts = [{"prompt_token_ids": prompt} for prompt, _ in items]
        outputs = llm.generate(prompts, params, use_tqdm=False)
        return [len(output.outputs[0].token_ids) for output in outputs]

    return run


def transformers(fields: dict[str, Any], is_dry_run: bool, closing: ExitStack) -> Run:
    """The continuous batching behind transformers' `generate_batch`."""
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    hf_config = AutoConfig.for_model(**fields)
    hf_config._attn_implementation = "sdpa"
    with torch.device(device):
        model = AutoModelForCausalLM.from_config(
            hf_config, dtype=torch.float32 if is_dry_run else torch.bfloat16
        ).eval()
    config = GenerationConfig(
        max_new_tokens=LENGTHS[1], do_sample=False, eos_token_id=-1, pad_token_id=0
    )

    options: dict[str, Any] = {}
    if is_dry_run:
        # not in every 5.x, and only a machine without a GPU has to be told its memory
        from transformers import ContinuousBatchingConfig

        memory = ContinuousBatchingConfig(num_blocks=16, max_batch_tokens=64)
        options["continuous_batching_config"] = memory
    manager = model.init_continuous_batching(generation_config=config, **options)
    manager.start()
    closing.callback(manager.stop, block=True)

    def run(items: list[Request]) -> list[int]:
        counts: dict[str, int] = {}
        ids = [manager.add_request(prompt, max_new_tokens=answer) for prompt, answer in items]
        while len(counts) < len(items):
            result = manager.get_result(timeout=1)
            if result is None and not manager.is_running():
                raise RuntimeError("transformers' batching thread has ended: see its log above")
            if result is not None and result.is_finished():
                if result.error is not None:
                    raise RuntimeError(f"{result.request_id}: {result.error}")
                counts[result.request_id] = len(result.generated_tokens)
        return [counts[request_id] for request_id in ids]

    return run


CONTESTANTS = {"workbench": workbench, "transformers": transformers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--who", choices=CONTESTANTS, default="workbench")
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    results = Results(args.out)
    key = {"kind": "throughput", "op": args.model.name, "case": "offline", "who": args.who}
    if results.has(**key):
        return
    fields = model_fields(args.model, args.dry_run)
    items = requests(fields["vocab_size"], args.dry_run)
    with ExitStack() as closing:
        run = CONTESTANTS[args.who](fields, args.dry_run, closing)
        run([(prompt, min(answer, WARM_UP_TOKENS)) for prompt, answer in items[:4]])
        start = time.perf_counter()
        counts = run(items)
        wall = time.perf_counter() - start
    wanted = [answer for _, answer in items]
    if counts != wanted:
        raise SystemExit(f"answers of {counts} tokens instead of {wanted}")
    row = {**key, "requests": len(items), "wall_s": wall}
    row["output_tokens_per_s"] = sum(wanted) / wall
    row["total_tokens_per_s"] = sum(len(prompt) + answer for prompt, answer in items) / wall
    results.append(row)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
