"""Makes requests of prompts: tokenizing, templates and checks, in a thread of their own.

So the event loop goes on meanwhile, and nobody's short text waits behind a book. Knows tokenizer,
limits and parameters; knows no core and no answer.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sized
from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import count
from numbers import Integral, Real
from types import UnionType
from typing import Any, TypeVar

import msgspec
import numpy as np

from engine.background import step_back
from engine.core_messages import CoreInfo
from engine.core_requests import PreparedRequest, answers_of
from engine.errors import SHUT_DOWN, EngineDeadError, InputError, one_line
from engine.input_processor import InputProcessor, ProcessedInput, Prompt
from engine.long_decoding import decode_long
from engine.model_text import ModelText
from engine.remote_request import RemoteRequest
from engine.tokenizer import Messages, apply_chat_template
from workbench.sampling_params import SamplingParams

T = TypeVar("T")
MOST_ANSWERS = 1024
FEW_TOKENS = 4096
"""Most token ids, of the prompt once for each answer, that the event loop looks at by itself."""
LONG_TEXT = 100_000
"""Characters, or token ids, from which a text has to wait for other long ones."""
NUM_LONG_TEXTS = 4
"""Long texts that are worked on side by side."""
MOST_CHARACTERS = 1_000_000
"""Of a text that is tokenized; more where the model's length has room for more."""
MOST_CHARACTERS_A_TOKEN = 16
"""Of a text that fills the model's length: prose has 4 or 5."""


