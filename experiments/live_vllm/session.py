"""A server under observation: requests go in, answers and the server's own steps come out.

Knows that a phase (requests that are sent together) ends with an idle server, so that its steps can
be told from those of the next one. The server is a live one, or the recording of one.
"""

import json
import time
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from experiments.live_vllm.client import Answer, CompletionClient
from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.recording import (
    Head,
    RecordingWriter,
    SeenPhase,
    digest,
    rounded,
    rounded_pace,
)
from experiments.live_vllm.replay import ReplayedPhase, ServerSettings, StepReplay
from experiments.live_vllm.requests import asks
from experiments.live_vllm.server import is_healthy
from experiments.live_vllm.step_record import Event, StepRecord, Update, pace_files
from experiments.machine_watch import MachineWatch
from experiments.pace_log import PaceLog
from workbench.workload.base import WorkloadRequest

SETTLE_S = 5.0
POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Served:
    """A phase.

    Attributes:
        items: The requests.
        answers: What the client saw, in the same order.
        phase: What the engine did.
        others: CPUs that were neither the client's nor the server's work; None: not known.
        seconds: How long it took.
    """

    items: Sequence[WorkloadRequest]
    answers: Sequence[Answer]
    phase: ReplayedPhase
    others: float | None
    seconds: float

    @property
    def sent_at(self) -> dict[str, float]:
        """When each request was sent, by its id."""
        return {answer.request_id: answer.sent_at for answer in self.answers}


class Session(ABC):
    """What a validation asks of a server.

    Args:
        told: The server's settings, as its recorder tells them.
        salt: Of tokens, beside the seed: a server that has run before must not know the prompts.
        machine: Facts of the machine, the code and the date.

    Attributes:
        settings: Those of `told` that decide.
        events: Of all phases so far.
        recording: The name of the recording that is simulated again; None: a server is asked.
    """

    recording: str | None = None

    def __init__(
        self, told: Mapping[str, Any], salt: int, machine: Mapping[str, Any] | None = None
    ) -> None:
        self.told, self.settings = told, ServerSettings.of(told)
        self.salt, self.machine = salt, machine or {}
        self.events: list[Event] = []
        self._replay = StepReplay(self.settings)
        self._writer: RecordingWriter | None = None

    def record_into(self, file: Path, words: Sequence[str], machine: Mapping[str, Any]) -> None:
        """Write down every phase from now on.

        Args:
            file: Where to.
            words: What to type for the same validation.
            machine: Facts of the machine, the code and the date.
        """
        self.machine = machine
        self._writer = RecordingWriter(file, Head(words, self.told, machine, self.salt))

    def serve(
        self,
        items: Sequence[WorkloadRequest],
        source: str,
        on_end: Callable[[], None] = lambda: None,
    ) -> Served:
        """Send the requests at their times, and wait until all have been answered.

        Args:
            items: The requests.
            source: The name of the phase.
            on_end: Called when a request has ended.

        Raises:
            ServerError: One was not answered in full.
        """
        seen = self._see(items, source, on_end)
        self.events += seen.events
        by_id = {item.request_id: item for item in items}
        origin = min(answer.sent_at for answer in seen.answers)
        phase = self._replay.phase(seen.events, by_id, origin, source)
        seen = replace(seen, paces=self._paces_of(phase, seen, origin))
        pairs = zip(phase.steps, seen.paces, strict=True)
        phase.steps = [replace(step, pace=pace) for step, pace in pairs]
        if self._writer is not None:
            self._writer.add(seen)
        return Served(items, seen.answers, phase, seen.others, seen.seconds)

    @abstractmethod
    def _see(
        self, items: Sequence[WorkloadRequest], source: str, on_end: Callable[[], None]
    ) -> SeenPhase:
        """What is seen of a phase, paces left out where they are told of replayed steps."""

    @abstractmethod
    def _paces_of(self, phase: ReplayedPhase, seen: SeenPhase, origin: float) -> list[float]:
        """The machine's pace around each step; 0 where nothing is known of it."""


