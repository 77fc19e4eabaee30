"""The models of all backends as one list, in the form of OpenAI's `/v1/models`."""

import asyncio
import json
from dataclasses import dataclass
from typing import Any

import aiohttp
import msgspec
from aiohttp import web
from multidict import CIMultiDict

from engine.router.backend import Backend
from engine.router.errors import RouterError, out_of_files
from engine.router.exchange import OutgoingRequest
from engine.router.fleet import Fleet
from engine.router.headers import REQUEST_ID, for_client
from engine.server.open_files import is_shortage

TIMEOUT = aiohttp.ClientTimeout(total=5.0)


@dataclass(frozen=True, slots=True)
class Answer:
    """What one backend said."""

    status: int
    headers: CIMultiDict[str]
    body: bytes


async def merged_models(
    fleet: Fleet, session: aiohttp.ClientSession, outgoing: OutgoingRequest
) -> web.Response:
    """Every model once, as the first backend that serves it describes it.

    If no backend gives a list, the first one's answer is passed on.

    Raises:
        RouterError: 503: no backend is up.
    """
    offered = [backend for backend in fleet.backends if backend.is_offered]
    asked = await asyncio.gather(*(_ask(session, b, outgoing) for b in offered))
    answers = [answer for answer in asked if answer is not None]
    lists = [found for answer in answers if (found := _models(answer)) is not None]
    if not lists and answers:
        first = answers[0]
        return web.Response(status=first.status, headers=first.headers, body=first.body)
    if not lists:
        raise RouterError(503, "no backend is up: there are no models", retry_after_s=1.0)
    models: dict[str, Any] = {}
    for model in (model for found in lists for model in found):
        models.setdefault(str(model.get("id")), model)
    body = json.dumps({"object": "list", "data": list(models.values())}).encode()
    headers = {REQUEST_ID: outgoing.request_id}
    return web.Response(body=body, headers=headers, content_type="application/json")


async def _ask(
    session: aiohttp.ClientSession, backend: Backend, outgoing: OutgoingRequest
) -> Answer | None:
    headers = outgoing.headers.copy()
    headers["Accept-Encoding"] = "identity"
    url = backend.url + outgoing.path
    try:
        async with session.get(url, headers=headers, timeout=TIMEOUT) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        if is_shortage(error):
            raise out_of_files() from error
        return None
    passed = for_client(answer.headers, backend.name)
    passed[REQUEST_ID] = outgoing.request_id
    return Answer(answer.status, passed, body)


def _models(answer: Answer) -> list[dict[str, Any]] | None:
    try:
        said = msgspec.json.decode(bytes(answer.body)) if answer.status == 200 else None
    except (msgspec.DecodeError, RecursionError):
        return None
    data = said.get("data") if isinstance(said, dict) else None
    return [model for model in data if isinstance(model, dict)] if isinstance(data, list) else None
