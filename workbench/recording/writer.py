"""Writes a recording, event by event."""

import gzip
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from typing import Any

from workbench.outputs import SchedulerOutput
from workbench.recording.events import FORMAT, RecordedSettings
from workbench.recording.lines import ScheduleLines, encode, grammar_ends, request_values
from workbench.request import Request


class RecordingWriter:
    """Writes a recording into memory, compressed.

    Args:
        settings: Of the scheduler that is recorded.
    """

    def __init__(self, settings: RecordedSettings) -> None:
        self._steps = ScheduleLines()
        self._buffer = BytesIO()
        self._file = gzip.GzipFile(fileobj=self._buffer, mode="wb", compresslevel=1, mtime=0)
        self._write(encode({"format": FORMAT} | asdict(settings)))

    def request(self, now: float, request: Request, is_taken: bool) -> None:
        """Note a call of `add_request`; see `request_values`."""
        head = {"event": "request", "now": now, "is_taken": is_taken}
        self._write(encode(head | request_values(request)))

    def abort(self, now: float, request_ids: Sequence[str]) -> None:
        """Note a call of `abort_requests`."""
        self._write(encode({"event": "abort", "now": now, "request_ids": request_ids}))

    def schedule(self, now: float, output: SchedulerOutput) -> None:
        """Note the decisions of a step."""
        self._write(self._steps.line(now, output))

    def update(self, now: float, answer: Mapping[str, Any], finished: Iterable[Request]) -> None:
        """Note that results were taken in: `answer_values`, and who ended by them."""
        requests = list(finished)
        ends = {request.request_id: request.finish_reason for request in requests}
        values = {"event": "update", "now": now, **answer, "finished": ends}
        if by_grammar := grammar_ends(requests):
            values["grammar_ends"] = by_grammar
        self._write(encode(values))

    def close(self, now: float, has_work: bool) -> bytes:
        """Write the end; the whole file."""
        self._write(encode({"event": "end", "now": now, "has_work": has_work}))
        self._file.close()
        return self._buffer.getvalue()

    def _write(self, line: str) -> None:
        self._file.write(line.encode() + b"\n")
