"""What a server says of itself before it is loaded: whether it is there, and what it serves.

Knows /v1/models. Measures nothing.
"""

import asyncio
import json
import time
from dataclasses import dataclass

from experiments.bench.http import Exchange, HttpClient
from experiments.bench.target import Target
from workbench.errors import WorkbenchError

POLL_S = 0.2
MODELS = "/v1/models"


class NoServerError(WorkbenchError):
    """There is no server, or none that can be measured."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model on a server. `max_model_len` is None where the server does not tell."""

    name: str
    max_model_len: int | None = None


async def served_models(
    client: HttpClient, target: Target, headers: dict[str, str], wait_s: float = 0.0
) -> list[ServedModel]:
    """The models of a server, the first of which is its default.

    Args:
        wait_s: Ask again for so long while nobody answers.

    Raises:
        NoServerError: Nobody answers, or what answers is no server with OpenAI's API.
    """
    request = (target.head("GET", MODELS, headers) + "\r\n").encode()
    deadline = time.monotonic() + wait_s
    while True:
        exchange = await client.ask(Exchange("models", request))
        if exchange.status == 200 and exchange.failure is None:
            return _models(target, b"".join(exchange.pieces))
        if time.monotonic() >= deadline:
            raise NoServerError(_why(target, exchange))
        await asyncio.sleep(POLL_S)


def _models(target: Target, body: bytes) -> list[ServedModel]:
    try:
        entries = json.loads(body)["data"]
        models = [ServedModel(str(e["id"]), e.get("max_model_len")) for e in entries]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NoServerError(
            f"{target}{MODELS} answers, but names no models: is it OpenAI's API?"
        ) from None
    if not models:
        raise NoServerError(f"{target}{MODELS} names no model: the server serves nothing")
    return models


def _why(target: Target, exchange: Exchange) -> str:
    if exchange.failure is not None:
        kind, detail = exchange.failure
        return (
            f"no server answers at {target} ({kind}: {detail}): start one with `workbench serve"
            " MODEL`, or name another with --base-url"
        )
    if exchange.status in (401, 403):
        return f"{target} refuses the key (status {exchange.status}): give it with --api-key"
    return (
        f"{target}{MODELS} answers with status {exchange.status}: name the model with --model if"
        " this server lists none, and check --base-url"
    )
