"""A run by its tables, `steps.parquet` and `requests.parquet`: what they tell of each step.

They say when each request waited, began and got each token, and how many tokens a step had. They do
not say which blocks a request held, nor how the tokens of a step went to several prompts: there the
rows of prompts have no count.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from engine.server.view.latencies import gap_summary
from engine.step_messages import MOST_WAITING, RequestFacts, Row, StepDetail
from experiments.tables import read_request_columns, read_steps
from experiments.viewing.recorded_run import RecordedRun, StepNumbers, Window
from workbench.metrics import RequestColumns, StepLog

ROUNDING_S = 1e-7  # token times are sums, which may miss the end of their step by so much
NO_BLOCKS = (
    "This run has no recording, and its tables do not hold its blocks. Runs of the engine with "
    "backend.record=true have one."
)


def table_run(requests: Path, steps: Path, window: Window, replica: int = 0) -> RecordedRun:
    """The steps of one replica.

    Args:
        requests, steps: The two tables.
        window: Which steps are wanted.
        replica: Whose.
    """
    log = read_steps(steps)
    own = np.flatnonzero(log.replica == replica)
    run = RecordedRun(num_steps=len(own), no_blocks=NO_BLOCKS)
    shown = own[window.start : window.end]
    if not len(shown):
        return run
    starts = log.start_s[shown]
    lives = _Lives(read_request_columns(requests), replica, starts, starts + log.duration_s[shown])
    for place, (numbers, detail) in enumerate(_steps(log, shown, window, lives)):
        run.add(numbers, detail, lives.latencies(place))
    return run


def _steps(
    log: StepLog, shown: NDArray[np.intp], window: Window, lives: "_Lives"
) -> Iterator[tuple[StepNumbers, StepDetail]]:
    columns = {name: values[shown].tolist() for name, values in log.columns()}
    for place in range(len(shown)):
        numbers = StepNumbers(
            step=window.start + place,
            start=columns["start_s"][place],
            duration=columns["duration_s"][place],
            running=columns["running"][place],
            waiting=columns["waiting"][place],
            used=columns["kv_blocks_used"][place],
            tokens=columns["scheduled_tokens"][place],
            prefill=columns["prefill_tokens"][place],
            decode=columns["decode_tokens"][place],
            preempted=columns["preempted"][place],
        )
        yield numbers, lives.detail(place, numbers)


@dataclass(slots=True)
class _Life:
    """A request that is in the window, as far as it has come.

    Attributes:
        key: Its number.
        row: Of `RequestColumns`.
        num_tokens: Tokens of its answer so far.
        last_place: The step of the last one, counted from the first step that is shown.
    """

    key: int
    row: int
    num_tokens: int = 0
    last_place: int = -1


@dataclass(slots=True)
class _Changes:
    """What happens in one step."""

    arrivals: list[_Life] = field(default_factory=list)
    starts: list[_Life] = field(default_factory=list)
    ends: list[_Life] = field(default_factory=list)
    tokens: dict[int, int] = field(default_factory=lambda: defaultdict(int))  # by key
    first_tokens: list[tuple[float, float]] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)


class _Lives:
    """Follows the requests of one replica through the steps of a window.

    Args:
        columns: All requests.
        replica: Whose.
        starts, ends: Seconds, of each step.
    """

    def __init__(
        self,
        columns: RequestColumns,
        replica: int,
        starts: NDArray[np.float64],
        ends: NDArray[np.float64],
    ) -> None:
        self._columns = columns
        self._starts, self._ends = starts, ends
        self._changes: dict[int, _Changes] = defaultdict(_Changes)
        self._lives: dict[int, _Life] = {}
        self._waiting: dict[int, None] = {}
        self._prompts: dict[int, None] = {}
        self._rows: set[int] = set()
        finish = np.where(np.isnan(columns.finish_s), np.inf, columns.finish_s)
        inside = (columns.arrival_s <= ends[-1]) & (finish >= starts[0] - ROUNDING_S)
        served = np.flatnonzero(inside & (columns.replica == replica))
        for key, row in enumerate(served[np.argsort(columns.arrival_s[served], kind="stable")]):
            self._enter(_Life(key, int(row)))

    def _enter(self, life: _Life) -> None:
        """Write down at which steps something happens to a request."""
        columns, row, changes = self._columns, life.row, self._changes
        self._lives[life.key] = life
        changes[self._running_at(columns.arrival_s[row])].arrivals.append(life)
        if not np.isnan(columns.first_scheduled_s[row]):
            changes[self._running_at(columns.first_scheduled_s[row])].starts.append(life)
        if not np.isnan(columns.finish_s[row]):
            changes[self._returned_at(columns.finish_s[row])].ends.append(life)
        first, last = columns.token_offsets[row : row + 2]
        times = columns.token_times_s[first:last]
        places = np.searchsorted(self._ends, times - ROUNDING_S)
        before = int(np.count_nonzero(times <= self._starts[0] + ROUNDING_S))
        life.num_tokens = before
        for number in range(before, len(times)):
            if (place := int(places[number])) >= len(self._ends):
                break
            changes[place].tokens[life.key] += 1
            if number:
                changes[place].gaps.append(float(times[number] - times[number - 1]))
            else:
                waited = float(times[0] - columns.arrival_s[row])
                changes[place].first_tokens.append((float(times[0]), waited))

    def _running_at(self, time: float) -> int:
        """The step that begins at a time or, between two of them, the next one."""
        return int(np.searchsorted(self._starts, time - ROUNDING_S))

    def _returned_at(self, time: float) -> int:
        """The step whose results came at a time."""
        return int(np.searchsorted(self._ends, time - ROUNDING_S))

    def detail(self, place: int, numbers: StepNumbers) -> StepDetail:
        """What the tables tell of one step; steps must be asked for in their order."""
        changes = self._changes[place]
        was_waiting = list(self._waiting)
        self._waiting |= dict.fromkeys(life.key for life in changes.arrivals)
        for life in changes.starts:
            self._waiting.pop(life.key, None)
            if not life.num_tokens:
                self._prompts[life.key] = None
        rows = self._rows_of(place, changes, numbers)
        keys = {row.key for row in rows}
        gone, self._rows = sorted(self._rows - keys), keys
        for life in changes.ends:
            for group in (self._waiting, self._prompts):
                group.pop(life.key, None)
        waiting = list(self._waiting)[:MOST_WAITING]
        return StepDetail(
            step=numbers.step,
            is_first=place == 0,
            requests=[self._facts(life) for life in changes.arrivals],
            admitted=[self._admission(life) for life in changes.starts],
            rows=rows,
            gone=gone,
            tables=[],
            left=[(life.key, self._columns.finish_reason[life.row]) for life in changes.ends],
            waiting=waiting if place == 0 or waiting != was_waiting else None,
        )

    def _rows_of(self, place: int, changes: _Changes, numbers: StepNumbers) -> list[Row]:
        rows = []
        for key, num_new in changes.tokens.items():
            life = self._lives[key]
            was_thrown_out = place - life.last_place > 1 and self._columns.preemptions[life.row]
            life.num_tokens += num_new
            life.last_place = place
            if was_thrown_out:
                self._prompts[key] = None  # it computes anew what it has lost
            elif key not in self._prompts:
                rows.append(Row(key, num_new, 0, self._num_computed(life)))
        num_prompts = len(self._prompts)
        for key in list(self._prompts):
            # of one of several it is not known how many
            num_tokens = numbers.prefill if num_prompts == 1 else 0
            rows.append(
                Row(key, num_tokens, max(num_tokens, 1), self._num_computed(self._lives[key]))
            )
            if key in changes.tokens:
                del self._prompts[key]
        return rows

    def _num_computed(self, life: _Life) -> int:
        return self._prompt(life) + life.num_tokens - 1 if life.num_tokens else 0

    def _prompt(self, life: _Life) -> int:
        return int(self._columns.prompt_tokens[life.row])

    def _facts(self, life: _Life) -> RequestFacts:
        columns, row = self._columns, life.row
        return RequestFacts(
            life.key,
            columns.request_id[row],
            self._prompt(life),
            int(columns.output_tokens[row]),
            int(columns.priority[row]),
        )

    def _admission(self, life: _Life) -> tuple[int, int, int]:
        return life.key, int(self._columns.cached_tokens[life.row]), 0

    def latencies(self, place: int) -> dict[str, object]:
        """What clients waited for in one step, as `Latencies.take` tells it."""
        changes, columns = self._changes[place], self._columns
        ended = []
        for life in changes.ends:
            first, last = columns.token_offsets[life.row : life.row + 2]
            arrival = float(columns.arrival_s[life.row])
            waited = float(columns.token_times_s[first]) - arrival if last > first else None
            took = float(columns.finish_s[life.row]) - arrival
            name, num_tokens = columns.request_id[life.row], int(last - first)
            ended.append({"id": name, "tokens": num_tokens, "ttft": waited, "e2e": took})
        return {
            "ttft": changes.first_tokens,
            "itl": gap_summary(changes.gaps),
            "ended": ended,
        }
