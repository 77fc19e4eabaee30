"""LLMEngine: requests in, steps, outputs out. The whole engine is the loop of `step`.

Knows the order of things in a step. What each part does is its own affair.
"""

from collections.abc import Iterable, Iterator
from numbers import Integral
from typing import Any

from engine.config import EngineConfig
from engine.core_requests import PreparedRequest, add_block_hashes, answers_of
from engine.detokenizer import decoder_factory
from engine.errors import EngineDeadError, InputError
from engine.input_processor import InputProcessor, ProcessedInput, Prompt
from engine.interrupts import interrupts_held
from engine.model_files import find_eos_tokens, find_tokenizer, sampling_defaults
from engine.output_processor import OutputProcessor
from engine.outputs import RequestOutput
from workbench.config import CacheConfig
from workbench.engine_core import EngineCore
from workbench.outputs import EngineCoreOutputs, ModelRunnerOutput
from workbench.request import Request
from workbench.sampling_params import SamplingParams


class LLMEngine:
    """Drives a core step by step.

    Args:
        core: Schedules and computes.
        input_processor: Checks and tokenizes.
        output_processor: Makes text.
        cache_config: For the keys of prefix caching.
        default_params: For requests that bring none.
    """

    def __init__(
        self,
        core: EngineCore,
        input_processor: InputProcessor,
        output_processor: OutputProcessor,
        cache_config: CacheConfig,
        default_params: SamplingParams | None = None,
    ) -> None:
        self.core = core
        self.input_processor = input_processor
        self.output_processor = output_processor
        self.default_params = default_params or SamplingParams()
        self._cache_config = cache_config
        self._why_over: str | None = None
        self._cause: BaseException | None = None

    @classmethod
    def from_config(cls, config: EngineConfig) -> "LLMEngine":
        """Load a model and build an engine around it.

        Raises:
            ModelLoadError, OutOfMemoryError, ConfigError: In one line, with the cure.
        """
        from engine.build import build_engine_core
        from engine.models.registry import read_hf_config

        # Before the tokenizer, which transformers would blame for a config that is broken.
        read_hf_config(config.model if isinstance(config.model, str) else dict(config.model))
        tokenizer, reason = find_tokenizer(config)
        parts = build_engine_core(config)
        eos = find_eos_tokens(config.model, parts.hf_config, tokenizer)
        input_processor = InputProcessor(
            parts.model.vocab_size, parts.core.scheduler.max_model_len, tokenizer, reason, eos
        )
        make_decoder = None if tokenizer is None else decoder_factory(tokenizer)
        return cls(
            parts.core,
            input_processor,
            OutputProcessor(make_decoder, tokenizer),
            parts.cache_config,
            sampling_defaults(config.model),
        )

    @property
    def tokenizer(self) -> Any:
        """Of transformers, or None."""
        return self.input_processor.tokenizer

    @property
    def num_unfinished_requests(self) -> int:
        """Requests of users that have not finished."""
        return self.output_processor.num_unfinished_requests

    def has_unfinished_requests(self) -> bool:
        """Whether a step has anything to do."""
        return self.num_unfinished_requests > 0 or self.core.has_work

    def add_request(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> str:
        """Add a request; its id.

        Args:
            request_id: Unique among unfinished requests.
            prompt: Text, token ids, or a dict with either.
            params: None: the engine's defaults.
            arrival_time: Seconds on the core's clock; None: now.
            priority: Lower comes first, with policy="priority".

        Raises:
            InputError: It cannot be served; nothing was added.
        """
        prepared = self.prepare(
            request_id, prompt, params, arrival_time=arrival_time, priority=priority
        )
        self.submit(prepared)
        return request_id

    def prepare(
        self,
        request_id: str,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        arrival_time: float | None = None,
        priority: int = 0,
    ) -> PreparedRequest[Request]:
        """Check and tokenize a request without adding it; see `add_request`."""
        self._check_alive()
        if not isinstance(priority, Integral):
            raise InputError(f"priority={priority!r} must be a whole number")
        source = self.input_processor.process(prompt, params or self.default_params)
        when = self.core.clock() if arrival_time is None else arrival_time
        requests = list(self._core_requests(request_id, source, when, priority))
        reason = self.core.scheduler.why_ignored(requests[0])
        if reason is not None:
            raise InputError(reason)
        return PreparedRequest(request_id, source, requests)

    def submit(self, prepared: PreparedRequest[Request]) -> None:
        """Add a prepared request.

        Raises:
            InputError: Its id is in use; nothing was added.
        """
        request_id, requests = prepared.request_id, prepared.requests
        if self.output_processor.has_any(request_id, requests):
            raise InputError(f"request_id={request_id!r} is in use: choose another one")
        with interrupts_held():
            self.output_processor.add_request(request_id, prepared.source, requests)
            try:
                for request in requests:
                    self.core.add_request(request)
            except BaseException as error:
                self._roll_back(request_id, error)
                raise

    def abort_request(self, request_ids: str | Iterable[str]) -> list[RequestOutput]:
        """End requests at once; unknown and finished ids are passed over.

        Returns:
            Their last outputs, with finish_reason "abort".
        """
        ids = [request_ids] if isinstance(request_ids, str) else request_ids
        with interrupts_held():
            outputs, core_ids = self.output_processor.abort_requests(ids)
            self.core.abort_requests(core_ids)
        return outputs

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; only possible, and True, while no request is unfinished."""
        return self.core.scheduler.kv_cache_manager.reset_prefix_cache()

    def step(self) -> list[RequestOutput]:
        """Run one step of the core; what the users get of it.

        Ctrl-C waits until the step is taken in, so that the engine can go on; pressed a second
        time it breaks the step off.

        Raises:
            EngineDeadError: An earlier step broke off, or the engine was shut down.
        """
        self._check_alive()
        with interrupts_held():
            try:
                model_output, core_outputs = self._run_core()
                outputs, stopped = self.output_processor.process(model_output, core_outputs)
                if stopped:
                    self.core.abort_requests(stopped)
            except BaseException as error:
                # Scheduler and device no longer agree on what has been computed.
                self._end("a step broke off", error)
                raise
        return outputs

    def shutdown(self) -> None:
        """Give back the threads of the executor; the engine is of no use afterwards."""
        self._why_over = self._why_over or "it was shut down"
        end = getattr(self.core.executor, "shutdown", None)
        if end is not None:
            end()

    def _check_alive(self) -> None:
        if self._why_over is not None:
            reason = f"the engine cannot go on ({self._why_over}): make a new one"
            raise EngineDeadError(reason) from self._cause

    def _end(self, what: str, error: BaseException) -> None:
        reason = f"{type(error).__name__}: {error}".rstrip(": ").partition("\n")[0]
        self._why_over, self._cause = f"{what}, {reason}", error

    def _roll_back(self, request_id: str, error: BaseException) -> None:
        """Take a request out again that the core has refused with an error."""
        try:
            self.core.abort_requests(self.output_processor.abort_requests([request_id])[1])
        except Exception:
            # A queue that lost it, for example: what it would schedule next, nobody knows.
            self._end("a request could not be added", error)

    def _run_core(self) -> tuple[ModelRunnerOutput | None, EngineCoreOutputs]:
        step = self.core.step()
        try:
            pending = next(step)
        except StopIteration as filled:
            # A pipelined core returns at once from a step that waits for none.
            return None, filled.value
        model_output: ModelRunnerOutput = pending.result()
        try:
            step.send(model_output)
        except StopIteration as done:
            return model_output, done.value
        raise AssertionError("a step waits once")

    def _core_requests(
        self, request_id: str, source: ProcessedInput, arrival: float, priority: int
    ) -> Iterator[Request]:
        """The request of each answer."""
        for core_id, device_params in answers_of(request_id, source):
            request = Request(
                core_id,
                len(source.prompt_token_ids),
                source.max_tokens,
                arrival,
                prompt_token_ids=source.prompt_token_ids,
                stop_token_ids=source.stop_token_ids,
                sampling_params=device_params,
                priority=priority,
                grammar=self.input_processor.grammars.begin(device_params),
            )
            add_block_hashes(request, source.prompt_token_ids, self._cache_config)
            yield request
