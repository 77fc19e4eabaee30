"""What a server knows of itself while it runs: whether it drains, and how much work is in hand.

Counts by listening to the engine; decides nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from engine.core_messages import StepStats
from engine.request_listener import RequestListener, RequestRecord
from engine.step_messages import StepDetail
from workbench.sampling_params import SamplingParams

_ENTRY: ContextVar[object | None] = ContextVar("entry", default=None)
"""The work that the running code belongs to, from the time it was let in."""


class ServerState(RequestListener):
    """Load and life of one server.

    Args:
        max_model_len: Most tokens of prompt and answer.
        max_num_seqs: Most requests in a batch.
        num_kv_blocks: Usable KV blocks.

    Attributes:
        is_draining: New work is refused, for good.
        server_load: HTTP requests for work that are being answered.
        num_rejected: Requests turned away because too many waited.
        tool_parses: Answers read for tool calls, by (mode, outcome).
        num_running, num_waiting: Requests of the core as it last told.
        num_outstanding_tokens: Most tokens that open requests still need: of their prompts, and of
            their answers.
    """

    def __init__(self, max_model_len: int, max_num_seqs: int, num_kv_blocks: int) -> None:
        self.is_draining = False
        self.server_load = 0
        self.num_rejected = 0
        self.tool_parses: Counter[tuple[str, str]] = Counter()
        self._idle = asyncio.Event()
        self._idle.set()
        self.num_running = 0
        self.num_waiting = 0
        self._is_batch_full = False
        self._num_used_blocks = 0
        self._max_model_len = max_model_len
        self._max_num_seqs = max_num_seqs
        self._num_kv_blocks = max(num_kv_blocks, 1)
        self.num_outstanding_tokens = 0
        self._num_open_answers = 0
        self._entering: set[object] = set()
        # per unfinished request: prompt tokens to come, tokens of its answers to come, answers
        self._open: dict[str, tuple[int, int, int]] = {}

    @property
    def open_ids(self) -> list[str]:
        """The engine's requests that have not ended."""
        return list(self._open)

    def note_tool_parse(self, *, is_streaming: bool, has_calls: bool) -> None:
        """An answer was read for tool calls."""
        mode = "streaming" if is_streaming else "non_streaming"
        self.tool_parses[mode, "tool_call" if has_calls else "no_tool_call"] += 1

    def begin_work(self) -> None:
        """An HTTP request for work has come."""
        self.server_load += 1
        self._idle.clear()

    def end_work(self) -> None:
        """It has been answered."""
        self.server_load -= 1
        self._note_idle()

    @contextmanager
    def entering(self) -> Iterator[None]:
        """Hold a place in the queue for work that was let in, until the engine has it."""
        entry = object()
        self._entering.add(entry)
        # every request is a task of its own, so nobody else sees it
        _ENTRY.set(entry)
        try:
            yield
        finally:
            self._entering.discard(entry)

    async def wait_idle(self) -> None:
        """Wait until nothing is in hand, neither of HTTP nor of the engine."""
        await self._idle.wait()

    def _note_idle(self) -> None:
        if not self.server_load and not self._open:
            self._idle.set()

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV blocks in use after the last step, 0 to 1."""
        return self._num_used_blocks / self._num_kv_blocks

    @property
    def num_queued(self) -> int:
        """Answers that wait for a place in the batch, as far as the front knows.

        While the core tells of waiting requests, a place is one that runs; else the batch has room
        for as many as it may hold.
        """
        return max(self._num_answers - self._num_places, 0)

    def has_room(self, max_queue: int | None) -> bool:
        """Whether one more request may wait, or need not; a refusal is counted."""
        if max_queue is None or self._num_answers + 1 - self._num_places <= max_queue:
            return True
        self.num_rejected += 1
        return False

    @property
    def _num_answers(self) -> int:
        # what is still read or tokenized will be one at least
        return self._num_open_answers + len(self._entering)

    @property
    def _num_places(self) -> int:
        return self.num_running if self._is_batch_full else self._max_num_seqs

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        room = self._max_model_len - num_prompt_tokens
        longest = room if params.max_tokens is None else min(params.max_tokens, room)
        self._set(request_id, (num_prompt_tokens, longest * params.n, params.n))
        self._entering.discard(_ENTRY.get())
        self._idle.clear()

    def on_tokens(self, request_id: str, num_new: int, now: float, is_first: bool) -> None:
        counts = self._open.get(request_id)
        if counts is not None:
            prompt, output, answers = counts
            self._set(request_id, (0 if is_first else prompt, max(output - num_new, 0), answers))

    def on_finished(self, record: RequestRecord) -> None:
        self._set(record.request_id, None)
        self._note_idle()

    def _set(self, request_id: str, counts: tuple[int, int, int] | None) -> None:
        """Note what a request still needs, and keep the sums; None: it has ended."""
        prompt, output, answers = self._open.pop(request_id, (0, 0, 0))
        self.num_outstanding_tokens -= prompt + output
        self._num_open_answers -= answers
        if counts is not None:
            self._open[request_id] = counts
            self.num_outstanding_tokens += counts[0] + counts[1]
            self._num_open_answers += counts[2]

    def on_step(self, stats: StepStats, detail: StepDetail | None) -> None:
        self.num_running = stats.num_running
        self.num_waiting = stats.num_waiting
        # who waits for a grammar does not wait for a place
        self._is_batch_full = stats.num_waiting > stats.num_compiling
        self._num_used_blocks = stats.num_used_blocks

    def on_queue(self, num_waiting: int, num_compiling: int) -> None:
        self.num_waiting = num_waiting

    def on_core_dead(self, reason: str) -> None:
        for request_id in self.open_ids:
            self._set(request_id, None)
        self._note_idle()
        self.num_running = self.num_waiting = self._num_used_blocks = 0
        self._is_batch_full = False
