"""Writes a recording, event by event."""

import gzip
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from typing import Any, Protocol

from workbench.outputs import SchedulerOutput
from workbench.recording.events import FORMAT, RecordedSettings
from workbench.recording.lines import ScheduleLines, encode, grammar_ends, request_values
from workbench.request import Request


class RecordingSink(Protocol):
    """Where a recording is written to as it goes."""

    def write(self, data: bytes, /) -> object:
        """Take bytes."""
        ...

    def flush(self) -> object:
        """Let others see what was taken."""
        ...


class RecordingWriter:
    """Writes a recording, compressed.

    Args:
        settings: Of the scheduler that is recorded.
        sink: Takes it as it goes, so that it can be read up to there at any time; who has opened it
            closes it. None: it is kept in memory.
        flush_s: Seconds of events that a sink may come to know late.
    """

    def __init__(
        self,
        settings: RecordedSettings,
        sink: RecordingSink | None = None,
        flush_s: float = 1.0,
    ) -> None:
        self._steps = ScheduleLines()
        self._buffer = BytesIO()
        self._is_kept = sink is None
        self._flush_s = flush_s
        self._flushed_at = -math.inf
        self._file = gzip.GzipFile(
            filename="", fileobj=sink or self._buffer, mode="wb", compresslevel=1, mtime=0
        )
        self._write(-math.inf, encode({"format": FORMAT} | asdict(settings)))
        self.flush()

    def request(self, now: float, request: Request, is_taken: bool) -> None:
        """Note a call of `add_request`; see `request_values`."""
        head = {"event": "request", "now": now, "is_taken": is_taken}
        self._write(now, encode(head | request_values(request)))

    def abort(self, now: float, request_ids: Sequence[str]) -> None:
        """Note a call of `abort_requests`."""
        self._write(now, encode({"event": "abort", "now": now, "request_ids": request_ids}))

    def schedule(self, now: float, output: SchedulerOutput) -> None:
        """Note the decisions of a step."""
        self._write(now, self._steps.line(now, output))

    def update(self, now: float, answer: Mapping[str, Any], finished: Iterable[Request]) -> None:
        """Note that results were taken in: `answer_values`, and who ended by them."""
        requests = list(finished)
        ends = {request.request_id: request.finish_reason for request in requests}
        values = {"event": "update", "now": now, **answer, "finished": ends}
        if by_grammar := grammar_ends(requests):
            values["grammar_ends"] = by_grammar
        self._write(now, encode(values))

    def close(self, now: float, has_work: bool) -> bytes:
        """Write the end; the whole recording, where it is in memory."""
        self._write(now, encode({"event": "end", "now": now, "has_work": has_work}))
        self._file.close()
        return self._buffer.getvalue()

    def flush(self) -> None:
        """Hand on to the sink what has been noted so far."""
        if not self._is_kept:
            self._file.flush()

    def _write(self, now: float, line: str) -> None:
        self._file.write(line.encode() + b"\n")
        if now - self._flushed_at >= self._flush_s:
            self._flushed_at = now
            self.flush()
