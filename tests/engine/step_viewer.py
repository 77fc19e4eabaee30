"""Somebody who watches: knows of the scheduler only what the details tell."""

import numpy as np

from engine.step_messages import PREEMPTED, RequestFacts, StepDetail


class Viewer:
    """What can be known from all details so far.

    Attributes:
        facts: By key.
        rows: (tokens, prefill tokens, computed tokens) of the last step's rows, by request id.
        tables: Block tables by (request id, group).
        waiting: Ids.
        states: The block map.
        running: Ids of those that were admitted and have not left.
        events: (request id, why it left), in order.
    """

    def __init__(self) -> None:
        self.step = 0
        self.facts: dict[int, RequestFacts] = {}
        self.waiting: list[str] = []
        self.states = bytearray()
        self.running: set[str] = set()
        self.events: list[tuple[str, str]] = []
        self._rows: dict[int, tuple[int, int, int]] = {}
        self._tables: dict[tuple[int, int], list[int]] = {}

    def see(self, detail: StepDetail) -> None:
        """Take in the next detail."""
        if detail.is_first:
            self.__init__()
        self.facts |= {facts.key: facts for facts in detail.requests}
        self._see_requests(detail)
        self._see_rows(detail)
        if detail.waiting is not None:
            self.waiting = [self._id(key) for key in detail.waiting]
        if (told := detail.block_map) is not None:
            if told.places is None:
                self.states = bytearray(told.states)
            else:
                places = np.frombuffer(told.places, "<u4").tolist()
                for place, state in zip(places, told.states, strict=True):
                    self.states[place] = state
        self.step = detail.step

    def _see_requests(self, detail: StepDetail) -> None:
        for key, reason in detail.left:
            self.events.append((self._id(key), reason))
            self.running.discard(self._id(key))
            self._tables = {place: t for place, t in self._tables.items() if place[0] != key}
        for key, _, num_preemptions in detail.admitted:
            self.running.add(self._id(key))
            seen = self.events.count((self._id(key), PREEMPTED))
            assert seen <= num_preemptions
        for change in detail.tables:
            table = self._tables.setdefault((change.key, change.group), [])
            table[change.start :] = change.blocks
            table[: change.num_skipped] = [0] * change.num_skipped

    def _see_rows(self, detail: StepDetail) -> None:
        num_steps = detail.step - self.step
        for key in detail.gone:
            del self._rows[key]
        self._rows = {key: (1, 0, row[2] + num_steps) for key, row in self._rows.items()}
        for row in detail.rows:
            self._rows[row.key] = (row.num_tokens, row.num_prefill_tokens, row.num_computed_tokens)

    @property
    def rows(self) -> dict[str, tuple[int, int, int]]:
        return {self._id(key): row for key, row in self._rows.items()}

    @property
    def tables(self) -> dict[tuple[str, int], list[int]]:
        tables = self._tables.items()
        return {(self._id(key), group): list(t) for (key, group), t in tables if t}

    def _id(self, key: int) -> str:
        return self.facts[key].request_id
