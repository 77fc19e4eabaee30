"""LLM: a model, prompts in, answers out. The front that most programs need.

`LLM(model=...).generate(prompts, params)` takes and gives what vLLM's does. Knows progress bars and
the order of prompts; everything else is the engine's.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from numbers import Integral
from os import PathLike
from typing import Any

from engine.batch_arguments import one_for_each, split_prompts
from engine.core_requests import PreparedRequest
from engine.engine_args import make_engine_config
from engine.errors import InputError
from engine.input_processor import Prompt
from engine.llm_engine import LLMEngine
from engine.outputs import RequestOutput, refused_output
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
            CacheConfig is one. vLLM's settings that exist here with one value only are taken with
            that value; an unknown name is refused.

    Raises:
        ModelLoadError, OutOfMemoryError, ConfigError: In one line, with the cure.

    Attributes:
        llm_engine: The engine, for programs that drive it step by step.
    """

    def __init__(
        self,
        model: str | PathLike[str] | Mapping[str, Any],
        *,
        tokenizer: str | PathLike[str] | None = None,
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

    def reset_prefix_cache(self) -> bool:
        """Forget all cached prefixes; False, and nothing is done, while requests are unfinished."""
        return self.llm_engine.reset_prefix_cache()

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: Params = None,
        *,
        use_tqdm: ProgressBar = True,
        lora_request: None = None,
        priority: int | Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Answer prompts; outputs in their order.

        A prompt that cannot be served, or whose parameters cannot, does not keep the others from
        their answers: its output has one answer without text, with finish_reason "error" and the
        reason as stop_reason, as has that of a request that fails while it runs. Ctrl-C ends the
        requests of the call and leaves the engine ready for the next one.

        Args:
            prompts: Text, token ids, a dict with "prompt" or "prompt_token_ids", or a list of
                these; a flat list of integers is one prompt.
            sampling_params: One for all, or one for each; None: the model's defaults.
            use_tqdm: Show a progress bar; or what makes one, called as tqdm is.
            lora_request: None; adapters are not supported.
            priority: One for all or one for each, with policy="priority"; lower comes first.

        Raises:
            InputError: None of the prompts can be served, or an argument is of a wrong type or
                length; in one line.
            EngineDeadError: An earlier step broke off, or the engine was shut down.
        """
        return self._generate(
            split_prompts(prompts), sampling_params, use_tqdm, priority, lora_request
        )

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
        lora_request: None = None,
        priority: int | Sequence[int] | None = None,
    ) -> list[RequestOutput]:
        """Continue conversations; outputs in their order.

        Args:
            messages: One conversation, a list of {"role": …, "content": …}, or a list of these.
                Content is text, or a list of {"type": "text", "text": …}, joined by newlines.
            sampling_params, use_tqdm, lora_request, priority: As in `generate`.
            chat_template: Jinja template; None: the tokenizer's.
            add_generation_prompt: End the prompt where the assistant begins.
            continue_final_message: Let the model go on with the last message instead.
            tools: Given to the template.
            chat_template_kwargs: Further variables of the template.

        Raises:
            InputError: No tokenizer, no template, or as in `generate`; a template that refuses one
                of several conversations refuses that one only.
            EngineDeadError: As in `generate`.
        """
        tokenizer = self.get_tokenizer()
        if not messages:
            raise InputError("messages is empty: pass at least one message")
        is_single = isinstance(messages, str | Mapping) or isinstance(messages[0], Mapping)
        conversations: list[Any] = [messages] if is_single else list(messages)
        render = partial(
            apply_chat_template,
            tokenizer,
            chat_template=chat_template,
            add_generation_prompt=add_generation_prompt,
            continue_final_message=continue_final_message,
            tools=tools,
            **(chat_template_kwargs or {}),
        )
        prompts = [self._rendered(render, conversation) for conversation in conversations]
        return self._generate(prompts, sampling_params, use_tqdm, priority, lora_request)

    def _rendered(
        self, render: Callable[[Messages], str], conversation: Messages
    ) -> Prompt | InputError:
        """The prompt of a conversation, or why there is none."""
        try:
            text = render(conversation)
            # the template has written the special tokens
            token_ids = self.llm_engine.input_processor.encode(text, add_special_tokens=False)
        except InputError as error:
            return error
        return {"prompt": text, "prompt_token_ids": token_ids}

    def _generate(
        self,
        prompts: Sequence[Prompt | InputError],
        sampling_params: Params,
        use_tqdm: ProgressBar,
        priority: int | Sequence[int] | None,
        lora_request: None,
    ) -> list[RequestOutput]:
        """Answer prompts; one that is known to be bad already comes as its error."""
        if lora_request is not None:
            raise InputError(
                f"lora_request={lora_request!r} is not possible: adapters are not supported; leave "
                "it out"
            )
        count, default = len(prompts), self.llm_engine.default_params
        params = one_for_each(
            "sampling_params", sampling_params, SamplingParams, count, lambda: default
        )
        priorities = one_for_each("priority", priority, Integral, count, int)
        return self._run(self._prepare(prompts, params, priorities), use_tqdm)

    def _prepare(
        self,
        prompts: Sequence[Prompt | InputError],
        params: Sequence[SamplingParams],
        priorities: Sequence[int],
    ) -> list[PreparedRequest | RequestOutput]:
        """Check all and add none; a refused one becomes its output.

        Raises:
            InputError: All are refused.
        """
        # one object for all prompts stays one object
        finals = {
            id(each): each.clone(output_kind=RequestOutputKind.FINAL_ONLY)
            for each in {id(each): each for each in params}.values()
        }
        prepared: list[PreparedRequest | RequestOutput] = []
        errors: list[InputError] = []
        for prompt, wanted, priority in zip(prompts, params, priorities, strict=True):
            request_id = str(self._num_requests + len(prepared))
            try:
                if isinstance(prompt, InputError):
                    raise prompt
                request = self.llm_engine.prepare(
                    request_id, prompt, finals[id(wanted)], priority=priority
                )
                prepared.append(request)
            except InputError as error:
                errors.append(error)
                text = prompt.get("prompt") if isinstance(prompt, Mapping) else prompt
                text = text if isinstance(text, str) else None
                prepared.append(refused_output(request_id, text, str(error)))
        if errors and len(errors) == len(prepared):
            count = len(errors)
            place = f"prompt 0 of {count}: " if count > 1 else ""
            raise InputError(f"{place}{errors[0]}") from errors[0]
        self._num_requests += len(prepared)
        return prepared

    def _run(
        self, prepared: Sequence[PreparedRequest | RequestOutput], use_tqdm: ProgressBar
    ) -> list[RequestOutput]:
        engine = self.llm_engine
        requests = [each for each in prepared if isinstance(each, PreparedRequest)]
        ids = [each.request_id for each in requests]
        finished = {each.request_id: each for each in prepared if isinstance(each, RequestOutput)}
        speed = _Speed(engine.core.clock)
        try:
            for each in requests:
                engine.submit(each)
            with _progress_bar(use_tqdm, len(requests)) as bar:
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
        return [finished[each.request_id] for each in prepared]


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
