"""AsyncLLM: many requests at once from one event loop, answered by a core in its own process.

    llm = await AsyncLLM.start(CoreSpec("experiments.serving.worlds:simulated_core", settings))
    async for output in llm.generate("Hello", SamplingParams(max_tokens=16), "request-1"):
        ...

Knows the way of a request from the prompt to the stream of its outputs. How messages travel, how
text is made and which world computes, others know.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing, suppress
from typing import Any

from engine.core_keeper import CoreKeeper
from engine.core_messages import CoreInfo, StepOutputs, StepStats
from engine.core_requests import PreparedRequest
from engine.core_signs import SignsOfLife
from engine.detokenizer import decoder_factory
from engine.input_processor import Prompt
from engine.listeners import Listeners
from engine.model_text import ModelText
from engine.open_requests import OpenRequests
from engine.output_processor import OutputProcessor
from engine.outputs import RequestOutput
from engine.remote_request import RemoteRequest
from engine.request_listener import RequestListener
from engine.request_preparer import RequestPreparer
from engine.served_core import CoreSpec
from engine.tokenizer import Messages
from workbench.sampling_params import SamplingParams

Prepared = PreparedRequest[RemoteRequest]


class AsyncLLM:
    """See the module; made by `start`. All methods belong to the event loop that started it.

    Attributes:
        info: What the core is.
        text: Tokenizer, ends of sequences and default parameters.
        stats: The latest step in numbers; None before the first one.
    """

    def __init__(
        self, spec: CoreSpec, text: ModelText, in_thread: bool, start_timeout: float
    ) -> None:
        """Only what needs no core; see `start`."""
        self.text = text
        self.info: CoreInfo
        self.stats: StepStats | None = None
        self._listeners = Listeners()
        make_decoder = None if text.tokenizer is None else decoder_factory(text.tokenizer)
        self._preparer = RequestPreparer(text)
        self._core = CoreKeeper(
            spec,
            in_thread=in_thread,
            start_timeout=start_timeout,
            on_step=self._take_step,
            on_ready=self._note_ready,
            on_dead=self._note_dead,
        )
        processor = OutputProcessor(make_decoder, text.tokenizer)
        self._open = OpenRequests(self._core, processor, self._listeners)

    @classmethod
    async def start(
        cls,
        spec: CoreSpec,
        *,
        text: ModelText | None = None,
        in_thread: bool = False,
        start_timeout: float = 1800.0,
    ) -> "AsyncLLM":
        """Start a core and wait until it takes requests.

        Args:
            spec: Which core.
            text: The text side of its model; None: token ids in and out only.
            in_thread: Run the core in a thread of this process (tests, debugging).
            start_timeout: Most seconds that the core may take to load.

        Raises:
            ModelLoadError, OutOfMemoryError, ConfigError …: What the factory raised, in one line.
            EngineDeadError: The core ended before it was ready.
        """
        llm = cls(spec, text or ModelText(), in_thread, start_timeout)
        await llm._core.start()
        return llm

    @property
    def tokenizer(self) -> Any:
        """Of transformers, or None."""
        return self.text.tokenizer

    @property
    def default_params(self) -> SamplingParams:
        """For requests that bring none."""
        return self.text.default_params

    @property
    def num_unfinished_requests(self) -> int:
        """Requests of users that were handed in and have not ended."""
        return len(self._open)

    @property
    def is_alive(self) -> bool:
        """Whether a core serves."""
        return self._core.why_dead is None

    @property
    def why_dead(self) -> str | None:
        """Why no core serves, in one line; None while one does."""
        return self._core.why_dead

    @property
    def signs(self) -> SignsOfLife:
        """The core's signs of life; where no core serves, there is no silence."""
        return self._core.signs

    async def prepare(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        priority: int = 0,
        client_id: str = "default",
        session_id: str | None = None,
        deadline: float | None = None,
        arrival_time: float | None = None,
    ) -> Prepared:
        """Check and tokenize a request, off the event loop; nothing is handed to the core.

        Args:
            request_id: Unique among unfinished requests.
            prompt: Text, token ids, or a dict with either.
            params: None: the model's defaults.
            priority: Lower comes first, with policy="priority".
            client_id, session_id: For fair share and session affinity.
            deadline: Wall time (CLOCK_MONOTONIC seconds), or None.
            arrival_time: Wall time; None: now.

        Raises:
            InputError: It cannot be served; in one line, with the cure.
            EngineDeadError: No core serves.
        """
        self._core.check_alive()
        return await self._preparer.prepare(
            request_id,
            prompt,
            params,
            priority=priority,
            client_id=client_id,
            session_id=session_id,
            deadline=deadline,
            arrival_time=arrival_time,
        )

    async def stream(self, prepared: Prepared) -> AsyncGenerator[RequestOutput, None]:
        """Hand a prepared request to the core, with the first step of the iteration, and give its
        outputs as they come.

        Closing the generator, or cancelling the task that waits for it, ends the request. Outputs
        that nobody has fetched yet are merged: nothing is lost, pieces become bigger.

        Raises:
            InputError: The request's id is in use, or its grammar does not compile.
            EngineDeadError: The core died, or serves no more.
        """
        self._core.check_alive()
        collector = self._open.add(prepared)
        try:
            while True:
                output = await collector.get()
                yield output
                if output.finished:
                    return
        finally:
            if collector.is_open:
                self._open.abort([prepared.request_id])

    async def generate(
        self, prompt: Prompt, params: SamplingParams | None, request_id: str, **options: Any
    ) -> AsyncGenerator[RequestOutput, None]:
        """`prepare` (which takes the same options) and `stream` in one."""
        prepared = await self.prepare(request_id, prompt, params, **options)
        async with aclosing(self.stream(prepared)) as outputs:
            async for output in outputs:
                yield output

    async def abort(self, request_ids: str | Iterable[str]) -> None:
        """End requests, by finish_reason "abort". Unknown ids are passed over."""
        self._open.abort([request_ids] if isinstance(request_ids, str) else request_ids)

    async def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Token ids of a text, off the event loop.

        Raises:
            InputError: No tokenizer, or it does not take the text.
        """
        return await self._preparer.tokenize(text, add_special_tokens)

    async def detokenize(self, token_ids: list[int], skip_special_tokens: bool = False) -> str:
        """The text of token ids, off the event loop.

        Raises:
            InputError: No tokenizer, or ids that are none of the vocabulary.
        """
        return await self._preparer.detokenize(token_ids, skip_special_tokens)

    async def render_chat(self, messages: Messages, **options: Any) -> str:
        """A conversation as the text of a prompt, off the event loop.

        Args:
            messages: See engine.tokenizer.
            options: chat_template, add_generation_prompt, continue_final_message, tools, and
                further variables of the template.

        Raises:
            InputError: No tokenizer, no template, or one that refuses these messages.
        """
        return await self._preparer.render_chat(messages, options)

    async def call(self, name: str, *args: Any) -> Any:
        """Call the core between two steps: "reset_prefix_cache", "watch" (bool), "block_usage"
        (-> [used, all]), "check_integrity", or what its factory added. Plain values only.

        Raises:
            InputError: No such call, or it failed.
            EngineDeadError: The core died.
        """
        return await self._core.call(name, *args)

    async def check_health(self) -> None:
        """Return if the core serves; else raise EngineDeadError."""
        self._core.check_alive()

    async def wait_dead(self) -> str:
        """Wait until the core is gone; why. Returns at once if it is."""
        return await self._core.wait_dead()

    def add_listener(self, listener: RequestListener) -> None:
        """Let somebody hear of steps and requests."""
        self._listeners.add(listener)

    def remove_listener(self, listener: RequestListener) -> None:
        """Let somebody hear no more; unknown ones are passed over."""
        self._listeners.remove(listener)

    def kill_core(self) -> None:
        """End the core as kill -9 does; open streams raise EngineDeadError."""
        self._core.kill()

    async def restart(self) -> None:
        """Start a new core by the same spec; one that still serves is killed first.

        A call while another one starts a core waits for that one.

        Raises:
            EngineDeadError: The engine was shut down; else as `start`.
        """
        await self._core.restart()

    async def shutdown(self, drain: float = 0.0) -> None:
        """End the core, and give back threads and sockets; a second call does nothing.

        Args:
            drain: Seconds that open requests may go on; new ones are refused. What is left then
                ends with finish_reason "abort".
        """

        async def end_requests() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(drain):
                    await self._open.wait_empty()
            self._open.abort_all()

        await self._core.shutdown(end_requests)
        self._preparer.shutdown()

    async def _take_step(self, step: StepOutputs) -> None:
        """What the core gave."""
        if step.stats is not None:
            self.stats = step.stats
            self._listeners.tell("on_step", step.stats, step.detail)
        elif step.queue is not None:
            self._listeners.tell("on_queue", *step.queue)
        await self._open.take(step)

    def _note_ready(self, info: CoreInfo) -> None:
        self.info = info
        self.stats = None
        self._preparer.use(info)
        self._listeners.tell("on_core_ready")

    def _note_dead(self, reason: str) -> None:
        self._listeners.tell("on_core_dead", reason)
        self._open.fail_all(reason)
