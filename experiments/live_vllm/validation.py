"""The course of a validation: calibrate a session's server, send the loads, compare.

Knows the order and the files that are left.
"""

import itertools
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.live_vllm.calibrate import LiveCalibration, LiveCalibrator
from experiments.live_vllm.compare import LoadResult, Side, capacity, compare, summary_of
from experiments.live_vllm.iteration_log import (
    iterations_of_log,
    iterations_of_record,
    share_equal,
)
from experiments.live_vllm.report import GOALS, Findings, is_met, percent, write_report
from experiments.live_vllm.requests import at_rate, parts_of, shapes_of
from experiments.live_vllm.session import Served, Session
from experiments.live_vllm.settings import VllmSettings
from experiments.progress import progress_bar
from experiments.provenance import Stopwatch, code_revision, provenance
from experiments.run_folder import write_json
from experiments.tables import json_safe
from workbench.step_profile import write_steps
from workbench.workload.base import Workload, WorkloadRequest


class Validation:
    """One validation.

    Args:
        settings: Of the server and the loads.
        workload: What every load sends.
        folder: Where the results go.
        seed: Of lengths and tokens of the calibration, and of the loads' tokens.
        progress: Whether to show progress bars.
    """

    def __init__(
        self,
        settings: VllmSettings,
        workload: Workload,
        folder: Path,
        seed: int,
        progress: bool = True,
    ) -> None:
        self._settings, self._folder, self._seed = settings, folder, seed
        self._workload, self._progress = workload, progress
        self._watch = Stopwatch()
        self._num_sent = 0

    def run(self, session: Session, log: Path | None, command: str) -> bool:
        """Measure, simulate and report; whether all goals are met.

        Args:
            session: The server, idle.
            log: The file of its log, where it is known.
            command: What was typed.
        """
        items = shapes_of(self._workload, session.settings.scheduler.max_model_len or 0)
        calibrator = LiveCalibrator(session, self._settings.vocab_size, self._seed + session.salt)
        self._calibrate(calibrator, 0)
        most = capacity(items, session.settings, calibrator.result().steps)
        self._say(f"the server can do {most:.2f} requests/s")
        served = self._serve_all(session, calibrator, items, most)
        calibration = calibrator.result(self._facts(session))
        self._write_calibration(calibration)
        loads = [
            self._compare(number, name, share, served[name], session, calibration)
            for number, (name, share) in enumerate(self._settings.loads.items())
        ]
        agrees = _log_agrees(log, session)
        findings = Findings(loads, calibration, most, agrees, self._facts(session))
        self._write(findings)
        write_report(self._folder, findings, command)
        return all(map(is_met, loads))

    def _serve_all(
        self,
        session: Session,
        calibrator: LiveCalibrator,
        items: Sequence[WorkloadRequest],
        most: float,
    ) -> dict[str, list[Served]]:
        """The parts of every load, in turns with the rounds of the calibration."""
        served: dict[str, list[Served]] = {name: [] for name in self._settings.loads}
        for number, part in enumerate(parts_of(items, self._settings.parts), start=1):
            for name, share in self._settings.loads.items():
                served[name].append(self._serve(session, part, f"{name}.{number}", share * most))
            self._calibrate(calibrator, number)
        return served

    def _say(self, text: str) -> None:
        print(text, flush=True)

    def _calibrate(self, calibrator: LiveCalibrator, place: int) -> None:
        """The rounds before the parts, between two of them, or after them."""
        rounds = self._settings.rounds
        for number in range(place * rounds, (place + 1) * rounds):
            self._measure_round(calibrator, number, (self._settings.parts + 1) * rounds)

    def _measure_round(self, calibrator: LiveCalibrator, number: int, of: int) -> None:
        """A round, and again where others used the machine; the last time counts."""
        for _ in range(self._settings.tries):
            self._say(f"calibrating, round {number + 1} of {of}")
            with progress_bar(enabled=self._progress, activity="calibration") as progress:

                def on_probe(done: int, planned: int) -> None:
                    if progress is not None:
                        progress(done, planned, self._watch.wall_s())

                others = calibrator.measure(number, on_probe)
            if not self._is_disturbed(others):
                break

    def _is_disturbed(self, others: float | None) -> bool:
        if others is None or others <= self._settings.disturbed:
            return False
        self._say(f"  others used {others:.2f} CPUs meanwhile")
        return True

    def _write_calibration(self, calibration: LiveCalibration) -> None:
        calibration.steps.save(self._folder / "calibration.json")
        write_json(self._folder / "front_end.json", calibration.front_end.as_dict())
        write_steps(self._folder / "calibration_steps.csv", calibration.measured)

    def _serve(
        self, session: Session, part: Sequence[WorkloadRequest], name: str, rate: float
    ) -> Served:
        """Send a part, and again where others used the machine; the least disturbed time counts."""
        best: Served | None = None
        for attempt in range(self._settings.tries):
            source = name if not attempt else f"{name}.again{attempt}"
            self._num_sent += 1
            seed = self._seed + session.salt + self._num_sent
            items = at_rate(part, rate, source, self._settings.vocab_size, seed)
            served = self._send(session, items, source, rate)
            if best is None or (served.others or 0.0) < (best.others or 0.0):
                best = served
            if not self._is_disturbed(served.others):
                break
        assert best is not None
        return best

    def _send(
        self, session: Session, items: Sequence[WorkloadRequest], source: str, rate: float
    ) -> Served:
        self._say(f"{source}: {len(items)} requests at {rate:.2f} a second")
        with progress_bar(enabled=self._progress, activity=source) as progress:
            ends = itertools.count(1)

            def on_end() -> None:
                if progress is not None:
                    progress(next(ends), len(items), self._watch.wall_s())

            return session.serve(items, source, on_end)

    def _compare(
        self,
        number: int,
        name: str,
        share: float,
        served: Sequence[Served],
        session: Session,
        calibration: LiveCalibration,
    ) -> LoadResult:
        draws = range(number * self._settings.draws, (number + 1) * self._settings.draws)
        result = compare(name, share, served, session.settings, calibration, draws)
        self._write_side(name, "measured", result.measured)
        self._write_side(name, "simulated", result.simulated)
        told = ", ".join(f"{what} {percent(result.errors[key])}" for key, what, _ in GOALS)
        alike = f"{result.num_equal} of {result.num_steps} steps decided alike"
        self._say(f"{name}: {told}; {alike}")
        return result

    def _write_side(self, load: str, world: str, side: Side) -> None:
        folder = self._folder / load
        folder.mkdir(exist_ok=True)
        side.requests.to_parquet(folder / f"{world}_requests.parquet", index=False)
        side.steps.to_parquet(folder / f"{world}_steps.parquet", index=False)

    def _write(self, findings: Findings) -> None:
        errors = {result.name: json_safe(summary_of(result)) for result in findings.loads}
        write_json(self._folder / "errors.json", errors)
        calibration = findings.calibration
        summary = {
            "goals_met": all(map(is_met, findings.loads)),
            "capacity_requests_per_s": findings.capacity,
            "log_agrees_with_recorder": findings.log_agrees,
            "calibration_steps": calibration.num_steps,
            "calibration_steps_decided_alike": calibration.num_equal,
            "front_end": calibration.front_end.as_dict(),
            "facts": dict(findings.facts),
        }
        write_json(self._folder / "summary.json", json_safe(summary))

    def _facts(self, session: Session) -> Mapping[str, Any]:
        server = {f"server {name}": value for name, value in session.told.items()}
        facts = dict(session.machine) | {"seed": self._seed}
        if session.recording is None:
            facts["wall_s"] = self._watch.wall_s()
        else:
            facts["simulated again"] = f"{session.recording} at revision {code_revision()}"
        return facts | server


def machine_of_now() -> dict[str, Any]:
    """What a measurement's code, date and machine are."""
    origin = provenance(revision=code_revision(), stopwatch=Stopwatch(), seed=0)
    names = ("revision", "started_at", "cpu", "cpus_usable", "python")
    return {name: origin[name] for name in names} | {"platform": platform.platform()}


def _log_agrees(log: Path | None, session: Session) -> float | None:
    if log is None:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return share_equal(iterations_of_log(lines), iterations_of_record(session.events))
