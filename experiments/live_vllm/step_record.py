"""What the recorder inside a vLLM server has written: its settings, arrivals, steps.

Knows the lines of `inside/vllm_step_recorder.py`, the files of `inside/vllm_paced_worker.py`, and
how vLLM names a request that a client has named. Times are those of CLOCK_MONOTONIC, seconds.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from experiments.live_vllm.errors import ServerError

RECORDER = Path(__file__).resolve().parents[1] / "inside"
RECORD_VARIABLE = "VLLM_STEP_RECORD"
# vLLM's own head, the client's X-Request-Id, the number of the prompt, and a tail of newer versions
_NAME = re.compile(r"cmpl-(?P<name>.+)-0(-[0-9a-f]{8})?")


@dataclass(frozen=True, slots=True)
class Add:
    """A request reached the scheduler."""

    at: float
    request_id: str
    num_prompt_tokens: int
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Row:
    """A request's part in a step: tokens it had computed before, and tokens it computes."""

    request_id: str
    computed: int
    tokens: int
    outputs: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """A step was decided."""

    start: float
    end: float
    rows: tuple[Row, ...]
    preempted: tuple[str, ...]
    num_waiting: int
    num_free_blocks: int


@dataclass(frozen=True, slots=True)
class Update:
    """The oldest step in flight was taken in; so many requests are left."""

    start: float
    end: float
    num_unfinished: int


Event = Add | Schedule | Update


class StepRecord:
    """A record that a server is writing.

    Args:
        path: The file.
        from_start: Read its events from the first on; else those to come.

    Raises:
        ServerError: It is missing, or does not begin with a server's settings.
    """

    def __init__(self, path: Path, *, from_start: bool = True) -> None:
        self._path = path
        try:
            with path.open(encoding="utf-8") as file:
                head = file.readline()
                self._offset = file.tell() if from_start else path.stat().st_size
            kind, settings = json.loads(head)
            if kind != "settings":
                raise ValueError(kind)
        except (OSError, ValueError, TypeError) as error:
            raise ServerError(
                f"{path} holds no steps of a vLLM server ({type(error).__name__}): start the server"
                f" with PYTHONPATH={RECORDER} {RECORD_VARIABLE}={path} and --scheduler-cls"
                " vllm_step_recorder.RecordingScheduler (RecordingAsyncScheduler where it schedules"
                " asynchronously)"
            ) from None
        self.settings: dict[str, Any] = settings

    def new_events(self) -> list[Event]:
        """Events since the last call. Raises ServerError on a line that is none."""
        with self._path.open(encoding="utf-8") as file:
            file.seek(self._offset)
            text = file.read()
        whole, _, _ = text.rpartition("\n")
        if not whole:
            return []
        self._offset += len(whole.encode()) + 1
        return events_of(whole.split("\n"), self._path)


def events_of(lines: Iterable[str], path: Path) -> list[Event]:
    """The events of some lines. Raises ServerError on one that is none."""
    try:
        return [event_of(*json.loads(line)) for line in lines]
    except (ValueError, TypeError, KeyError) as error:
        raise ServerError(
            f"{path} holds a line that is no event of a step record ({error}): the recorder and"
            " this program must be of one version"
        ) from None


def event_of(kind: str, *values: Any) -> Event:
    """The event of a line's values. Raises ValueError, TypeError where they are none."""
    if kind == "add":
        at, name, *lengths = values
        return Add(at, client_name(name), *lengths)
    if kind == "schedule":
        start, end, rows, preempted, waiting, free = values
        made = tuple(Row(client_name(name), *numbers) for name, *numbers in rows)
        return Schedule(start, end, made, tuple(map(client_name, preempted)), waiting, free)
    if kind == "update":
        return Update(*values)
    raise ValueError(f"unknown event {kind!r}")


def line_of(event: Event) -> list[Any]:
    """The values of which `event_of` makes the same event."""
    return [type(event).__name__.lower(), *astuple(event)]


def pace_files(record: Path) -> list[Path]:
    """Those in which the workers beside a record tell the pace of their CPUs; none on GPUs."""
    return sorted(record.parent.glob(f"{record.name}.pace.*"))


def client_name(name: str) -> str:
    """The client's name of a request; vLLM's own where no client gave one."""
    found = _NAME.fullmatch(name)
    return name if found is None else found["name"]
