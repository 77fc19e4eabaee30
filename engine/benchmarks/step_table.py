"""The step-time table that calibrates a simulator: seconds of steps over a designed grid.

    python -m engine.benchmarks.step_table --model FOLDER --out FILE.csv [--dry-run]

Decodes by batch and context, with and without keys in common, prompt chunks by length and context,
and mixtures of both, from the smallest step to the largest that the engine's own limits allow. The
file has the columns of `workbench.step_profile`; a line is written as soon as it is measured, and
points that the file has are passed over. The times are those of the model runner alone: no
scheduler, no requests.
"""

import argparse
import csv
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.benchmarks.step_time import build
from engine.benchmarks.synthetic import Row, SyntheticSteps
from engine.benchmarks.timing import time_decode, time_shape
from engine.build import EngineParts
from workbench.errors import ConfigError
from workbench.step_profile import (
    STEP_COLUMNS,
    MeasuredStep,
    StepShape,
    check_columns,
    read_steps,
    step_row,
)

SOURCE = "grid/0"
REPEATS = 5
ROOM = 4 * REPEATS + 8
FEWEST_TOKENS = 2 * ROOM
CHUNK_CONTEXTS = (0.0, 0.25, 0.7)
SPREAD = 0.8
DECODE_CONTEXTS = (0.0, 0.06, 0.2, 0.35, 0.5)  # the longest is 1.8 times the mean
EVEN_CONTEXTS = (0.2, 0.5)  # all equal
SHARED = 0.75  # of even contexts, where rows share keys
MIXED_CONTEXTS = (0.08, 0.4)
MIXED_CHUNKS = (0.12, 0.4, 0.9)
MIXED_BATCHES = (0.15, 0.5, 0.9)
SMALLEST_CHUNK = 4


@dataclass(frozen=True, slots=True)
class Point:
    """A step to be timed: decodes, and prompt chunks of equal length and context.

    Decodes of a server have contexts of all lengths, and a device takes longer for them than for
    equal ones. So their contexts are spread evenly about the mean.

    Attributes:
        num_decodes: Rows that decode.
        context: Tokens before the new one, mean of them.
        query_len, chunk_context: Tokens of each chunk, and tokens before it.
        num_chunks: Chunks.
        spread: How far the shortest and the longest context lie from the mean, as a part of it.
        shared_len: Tokens of each context that are all rows' in common, in whole KV blocks.
    """

    num_decodes: int
    context: int
    query_len: int = 0
    chunk_context: int = 0
    num_chunks: int = 0
    spread: float = SPREAD
    shared_len: int = 0

    def contexts(self) -> list[int]:
        """Tokens before the new one, of each row that decodes."""
        if self.num_decodes < 2:
            return [self.context] * self.num_decodes
        places = [2 * i / (self.num_decodes - 1) - 1 for i in range(self.num_decodes)]
        return [round(self.context * (1 + self.spread * place)) for place in places]


@dataclass(frozen=True, slots=True)
class Limits:
    """The largest step there can be.

    Attributes:
        num_tokens: Of a step.
        num_rows: Of a step.
        length: Of a request, tokens.
        block_size: Tokens of a KV block that requests may share; 0: sharing is not counted.
    """

    num_tokens: int
    num_rows: int
    length: int
    block_size: int = 16

    @classmethod
    def of(cls, parts: EngineParts) -> "Limits":
        """Those of an engine.

        Raises:
            ConfigError: Its KV cache or its longest request is too small to time steps in.
        """
        config, block_size = parts.scheduler_config, parts.cache_config.block_size
        held = parts.num_blocks * block_size
        longest = min(config.max_model_len or held, held)
        if longest < FEWEST_TOKENS:
            raise ConfigError(
                f"the KV cache holds {held} tokens and a request {config.max_model_len}: steps are"
                f" timed with requests of at least {FEWEST_TOKENS}, raise"
                " cache.num_gpu_blocks_override or scheduler.max_model_len"
            )
        tokens, rows = config.max_num_batched_tokens, config.max_num_seqs
        shared_size = 0 if parts.cache_config.has_window else block_size
        return cls(tokens, rows, longest - ROOM, shared_size)


