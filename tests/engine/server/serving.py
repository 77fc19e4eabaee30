"""A real HTTP server in a thread, around a scripted model that says what its prompt tells it to.

    with serving() as server:
        status, body = server.post("/v1/completions", {"prompt": "say «Hello»"})

The model writes what stands between « and » in its prompt and ends; without them it repeats the
prompt's tokens up to max_tokens. Grammars are compiled and obeyed where the text obeys them.
"""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from engine.async_llm import AsyncLLM
from engine.served_core import CoreSpec, ServedCore
from engine.server.app import build_app
from engine.server.run import run_server
from engine.server.settings import ServerSettings
from engine.server.state import ServerState
from engine.server.stop import Stop
from engine.structured_output import GrammarCompiler
from tests.engine.served import (
    EOS,
    VOCAB_SIZE,
    ScriptedModel,
    demo_tokenizer,
    echo,
    ids_of,
    model_text,
    scripted_core,
)
from workbench.outputs import NewRequestData

FACTORY = f"{__name__}:speaking_core"
MODEL = "tiny"
PATIENCE_S = 30.0
"""No wait of a test is longer."""


def say(request: NewRequestData, count: int) -> int:
    """What the prompt tells it to say."""
    assert request.prompt_token_ids is not None
    told = _told(tuple(request.prompt_token_ids))
    return echo(request, count) if told is None else (*told, EOS)[count % (len(told) + 1)]


@lru_cache(maxsize=1024)
def _told(prompt: tuple[int, ...]) -> tuple[int, ...] | None:
    text = demo_tokenizer().decode(prompt)
    start, end = text.rfind("«"), text.rfind("»")
    return ids_of(text[start + 1 : end]) if 0 <= start < end else None


def speaking_core(settings: Mapping[str, Any]) -> ServedCore:
    """The factory; settings as in tests.engine.served."""
    served = scripted_core(settings)
    if "script" not in settings:
        served.core.executor = ScriptedModel(say, settings.get("step_s", 0.0))
    served.grammars = GrammarCompiler(demo_tokenizer(), VOCAB_SIZE, [EOS])
    return served


class RunningServer:
    """A server in a thread.

    Attributes:
        url: Where it is.
        llm, state: What it is made of; for its own thread (see `on_loop`).
    """

    def __init__(
        self,
        settings: Mapping[str, Any],
        core: Mapping[str, Any],
        extensions: Sequence[Any],
        in_thread: bool,
    ) -> None:
        self.url = ""
        self.llm: AsyncLLM
        self.state: ServerState
        self._settings = ServerSettings(
            **{"served_model_names": (MODEL, "alias"), "port": 0} | dict(settings)
        )
        self._spec = CoreSpec(FACTORY, dict(core))
        self._extensions = extensions
        self._in_thread = in_thread
        self._listening = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._listening.wait(PATIENCE_S)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._error = error
            self._listening.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = Stop()
        self.llm = await AsyncLLM.start(self._spec, text=model_text(), in_thread=self._in_thread)
        try:
            app = build_app(self.llm, self._settings, extensions=self._extensions)
            self.state = app.state.server
            await run_server(
                app, self.llm, self._settings, on_listening=self._note, stop=self._stop
            )
        finally:
            await self.llm.shutdown()

    def _note(self, url: str) -> None:
        self.url = url
        self._listening.set()

    def on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine in the server's thread."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """Wait until something is so, as the server's thread sees it."""

        async def poll() -> None:
            async with asyncio.timeout(PATIENCE_S):
                while not condition():
                    await asyncio.sleep(0.002)

        self.on_loop(poll())

    def request_stop(self) -> None:
        """What a signal does."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stop.request)

    def join(self) -> None:
        """Wait for the server's end."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self._error is not None:
            raise self._error

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return str(parts.hostname), int(parts.port or 0)

    def request(
        self, method: str, path: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """(status, headers in lower case, body)."""
        connection = http.client.HTTPConnection(*self.address, timeout=PATIENCE_S)
        try:
            given = {"Content-Type": "application/json"} | dict(headers or {})
            data = body if isinstance(body, bytes | type(None)) else json.dumps(body).encode()
            connection.request(method, path, data, given)
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return response.status, told, response.read()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, Any]:
        """(status, JSON or None)."""
        status, _, body = self.request("GET", path)
        return status, json.loads(body) if body else None

    def post(
        self, path: str, body: Any, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """(status, JSON)."""
        status, _, answer = self.request("POST", path, body, headers)
        return status, json.loads(answer)

    def stream(self, path: str, body: Mapping[str, Any]) -> list[Any]:
        """The events of a stream, the last one "[DONE]"."""
        status, headers, answer = self.request("POST", path, dict(body) | {"stream": True})
        assert status == 200, answer
        assert headers["content-type"].startswith("text/event-stream")
        return events_of(answer)

    def open(self, path: str, body: Mapping[str, Any]) -> socket.socket:
        """A connection on which a request has been sent and nothing read."""
        data = json.dumps(body).encode()
        connection = socket.create_connection(self.address, timeout=PATIENCE_S)
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n" % (path.encode(), len(data)) + data
        )
        return connection


def events_of(answer: bytes) -> list[Any]:
    """The data of server-sent events, decoded where they are JSON."""
    events: list[Any] = []
    for event in answer.decode().split("\n\n"):
        if event:
            assert event.startswith("data: ")
            data = event.removeprefix("data: ")
            events.append(data if data == "[DONE]" else json.loads(data))
    return events


@contextmanager
def serving(
    settings: Mapping[str, Any] | None = None,
    *,
    extensions: Sequence[Any] = (),
    in_thread: bool = True,
    **core: Any,
) -> Iterator[RunningServer]:
    """A server; `settings` are the ServerSettings, `core` the scripted core's."""
    server = RunningServer(settings or {}, core, extensions, in_thread)
    server.start()
    try:
        yield server
    finally:
        server.request_stop()
        server.request_stop()
        server.join()
