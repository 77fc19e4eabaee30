"""Calibrates the simulator on a live server: its steps, and what lies before and after them.

Everything comes from the designed runs of `probes`; no request of a validated workload is used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from engine.workload_tokens import WorkloadTokens
from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.front_end import FrontEnd, samples
from experiments.live_vllm.probes import WARM_UP, probes
from experiments.live_vllm.requests import FIRST_TOKEN, of_probe
from experiments.live_vllm.session import Served, Session
from simulator.calibration import Calibration, fit
from workbench.step_profile import MeasuredStep

ALONE = "single"


@dataclass(frozen=True, slots=True)
class LiveCalibration:
    """What a server costs.

    Attributes:
        steps: Step times.
        front_end: Delays before and after the engine.
        measured: The steps behind it.
        num_steps, num_equal: Steps of the probes, and those that the workbench decides alike.
    """

    steps: Calibration
    front_end: FrontEnd
    measured: list[MeasuredStep]
    num_steps: int
    num_equal: int


class LiveCalibrator:
    """Calibrates a server, round by round.

    Args:
        session: The server.
        vocab_size: Ids of prompts are below it.
        seed: Of lengths and tokens.
    """

    def __init__(self, session: Session, vocab_size: int, seed: int) -> None:
        self._session, self._seed = session, seed
        self._tokens = WorkloadTokens(vocab_size - FIRST_TOKEN, seed)
        self._rounds: dict[int, list[tuple[str, Served]]] = {}
        self._num_sent = 0
        self._seconds = 0.0

    def measure(
        self, number: int, on_probe: Callable[[int, int], None] | None = None
    ) -> float | None:
        """Run the probes of a round; the CPUs that others used meanwhile, where they are known.

        A round that was measured before is replaced.

        Args:
            number: Of the round.
            on_probe: Called with (probes done, probes).

        Raises:
            ServerError: A request failed, or the server decides otherwise than the workbench.
        """
        phases: list[tuple[str, Served]] = []
        server = self._session.settings
        planned = probes(server.scheduler, number, self._seed, server.cache.block_size)
        for done, probe in enumerate(planned, start=1):
            self._num_sent += 1
            alone_s = _alone_s(phases)
            items = of_probe(probe, f"probe{self._num_sent}", self._tokens, alone_s)
            served = self._session.serve(items, probe.source)
            _check_decisions(served, probe.source)
            phases.append((probe.kind, served))
            self._seconds += served.seconds
            if on_probe is not None:
                on_probe(done, len(planned))
        self._rounds[number] = phases
        return _others(phases)

    def result(self, facts: Mapping[str, Any] | None = None) -> LiveCalibration:
        """Fitted to all rounds so far; `facts` are kept in it."""
        probed = [found for phases in self._rounds.values() for found in phases]
        kept = [(kind, served) for kind, served in probed if kind != WARM_UP]
        measured = [step for _, served in kept for step in served.phase.steps]
        phases = [served.phase for _, served in probed]
        seconds = {"calibration_s": round(self._seconds, 1)}
        return LiveCalibration(
            fit(measured, dict(facts or {}) | seconds),
            _front_end(kept),
            measured,
            sum(phase.num_steps for phase in phases),
            sum(phase.num_equal for phase in phases),
        )


def _alone_s(phases: list[tuple[str, Served]]) -> float:
    """Mean seconds that a request took alone; 0 before any was sent."""
    alone = [served.answers[0] for kind, served in phases if kind == ALONE]
    spans = [answer.token_times[-1] - answer.sent_at for answer in alone]
    return sum(spans) / max(len(spans), 1)


def _others(phases: list[tuple[str, Served]]) -> float | None:
    """CPUs that others used, on average over the time of all probes."""
    known = [(served.others, served.seconds) for _, served in phases if served.others is not None]
    total = sum(seconds for _, seconds in known)
    return sum(cpus * seconds for cpus, seconds in known) / total if total else None


def _check_decisions(served: Served, source: str) -> None:
    found = served.phase.difference
    if found is not None:
        raise ServerError(f"{found.told(source)}; one of the two has a rule that the other has not")


def _front_end(phases: list[tuple[str, Served]]) -> FrontEnd:
    before: list[tuple[int, float]] = []
    after: list[tuple[int, float]] = []
    for kind, served in phases:
        found = samples(served.answers, served.phase.records(0.0), idle=kind == ALONE)
        before += found[0]
        after += found[1]
    return FrontEnd.fit(before, after)
