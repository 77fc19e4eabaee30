"""The timeline of a run in the Chrome trace event format; opens in ui.perfetto.dev.

Knows how records and steps become trace events: one process a replica with a track of steps,
counters (requests running and waiting, KV blocks used), one nested asynchronous slice a request
(queued, prefill, decode) and an instant where requests were preempted. Computes no latency.

The format is the "JSON Array/Object Format" of the Trace Event Format document: ``ts`` and
``dur`` in microseconds, phases M (names), X (slice), C (counter), b/e (asynchronous), i (instant).
Lines are formatted directly, one event a line: this is several times as fast as building
dictionaries, and the same input gives the same bytes.
"""

import json
import os
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from experiments.tables import json_safe
from workbench.metrics import RequestRecord, StepLog

MAX_REQUESTS = 5_000
MAX_STEPS = 20_000
STEPS_THREAD = 1


def write_timeline(
    path: str | os.PathLike[str],
    records: Sequence[RequestRecord],
    steps: StepLog,
    *,
    start_s: float = 0.0,
    max_requests: int = MAX_REQUESTS,
    max_steps: int = MAX_STEPS,
) -> dict[str, int | float | str]:
    """Write the trace and return its metadata (also in the file, under ``otherData``).

    A long run is cut in time, not thinned: from ``start_s`` on, as far as ``max_steps`` steps and
    ``max_requests`` requests reach, so that what is shown is complete. The metadata says which
    window it is and how much was left out. The default limits keep the file below about 12 MB.
    """
    window = _window(records, steps, start_s, max_requests, max_steps)
    inside = (steps.start_s >= window[0]) & (steps.start_s < window[1])
    kept_steps = np.flatnonzero(inside)
    kept_requests = [r for r in records if _in_window(r, window)]
    metadata = _metadata(records, steps, window, len(kept_requests), len(kept_steps))
    replicas = {*steps.replica[inside].tolist(), *(r.replica for r in kept_requests)}
    with open(path, "w", encoding="utf-8", newline="\n") as file:
        file.write('{"displayTimeUnit":"ms","otherData":')
        file.write(json.dumps(json_safe(metadata)))
        file.write(',"traceEvents":[\n')
        file.write(",\n".join(_events(kept_requests, steps, kept_steps, sorted(replicas))))
        file.write("\n]}\n")
    return metadata


def _window(
    records: Sequence[RequestRecord],
    steps: StepLog,
    start_s: float,
    max_requests: int,
    max_steps: int,
) -> tuple[float, float]:
    """Half-open window [start, end) in seconds that keeps both limits."""
    arrivals = sorted(r.arrival_s for r in records if r.arrival_s >= start_s)
    starts = np.sort(steps.start_s[steps.start_s >= start_s])
    end = float("inf")
    if len(arrivals) > max_requests:
        end = arrivals[max_requests]
    if len(starts) > max_steps:
        end = min(end, float(starts[max_steps]))
    return start_s, end


def _in_window(record: RequestRecord, window: tuple[float, float]) -> bool:
    return window[0] <= record.arrival_s < window[1]


def _metadata(
    records: Sequence[RequestRecord],
    steps: StepLog,
    window: tuple[float, float],
    num_requests: int,
    num_steps: int,
) -> dict[str, int | float | str]:
    out: dict[str, int | float | str] = {
        "requests_shown": num_requests,
        "requests_left_out": len(records) - num_requests,
        "steps_shown": num_steps,
        "steps_left_out": len(steps) - num_steps,
        "window_start_s": window[0],
    }
    if window[1] != float("inf"):
        out["window_end_s"] = window[1]
    if out["requests_left_out"] or out["steps_left_out"]:
        out["note"] = "only what began inside the window is shown; the run went on"
    return out


def _events(
    records: Sequence[RequestRecord],
    steps: StepLog,
    kept: NDArray[np.intp],
    replicas: Iterable[int],
) -> Iterator[str]:
    for replica in replicas:
        yield from _names(replica)
    yield from _step_events(steps, kept)
    for number, record in enumerate(records):
        yield from _request_events(number, record)


