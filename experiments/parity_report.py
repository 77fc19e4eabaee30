"""The page and the lines that tell how alike the two worlds decided.

Knows what a replay found. It replays nothing.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.report.page import Headline, Section, Table, write_page
from simulator.recorded_world import Difference
from workbench.outputs import SchedulerOutput

if TYPE_CHECKING:
    from experiments.parity import Replayed

REPORT = "report.html"
MAX_SHOWN = 160
HOW = """\
An engine's run was recorded: every request with the moment at which it was admitted, every abort, \
every reading of the core's clock, every token, and every decision of the scheduler. The recording \
was played through a simulated server: the same classes of engine core, scheduler, KV cache and \
policies, in simulated time. Requests, times and tokens are the recorded ones; every decision is \
the simulated scheduler's own.

A step is equal if all of its decisions are, in the same order, and if both clocks showed the same \
number to the last bit when it was scheduled. What is compared: {fields}. After the first \
difference nothing more is compared, as the recorded tokens answer another question.

It shows that a policy decides in the simulator what it decides on the engine. It does not show \
that simulated step times are right: here they are given."""


def brief(replayed: "Replayed") -> str:
    """The line of one run."""
    result = replayed.result
    line = f"{replayed.path.parent}: {result.num_equal:,} of {result.num_recorded:,} steps equal"
    if result.difference is not None:
        line += f"; first difference: {told(result.difference)}"
    if not replayed.recording.is_whole:
        line += "; the recording has no end, as its writer was killed or the file was cut off"
    return line


def told(difference: Difference) -> str:
    """A difference in one line."""
    place, expected, got = narrowed(difference)
    return f"step {difference.step}, {place}: expected {expected}, got {got}"


def narrowed(difference: Difference) -> tuple[str, str, str]:
    """The innermost place at which the two values part, such as `swap_in[0].request_id`."""
    place, expected, got = difference.field, difference.expected, difference.got
    while (key := _first_other(expected, got)) is not None:
        place += f"[{key}]" if isinstance(key, int) else f".{key}"
        expected, got = expected[key], got[key]
    return place, _short(expected), _short(got)


def _first_other(expected: Any, got: Any) -> int | str | None:
    """The first key of both that has two values; None where only the whole can be told."""
    if isinstance(expected, dict) and isinstance(got, dict):
        if list(expected) != list(got):
            return None
        return next((str(name) for name in expected if expected[name] != got[name]), None)
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return next((i for i in range(len(got)) if expected[i] != got[i]), None)
    return None


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"


def write_parity_report(
    folder: Path, replays: Sequence["Replayed"], facts: Mapping[str, Any], argv: Sequence[str]
) -> None:
    """Write the page."""
    equal = facts["is_equal"]
    sections = [
        Section("Runs", tables=[_runs(facts["runs"])]),
        *([] if equal else [Section("First differences", tables=[_differences(replays)])]),
        Section("What this shows", HOW.format(fields=", ".join(SchedulerOutput(0).as_dict()))),
    ]
    command = shlex.join(["python", "-m", "experiments.parity", *argv])
    write_page(
        folder / REPORT,
        "Parity: the engine and the simulator, step by step",
        sections,
        [command],
        _origin(facts),
        headlines=[
            Headline(
                "steps decided alike",
                f"{facts['percent_equal']:g} %",
                "all of them" if equal else "up to the first difference of each run",
            ),
            Headline("steps", f"{facts['steps_recorded']:,}", "recorded"),
            Headline("requests", f"{facts['requests']:,}"),
            Headline("preemptions", f"{facts['preemptions']:,}"),
        ],
        summary="Every decision of the engine is the simulator's as well."
        if equal
        else "The two differ: the first differing step of each run is named below.",
    )


def _runs(rows: Sequence[Mapping[str, Any]]) -> Table:
    columns = {
        "steps_recorded": "steps",
        "steps_compared": "compared",
        "steps_equal": "equal",
        "requests": "requests",
        "aborts": "aborts",
        "preemptions": "preemptions",
        "prefix_hit_tokens": "prefix hits (tokens)",
    }
    cells = [[*_place(row), *(row[name] for name in columns)] for row in rows]
    return Table("A row a recorded run.", ["run", "recording", *columns.values()], cells)


def _place(row: Mapping[str, Any]) -> tuple[str, str]:
    return _folder(row), "whole" if row["is_whole"] else "without its end"


def _folder(row: Mapping[str, Any]) -> str:
    return str(Path(row["recording"]).parent)


def _differences(replays: Sequence["Replayed"]) -> Table:
    rows = [
        [str(replayed.path.parent), found.step, *narrowed(found)]
        for replayed in replays
        if (found := replayed.result.difference) is not None
    ]
    return Table(
        "The first decision of each run that is not the recorded one.",
        ["run", "step", "place", "expected", "got"],
        rows,
    )


def _origin(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Where the recordings come from, as far as they agree about it."""
    engines = [row["engine"] or {} for row in facts["runs"]]
    names = ("device_name", "device", "torch", "dtype", "attention_backend", "executor")
    told = {name: sorted({str(engine.get(name)) for engine in engines}) for name in names}
    shown = {f"engine: {name}": ", ".join(values) for name, values in told.items()}
    return shown | {"changes": ", ".join(facts["changes"]) or "none"}