class LiveSession(Session):
    """Talks to one server and reads its record.

    Args:
        url: Where it is.
        record: The file of its steps.
        model: The name to ask for; None: the first it serves.
        timeout_s: Longest silence of a request.
        from_start: Whether the server has served nobody yet.
        why_dead: What to add where it has stopped answering.
        cpu_s: CPU seconds of the server so far, or None where they are not known.
        salt: See the base class.

    Raises:
        ServerError: It does not answer, or its record is none.
    """

    def __init__(
        self,
        url: str,
        record: Path,
        model: str | None = None,
        timeout_s: float = 120.0,
        from_start: bool = True,
        why_dead: Callable[[], str] = str,
        cpu_s: Callable[[], float | None] = lambda: None,
        salt: int = 0,
    ) -> None:
        if not is_healthy(url):
            raise ServerError(f"no server answers at {url}/health: start one, or name its vllm.url")
        self._record = StepRecord(record, from_start=from_start)
        super().__init__(self._record.settings, salt)
        self._client = CompletionClient(url, model or first_model(url), timeout_s)
        self._url, self._why_dead, self._cpu_s = url, why_dead, cpu_s
        self._paces = PaceLog(pace_files(record))

    def _see(
        self, items: Sequence[WorkloadRequest], source: str, on_end: Callable[[], None]
    ) -> SeenPhase:
        watch, before, start = MachineWatch(), self._cpu_s(), time.monotonic()
        answers = self._client.answers(asks(items), on_end)
        others, after, seconds = watch.others(), self._cpu_s(), time.monotonic() - start
        if others is not None and before is not None and after is not None:
            others = max(others - (after - before) / seconds, 0.0)
        else:
            others = None
        self._check(answers, source)
        answers, events = [_rounded(answer) for answer in answers], self._settled_events()
        seconds = time.monotonic() - start
        return SeenPhase(source, digest(items), answers, events, (), others, seconds)

    def _paces_of(self, phase: ReplayedPhase, seen: SeenPhase, origin: float) -> list[float]:
        """Around the middle of each step, where the server's workers tell it."""
        starts = phase.log.start_s.tolist()
        middles = (
            origin + start + step.seconds / 2
            for step, start in zip(phase.steps, starts, strict=True)
        )
        return [rounded_pace(self._paces.near(at)) for at in middles]

    def _check(self, answers: Sequence[Answer], source: str) -> None:
        failed = [answer for answer in answers if answer.error is not None]
        if failed:
            dead = "" if is_healthy(self._url) else f"; the server is gone: {self._why_dead()}"
            raise ServerError(
                f"{len(failed)} of {len(answers)} requests of {source} were not answered; the"
                f" first, {failed[0].request_id}: {failed[0].error}{dead}".rstrip(": ")
            )

    def _settled_events(self) -> list[Event]:
        """The phase's events, once the last step has been noted."""
        found: list[Event] = []
        deadline = time.monotonic() + SETTLE_S
        while not (found and isinstance(found[-1], Update) and not found[-1].num_unfinished):
            if time.monotonic() > deadline:
                raise ServerError(
                    "the server's step record does not tell of the end of all requests: is it the"
                    " record of this server, and does nobody else use it?"
                )
            time.sleep(POLL_S)
            found += self._record.new_events()
        return found


def _rounded(answer: Answer) -> Answer:
    """As a recording has it, so that what is simulated from one is the same."""
    times = [rounded(at) for at in answer.token_times]
    return replace(answer, sent_at=rounded(answer.sent_at), token_times=times)


def first_model(url: str) -> str:
    """The first model that a server has. Raises ServerError."""
    try:
        with urllib.request.urlopen(f"{url.rstrip('/')}/v1/models", timeout=10) as answer:
            return str(json.load(answer)["data"][0]["id"])
    except (OSError, urllib.error.URLError, ValueError, KeyError, IndexError) as error:
        raise ServerError(
            f"{url}/v1/models names no model ({type(error).__name__}): name it,"
            " vllm.served_model_name=NAME"
        ) from None