def grid(limits: Limits, is_dry_run: bool = False) -> list[Point]:
    """The designed points, each once."""
    if is_dry_run:
        return [Point(2, 16), Point(0, 0, 24, 16, 1), Point(2, 16, 24, 0, 1)]
    rows, length = limits.num_rows, limits.length
    batches = sizes(1, min(rows, limits.num_tokens))
    points = [
        Point(batch, max(int(share * length), 8)) for share in DECODE_CONTEXTS for batch in batches
    ]
    points += _even_decodes(batches, limits)
    for share in CHUNK_CONTEXTS:
        context = int(share * length)
        chunks = sizes(SMALLEST_CHUNK, min(limits.num_tokens, length - context))
        points += [Point(0, 0, chunk, context, 1) for chunk in chunks]
    points += [
        Point(0, 0, chunk, 0, number)
        for number in (2, 4)
        for chunk in sizes(SMALLEST_CHUNK, min(limits.num_tokens // number, length))[-3:]
        if number <= rows
    ]
    points += _mixtures(limits)
    return list(dict.fromkeys(points))


def _even_decodes(batches: Sequence[int], limits: Limits) -> Iterable[Point]:
    """Decodes of equal contexts, each with keys of its own and with most of them in common."""
    for share in EVEN_CONTEXTS:
        context = max(int(share * limits.length), 8)
        size = limits.block_size
        shared = int(SHARED * context) // size * size if size else 0
        for batch in batches:
            if batch > 1:
                yield Point(batch, context, spread=0.0)
                yield Point(batch, context, spread=0.0, shared_len=shared)


def _mixtures(limits: Limits) -> Iterable[Point]:
    """A chunk beside decodes."""
    for decodes in MIXED_BATCHES:
        batch = max(int(decodes * (limits.num_rows - 1)), 1)
        largest = min(limits.num_tokens - batch, limits.length)
        if limits.num_rows < 2 or largest < SMALLEST_CHUNK:
            continue
        for context in MIXED_CONTEXTS:
            for share in MIXED_CHUNKS:
                chunk = max(int(share * largest), SMALLEST_CHUNK)
                yield Point(batch, int(context * limits.length), chunk, 0, 1)


def sizes(smallest: int, largest: int) -> list[int]:
    """Powers of two from `smallest` on, the numbers halfway between the larger of them, and the
    end."""
    found = []
    size = smallest
    while size < largest:
        found.append(size)
        if size >= 4 * smallest and size * 3 // 2 < largest:
            found.append(size * 3 // 2)
        size *= 2
    return [*found, largest] if largest >= smallest else found


def measure(
    parts: EngineParts, steps: SyntheticSteps, point: Point, repeats: int = REPEATS
) -> MeasuredStep:
    """Time one point; where the engine starts steps early, with the next step behind it."""
    shared, runner = point.shared_len, parts.runner
    rows = [Row(1, context, shared_len=shared) for context in point.contexts()]
    if point.num_chunks:
        chunks = [Row(point.query_len, point.chunk_context)] * point.num_chunks
        took = time_shape(runner, steps, rows, chunks, repeats)
        return MeasuredStep(_shape(point, (repeats + 1) // 2), took.alone_s, source=SOURCE)
    is_async = parts.scheduler_config.async_scheduling
    took = time_decode(runner, steps, rows, repeats, is_async)
    return MeasuredStep(_shape(point, 3 + repeats // 2), took.pipelined_s, source=SOURCE)


def _shape(point: Point, num_grown: int) -> StepShape:
    """The point as a cost model sees it, its decodes grown by some tokens when it is timed."""
    contexts = [context + 1 + num_grown for context in point.contexts()]
    return StepShape(
        point.num_decodes,
        sum(contexts),
        [(point.query_len, point.chunk_context)] * point.num_chunks,
        point.num_decodes + point.num_chunks,
        longest_decode=max(contexts, default=0),
        shared_context=point.shared_len * max(point.num_decodes - 1, 0),
    )


def synthetic_steps(parts: EngineParts) -> SyntheticSteps:
    """Makes steps for the engine's runner."""
    num_groups = len(parts.runner.input_batch.block_tables)
    return SyntheticSteps(parts.num_blocks, parts.cache_config.block_size, ROOM, num_groups)


def measure_grid(
    parts: EngineParts,
    points: Sequence[Point],
    repeats: int = REPEATS,
    progress: Callable[[int, int], None] | None = None,
) -> Iterable[MeasuredStep]:
    """Time points in their order, one after the other as they are asked for."""
    steps = synthetic_steps(parts)
    for number, point in enumerate(points):
        yield measure(parts, steps, point, repeats)
        if progress is not None:
            progress(number + 1, len(points))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--dry-run", action="store_true")
    args = parser.parse_args()
    num_known = _num_known(args.out)
    parts = build(args.model, args.dry_run)
    # the file holds the points in the grid's order
    points = grid(Limits.of(parts), args.dry_run)[num_known:]
    with args.out.open("a", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if not args.out.stat().st_size:
            writer.writerow(STEP_COLUMNS)
        for step in measure_grid(parts, points, 1 if args.dry_run else REPEATS):
            writer.writerow(step_row(step))
            file.flush()
            print(step, flush=True)
    parts.executor.shutdown()


def _num_known(path: Path) -> int:
    """Points that the file holds, after half a line that a process that was killed has left."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        return 0
    text = path.read_text()
    if not text.endswith("\n"):
        path.write_text(text[: text.rfind("\n") + 1])
    if not path.stat().st_size:
        return 0
    check_columns(path)
    return len(read_steps(path))


if __name__ == "__main__":
    main()
