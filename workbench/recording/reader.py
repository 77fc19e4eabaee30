"""Reads a recording, and says in one line what is wrong with a file that is none."""

import gzip
import json
import zlib
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path

from workbench.config import CacheConfig, SchedulerConfig
from workbench.errors import ConfigError
from workbench.recording.events import (
    FORMAT,
    GRAMMAR_END,
    AbortEvent,
    EndEvent,
    Event,
    RecordedSettings,
    Recording,
    RequestEvent,
    ScheduleEvent,
    UpdateEvent,
)

MOST_ZEROS = 8
"""Zero bytes that a whole file may end with; after a crash of the system it may end with many."""


def read_recording(path: Path) -> Recording:
    """Read a recording; of one that is cut off, as its writer was killed, what there is of it.

    Raises:
        ConfigError: It is missing, cut off in its first line, of another format or no recording.
    """
    try:
        lines = _whole_lines(path.read_bytes())
        settings = _settings(path, next(lines, None))
        events = _with_grammar_ends(list(_events(lines)))
    except FileNotFoundError:
        raise ConfigError(f"{path} does not exist: record a run first") from None
    except ConfigError:
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is no recording ({type(error).__name__}: {error})") from None
    steps = [event.step for event in events if isinstance(event, ScheduleEvent)]
    if steps != list(range(len(steps))):
        raise ConfigError(f"{path} does not begin with the first step: record a fresh engine")
    return Recording(settings, events)


def _whole_lines(data: bytes) -> Iterator[str]:
    """The lines of a compressed file, up to where it was cut off."""
    written = data.rstrip(b"\0")
    if len(data) - len(written) > MOST_ZEROS:
        data = written
    try:
        with gzip.open(BytesIO(data), "rb") as lines:
            for line in lines:
                yield line.decode("utf-8")
    except (EOFError, zlib.error):
        return


def _settings(path: Path, line: str | None) -> RecordedSettings:
    if line is None:
        raise ConfigError(f"{path} is cut off in its first line: copy it again, or record anew")
    header = json.loads(line)
    if (found := header.pop("format", None)) != FORMAT:
        raise ConfigError(f"{path} has the format {found!r}, and {FORMAT!r} is what is read here")
    header["scheduler"] = SchedulerConfig(**header["scheduler"])
    header["cache"] = CacheConfig(**header["cache"])
    return RecordedSettings(**header)


def _with_grammar_ends(events: list[Event]) -> list[Event]:
    """The same, with what later events tell of a request's grammar told with the request."""
    ends: dict[str, list[object]] = {}
    for i in range(len(events) - 1, -1, -1):
        event = events[i]
        if isinstance(event, UpdateEvent):
            ends.update(event.values.get("grammar_ends", {}))
        elif isinstance(event, RequestEvent):
            end = ends.pop(event.values["request_id"], None)
            if end is not None:
                events[i] = RequestEvent(event.now, {**event.values, GRAMMAR_END: end})
    return events


def _events(lines: Iterable[str]) -> Iterator[Event]:
    for line in lines:
        values = json.loads(line)
        now, kind = values["now"], values["event"]
        if kind == "request":
            yield RequestEvent(now, values)
        elif kind == "abort":
            yield AbortEvent(now, values["request_ids"])
        elif kind == "schedule":
            made = values["decisions"]
            uses_device = bool(
                made["total_num_scheduled_tokens"] or made["shape"]["num_swap_blocks"]
            )
            yield ScheduleEvent(now, made["step"], uses_device, line.rstrip("\n"))
        elif kind == "update":
            yield UpdateEvent(now, values["step"], values)
        elif kind == "end":
            yield EndEvent(now, values["has_work"])
        else:
            raise ValueError(f"there is no event {kind!r}")
