"""A viewer of a running server: reads `/view/events` and remembers what it was told."""

import http.client
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from fastapi import FastAPI

from engine.async_llm import AsyncLLM
from engine.core_messages import StepStats
from engine.request_listener import RequestListener
from engine.server import view
from engine.server.settings import ServerSettings
from engine.server.view.feed import ViewFeed
from engine.step_messages import StepDetail
from tests.engine.server.serving import PATIENCE_S, RunningServer
from tests.engine.step_viewer import Viewer


class KeptView:
    """The live view as an extension, with its feed at hand."""

    open_paths = view.open_paths

    def __init__(self) -> None:
        self.feed: ViewFeed
        self.details: list[StepDetail | None] = []

    def install(self, app: FastAPI, llm: AsyncLLM, settings: ServerSettings) -> None:
        view.install(app, llm, settings)
        self.feed = app.state.view_feed
        llm.add_listener(_DetailListener(self.details))


class _DetailListener(RequestListener):
    def __init__(self, details: list[StepDetail | None]) -> None:
        self._details = details

    def on_step(self, stats: StepStats, detail: StepDetail | None) -> None:
        self._details.append(detail)


class Watcher:
    """Somebody who watches.

    Attributes:
        hello: What the server said of itself.
        steps: Numbers of all steps told.
        viewer: What is known by the details.
        ticks: All ticks.
    """

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.hello: dict[str, Any] = {}
        self.steps: list[list[float]] = []
        self.viewer = Viewer()
        self.ticks: list[dict[str, Any]] = []

    def next(self) -> str:
        """Take in the next event; its kind, "" at the end of the stream."""
        lines = []
        while (line := self._response.readline()) not in (b"\n", b""):
            lines.append(line.decode().rstrip("\n"))
        if not lines:
            return ""
        kind, data = lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))
        if kind == "hello":
            self.hello = data
        elif kind == "tick":
            self._take(data)
        return kind

    def _take(self, tick: dict[str, Any]) -> None:
        self.ticks.append(tick)
        for numbers, detail in tick["steps"]:
            self.steps.append(numbers)
            if detail is not None:
                self.viewer.see(msgspec.json.decode(json.dumps(detail).encode(), type=StepDetail))

    def until_ended(self, num_requests: int) -> None:
        """Take in events until so many requests have ended and nothing runs."""
        while self.num_ended < num_requests or not self.steps or self.steps[-1][3]:
            assert self.next(), "the stream has ended"

    @property
    def num_ended(self) -> int:
        return sum(len(tick["ended"]) for tick in self.ticks)


@contextmanager
def watching(server: RunningServer, **headers: str) -> Iterator[Watcher]:
    """Watch a server; returns when it has said hello."""
    connection = http.client.HTTPConnection(*server.address, timeout=PATIENCE_S)
    try:
        connection.request("GET", "/view/events", headers=headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        watcher = Watcher(response)
        assert watcher.next() == "hello"
        yield watcher
    finally:
        connection.close()
