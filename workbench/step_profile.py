"""The shape of one step: what a cost model needs to know to price it, and steps that were timed.

It does not know which requests run, nor what a token costs. Timed steps travel as a CSV, one line
a step: an engine writes it, a fit reads it.
"""

import csv
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import ConfigError


@dataclass(slots=True)
class StepShape:
    """Token and context counts of the rows of one batch.

    Attributes:
        num_decodes: Rows with exactly one query token.
        decode_context: Sum over those rows of the KV tokens read, the new token included.
        prefills: (query_len, context_len before the step), in tokens, of every other row:
            prompt chunks and verifications of draft tokens.
        num_samples: Rows of logits computed (language-model head and sampler).
        num_swap_blocks: KV blocks copied between device and host before the step.
        longest_decode: KV tokens read by the longest of the decode rows; 0: not told, and they are
            taken to be equal.
        shared_context: KV tokens that running requests hold in blocks which others of them hold as
            well, the first holder of each left out. Keys that rows share are read from memory once.
            0 where sharing is not counted (caches with windows).
        prefill_tokens_before: Prompt tokens of the step before. A prompt leaves little in a
            device's caches of what decodes read in every step.
    """

    num_decodes: int = 0
    decode_context: int = 0
    prefills: list[tuple[int, int]] = field(default_factory=list)
    num_samples: int = 0
    num_swap_blocks: int = 0
    longest_decode: int = 0
    shared_context: int = 0
    prefill_tokens_before: int = 0

    @property
    def num_tokens(self) -> int:
        """Query tokens of the step."""
        num_tokens = self.num_decodes
        for query_len, _ in self.prefills:
            num_tokens += query_len
        return num_tokens

    @property
    def num_requests(self) -> int:
        """Rows of the batch."""
        return self.num_decodes + len(self.prefills)


@dataclass(frozen=True, slots=True)
class MeasuredStep:
    """A step and how long it took.

    Attributes:
        shape: The step.
        seconds: From the end of the step before to its own end, as whoever serves sees it.
        host_s: The part of `seconds` in which the device waited for the host: scheduling, inputs,
            outputs. 0 where it was not told apart.
        source: Where it was measured; steps of one source shared the machine's mood.
        pace: Seconds that a fixed piece of work took on the same CPU meanwhile; 0: not told.
    """

    shape: StepShape
    seconds: float
    host_s: float = 0.0
    source: str = ""
    pace: float = 0.0


STEP_COLUMNS = (
    "num_decodes",
    "decode_context",
    "prefills",
    "num_samples",
    "num_swap_blocks",
    "longest_decode",
    "shared_context",
    "prefill_tokens_before",
    "seconds",
    "host_s",
    "source",
    "pace",
)
OPTIONAL_COLUMNS = {
    "num_swap_blocks": "0",
    "longest_decode": "0",
    "shared_context": "0",
    "prefill_tokens_before": "0",
    "host_s": "0",
    "source": "",
    "pace": "0",
}


def step_row(step: MeasuredStep) -> list[str]:
    """The fields of `STEP_COLUMNS`; prompt chunks are written as "query@context query@context"."""
    shape = step.shape
    chunks = " ".join(f"{query}@{context}" for query, context in shape.prefills)
    contexts = (shape.longest_decode, shape.shared_context, shape.prefill_tokens_before)
    counts = (shape.num_samples, shape.num_swap_blocks, *contexts)
    times = (f"{step.seconds:.9g}", f"{step.host_s:.9g}")
    rest = (step.source, f"{step.pace:.6g}")
    head = (str(shape.num_decodes), str(shape.decode_context), chunks)
    return [*head, *map(str, counts), *times, *rest]


def write_steps(path: Path, steps: Iterable[MeasuredStep]) -> None:
    """Write a CSV with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(STEP_COLUMNS)
        writer.writerows(step_row(step) for step in steps)


def check_columns(path: Path) -> None:
    """Refuse to go on with a file that other code has begun.

    Raises:
        ConfigError: Its columns are not those that are written here.
    """
    with path.open(newline="", encoding="utf-8") as file:
        found = next(csv.reader(file), [])
    if tuple(found) != STEP_COLUMNS:
        raise ConfigError(
            f"measured steps {path} have other columns than this program writes: they were begun by"
            " another version of it; name a new file or folder"
        )


def read_steps(path: Path) -> list[MeasuredStep]:
    """Read such a CSV.

    Raises:
        ConfigError: It is missing, lacks a column, or a line of it is no step.
    """
    if not path.is_file():
        raise ConfigError(f"measured steps {path} do not exist: give a CSV, a line a step")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or ()
        missing = [n for n in STEP_COLUMNS if n not in columns and n not in OPTIONAL_COLUMNS]
        if missing:
            raise ConfigError(f"measured steps {path} lack the column {missing[0]}")
        return list(_steps(path, reader))


def _steps(path: Path, reader: Iterable[dict[str, str]]) -> Iterator[MeasuredStep]:
    for line, row in enumerate(reader, start=2):
        try:
            step = _step(OPTIONAL_COLUMNS | row)
        except (ValueError, TypeError, AttributeError):
            raise ConfigError(f"measured steps {path}, line {line}: {row} is no step") from None
        if not (0.0 < step.seconds < math.inf and 0.0 <= step.host_s <= step.seconds):
            raise ConfigError(
                f"measured steps {path}, line {line}: seconds={step.seconds:g} must be above 0 and"
                f" finite, and host_s={step.host_s:g} a part of them"
            )
        if not 0.0 <= step.pace < math.inf:
            raise ConfigError(
                f"measured steps {path}, line {line}: pace={step.pace:g} must be at least 0 and"
                " finite"
            )
        yield step


def _step(row: dict[str, str]) -> MeasuredStep:
    chunks = [chunk.split("@") for chunk in row["prefills"].split()]
    shape = StepShape(
        int(row["num_decodes"]),
        int(row["decode_context"]),
        [(int(query), int(context)) for query, context in chunks],
        int(row["num_samples"]),
        int(row["num_swap_blocks"]),
        int(row["longest_decode"]),
        int(row["shared_context"]),
        int(row["prefill_tokens_before"]),
    )
    times = (float(row["seconds"]), float(row["host_s"]))
    return MeasuredStep(shape, *times, row["source"], float(row["pace"]))
