"""vLLM's own log of its iterations, a second witness of what the step recorder has noted.

Knows the lines of `--enable-logging-iteration-details`: how many requests and tokens of prompts and
of answers an iteration had. They do not say which requests, nor with what contexts.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from experiments.live_vllm.step_record import Event, Schedule

_LINE = re.compile(
    r"Iteration\((?P<index>\d+)\): (?P<context_requests>\d+) context requests, "
    r"(?P<context_tokens>\d+) context tokens, (?P<generation_requests>\d+) generation requests, "
    r"(?P<generation_tokens>\d+) generation tokens, "
    r"iteration elapsed time: (?P<elapsed_ms>[\d.]+) ms"
)


@dataclass(frozen=True, slots=True)
class Iteration:
    """Counts of an iteration; a context request has not given a token yet."""

    context_requests: int
    context_tokens: int
    generation_requests: int
    generation_tokens: int


def iterations_of_log(lines: Iterable[str]) -> list[Iteration]:
    """The iterations that a server's log tells of, in order; other lines are passed over."""
    found = filter(None, map(_LINE.search, lines))
    names = Iteration.__dataclass_fields__
    return [Iteration(*(int(match[name]) for name in names)) for match in found]


def iterations_of_record(events: Iterable[Event]) -> list[Iteration]:
    """The same counts from what the recorder has noted."""
    found = []
    for event in events:
        if isinstance(event, Schedule):
            context = [row.tokens for row in event.rows if not row.outputs]
            generation = [row.tokens for row in event.rows if row.outputs]
            counts = len(context), sum(context), len(generation), sum(generation)
            found.append(Iteration(*counts))
    return found


def share_equal(log: list[Iteration], record: list[Iteration]) -> float | None:
    """Share of the recorded steps of which the log says the same; None without a log."""
    if not log or not record:
        return None
    same = sum(told == noted for told, noted in zip(log, record, strict=False))
    return same / max(len(log), len(record))
