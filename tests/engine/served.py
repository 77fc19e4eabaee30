"""An AsyncLLM around a scripted model: fast, without torch, with a real scheduler and a tokenizer.

    def test_something() -> None:
        async def body(llm: AsyncLLM) -> None:
            ...

        run(body)

The tokenizer is the demo checkpoint's: a token for each byte, then bos, eos and pad. The model
writes what its script says: by default the prompt's tokens again and again, up to max_tokens. The
core runs in a thread; `in_thread=False` gives it a process.
"""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import cache
from typing import Any

from engine.async_llm import AsyncLLM
from engine.byte_tokenizer import byte_level_tokenizer, byte_tokenizer
from engine.clock import WallClock
from engine.input_processor import EosTokens
from engine.model_text import ModelText
from engine.served_core import CoreSpec, ServedCore, core_info
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.outputs import ModelRunnerOutput, NewRequestData, SchedulerOutput
from workbench.scheduler.scheduler import Scheduler
from workbench.token_logprobs import PromptLogprobs, TokenLogprobs

FACTORY = f"{__name__}:scripted_core"
VOCAB_SIZE = 259
BOS, EOS, PAD = 256, 257, 258
LONGEST_TEST_S = 60.0
"""Every test body ends within this time, or fails."""

SETTINGS: dict[str, Any] = {
    "script": "echo",
    "max_model_len": 2048,
    "max_num_seqs": 64,
    "max_num_batched_tokens": 2048,
    "num_blocks": 2048,
    "block_size": 16,
    "step_s": 0.0,
    "async_scheduling": False,
    "has_grammars": False,
}


def echo(request: NewRequestData, count: int) -> int:
    """The prompt's tokens, again and again."""
    prompt = request.prompt_token_ids
    assert prompt is not None
    return prompt[count % len(prompt)] if prompt[count % len(prompt)] != EOS else 0


def hello(request: NewRequestData, count: int) -> int:
    """ "Hello!" and the end."""
    return [*ids_of("Hello!"), EOS][count % 7]