class RequestPreparer:
    """Prepares requests for one core after the other.

    Args:
        text: The text side of their model.
    """

    def __init__(self, text: ModelText) -> None:
        self._text = text
        # short texts are quickest one after the other
        self._thread = ThreadPoolExecutor(1, "text")
        self._long_threads = ThreadPoolExecutor(NUM_LONG_TEXTS, "long-text", step_back)
        # who works on token ids needs the interpreter, which several would keep from the loop
        self._ids_thread = ThreadPoolExecutor(1, "long-ids")
        self._handles = count(1)
        self._encode = msgspec.msgpack.Encoder(enc_hook=_plain_number).encode
        self._is_shut_down = False
        self._info: CoreInfo
        self._inputs: InputProcessor

    def use(self, info: CoreInfo) -> None:
        """Prepare for this core from now on."""
        text = self._text
        self._info = info
        self._inputs = InputProcessor(
            info.vocab_size,
            info.max_model_len,
            text.tokenizer,
            text.no_tokenizer_reason,
            text.eos,
            grammars_elsewhere=True,
        )

    async def prepare(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams | None,
        *,
        priority: int = 0,
        client_id: str = "default",
        session_id: str | None = None,
        deadline: float | None = None,
        arrival_time: float | None = None,
    ) -> PreparedRequest[RemoteRequest]:
        """See AsyncLLM.prepare."""
        arrival = time.perf_counter() if arrival_time is None else arrival_time
        _check_type("request_id", request_id, str, "text")
        _check_type("priority", priority, Integral, "a whole number")
        _check_type("client_id", client_id, str, "text")
        _check_type("session_id", session_id, str | None, "text or None")
        _check_type("arrival_time", arrival, Real, "seconds")
        _check_type("deadline", deadline, Real | None, "seconds or None")
        wanted = self._text.default_params if params is None else params
        source = await self._process(prompt, wanted)
        self._check_fits(request_id, source)
        facts = {
            "priority": int(priority),
            "client_id": client_id,
            "session_id": session_id,
            "deadline": deadline,
        }
        num_items = len(source.prompt_token_ids) * source.params.n
        if num_items <= FEW_TOKENS:
            return self._make(request_id, source, arrival, facts)
        return await self._run(num_items, self._make, request_id, source, arrival, facts)

    def _make(
        self, request_id: str, source: ProcessedInput, arrival: float, facts: Mapping[str, Any]
    ) -> PreparedRequest[RemoteRequest]:
        requests = []
        for core_id, device_params in answers_of(request_id, source):
            request = RemoteRequest(
                next(self._handles),
                request_id,
                core_id,
                source.prompt_token_ids,
                source.max_tokens,
                source.stop_token_ids,
                device_params,
                arrival,
                **facts,
            )
            request.encoded = self._encoded(request)
            requests.append(request)
        return PreparedRequest(request_id, source, requests)

    def _encoded(self, request: RemoteRequest) -> bytes:
        """What hands a request to the core; made here, where it may still be refused."""
        try:
            return self._encode(request.message())
        except (UnicodeEncodeError, OverflowError, TypeError) as error:
            raise InputError(
                f"a value of the request cannot be sent to the engine ({one_line(error)}): use "
                "numbers of at most 64 bits and text that is Unicode"
            ) from error

    async def tokenize(self, text: str, add_special_tokens: bool) -> list[int]:
        """See AsyncLLM.tokenize."""
        self._check_characters(len(text), "the prompt")
        return await self._run(len(text), self._inputs.encode, text, add_special_tokens)

    async def detokenize(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        """See AsyncLLM.detokenize."""
        self._require_tokenizer()
        threads = self._thread if len(token_ids) < LONG_TEXT else self._ids_thread
        return await self._run_in(threads, self._decode, token_ids, skip_special_tokens)

    async def render_chat(self, messages: Messages, options: Mapping[str, Any]) -> str:
        """See AsyncLLM.render_chat."""
        tokenizer = self._require_tokenizer()
        return await self._run(0, lambda: apply_chat_template(tokenizer, messages, **options))

    def shutdown(self) -> None:
        """End the thread; what waits for it raises EngineDeadError."""
        self._is_shut_down = True
        for threads in (self._thread, self._long_threads, self._ids_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _process(self, prompt: Prompt, params: SamplingParams) -> ProcessedInput:
        if _is_quick(prompt, params):
            return self._inputs.process(prompt, params)
        length, is_text = _size_of(prompt)
        if is_text:
            self._check_characters(length, "the prompt")
        return await self._run(length, self._inputs.process, prompt, params)

    def _check_characters(self, length: int, who: str) -> None:
        most = max(MOST_CHARACTERS, MOST_CHARACTERS_A_TOKEN * self._info.max_model_len)
        if length > most:
            raise InputError(
                f"{who} has {length} characters, and at most {most} are tokenized at once (the "
                f"larger of {MOST_CHARACTERS} and {MOST_CHARACTERS_A_TOKEN} a token of "
                "max_model_len): send a part of it, the end where it is to be truncated"
            )

    def _check_fits(self, request_id: str, source: ProcessedInput) -> None:
        if source.params.n > MOST_ANSWERS:
            raise InputError(
                f"n={source.params.n} exceeds {MOST_ANSWERS} answers of one request: send several"
            )
        info, num_tokens = self._info, len(source.prompt_token_ids)
        if num_tokens > info.max_prompt_tokens:
            raise InputError(
                f"request {request_id!r}: a prompt of {num_tokens} tokens exceeds the whole KV "
                f"cache of {info.num_kv_blocks} blocks of {info.block_size} tokens, which holds "
                f"{info.max_prompt_tokens}: shorten it or give the cache more blocks"
            )

    async def _run(self, length: int, function: Callable[..., T], *args: Any) -> T:
        """Work on a text of so many characters, beside the event loop."""
        threads = self._thread if length < LONG_TEXT else self._long_threads
        return await self._run_in(threads, function, *args)

    async def _run_in(self, threads: Executor, function: Callable[..., T], *args: Any) -> T:
        if self._is_shut_down:
            raise EngineDeadError(SHUT_DOWN)
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        try:
            return await loop.run_in_executor(threads, function, *args)
        except asyncio.CancelledError:
            if self._is_shut_down and task is not None and not task.cancelling():
                raise EngineDeadError(SHUT_DOWN) from None
            raise

    def _require_tokenizer(self) -> Any:
        if self._inputs.tokenizer is None:
            raise InputError(f"no tokenizer: {self._inputs.no_tokenizer_reason}")
        return self._inputs.tokenizer

    def _decode(self, token_ids: list[int], skip_special_tokens: bool) -> str:
        self._inputs.check_vocabulary(token_ids, "tokens has")
        return decode_long(self._inputs.tokenizer, token_ids, skip_special_tokens)


def _size_of(prompt: Prompt) -> tuple[int, bool]:
    """(characters of a text that must be tokenized, or token ids; whether it is text)."""
    if isinstance(prompt, Mapping):
        ids = prompt.get("prompt_token_ids")
        prompt = prompt.get("prompt", "") if ids is None else ids
    is_sized = isinstance(prompt, Sized)
    return len(prompt) if is_sized else 0, isinstance(prompt, str)


def _is_quick(prompt: Prompt, params: SamplingParams) -> bool:
    """Whether a request is a few token ids and nothing that must be made from text."""
    ids = prompt.get("prompt_token_ids") if isinstance(prompt, Mapping) else prompt
    if not isinstance(ids, list) or len(ids) > FEW_TOKENS:
        return False
    return isinstance(params, SamplingParams) and not params.bad_words


def _plain_number(value: object) -> object:
    """A number of numpy as Python's."""
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} is no plain value")


def _check_type(name: str, value: object, kind: type | UnionType, wanted: str) -> None:
    """What the core would not understand must not reach it."""
    if not isinstance(value, kind):
        raise InputError(f"{name}={value!r} must be {wanted}")
