"""The step-time table that calibrates a simulator: seconds of steps over a designed grid.

    python -m engine.benchmarks.step_table --model FOLDER --out FILE.csv [--dry-run]

Decodes by batch and context, prompt chunks by length and context, and mixtures of both. A line
is written as soon as it is measured; lines that the file has are passed over.
"""

import argparse
import csv
import itertools
from collections.abc import Iterator
from pathlib import Path

from engine.benchmarks.step_time import build
from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.benchmarks.timing import StepTime, time_decode, time_shape
from engine.build import EngineParts

COLUMNS = (
    "num_decodes",
    "decode_context",
    "prefill_query_len",
    "prefill_context_len",
    "num_prefills",
    "alone_s",
    "host_s",
    "pipelined_s",
)
Point = tuple[int, int, int, int, int]
"""num_decodes, context of each, query_len, context_len and number of the prompt chunks."""
BATCHES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)
CONTEXTS = (16, 256, 1024, 2048, 4096, 8192)
CHUNKS = (16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
CHUNK_CONTEXTS = (0, 1024, 4096)
MIXED_BATCHES, MIXED_CONTEXTS, MIXED_CHUNKS = (16, 64, 128), (512, 2048), (256, 1024, 2048)
REPEATS = 5


def grid(is_dry_run: bool) -> Iterator[Point]:
    """The designed points."""
    if is_dry_run:
        yield from ((2, 16, 0, 0, 0), (0, 0, 24, 16, 1), (2, 16, 24, 0, 1))
        return
    for context, batch in itertools.product(CONTEXTS, BATCHES):
        yield batch, context, 0, 0, 0
    for context, chunk in itertools.product(CHUNK_CONTEXTS, CHUNKS):
        yield 0, 0, chunk, context, 1
    for chunk in (128, 512, 1024):
        yield 0, 0, chunk, 0, 4
    for chunk, context, batch in itertools.product(MIXED_CHUNKS, MIXED_CONTEXTS, MIXED_BATCHES):
        yield batch, context, chunk, 0, 1


def measure(parts: EngineParts, steps: SyntheticSteps, point: Point, repeats: int) -> StepTime:
    """Time one point."""
    num_decodes, context, query_len, context_len, num_prefills = point
    rows = [Row(1, context - 1)] * num_decodes + [Row(query_len, context_len)] * num_prefills
    if num_prefills:
        return time_shape(parts.runner, steps, rows, repeats)
    return time_decode(parts.runner, steps, rows, 2 * repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    known = _known(args.out)
    parts = build(args.model, args.dry_run)
    repeats = 1 if args.dry_run else REPEATS
    steps = SyntheticSteps(parts.num_blocks, parts.cache_config.block_size, 4 * repeats + 8)
    with args.out.open("a", newline="") as file:
        writer = csv.writer(file)
        if not known and not args.out.stat().st_size:
            writer.writerow(COLUMNS)
        for point in grid(args.dry_run):
            if point in known:
                continue
            took = measure(parts, steps, point, repeats)
            num_decodes, context, *chunks = point
            times = (f"{s:.7f}" for s in (took.alone_s, took.host_s, took.pipelined_s))
            writer.writerow([num_decodes, num_decodes * context, *chunks, *times])
            file.flush()
            print(point, took, flush=True)
    parts.executor.shutdown()


def _known(path: Path) -> set[Point]:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return set()
    text = path.read_text()
    if not text.endswith("\n"):
        # a process that was killed has left half a line
        text = text[: text.rfind("\n") + 1]
        path.write_text(text)
    return {_point(row) for row in csv.DictReader(text.splitlines())}


def _point(row: dict[str, str]) -> Point:
    num_decodes = int(row["num_decodes"])
    context = int(row["decode_context"]) // max(num_decodes, 1)
    chunk = (int(row[name]) for name in COLUMNS[2:5])
    query_len, context_len, num_prefills = chunk
    return num_decodes, context, query_len, context_len, num_prefills


if __name__ == "__main__":
    main()
