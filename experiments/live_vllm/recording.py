"""A validation against a live server as one file, from which it can be simulated again.

Knows the file: a head (what was typed, the server's settings, the machine), and a line for each
phase with what the client saw and what the server's recorder noted. A name that ends in `.xz` is
compressed. Times are those of CLOCK_MONOTONIC, kept to the microsecond for clients.
"""

import hashlib
import json
import lzma
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any

import numpy as np

from experiments.live_vllm.client import Answer
from experiments.live_vllm.step_record import Event, event_of, line_of
from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

FILE = "recording.jsonl"
FORMAT = 1
MICRO = 1e6
DIGITS = 6  # of a pace


@dataclass(frozen=True, slots=True)
class Head:
    """What a recording is of.

    Attributes:
        words: What was typed, without where the server was and where results went.
        told: The server's settings, as its recorder told them.
        machine: Facts of the machine, the date, the versions.
        salt: Of tokens, beside the seed.
    """

    words: Sequence[str] = ()
    told: Mapping[str, Any] = field(default_factory=dict)
    machine: Mapping[str, Any] = field(default_factory=dict)
    salt: int = 0


@dataclass(frozen=True, slots=True)
class SeenPhase:
    """What was seen of a phase.

    Attributes:
        source: Its name.
        prompts: See `digest`.
        answers: What the client saw; every request was answered in full.
        events: What the server's recorder noted.
        paces: Of each step: seconds that fixed work took around it, 0 where that is not known.
        others: CPUs that others used; None: not known.
        seconds: How long it took.
    """

    source: str
    prompts: str
    answers: Sequence[Answer]
    events: Sequence[Event]
    paces: Sequence[float]
    others: float | None
    seconds: float


class RecordingWriter:
    """Writes a recording, phase after phase, so that one that is cut off has the phases before.

    Args:
        file: Where to; one that is there is replaced.
        head: Its head.
    """

    def __init__(self, file: Path, head: Head) -> None:
        self._file = file
        with file.open("w", encoding="utf-8") as out:
            _write(out, {"format": FORMAT, **asdict(head)})

    def add(self, phase: SeenPhase) -> None:
        """Write a phase."""
        with self._file.open("a", encoding="utf-8") as out:
            _write(out, _phase_out(phase))


def read_head(file: Path) -> Head:
    """The head of a recording.

    Raises:
        ConfigError: There is no such file, or it is no recording.
    """
    return _head_in(file, next(_lines(file), ""))


def read_recording(file: Path) -> tuple[Head, list[SeenPhase]]:
    """(head, phases).

    Raises:
        ConfigError: There is no such file, it is no recording, or a line of it is none.
    """
    lines = _lines(file)
    head = _head_in(file, next(lines, ""))
    try:
        return head, [_phase_in(json.loads(line)) for line in lines]
    except ConfigError:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(file, error) from None


def digest(items: Sequence[WorkloadRequest]) -> str:
    """By which the prompts of a phase are known again, token by token."""
    found = hashlib.sha256()
    for item in items:
        found.update(np.asarray(item.prompt_token_ids or (), dtype=np.int64).tobytes() + b"|")
    return found.hexdigest()[:16]


def rounded(seconds: float) -> float:
    """A client's time as a recording has it."""
    return round(seconds * MICRO) / MICRO


def rounded_pace(seconds: float) -> float:
    """A pace as a recording has it."""
    return float(f"{seconds:.{DIGITS}g}")


def _lines(file: Path) -> Iterator[str]:
    """The lines of a recording, unpacked where it is packed. Raises ConfigError."""
    opened = lzma.open if file.suffix == ".xz" else open
    try:
        with opened(file, "rt", encoding="utf-8") as source:
            yield from source
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): name a {FILE}") from None
    except (UnicodeDecodeError, EOFError, lzma.LZMAError) as error:
        raise _damaged(file, error) from None


def _damaged(file: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{file} is no {FILE}, or cut off or damaged ({type(error).__name__}): record it again"
    )


def _head_in(file: Path, line: str) -> Head:
    try:
        values = json.loads(line)
        if values.pop("format") != FORMAT or not values["told"]:
            raise ValueError
        words = [str(word) for word in values.pop("words")]
        return Head(words, dict(values.pop("told")), dict(values.pop("machine")), **values)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(
            f"{file} is no recording of a validation of format {FORMAT}: name a {FILE} that"
            " experiments.validate_vllm has left"
        ) from None


def _write(out: IO[str], values: Mapping[str, Any]) -> None:
    out.write(json.dumps(values, separators=(",", ":")) + "\n")


def _phase_out(phase: SeenPhase) -> dict[str, Any]:
    return {
        "source": phase.source,
        "prompts": phase.prompts,
        "others": phase.others,
        "seconds": phase.seconds,
        "paces": list(phase.paces),
        "answers": [_answer_out(answer) for answer in phase.answers],
        "events": [line_of(event) for event in phase.events],
    }


def _phase_in(values: Mapping[str, Any]) -> SeenPhase:
    others = values["others"]
    return SeenPhase(
        values["source"],
        values["prompts"],
        [_answer_in(*answer) for answer in values["answers"]],
        [event_of(*event) for event in values["events"]],
        [float(pace) for pace in values["paces"]],
        None if others is None else float(others),
        float(values["seconds"]),
    )


def _answer_out(answer: Answer) -> list[Any]:
    """[id, microseconds when it was sent, and from one token to the next]."""
    times = [round(MICRO * at) for at in (answer.sent_at, *answer.token_times)]
    return [answer.request_id, times[0], *(after - before for before, after in pairwise(times))]


def _answer_in(request_id: str, *gaps: int) -> Answer:
    sent_at, *times = (at / MICRO for at in accumulate(gaps))
    return Answer(request_id, sent_at, times)
