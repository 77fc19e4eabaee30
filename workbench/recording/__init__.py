"""A recorded run as a file: what an engine core was asked and when, and what it decided.

A scheduler is a function of its settings, of the calls that reach it, of the times it is told and
of the tokens that come back. A recording holds exactly these, and every decision beside them, so
that another world can be asked the same. It knows neither who records nor who replays.

The file is gzipped JSON lines. The first line is the header: the format and the settings. Then
comes a line an event, in the order of the calls:

    request    EngineCore.add_request: the request, and whether it was taken
    abort      EngineCore.abort_requests: the ids
    schedule   Scheduler.schedule: the decisions, every field of SchedulerOutput.as_dict(); the
               rows of a batch that are those of the step before are not said again
    update     Scheduler.update_from_output: the step, its tokens, and who ended by them; where a
               grammar ended an answer, after how many tokens, and why if it could not go on
    end        of the recording, and whether there was work left

A file without an end is that of a process that was killed: it is read up to its last whole line.

`now` is what the core's clock said in that call, seconds. Numbers are written so that they are read
back to the last bit.
"""

from workbench.recording.events import (
    AbortEvent,
    EndEvent,
    Event,
    RecordedSettings,
    Recording,
    RequestEvent,
    ScheduleEvent,
    UpdateEvent,
)
from workbench.recording.lines import SAME, ScheduleLines, answer_values
from workbench.recording.reader import read_recording
from workbench.recording.writer import RecordingSink, RecordingWriter

__all__ = [
    "SAME",
    "AbortEvent",
    "EndEvent",
    "Event",
    "RecordedSettings",
    "Recording",
    "RecordingSink",
    "RecordingWriter",
    "RequestEvent",
    "ScheduleEvent",
    "ScheduleLines",
    "UpdateEvent",
    "answer_values",
    "read_recording",
]
