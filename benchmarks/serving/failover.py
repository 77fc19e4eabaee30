"""kill -9 of a whole server behind the router under load: what clients lose, and for how long.

    python benchmarks/serving/failover.py [SECONDS] [GROUP=OPTION …]

Two simulated servers (steps of 20 ms) behind `workbench route` (with these words for its policy),
and clients that ask one request after the other, half of them as streams. After SECONDS the first
server is killed with -9, after as many again it is started anew on its old port, and after as many
again the load ends. A request is `served`, `told` (an error in its answer: only what had begun may
be), `refused` (an error with a status of its own) or `lost` (no whole answer and no error).
"""

import asyncio
import json
import re
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import aiohttp
import numpy as np
from load_client import spread_ms
from server_process import MODEL, ServerProcess, report, simulated

from experiments.provenance import Stopwatch

CLIENTS = 64
TOKENS = 20
SECONDS = 5.0
LIMIT_S = 60.0
WORDS = simulated("cost_model.step_s=0.02", cost_model="constant")
DOWN, UP = "down", "up"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: when, and what its client saw."""

    start: float
    first: float
    end: float
    outcome: str
    told: str = ""


class Load:
    """Clients in closed loops.

    Attributes:
        asked: Requests that have ended.
    """

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url = url + "/v1/completions"
        self._session = session
        self.asked: list[Asked] = []
        self.is_over = False

    async def client(self, number: int) -> None:
        """Asks until the load is over."""
        body = {
            "model": MODEL,
            "prompt": [3 + number] * 64,
            "max_tokens": TOKENS,
            "ignore_eos": True,
            "stream": number % 2 == 0,
        }
        while not self.is_over:
            ended = await self._ask(body)
            self.asked.append(ended)
            if ended.outcome != "served":
                await asyncio.sleep(0.01)  # a client in a hurry, but no flood of errors

    async def _ask(self, body: dict[str, Any]) -> Asked:
        start, first = time.perf_counter(), float("nan")
        parts = []
        try:
            async with self._session.post(self._url, json=body) as answer:
                status = answer.status
                async for part in answer.content.iter_any():
                    first = first if parts else time.perf_counter()
                    parts.append(part)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return Asked(start, first, time.perf_counter(), "lost", type(error).__name__)
        outcome, told = _outcome(status, b"".join(parts), body["stream"])
        return Asked(start, first, time.perf_counter(), outcome, told)


def _outcome(status: int, text: bytes, is_stream: bool) -> tuple[str, str]:
    error = re.search(rb'"error":\s*\{"message":\s*"([^"]*)', text)
    told = error[1].decode() if error else ""
    if status != 200:
        return "refused", f"{status}: {told}"
    if error:
        return "told", told
    is_whole = text.rstrip().endswith(b"[DONE]") if is_stream else text.endswith(b"}")
    return ("served", "") if is_whole else ("lost", "the answer is not whole")


async def _until_state(
    router: ServerProcess, session: aiohttp.ClientSession, backend: ServerProcess, state: str
) -> float:
    """When the router says that the backend is in a state, on the clock of the clients."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            async with session.get(router.url + "/backends") as answer:
                said = json.loads(await answer.read())
            found = {each["url"]: each["state"] for each in said["backends"]}
            if found[backend.url] == state:
                return time.perf_counter()
            await asyncio.sleep(0.002)


async def _load_and_kill(
    router: ServerProcess, first: ServerProcess, seconds: float
) -> dict[str, Any]:
    limits = aiohttp.ClientTimeout(total=LIMIT_S)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=limits, connector=connector) as session:
        load = Load(router.url, session)
        clients = [asyncio.ensure_future(load.client(i)) for i in range(CLIENTS)]
        await asyncio.sleep(seconds)
        killed = time.perf_counter()
        first.process.send_signal(signal.SIGKILL)
        down = await _until_state(router, session, first, DOWN)
        await asyncio.sleep(seconds)
        first.process.wait()
        started = time.perf_counter()
        await asyncio.to_thread(first.__enter__)
        serving = time.perf_counter()
        back = await _until_state(router, session, first, UP)
        await asyncio.sleep(seconds)
        load.is_over = True
        await asyncio.gather(*clients)
    return {
        "requests": len(load.asked),
        "outcomes": dict(Counter(each.outcome for each in load.asked)),
        "errors_told": dict(Counter(e.told for e in load.asked if e.outcome != "served")),
        "seconds_from_kill_to_ejection": down - killed,
        "seconds_to_start_the_server_anew": serving - started,
        "seconds_from_its_first_good_health_to_its_return": back - serving,
        "seconds_from_kill_to_the_last_error": _last_error(load.asked, killed),
        "longest_pause_between_served_requests_s": _longest_pause(load.asked),
        "before_the_kill": _phase(load.asked, 0.0, killed),
        "on_one_server": _phase(load.asked, down, back),
        "after_the_return": _phase(load.asked, back, float("inf")),
    }


def _last_error(asked: list[Asked], killed: float) -> float:
    return max((each.end - killed for each in asked if each.outcome != "served"), default=0.0)


def _longest_pause(asked: list[Asked]) -> float:
    ends = np.sort([each.end for each in asked if each.outcome == "served"])
    return float(np.diff(ends).max())


def _phase(asked: list[Asked], start: float, end: float) -> dict[str, Any]:
    """What was sent between two times."""
    chosen = [each for each in asked if start <= each.start < end and each.outcome == "served"]
    if not chosen:
        return {"served": 0}
    whole = np.array([each.end - each.start for each in chosen])
    span = max(each.end for each in chosen) - min(each.start for each in chosen)
    return {
        "served": len(chosen),
        "requests_per_s": len(chosen) / span,
        "e2e_ms": spread_ms(whole),
        "first_byte_ms": spread_ms(np.array([each.first - each.start for each in chosen])),
    }


def main() -> None:
    stopwatch = Stopwatch()
    words = sys.argv[1:]
    seconds = float(words.pop(0)) if words and "=" not in words[0] else SECONDS
    policy = words or ["router=least_outstanding"]
    with ServerProcess(*WORDS) as first, ServerProcess(*WORDS) as second:
        backends = ("--backend", first.url, "--backend", second.url)
        with ServerProcess(*backends, *policy, module="experiments.route") as router:
            results = asyncio.run(_load_and_kill(router, first, seconds))
            names = ("retries", "ejections", "returns", "broken_answers", "refused")
            for name in names:
                results[f"router_{name}"] = _total(router, f"workbench_router_{name}_total")
    report(results | {"clients": CLIENTS, "tokens_per_answer": TOKENS}, stopwatch)


def _total(router: ServerProcess, name: str) -> float:
    """0 where nothing was counted yet."""
    try:
        return router.metric(name)
    except RuntimeError:
        return 0.0


if __name__ == "__main__":
    main()
