"""Decode steps of the engine on a CPU, with and without keys that rows share, in turns.

OMP_NUM_THREADS=1 python benchmarks/validation/shared_keys.py outputs/demo_checkpoint
"""

import argparse
from statistics import median

from engine.benchmarks.step_table import Point, measure, synthetic_steps
from engine.build import build_engine_core
from engine.config import EngineConfig
from workbench.config import CacheConfig, SchedulerConfig

ROWS, CONTEXTS, SHARES, ROUNDS = (2, 4, 8, 16), (160, 400, 800), (0.0, 0.5, 0.9), 7


def main() -> None:
    """A line for each number of rows and each context."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a checkpoint")
    parts = build_engine_core(
        EngineConfig(
            model=parser.parse_args().model,
            dtype="float32",
            scheduler_config=SchedulerConfig(
                max_num_seqs=16, max_num_batched_tokens=1024, max_model_len=1024
            ),
            cache_config=CacheConfig(num_gpu_blocks_override=1024),
        )
    )
    steps = synthetic_steps(parts)
    print("rows  context  ms a step  half shared  nine tenths shared")
    for rows in ROWS:
        for context in CONTEXTS:
            points = [
                Point(rows, context, spread=0.0, shared_len=int(share * context) // 16 * 16)
                for share in SHARES
            ]
            seconds = [[measure(parts, steps, p).seconds for p in points] for _ in range(ROUNDS)]
            own, *shared = map(median, zip(*seconds, strict=True))
            told = "  ".join(f"{100 * (took / own - 1):+9.1f} %" for took in shared)
            print(f"{rows:4d} {context:8d} {1e3 * own:10.2f}  {told}", flush=True)


if __name__ == "__main__":
    main()
