"""One load test from its first request to its last answer, inside an event loop.

Knows the order of things: the server's models, warm-up, prompts, load, answers. Ctrl-C ends the
load and keeps what was measured.
"""

import asyncio
import gc
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace

from engine.server.open_files import raise_file_limit
from experiments.bench.answer import read_answer
from experiments.bench.http import Exchange, HttpClient
from experiments.bench.load import LoadGenerator, LoadLimits, Progress
from experiments.bench.plan import Plan, longest
from experiments.bench.prompts import PromptMaker, Vocabulary
from experiments.bench.request_body import JSON_HEADERS, RequestBody
from experiments.bench.results import BenchResult, collect
from experiments.bench.sender import ServerSender
from experiments.bench.server_facts import NoServerError, ServedModel, served_models
from experiments.bench.settings import BenchSettings
from experiments.bench.target import with_body
from experiments.bench.timers import LoopTimers
from workbench.workload.base import WorkloadRequest

WARM_UP_SEED = 1 << 20  # other prompts than the measured ones, which no cache may know


@dataclass(frozen=True, slots=True)
class Measured:
    """A result, and the name under which the server serves the model."""

    result: BenchResult
    model: str


async def measure(
    settings: BenchSettings,
    plan: Plan,
    vocabulary: Vocabulary,
    *,
    tell: Callable[[str], None],
    progress: Progress | None = None,
) -> Measured:
    """Run the load test.

    Args:
        tell: Takes a line for the user.
        progress: See `LoadGenerator`.

    Raises:
        NoServerError: No server, or every warm-up request failed.
        ConfigError: The settings contradict the workload or the tokenizer.
    """
    raise_file_limit()
    client = HttpClient(settings.target, settings.timeout_s, is_verified=settings.is_verified)
    try:
        model = await _model(settings, client)
        _warn_of_length(plan, settings, model, tell)
        body = RequestBody(
            endpoint=settings.endpoint,
            model=model.name,
            ignore_eos=settings.ignore_eos,
            with_token_ids=settings.with_token_ids,
            params=settings.params,
        )
        head = settings.target.head("POST", settings.endpoint, _headers(settings))
        maker = PromptMaker(vocabulary, plan.seed, settings.as_text)
        sender = ServerSender(client, head, body, maker, f"bench-{uuid.uuid4().hex[:8]}-")
        warm_prompts = PromptMaker(vocabulary, plan.seed + WARM_UP_SEED, settings.as_text)
        await _warm_up(settings, plan, replace(sender, prompts=warm_prompts))
        sender.prepare(plan.workload, settings.num_prompts)
        return Measured(await _load(settings, plan, sender, progress), model.name)
    finally:
        await client.close()


async def _model(settings: BenchSettings, client: HttpClient) -> ServedModel:
    if settings.model is not None and not settings.ready_s:
        return ServedModel(settings.model)
    models = await served_models(client, settings.target, _headers(settings), settings.ready_s)
    named = [m for m in models if m.name == settings.model]
    return (named or ([ServedModel(settings.model)] if settings.model else models))[0]


def _headers(settings: BenchSettings) -> dict[str, str]:
    key = {} if settings.api_key is None else {"Authorization": f"Bearer {settings.api_key}"}
    return {**JSON_HEADERS, **key, **settings.headers}


def _warn_of_length(
    plan: Plan, settings: BenchSettings, model: ServedModel, tell: Callable[[str], None]
) -> None:
    limit = model.max_model_len
    most = plan.workload.num_requests if settings.num_prompts is None else settings.num_prompts
    if limit is not None and (found := longest(plan.workload, most)) > limit:
        tell(
            f"note: the longest request has {found} tokens and the server takes {limit}: those"
            " that are too long will be refused and counted as failures"
        )


async def _warm_up(settings: BenchSettings, plan: Plan, sender: ServerSender) -> None:
    """Send the first requests of the workload with other prompts, as many at once as later."""
    if not settings.num_warmups:
        return
    items = list(plan.workload.initial())
    chosen = [items[i % len(items)] for i in range(settings.num_warmups)]
    places = asyncio.Semaphore(settings.max_concurrency or 16)

    async def one(item: WorkloadRequest) -> Exchange:
        async with places:
            prompt = sender.prompts.prompt(sender.prompts.numbers(item))
            body = with_body(sender.head, sender.body.of(prompt, item))
            return await sender.client.ask(Exchange("warm-up", body))

    answers = [read_answer(each) for each in await asyncio.gather(*map(one, chosen))]
    failures = [answer.error for answer in answers if answer.failure is not None]
    if len(failures) == len(answers):
        raise NoServerError(f"every warm-up request failed; the first: {failures[0]}")


async def _load(
    settings: BenchSettings, plan: Plan, sender: ServerSender, progress: Progress | None
) -> BenchResult:
    limits = LoadLimits(
        max_concurrency=settings.max_concurrency,
        num_requests=settings.num_prompts,
        duration_s=settings.duration_s,
        is_as_fast_as_possible=plan.is_as_fast_as_possible,
    )
    over = asyncio.Event()
    with _undisturbed():
        timers = LoopTimers()
        load = LoadGenerator(plan.workload, sender, timers, limits, over.set, progress)
        interrupts = 0

        def interrupt() -> None:
            nonlocal interrupts
            interrupts += 1
            load.stop()
            sender.client.cancel_all()

        with _on_interrupt(interrupt):
            load.start()
            await over.wait()
    ends = [each.exchange.ended_at for each in load.sent]
    duration = max(ends, default=time.perf_counter()) - timers.started_at
    answers = [sender.answer(each.item, each.exchange) for each in load.sent]
    return collect(
        load.sent,
        answers,
        timers.started_at,
        duration,
        num_unsent=load.num_unsent,
        num_unlearned=sender.num_unlearned,
        interrupted=interrupts > 0,
    )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without garbage collection, which would hold all time stamps back."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


@contextmanager
def _on_interrupt(call: Callable[[], None]) -> Iterator[None]:
    """Calls on Ctrl-C, where a handler can be had (in the main thread)."""
    loop = asyncio.get_running_loop()
    has_handler = False
    with suppress(NotImplementedError, RuntimeError, ValueError):
        loop.add_signal_handler(signal.SIGINT, call)
        has_handler = True
    try:
        yield
    finally:
        if has_handler:
            loop.remove_signal_handler(signal.SIGINT)