def _names(replica: int) -> Iterator[str]:
    head = f'{{"ph":"M","pid":{_process(replica)},"tid":{STEPS_THREAD},'
    yield head + f'"name":"process_name","args":{{"name":"replica {replica}"}}}}'
    yield head + f'"name":"process_sort_index","args":{{"sort_index":{replica}}}}}'
    yield head + '"name":"thread_name","args":{"name":"steps"}}'


def _step_events(steps: StepLog, kept: NDArray[np.intp]) -> Iterator[str]:
    """Slice and counters of each step; an instant where it preempted."""
    columns = (column[kept].tolist() for _, column in steps.columns())
    for index, *row in zip(kept.tolist(), *columns, strict=True):
        replica, start, duration, tokens, prefill, decode, running, waiting, preempted, blocks = row
        pid = _process(replica)
        ts = f"{start * 1e6:.3f}"
        at = f'"pid":{pid},"tid":{STEPS_THREAD},"ts":{ts}'
        yield (
            f'{{"ph":"X","name":"{_step_name(prefill, decode)}","cat":"step",{at},'
            f'"dur":{duration * 1e6:.3f},"args":{{"step":{index},"tokens":{tokens},'
            f'"prefill_tokens":{prefill},"decode_tokens":{decode},"running":{running},'
            f'"waiting":{waiting},"preempted":{preempted},"kv_blocks_used":{blocks}}}}}'
        )
        yield (
            f'{{"ph":"C","name":"requests","pid":{pid},"ts":{ts},'
            f'"args":{{"running":{running},"waiting":{waiting}}}}}'
        )
        yield (
            f'{{"ph":"C","name":"KV blocks used","pid":{pid},"ts":{ts},'
            f'"args":{{"value":{blocks}}}}}'
        )
        if preempted:
            yield (
                f'{{"ph":"i","s":"t","name":"preempted {preempted}","cat":"preemption",{at},'
                f'"args":{{"preempted":{preempted}}}}}'
            )


def _process(replica: int) -> int:
    """Process number of a replica: not 0, which viewers take for the idle process."""
    return replica + 1


def _step_name(prefill: int, decode: int) -> str:
    if prefill and decode:
        return "mixed"
    return "prefill" if prefill else "decode"


def _request_events(number: int, record: RequestRecord) -> Iterator[str]:
    """A request's slice with its phases inside; a request without a duration is an instant."""
    name = json.dumps(record.request_id)
    tail = f'"pid":{_process(record.replica)},"tid":{STEPS_THREAD}'
    args = (
        f'"args":{{"prompt_tokens":{record.prompt_tokens},"output_tokens":{record.output_tokens},'
        f'"cached_tokens":{record.cached_tokens},"preemptions":{record.preemptions},'
        f'"finish_reason":{json.dumps(record.finish_reason)},'
        f'"client_id":{json.dumps(record.client_id)},"priority":{record.priority}}}'
    )
    phases = _phases(record)
    if not phases:
        yield (
            f'{{"ph":"i","s":"t","name":{name},"cat":"request",{tail},'
            f'"ts":{record.arrival_s * 1e6:.3f},{args}}}'
        )
        return
    common = f'"cat":"request","id":{number},{tail}'
    yield f'{{"ph":"b","name":{name},{common},"ts":{phases[0][1] * 1e6:.3f},{args}}}'
    for phase, start, end in phases:
        yield f'{{"ph":"b","name":"{phase}",{common},"ts":{start * 1e6:.3f}}}'
        yield f'{{"ph":"e","name":"{phase}",{common},"ts":{end * 1e6:.3f}}}'
    yield f'{{"ph":"e","name":{name},{common},"ts":{phases[-1][2] * 1e6:.3f}}}'


def _phases(record: RequestRecord) -> list[tuple[str, float, float]]:
    """(name, start, end) of the phases with a duration, one after another; seconds."""
    times = record.token_times_s
    first = float(times[0]) if len(times) else None
    end = record.finish_s
    if end is None and len(times):
        end = float(times[-1])
    scheduled = record.first_scheduled_s
    marks = (
        ("queued", record.arrival_s, end if scheduled is None else scheduled),
        ("prefill", scheduled, end if first is None else first),
        ("decode", first, end),
    )
    return [(n, s, e) for n, s, e in marks if s is not None and e is not None and e > s]
