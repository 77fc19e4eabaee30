"""A run as the live view's page wants it: who ran, and tick by tick what happened.

Knows what a page may hold; where the ticks come from, others know.
"""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from engine.step_messages import StepDetail

LONGEST = 20_000  # steps of one page
DEFAULT_STEPS = 3_000


@dataclass(frozen=True, slots=True)
class Window:
    """Which steps of a run are shown.

    Attributes:
        start: The first of them.
        num_steps: How many.
    """

    start: int = 0
    num_steps: int = DEFAULT_STEPS

    @property
    def end(self) -> int:
        """The first step that is not shown any more."""
        return self.start + self.num_steps

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.end


@dataclass(frozen=True, slots=True)
class StepNumbers:
    """One step in numbers, in the order in which the page takes them.

    Attributes:
        step: Number of the step.
        start, duration: Seconds.
        running, waiting: Requests.
        used: KV blocks in use.
        tokens, prefill, decode: Tokens of the step.
        preempted: Requests thrown out.
        queries, hits: Tokens looked up in the prefix cache, and found, so far; 0 if not known.
    """

    step: int
    start: float
    duration: float
    running: int
    waiting: int
    used: int
    tokens: int
    prefill: int
    decode: int
    preempted: int
    queries: int = 0
    hits: int = 0

    def plain(self) -> list[float]:
        """The values in their order."""
        return [getattr(self, name) for name in self.__slots__]


@dataclass(slots=True)
class RecordedRun:
    """Ticks, one a step, and what the page says about the run.

    Attributes:
        num_steps: Steps of the whole run.
        num_kv_blocks, block_size: Of the KV cache; 0 where it is not known.
        notes: What a viewer must know, sentences.
        no_blocks: Why there is no map of blocks; None if there is one.
        ticks: As the server's stream tells them.
    """

    num_steps: int = 0
    num_kv_blocks: int = 0
    block_size: int = 0
    notes: list[str] = field(default_factory=list)
    no_blocks: str | None = None
    ticks: list[dict[str, Any]] = field(default_factory=list)
    _totals: list[int] = field(default_factory=lambda: [0, 0, 0])

    def add(
        self, numbers: StepNumbers, detail: StepDetail | None, latencies: dict[str, Any]
    ) -> None:
        """One more step; `latencies` as `Latencies.take` gives them."""
        self._totals[0] += 1
        self._totals[1] += numbers.prefill
        self._totals[2] += numbers.decode
        tick = {
            "t": numbers.start + numbers.duration,
            "totals": self._totals.copy(),
            "steps": [(numbers.plain(), detail)],
        }
        self.ticks.append(tick | latencies)

    def as_json(self, title: str, subtitle: str, model: str) -> bytes:
        """What the page holds."""
        hello = {
            "title": title,
            "subtitle": subtitle,
            "model": model,
            "instance": title,
            "num_kv_blocks": self.num_kv_blocks,
            "block_size": self.block_size,
            "notes": " ".join(self.notes),
            "no_blocks": self.no_blocks,
            "needs_key": False,
        }
        return msgspec.json.encode({"hello": hello, "ticks": self.ticks})