def count_up(request: NewRequestData, count: int) -> int:
    """The numbers from 0 on, each behind a space."""
    return _numbers(count // 256 + 1)[count]


def fail_third(request: NewRequestData, count: int) -> int:
    """A step that breaks off at the third token."""
    if count == 2:
        raise RuntimeError("the device fell off the bus")
    return ids_of("A")[0]


def nan_third(request: NewRequestData, count: int) -> int:
    """Logits that are not a number at the third token."""
    return -1 if count == 2 else ids_of("A")[0]


SCRIPTS = {each.__name__: each for each in (echo, hello, count_up, fail_third, nan_third)}


@cache
def ids_of(text: str) -> tuple[int, ...]:
    """A text's tokens."""
    return tuple(byte_level_tokenizer().encode(text).ids)


@cache
def _numbers(size: int) -> tuple[int, ...]:
    return ids_of("".join(f" {i}" for i in range(128 * size)))


class ScriptedModel:
    """An Executor that samples what a script says.

    Args:
        script: (request, tokens of its answer so far) -> the next token; -1: the logits are NaN.
        step_s: Seconds that a step takes.
    """

    def __init__(self, script: Callable[[NewRequestData, int], int], step_s: float) -> None:
        self._script = script
        self._step_s = step_s
        self._requests: dict[str, NewRequestData] = {}
        self._computed: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._step: SchedulerOutput | None = None

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self._step = scheduler_output

    def sample_tokens(self, grammar_output: Any) -> "_Pending":
        step = self._step
        assert step is not None
        for request_id in step.finished_req_ids:
            for table in (self._requests, self._computed, self._outputs):
                table.pop(request_id, None)
        for new in step.scheduled_new_reqs:
            self._requests[new.request_id] = new
            self._computed[new.request_id] = new.num_computed_tokens
            self._outputs[new.request_id] = len(new.output_token_ids)
        output = ModelRunnerOutput(sampled_token_ids=[], failed={}, logprobs={}, prompt_logprobs={})
        for request_id, num_tokens in step.num_scheduled_tokens.items():
            self._run(output, request_id, num_tokens)
        return _Pending(output, self._step_s)

    def _run(self, output: Any, request_id: str, num_tokens: int) -> None:
        request, start = self._requests[request_id], self._computed[request_id]
        self._computed[request_id] = start + num_tokens
        params, prompt = request.sampling_params, request.prompt_token_ids
        assert params is not None
        assert prompt is not None
        if params.prompt_logprobs is not None:
            told = [TokenLogprobs([i, 0], [-1.0, -0.25], 2) for i in prompt[start + 1 :]]
            if told[:num_tokens]:
                output.prompt_logprobs[request_id] = PromptLogprobs(start + 1, told[:num_tokens])
        count = self._outputs[request_id]
        if start + num_tokens < request.num_prompt_tokens + count:
            output.sampled_token_ids.append([])
            return
        self._outputs[request_id] = count + 1
        token_id = self._script(request, count)
        if token_id < 0:
            output.sampled_token_ids.append([])
            output.failed[request_id] = "the logits are not a number"
            return
        output.sampled_token_ids.append([token_id])
        if params.logprobs is not None:
            top = [(token_id + i) % VOCAB_SIZE for i in range(params.logprobs)]
            values = [-0.5, *(-0.5 - i for i in range(params.logprobs))]
            output.logprobs[request_id] = [TokenLogprobs([token_id, *top], values, 1)]


class _Pending:
    def __init__(self, output: ModelRunnerOutput, step_s: float) -> None:
        self._output = output
        self._step_s = step_s

    def result(self) -> ModelRunnerOutput:
        if self._step_s:
            time.sleep(self._step_s)
        return self._output


def scripted_core(settings: Mapping[str, Any]) -> ServedCore:
    """The factory; settings as in SETTINGS and SchedulerConfig, and instead of a core one of
    "fails" (an error to raise), "exits" (a status to end the process with) and "hangs"."""
    chosen = SETTINGS | dict(settings)
    if "fails" in chosen:
        raise chosen["fails"]
    if "exits" in chosen:
        os._exit(chosen["exits"])
    if "hangs" in chosen:
        threading.Event().wait()
    cache_config = CacheConfig(block_size=chosen["block_size"])
    fields = {name: chosen[name] for name in chosen if name in SchedulerConfig.__dataclass_fields__}
    config = SchedulerConfig(**fields)
    scheduler = Scheduler(config, cache_config, chosen["num_blocks"])
    kind = PipelinedEngineCore if config.async_scheduling else EngineCore
    clock = WallClock()
    core = kind(scheduler, ScriptedModel(SCRIPTS[chosen["script"]], chosen["step_s"]), clock)
    return ServedCore(
        core=core,
        info=core_info(core, world="engine", vocab_size=VOCAB_SIZE, model="scripted"),
        cache_config=cache_config,
        to_wall=clock.to_wall,
        from_wall=clock.from_wall,
        grammars=_grammars() if chosen["has_grammars"] else None,
        calls={"pid": os.getpid, "clock": clock},
    )


def _grammars() -> Any:
    from engine.structured_output import GrammarCompiler

    return GrammarCompiler(byte_level_tokenizer(), VOCAB_SIZE, (EOS,))


@cache
def demo_tokenizer() -> Any:
    """The tokenizer of the demo checkpoint."""
    return byte_tokenizer()


def model_text() -> ModelText:
    """The text side of the scripted model."""
    return ModelText(tokenizer=demo_tokenizer(), eos=EosTokens(EOS))


@asynccontextmanager
async def served_llm(
    *, in_thread: bool = True, text: ModelText | None = None, **settings: Any
) -> AsyncIterator[AsyncLLM]:
    """An AsyncLLM; settings as in SETTINGS."""
    llm = await AsyncLLM.start(
        CoreSpec(FACTORY, settings), text=text or model_text(), in_thread=in_thread
    )
    try:
        yield llm
    finally:
        await llm.shutdown()


def run(body: Callable[[AsyncLLM], Awaitable[None]], **settings: Any) -> None:
    """Run a test's body with an AsyncLLM; settings as in `served_llm`."""

    async def bounded() -> None:
        async with asyncio.timeout(LONGEST_TEST_S), served_llm(**settings) as llm:
            await body(llm)

    asyncio.run(bounded())
