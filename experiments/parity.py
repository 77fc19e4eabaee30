"""Whether the engine and the simulator decide alike: a recorded run is played again, step by step.

    python -m experiments.parity [settings of a run] [hydra.run.dir=OUT]
        runs the engine with these settings, as experiments.run does, and replays the run
    python -m experiments.parity run=FOLDER [changes] [hydra.run.dir=OUT]
        replays every recording in the folder: of runs with backend.record=true, on this machine or
        on another one; neither torch nor the model is needed. Of a run whose process was killed,
        all that was written

Changes are settings that shall differ from the recorded ones (scheduler.NAME=VALUE,
cache.NAME=VALUE, num_blocks=N, queue=OPTION …): the first step that they change is named. OUT gets
parity.json and report.html. The exit status is 0 if every step is equal, 1 if one is not, and 2 if
the command cannot be understood.

It knows recordings and settings. How a run is recorded and replayed, it does not know.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.parity_changes import changed, policies_of
from experiments.parity_report import brief, write_parity_report
from experiments.program import run_program
from experiments.run_folder import RECORDING, write_json
from simulator.replay import Replay, ReplayResult
from workbench.errors import ConfigError
from workbench.recording import Recording, read_recording

PARITY = "parity.json"
ENGINE = "engine"  # the folder of the run itself
DIFFERENT = 1
FOLDER, RUN = "hydra.run.dir=", "run="


@dataclass(frozen=True, slots=True)
class Replayed:
    """A recording and its replay.

    Attributes:
        path: The recording.
        recording: What it holds.
        result: How its replay went.
        wall_s: Seconds that reading and replaying took.
    """

    path: Path
    recording: Recording
    result: ReplayResult
    wall_s: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; the exit status."""
    # the last paragraph is about this file
    return run_program(arguments, __doc__.rpartition("\n\n")[0], _parity)


def _parity(argv: Sequence[str]) -> int:
    out = Path(time.strftime("outputs/%Y-%m-%d/%H-%M-%S"))
    recorded, rest = None, []
    for argument in argv:
        if argument.startswith(FOLDER):
            out = Path(argument.removeprefix(FOLDER))
        elif argument.startswith(RUN):
            recorded = Path(argument.removeprefix(RUN))
        else:
            rest.append(argument)
    (out / PARITY).unlink(missing_ok=True)
    if recorded is None:
        if status := _serve(rest, out / ENGINE):
            return status
        recorded, rest = out / ENGINE, []
    replays = []
    for replayed in replay_all(recorded, rest):
        print(brief(replayed), flush=True)
        replays.append(replayed)
    facts = summary(replays, rest)
    out.mkdir(parents=True, exist_ok=True)
    write_parity_report(out, replays, facts, argv)
    write_json(out / PARITY, facts)
    print(
        f"{facts['steps_equal']:,} of {facts['steps_recorded']:,} steps decided alike "
        f"({facts['percent_equal']:g} %). Everything is in {out}"
    )
    return 0 if facts["is_equal"] else DIFFERENT


def _serve(overrides: Sequence[str], folder: Path) -> int:
    """Run the engine into the folder, with a recording; the exit status."""
    from experiments.run import main as run

    flags = [argument for argument in overrides if argument.startswith("-")]
    wanted = [a for a in overrides if a not in flags and a != "backend=engine"]
    for override in wanted:
        if override.startswith(("backend=", "backend.record=")):
            raise ConfigError(f"{override}: parity records a run of backend=engine; leave it out")
    places = [f"hydra.run.dir={folder}", f"hydra.sweep.dir={folder}"]
    return run([*flags, *wanted, "backend=engine", "backend.record=true", *places])


def replay_all(folder: Path, changes: Sequence[str] = ()) -> Iterator[Replayed]:
    """Replay every recording at or below a folder, in the order of their names.

    Args:
        folder: A run folder, a folder that holds some, or a recording itself.
        changes: Settings that shall differ from the recorded ones.

    Raises:
        ConfigError: There is no recording, one cannot be read, or a change is none.
    """
    paths = [folder] if folder.is_file() else sorted(folder.rglob(RECORDING))
    if not paths:
        raise ConfigError(
            f"run={folder} holds no {RECORDING}: run the engine with backend.record=true"
        )
    for path in paths:
        yield _replay(path, changes)


def _replay(path: Path, changes: Sequence[str]) -> Replayed:
    started = time.perf_counter()
    recording = read_recording(path)
    settings = changed(recording.settings, changes)
    result = Replay(recording, policies_of(settings), settings).run()
    return Replayed(path, recording, result, time.perf_counter() - started)


def summary(replays: Sequence[Replayed], changes: Sequence[str]) -> dict[str, Any]:
    """The numbers of all replays together, and a row a run."""
    rows = [_row(replayed) for replayed in replays]
    totals = {
        name: sum(row[name] for row in rows)
        for name in ("steps_recorded", "steps_compared", "steps_equal", "requests", "preemptions")
    }
    # rounded down: 100 stands for all of them only
    share = int(1e4 * totals["steps_equal"] / max(totals["steps_recorded"], 1)) / 100
    is_equal = all(row["difference"] is None for row in rows)
    return totals | {
        "percent_equal": share,
        "is_equal": is_equal,
        "changes": list(changes),
        "runs": rows,
    }


def _row(replayed: Replayed) -> dict[str, Any]:
    result, difference = replayed.result, replayed.result.difference
    return {
        "recording": str(replayed.path),
        "is_whole": replayed.recording.is_whole,
        "steps_recorded": result.num_recorded,
        "steps_compared": result.num_compared,
        "steps_equal": result.num_equal,
        **result.counters,
        "difference": None
        if difference is None
        else {
            "step": difference.step,
            "field": difference.field,
            "expected": difference.expected,
            "got": difference.got,
        },
        "engine": _engine_of(replayed.path.parent),
        "replay_wall_s": round(replayed.wall_s, 3),
    }


def _engine_of(folder: Path) -> dict[str, Any] | None:
    """What the run folder says of the engine that served, if it says anything."""
    try:
        provenance = json.loads((folder / "provenance.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    engine = provenance.get("engine")
    return engine if isinstance(engine, dict) else None


if __name__ == "__main__":
    sys.exit(main())
