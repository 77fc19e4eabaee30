"""LLM: a model, prompts in, answers out. The front that most programs need.

`LLM(model=...).generate(prompts, params)` takes and gives what vLLM's does. Knows progress bars and
the order of prompts; everything else is the engine's.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any

from engine.engine_args import make_engine_config
from engine.errors import InputError
from engine.input_processor import Prompt, one_for_each, split_prompts
from engine.llm_engine import LLMEngine, PreparedRequest
from engine.outputs import RequestOutput
from engine.tokenizer import Messages, apply_chat_template
from workbench.sampling_params import RequestOutputKind, SamplingParams

Params = SamplingParams | Sequence[SamplingParams] | None
ProgressBar = bool | Callable[..., Any]


class LLM:
    """A model that answers prompts.

    Args:
        model: Folder of a Hugging Face checkpoint, or the fields of a config.json with
            load_format="dummy".
        tokenizer: Folder of the tokenizer; None: the model's. Without any, token ids still work.
        settings: vLLM's names: dtype, max_model_len, max_num_seqs, max_num_batched_tokens,
            block_size, enable_prefix_caching, num_gpu_blocks_override, gpu_memory_utilization,
            enforce_eager, skip_tokenizer_init, load_format, seed, device, attention_backend,
            kv_cache_dtype, async_scheduling … Every field of EngineConfig, SchedulerConfig and
            CacheConfig is one; an unknown name is refused.

    Raises:
        ModelLoadError, OutOfMemoryError, ConfigError: In one line, with the cure.

    Attributes:
        llm_engine: The engine, for programs that drive it step by step.
    """

    def __init__(
        self,
        model: str | Mapping[str, Any],
        *,
        tokenizer: str | None = None,
        **settings: Any,
    ) -> None:
        config = make_engine_config(model, tokenizer=tokenizer, **settings)
        self.llm_engine = LLMEngine.from_config(config)
        self._num_requests = 0

    @classmethod
    def from_engine(cls, engine: LLMEngine) -> "LLM":
        """The same front on an engine that is built already."""
        llm = cls.__new__(cls)
        llm.llm_engine = engine
        llm._num_requests = 0
        return llm

    def get_tokenizer(self) -> Any:
        """The tokenizer, of transformers.

        Raises:
            InputError: There is none.
        """
        if self.llm_engine.tokenizer is None:
            reason = self.llm_engine.input_processor.no_tokenizer_reason
            raise InputError(f"no tokenizer: {reason}")
        return self.llm_engine.tokenizer

    def get_default_sampling_params(self) -> SamplingParams:
        """What prompts without sampling parameters get: the model's generation_config.json."""
        return self.llm_engine.default_params

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        *,
        use_tqdm: ProgressBar = True,
        priority: int | Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Answer prompts; outputs in their order.

        All prompts are checked before any runs: a bad one is told with its index, and nothing has
        been computed or lost. A request that fails while it runs ends with finish_reason "error",
        and the others go on.

        Args:
            prompts: Text, token ids, a dict with "prompt" or "prompt_token_ids", or a list of
                these; a flat list of integers is one prompt.
            sampling_params: One for all, or one for each; None: the model's defaults.
            use_tqdm: Show a progress bar; or what makes one, called as tqdm is.
            priority: One for all or one for each, with policy="priority"; lower comes first.

        Raises:
            InputError: A prompt or its parameters cannot be served, in one line.
        """
        each = split_prompts(prompts)
        params = one_for_each(
            "sampling_params", sampling_params, SamplingParams, len(each), lambda: None
        )
        priorities = one_for_each("priority", priority, int, len(each), int)
        return self._run(self._prepare(each, params, priorities), use_tqdm)

    def chat(
        self,
        messages: Messages | Sequence[Messages],
        sampling_params: Params = None,
        use_tqdm: ProgressBar = True,
        *,
        chat_template: str | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        priority: int | Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Continue conversations; outputs in their order.

        Args:
            messages: One conversation, a list of {"role": …, "content": …}, or a list of these.
            sampling_params, use_tqdm, priority: As in `generate`.
            chat_template: Jinja template; None: the tokenizer's.
            add_generation_prompt: End the prompt where the assistant begins.
            continue_final_message: Let the model go on with the last message instead.
            tools: Given to the template.
            chat_template_kwargs: Further variables of the template.

        Raises:
            InputError: No tokenizer, no template, or one that refuses the messages.
        """
        tokenizer = self.get_tokenizer()
        if not messages:
            raise InputError("messages is empty: pass at least one message")
        is_single = isinstance(messages[0], Mapping)
        conversations: list[Any] = [messages] if is_single else list(messages)
        prompts: list[Prompt] = []
        for conversation in conversations:
            text = apply_chat_template(
                tokenizer,
                conversation,
                chat_template=chat_template,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
                **(chat_template_kwargs or {}),
            )
            # the template has written the special tokens
            token_ids = self.llm_engine.input_processor.encode(text, add_special_tokens=False)
            prompts.append({"prompt": text, "prompt_token_ids": token_ids})
        return self.generate(prompts, sampling_params, use_tqdm=use_tqdm, priority=priority)

    def _prepare(
        self,
        prompts: Sequence[Prompt],
        params: Sequence[SamplingParams | None],
        priorities: Sequence[int],
    ) -> list[PreparedRequest]:
        """Check all; nothing has been added if one is refused."""
        engine = self.llm_engine
        finals: dict[int, SamplingParams] = {}
        prepared = []
        for index, (prompt, given, priority) in enumerate(
            zip(prompts, params, priorities, strict=True)
        ):
            wanted = engine.default_params if given is None else given
            # one object for all prompts stays one object
            if id(wanted) not in finals and isinstance(wanted, SamplingParams):
                finals[id(wanted)] = replace(wanted, output_kind=RequestOutputKind.FINAL_ONLY)
            request_id = str(self._num_requests + index)
            try:
                final = finals.get(id(wanted), wanted)
                prepared.append(engine.prepare(request_id, prompt, final, priority=priority))
            except InputError as error:
                place = f"prompt {index} of {len(prompts)}: " if len(prompts) > 1 else ""
                raise InputError(f"{place}{error}") from error
        self._num_requests += len(prepared)
        return prepared

    def _run(
        self, prepared: Sequence[PreparedRequest], use_tqdm: ProgressBar
    ) -> list[RequestOutput]:
        engine = self.llm_engine
        ids = [each.request_id for each in prepared]
        finished: dict[str, RequestOutput] = {}
        speed = _Speed(engine.core.clock)
        try:
            for each in prepared:
                engine.submit(each)
            with _progress_bar(use_tqdm, len(prepared)) as bar:
                while engine.has_unfinished_requests():
                    for output in engine.step():
                        if output.finished:
                            finished[output.request_id] = output
                            if bar is not None:
                                bar.set_postfix_str(speed.after(output), refresh=False)
                                bar.update(1)
        except BaseException:
            engine.abort_request(ids)
            raise
        return [finished[request_id] for request_id in ids]


class _Speed:
    """Tokens per second since it was made, for the progress bar."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._num_input = 0
        self._num_output = 0

    def after(self, output: RequestOutput) -> str:
        self._num_input += len(output.prompt_token_ids)
        self._num_output += sum(len(answer.token_ids) for answer in output.outputs)
        seconds = max(self._clock() - self._start, 1e-9)
        return (
            f"input: {self._num_input / seconds:.0f} tok/s, "
            f"output: {self._num_output / seconds:.0f} tok/s"
        )


def _progress_bar(use_tqdm: ProgressBar, total: int) -> AbstractContextManager[Any]:
    if not use_tqdm:
        return nullcontext()
    from tqdm import tqdm

    make: Callable[..., Any] = use_tqdm if callable(use_tqdm) else tqdm
    bar: AbstractContextManager[Any] = make(
        total=total, desc="Processed prompts", dynamic_ncols=True
    )
    return bar
