"""A validation against a live server as one file, from which it can be simulated again.

Knows the file: a head (what was typed, the server's settings, the machine), and a line for each
phase with what the client saw and what the server's recorder noted. A name that ends in `.xz` is
compressed. Times are those of CLOCK_MONOTONIC, kept to the microsecond for clients.
"""

import io
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate, pairwise
from pathlib import Path
from typing import IO, Any

from experiments.live_vllm.client import Answer
from experiments.live_vllm.step_record import Event, event_of, line_of
from workbench.errors import ConfigError

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
        answers: What the client saw; all in full, otherwise the validation had ended.
        events: What the server's recorder noted.
        paces: Of each step: seconds that fixed work took around it, 0 where that is not known.
        others: CPUs that others used; None: not known.
        seconds: How long it took.
    """

    source: str
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
    with _opened(file) as source:
        return _head_in(file, source.readline())


def read_recording(file: Path) -> tuple[Head, list[SeenPhase]]:
    """(head, phases).

    Raises:
        ConfigError: There is no such file, it is no recording, or a line of it is none.
    """
    with _opened(file) as source:
        head = _head_in(file, source.readline())
        try:
            return head, [_phase_in(json.loads(line)) for line in source]
        except (ValueError, TypeError, KeyError, EOFError, lzma.LZMAError) as error:
            raise ConfigError(
                f"{file} is cut off or damaged ({type(error).__name__}): record it again"
            ) from None


def rounded(seconds: float) -> float:
    """A client's time as a recording has it."""
    return round(seconds * MICRO) / MICRO


def rounded_pace(seconds: float) -> float:
    """A pace as a recording has it."""
    return float(f"{seconds:.{DIGITS}g}")


def _opened(file: Path) -> IO[str]:
    try:
        if file.suffix == ".xz":
            return io.TextIOWrapper(lzma.open(file), encoding="utf-8")
        return file.open(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): name a {FILE}") from None


def _head_in(file: Path, line: str) -> Head:
    try:
        values = json.loads(line)
        if values.pop("format") != FORMAT:
            raise ValueError
        return Head(**values)
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
        "others": phase.others,
        "seconds": phase.seconds,
        "paces": list(phase.paces),
        "answers": [_answer_out(answer) for answer in phase.answers],
        "events": [line_of(event) for event in phase.events],
    }


def _phase_in(values: Mapping[str, Any]) -> SeenPhase:
    return SeenPhase(
        values["source"],
        [_answer_in(*answer) for answer in values["answers"]],
        [event_of(*event) for event in values["events"]],
        values["paces"],
        values["others"],
        values["seconds"],
    )


def _answer_out(answer: Answer) -> list[Any]:
    """[id, microseconds when it was sent, and from one token to the next]."""
    times = [round(MICRO * at) for at in (answer.sent_at, *answer.token_times)]
    return [answer.request_id, times[0], *(after - before for before, after in pairwise(times))]


def _answer_in(request_id: str, *gaps: int) -> Answer:
    sent_at, *times = (at / MICRO for at in accumulate(gaps))
    return Answer(request_id, sent_at, times)
