"""A session without a server: what a live one saw, from its recording."""

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.live_vllm.errors import ServerError
from experiments.live_vllm.recording import SeenPhase, digest, read_recording
from experiments.live_vllm.replay import ReplayedPhase
from experiments.live_vllm.session import Session
from experiments.live_vllm.step_record import Add
from workbench.errors import ConfigError
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
        try:
            super().__init__(head.told, head.salt, head.machine)
        except (KeyError, TypeError) as error:
            raise ConfigError(
                f"{file}: its server's settings lack {error}: record it again"
            ) from None
        self.recording = file.name
        self._file, self._phases = file, deque(phases)

    def _see(
        self, items: Sequence[WorkloadRequest], source: str, on_end: Callable[[], None]
    ) -> SeenPhase:
        """What was seen when the same requests were sent.

        Raises:
            ServerError: The recording has other requests here, or ends before.
        """
        seen = self._next(items, source)
        for _ in seen.answers:
            on_end()
        return seen

    def _paces_of(self, phase: ReplayedPhase, seen: SeenPhase, origin: float) -> list[float]:
        """Those that were told; a phase that is decided otherwise now has fewer steps."""
        if len(seen.paces) < len(phase.steps):
            raise ServerError(
                f"{self._file}: {seen.source} has more steps than paces: record it again"
            )
        return list(seen.paces[: len(phase.steps)])

    def _next(self, items: Sequence[WorkloadRequest], source: str) -> SeenPhase:
        if not self._phases:
            raise ServerError(f"{self._file} ends before {source}: it was cut off")
        seen = self._phases.popleft()
        adds = {event.request_id: event for event in seen.events if isinstance(event, Add)}
        theirs = {
            answer.request_id: (add.num_prompt_tokens, add.max_tokens)
            for answer in seen.answers
            if (add := adds.get(answer.request_id)) is not None
        }
        ours = {item.request_id: (item.num_prompt_tokens, item.num_output_tokens) for item in items}
        if theirs != ours or seen.source != source or seen.prompts != digest(items):
            raise ServerError(
                f"{self._file} has {len(seen.answers)} requests of {seen.source} where {len(items)}"
                f" of {source} come now, or others with their names: this version plans a"
                " validation otherwise than the one that recorded it"
            )
        return seen
