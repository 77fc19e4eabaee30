"""A session without a server: what a live one saw, from its recording."""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import chain, islice, repeat
from pathlib import Path

from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.recording import SeenPhase, read_recording
from experiments.live_vllm.session import Served, Session, tell_paces
from workbench.workload.base import WorkloadRequest


class RecordedSession(Session):
    """Gives again what a live session saw, phase after phase.

    Args:
        file: The recording.

    Raises:
        ConfigError: It is none.
    """

    def __init__(self, file: Path) -> None:
        head, phases = read_recording(file)
        super().__init__(head.told, head.salt, head.machine)
        self._file, self._phases = file, deque(phases)

    def serve(
        self,
        items: Sequence[WorkloadRequest],
        source: str,
        on_end: Callable[[], None] | None = None,
    ) -> Served:
        """What was seen when the same requests were sent.

        Raises:
            ServerError: The recording has other requests here, or ends before.
        """
        seen = self._next(items, source)
        phase = self._replayed(items, source, seen.answers, seen.events)
        # this scheduler may have found more or fewer steps alike than the one that recorded
        tell_paces(phase, list(islice(chain(seen.paces, repeat(0.0)), len(phase.steps))))
        if on_end is not None:
            for _ in seen.answers:
                on_end()
        return Served(items, seen.answers, phase, seen.others, seen.seconds)

    def _next(self, items: Sequence[WorkloadRequest], source: str) -> SeenPhase:
        if not self._phases:
            raise ServerError(f"{self._file} ends before {source}: it was cut off")
        seen = self._phases.popleft()
        theirs = [answer.request_id for answer in seen.answers]
        ours = [item.request_id for item in items]
        if theirs != ours:
            raise ServerError(
                f"{self._file} has the {len(theirs)} requests {theirs[0]} … of {seen.source} where"
                f" the {len(ours)} requests {ours[0]} … of {source} come now: this version plans a"
                " validation otherwise than the one that recorded it"
            )
        return seen
