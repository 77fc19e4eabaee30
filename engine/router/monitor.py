"""Asks the backends how they are: health, load, models. One task for each of them.

Knows where servers of this project and of vLLM say it. What follows from an answer is known by
the fleet.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import msgspec

from engine.router.backend import Backend
from engine.router.backend_load import BackendLoad, load_from_json, load_from_metrics
from engine.router.fleet import LOGGER, Fleet
from engine.router.settings import RouterSettings
from engine.server.open_files import is_shortage

MAX_ANSWER_BYTES = 16 << 20


class Monitor:
    """Checks a fleet.

    Args:
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        fleet: Fleet,
        session: aiohttp.ClientSession,
        settings: RouterSettings,
        clock: Callable[[], float],
    ) -> None:
        self._fleet = fleet
        self._session = session
        self._settings = settings.health
        self._clock = clock
        key = settings.backend_api_key
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._models_due = dict.fromkeys(fleet.backends, 0.0)
        self._says_load = dict.fromkeys(fleet.backends, True)
        self._hurried = {backend: asyncio.Event() for backend in fleet.backends}
        fleet.hurry = self.hurry

    def hurry(self, backend: Backend) -> None:
        """Check it now rather than at its next time."""
        self._hurried[backend].set()

    async def check_all(self) -> None:
        """One round."""
        await asyncio.gather(*(self.check(backend) for backend in self._fleet.backends))

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as group:
            for backend in self._fleet.backends:
                group.create_task(self._watch(backend))

    async def check(self, backend: Backend) -> None:
        """Ask one backend everything that is due."""
        if not await self._check_health(backend):
            return
        if self._clock() >= self._models_due[backend]:
            # before it comes up, so that it gets no request for a model that it lacks
            await self._read_models(backend)
        await self._read_load(backend)
        self._fleet.check_passed(backend)

    async def _watch(self, backend: Backend) -> None:
        hurried = self._hurried[backend]
        while True:
            try:
                async with asyncio.timeout(self._settings.interval_s):
                    await hurried.wait()
            except TimeoutError:
                pass
            hurried.clear()
            try:
                await self.check(backend)
            except Exception as error:  # whatever it answers, the checks go on
                LOGGER.exception("the check of %s failed", backend.url)
                self._fleet.check_failed(backend, _words(error))

    async def _check_health(self, backend: Backend) -> bool:
        try:
            status, _ = await self._get(backend, self._settings.path)
        except aiohttp.ClientConnectorError as error:
            if is_shortage(error):
                self._fleet.files.tell()  # which says nothing of the backend
                return False
            self._fleet.refused(backend, f"no connection: {_words(error)}")
        except (aiohttp.ClientError, TimeoutError) as error:
            self._fleet.check_failed(backend, f"{self._settings.path}: {_words(error)}")
        else:
            if status < 400:
                return True
            self._fleet.check_failed(backend, f"{self._settings.path} says {status}")
        self._models_due[backend] = 0.0  # it may come back with others
        self._says_load[backend] = True
        return False

    async def _read_load(self, backend: Backend) -> None:
        before = backend.num_open, backend.num_open_tokens
        was_offered = backend.is_offered
        try:
            load = await self._load(backend)
        except (aiohttp.ClientError, TimeoutError):
            load = None
        backend.reported(load, *before)
        if backend.health.is_up:
            self._fleet.load_changed(backend, was_offered)

    async def _load(self, backend: Backend) -> BackendLoad | None:
        if self._says_load[backend]:
            status, body = await self._get(backend, "/load")
            said = _json(body) if status == 200 else None
            if isinstance(said, dict) and "num_running" in said:
                return load_from_json(said)
            self._says_load[backend] = False
        status, body = await self._get(backend, "/metrics")
        load = load_from_metrics(body.decode(errors="replace")) if status == 200 else None
        self._says_load[backend] = load is None  # then it may begin to say either
        return load

    async def _read_models(self, backend: Backend) -> None:
        try:
            status, body = await self._get(backend, "/v1/models")
        except (aiohttp.ClientError, TimeoutError):
            return
        said = _json(body) if status == 200 else None
        if isinstance(said, dict) and isinstance(said.get("data"), list):
            ids = [item.get("id") for item in said["data"] if isinstance(item, dict)]
            backend.models = frozenset(name for name in ids if isinstance(name, str))
        self._models_due[backend] = self._clock() + self._settings.models_interval_s

    async def _get(self, backend: Backend, path: str) -> tuple[int, bytes]:
        limit = aiohttp.ClientTimeout(total=self._settings.timeout_s)
        url = backend.url + path
        async with self._session.get(url, headers=self._headers, timeout=limit) as answer:
            body = await answer.content.read(MAX_ANSWER_BYTES)
            while not answer.content.at_eof() and len(body) < MAX_ANSWER_BYTES:
                body += await answer.content.readany()
            return answer.status, body


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return " ".join(str(error).split()) or type(error).__name__
