"""How long a decode step takes, beside the least it could take.

    python -m engine.benchmarks.step_time --model FOLDER --out FILE.jsonl [--dry-run]

FOLDER holds a config.json; the weights are dummies. A line a point (batch, context): the step
alone, the host's part, the step with the next one started behind it, and the floor: the bytes of
all weights and of all KV read, at the copy bandwidth measured in the same run. Points that the file
has are passed over.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from engine.benchmarks.models import model_fields
from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.benchmarks.timing import decode_timeline, time_decode
from engine.build import EngineParts, build_engine_core
from engine.config import EngineConfig
from kernels.bench import Results
from kernels.measure import measure_ceilings
from workbench.config import CacheConfig, SchedulerConfig

BATCHES = (1, 32, 128, 256)
CONTEXTS = (1024, 4096)
NUM_STEPS = 30
TOY_NUM_STEPS = 2
TOY_BLOCKS = 64


def build(folder: Path, is_dry_run: bool, max_num_batched_tokens: int = 8192) -> EngineParts:
    """An engine with dummy weights for measuring steps."""
    return build_engine_core(
        EngineConfig(
            model=model_fields(folder, is_dry_run),
            load_format="dummy",
            dtype="float32" if is_dry_run else "bfloat16",
            scheduler_config=SchedulerConfig(
                max_num_seqs=8 if is_dry_run else 256,
                max_num_batched_tokens=64 if is_dry_run else max_num_batched_tokens,
                max_model_len=256 if is_dry_run else 16384,
            ),
            cache_config=CacheConfig(
                num_gpu_blocks_override=TOY_BLOCKS if is_dry_run else None,
                enable_prefix_caching=False,
            ),
        )
    )


def floor_bytes(parts: EngineParts, batch: int, context: int) -> int:
    """Bytes that a decode step must read: every weight but the looked-up embeddings, and all KV."""
    model = parts.model
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    embedding = model.embedding.weight
    if not parts.hf_config.tie_word_embeddings:
        weights -= embedding.numel() * embedding.element_size()
    token_bytes = sum(
        2 * spec.num_kv_heads * spec.head_dim * cache.element_size()
        for spec, cache in zip(
            parts.runner.backend.specs, parts.runner.backend.kv_caches, strict=True
        )
    )
    return int(weights + batch * context * token_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    results = Results(args.out)
    batches, contexts = ((1, 3), (16,)) if args.dry_run else (BATCHES, CONTEXTS)
    num_steps = TOY_NUM_STEPS if args.dry_run else NUM_STEPS
    # before the engine takes the memory
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    ceilings = measure_ceilings(device, args.dry_run)
    parts = build(args.model, args.dry_run)
    steps = SyntheticSteps(parts.num_blocks, parts.cache_config.block_size, 2 * num_steps + 12)
    points = [(batch, context) for context in contexts for batch in batches]
    name = args.model.name
    for batch, context in points:
        key = {"kind": "step", "op": name, "case": f"{batch}x{context}"}
        if not results.has(**key):
            rows = [Row(1, context - 1)] * batch
            took = time_decode(parts.runner, steps, rows, num_steps)
            floor_s = floor_bytes(parts, batch, context + num_steps) / ceilings.copy_bytes_per_s
            row = {**key, "batch": batch, "context": context, **asdict(took)}
            row |= {"floor_s": floor_s, "over_floor": took.pipelined_s / floor_s}
            held = parts.num_blocks * parts.cache_config.block_size
            row["shares_blocks"] = batch * context > held
            _keep(results, row)
    # last, since a profiler slows down what comes after it
    for batch, context in points:
        key = {"kind": "timeline", "op": name, "case": f"{batch}x{context}"}
        if not results.has(**key):
            seen = decode_timeline(parts.runner, steps, [Row(1, context - 1)] * batch)
            _keep(results, {**key, **(asdict(seen) if seen else {})})
    parts.executor.shutdown()


def _keep(results: Results, row: dict[str, Any]) -> None:
    results.append(row)
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    with torch.inference_mode():
        main()
