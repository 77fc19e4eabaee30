"""An engine core whose model follows a script: for tests of everything around the model."""

from collections.abc import Callable, Mapping
from typing import Any

from engine.detokenizer import IncrementalDecoder
from engine.input_processor import EosTokens, InputProcessor
from engine.llm_engine import LLMEngine
from engine.output_processor import OutputProcessor
from workbench.config import CacheConfig, SchedulerConfig
from workbench.engine_core import EngineCore, PipelinedEngineCore
from workbench.outputs import ModelRunnerOutput, NewRequestData, SchedulerOutput
from workbench.scheduler.scheduler import Scheduler
from workbench.token_logprobs import PromptLogprobs, TokenLogprobs

VOCAB = 200
EOS = 199

Script = Callable[[NewRequestData, int], int]
"""(request, tokens of its answer before this one) -> the next token; -1: the logits are NaN."""


class ScriptedExecutor:
    """Samples what the script says.

    Args:
        script: The model.
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._requests: dict[str, NewRequestData] = {}
        self._computed: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        self._step: SchedulerOutput | None = None
        self.num_steps = 0

    def execute_model(self, scheduler_output: SchedulerOutput) -> None:
        self._step = scheduler_output
        self.num_steps += 1

    def sample_tokens(self, grammar_output: Any) -> "Done":
        step = self._step
        assert step is not None
        for new in step.scheduled_new_reqs:
            self._requests[new.request_id] = new
            self._computed[new.request_id] = new.num_computed_tokens
            self._outputs[new.request_id] = len(new.output_token_ids)
        output = ModelRunnerOutput(sampled_token_ids=[], failed={}, logprobs={}, prompt_logprobs={})
        for request_id, num_tokens in step.num_scheduled_tokens.items():
            self._run(output, request_id, num_tokens)
        return Done(output)

    def _run(self, output: Any, request_id: str, num_tokens: int) -> None:
        request = self._requests[request_id]
        start = self._computed[request_id]
        self._computed[request_id] += num_tokens
        self._tell_prompt(output, request, start, num_tokens)
        count = self._outputs[request_id]
        if self._computed[request_id] < request.num_prompt_tokens + count:
            output.sampled_token_ids.append([])
            return
        self._outputs[request_id] += 1
        token_id = self._script(request, count)
        if token_id < 0:
            output.sampled_token_ids.append([])
            output.failed[request_id] = "the logits are not a number"
            return
        output.sampled_token_ids.append([token_id])
        if request.sampling_params is not None and request.sampling_params.logprobs is not None:
            output.logprobs[request_id] = [TokenLogprobs([token_id, 0], [-0.5, -0.25], 2)]

    @staticmethod
    def _tell_prompt(output: Any, request: NewRequestData, start: int, num_tokens: int) -> None:
        params, prompt = request.sampling_params, request.prompt_token_ids
        if params is None or params.prompt_logprobs is None or prompt is None:
            return
        next_ids = prompt[start + 1 : start + 1 + num_tokens]
        if next_ids:
            told = [TokenLogprobs([token_id, 0], [-1.0, -0.25], 2) for token_id in next_ids]
            output.prompt_logprobs[request.request_id] = PromptLogprobs(start + 1, told)


class Done:
    """A pending output that is there."""

    def __init__(self, output: ModelRunnerOutput) -> None:
        self._output = output

    def result(self) -> ModelRunnerOutput:
        return self._output


class Letters:
    """A tokenizer and decoder: token i is the character i, 199 ends a text and shows as '$'."""

    eos_token_id = EOS
    chat_template = None

    def encode(self, text: str, **options: Any) -> list[int]:
        return [ord(character) for character in text]

    def decode(self, token_ids: Any) -> str:
        return "".join("$" if token_id == EOS else chr(token_id) for token_id in token_ids)

    def flush(self) -> str:
        return ""


def letters_decoder(prompt: Any, skip: bool, spaces: bool) -> IncrementalDecoder:
    return Letters()


def spell(text: str) -> Script:
    """A model that writes a text and the end of sequence, again and again."""
    token_ids = [*map(ord, text), EOS]
    return lambda request, count: token_ids[count % len(token_ids)]


def by_prompt(texts: Mapping[int, str]) -> Script:
    """A model that writes a text by the first token of the prompt, and then ends."""
    scripts = {token_id: spell(text) for token_id, text in texts.items()}

    def script(request: NewRequestData, count: int) -> int:
        assert request.prompt_token_ids is not None
        return scripts[request.prompt_token_ids[0]](request, count)

    return script


def scripted_engine(
    script: Script,
    *,
    is_async: bool = False,
    num_blocks: int = 64,
    cache: Mapping[str, Any] | None = None,
    **settings: Any,
) -> LLMEngine:
    """An engine around a script; `settings` are the scheduler's, `cache` the KV cache's."""
    fields = {"max_model_len": 64, "max_num_seqs": 8, "max_num_batched_tokens": 32}
    config = SchedulerConfig(**(fields | settings), async_scheduling=is_async)
    cache_config = CacheConfig(**({"block_size": 4} | dict(cache or {})))
    scheduler = Scheduler(config, cache_config, num_blocks)
    time = iter(range(10**9))
    kind = PipelinedEngineCore if is_async else EngineCore
    core = kind(scheduler, ScriptedExecutor(script), lambda: float(next(time)))
    tokenizer = Letters()
    inputs = InputProcessor(VOCAB, scheduler.max_model_len, tokenizer, eos=EosTokens(EOS, (198,)))
    return LLMEngine(core, inputs, OutputProcessor(letters_decoder, tokenizer), cache_config)
