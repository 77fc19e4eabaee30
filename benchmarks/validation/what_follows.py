"""Which small pieces of fixed work follow an engine's steps on a machine that others slow down.

    python -m engine.demo_checkpoint outputs/demo_checkpoint
    OMP_NUM_THREADS=1 python benchmarks/validation/what_follows.py [SECONDS] > what_follows.txt

On one CPU, in turns: a decode step of 8 rows, one piece of work of each kind, a step with a prompt
chunk of 200 tokens. Then, over blocks of eight seconds (about a run of a validation): how far steps
are from what the work, alone or several kinds added, says of them; with the work done as often as
it was, and with half and a quarter of it.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.build import build_engine_core
from engine.config import EngineConfig
from workbench.config import CacheConfig, SchedulerConfig
from workbench.outputs import SchedulerOutput

SECONDS = 240.0
BLOCK_S = 8.0
BLOCKS, BLOCK_SIZE, ROOM = 1041, 16, 400
DECODES = [Row(1, 300)] * 8
PROMPT = [Row(200, 0), *[Row(1, 300)] * 7]
PAUSE_S = 0.002
WORK = {
    "products": ("products",),
    "jumps": ("jumps",),
    "sums": ("sums",),
    "reading 6 MiB": ("reading",),
    "products + 2 jumps": ("products", "jumps", "jumps"),
    "products + jumps + sums": ("products", "jumps", "sums"),
    "products + jumps + half of sums": ("products", "jumps", "half_sums"),
    "all": ("products", "jumps", "sums", "reading"),
}


def kinds() -> Mapping[str, Callable[[], object]]:
    """The pieces of work."""
    rng = np.random.default_rng(0)
    matrix = rng.random((96, 96), dtype=np.float32)
    order = rng.permutation(1 << 15)
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.roll(order, -1)
    following: list[int] = places.tolist()
    numbers = np.ones(3 << 19, dtype=np.float32)

    def jumps() -> None:
        place = 0
        for _ in range(1500):
            place = following[place]

    return {
        "products": lambda: matrix @ matrix @ matrix @ matrix,
        "jumps": jumps,
        "sums": lambda: sum(number * number for number in range(5000)),
        "reading": numbers.sum,
    }


def measure(seconds: float) -> pd.DataFrame:
    """Microseconds of CPU time of everything, a row a turn; `at`: when, seconds."""
    parts = build_engine_core(
        EngineConfig(
            model="outputs/demo_checkpoint",
            device="cpu",
            dtype="float32",
            skip_tokenizer_init=True,
            scheduler_config=SchedulerConfig(max_num_seqs=16, max_model_len=1024),
            cache_config=CacheConfig(num_gpu_blocks_override=BLOCKS),
        )
    )
    steps, runner, work = SyntheticSteps(BLOCKS, BLOCK_SIZE, ROOM), parts.runner, kinds()

    def run(output: SchedulerOutput) -> None:
        runner.execute_model(output)
        runner.sample_tokens(None).result()

    rows = []
    began = time.monotonic()
    run(steps.join(DECODES))
    while (at := time.monotonic() - began) < seconds:
        row = {"at": at, "decode step": timed(lambda: run(steps.repeat()))}
        for name, piece in work.items():
            row[name] = timed(piece)
            run(steps.repeat())  # as caches are when a step has just ended
        row["prompt step"] = timed(lambda: run(steps.join(PROMPT)))
        run(steps.join(DECODES))
        rows.append(row)
        time.sleep(PAUSE_S)
    frame = pd.DataFrame(rows)
    frame["half_sums"] = 0.5 * frame["sums"]
    return frame


def timed(piece: Callable[[], object]) -> float:
    """Microseconds of CPU time that a piece of work took."""
    start = time.thread_time_ns()
    piece()
    return 1e-3 * (time.thread_time_ns() - start)


def missed(work: pd.Series, steps: pd.Series, at: pd.Series, every: int) -> tuple[float, float]:
    """(by how much a block's steps are off, how steps follow the work: an exponent)."""
    blocks = (at // BLOCK_S).astype(int)
    told = np.log(work[::every].groupby(blocks[::every]).mean())
    took = np.log(steps.groupby(blocks).mean())[told.index]
    power, offset = np.polyfit(told, took, 1)
    return float((took - power * told - offset).std()), float(power)


def main() -> None:
    """Measure and print."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    frame = measure(float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS)
    blocks = (frame["at"] // BLOCK_S).astype(int)
    rate = len(frame) / frame["at"].iloc[-1]
    print(f"{len(frame)} turns, {rate:.1f} a second, {blocks.iloc[-1] + 1} blocks; medians in us:")
    print(frame.drop(columns="at").median().round(0).to_string(), "\n")
    for kind in ("decode step", "prompt step"):
        spread = np.log(frame[kind].groupby(blocks).mean()).std()
        print(f"{kind}: blocks differ by {100 * spread:.1f} % (sd); with the work known by, and")
        print("how steps follow it, at all, a half and a quarter of the turns:")
        for name, pieces in WORK.items():
            work = sum((frame[piece] for piece in pieces), start=0.0 * frame["at"])
            found = [missed(work, frame[kind], frame["at"], every) for every in (1, 2, 4)]
            told = "  ".join(f"{100 * sd:4.1f} % ^{power:4.2f}" for sd, power in found)
            print(f"  {name:34}{told}")
        print()


if __name__ == "__main__":
    main()
