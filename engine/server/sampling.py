"""From the fields of a request to sampling parameters, or to one clear error.

What a request leaves out comes from the model's defaults. Knows fields and limits; the values
themselves are checked by SamplingParams, prompts by the engine.
"""

from dataclasses import dataclass
from typing import Any

from engine.server.errors import ApiError
from engine.server.schemas.chat import ChatCompletionRequest
from engine.server.schemas.completion import CompletionRequest
from engine.server.schemas.sampling import REFUSED, SamplingFields
from engine.server.schemas.structured_output import StructuredOutputs
from workbench.sampling_params import RequestOutputKind, SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams

COPIED = (
    *("frequency_penalty", "logit_bias", "presence_penalty", "seed", "stop", "temperature"),
    *("top_p", "min_p", "repetition_penalty", "stop_token_ids", "include_stop_str_in_output"),
    *("ignore_eos", "min_tokens", "skip_special_tokens", "spaces_between_special_tokens"),
    *("allowed_token_ids", "bad_words", "prompt_logprobs", "n"),
)
"""Fields that are sampling parameters by the same name; null means the model's default."""

GUIDED = {
    "guided_json": "json",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_grammar": "grammar",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server and its model allow.

    Attributes:
        max_model_len: Most tokens of prompt and answer.
        vocab_size: Of the model.
        max_logprobs: Most log probabilities a position; -1: any number.
        max_answers: Most answers of one HTTP request.
    """

    max_model_len: int
    vocab_size: int
    max_logprobs: int
    max_answers: int


def check_fields(body: SamplingFields) -> None:
    """Refuse what is known and cannot be honoured, by name.

    Raises:
        ApiError: 400.
    """
    for name in body.model_fields_set & REFUSED.keys():
        harmless, reason = REFUSED[name]
        if getattr(body, name) not in harmless:
            raise ApiError(400, f"{name} is not supported: {reason}; leave it out", name)
    options = body.stream_options
    if options is not None and not body.stream:
        reason = "stream_options needs stream=true: set it, or leave the options out"
        raise ApiError(400, reason, "stream_options")
    if body.stream and body.prompt_logprobs is not None and body.prompt_logprobs != 0:
        reason = "prompt_logprobs are not told in a stream: set stream=false"
        raise ApiError(400, reason, "prompt_logprobs")


def num_listed(body: SamplingFields) -> int:
    """Items of the fields that may hold as many as a vocabulary."""
    return len(body.allowed_token_ids or ()) + len(body.logit_bias or ())


def completion_params(
    body: CompletionRequest, default: SamplingParams, limits: Limits
) -> SamplingParams:
    """Sampling parameters of a completion.

    With `echo`, max_tokens=0 asks for the prompt only; an engine gives at least one token, which
    is left out of the answer.

    Raises:
        ApiError, ConfigError: A value cannot be honoured.
    """
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise ApiError(400, f"best_of={body.best_of} must equal n={body.n or 1}", "best_of")
    max_tokens = body.max_tokens
    if max_tokens == 0 and body.echo:
        max_tokens = 1
    changes = _shared(body, limits)
    changes |= {"max_tokens": _checked_length("max_tokens", max_tokens, limits)}
    if body.logprobs is not None:
        changes["logprobs"] = body.logprobs
        if body.echo:
            changes["prompt_logprobs"] = body.logprobs
    return _build(body, default, changes, limits)


def chat_params(
    body: ChatCompletionRequest, default: SamplingParams, limits: Limits
) -> SamplingParams:
    """Sampling parameters of a chat; without a limit the answer may fill the model's length.

    Raises:
        ApiError, ConfigError: A value cannot be honoured.
    """
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs needs logprobs=true", "top_logprobs")
    _check_count("top_logprobs", body.top_logprobs, limits)
    name = "max_tokens" if body.max_completion_tokens is None else "max_completion_tokens"
    changes = _shared(body, limits)
    max_tokens = _checked_length(name, getattr(body, name), limits)
    if max_tokens is None and default.max_tokens != SamplingParams().max_tokens:
        # the generation config has a limit of its own
        max_tokens = default.max_tokens
    changes["max_tokens"] = max_tokens
    if body.logprobs:
        changes["logprobs"] = body.top_logprobs or 0
    return _build(body, default, changes, limits)


def check_room(params: SamplingParams, num_prompt_tokens: int, limits: Limits) -> None:
    """Refuse an answer that the model's length cannot hold beside the prompt.

    Raises:
        ApiError: 400, with all numbers.
    """
    wanted = params.max_tokens
    if wanted is not None and num_prompt_tokens + wanted > limits.max_model_len:
        raise ApiError(
            400,
            f"max_tokens={wanted} and the prompt's {num_prompt_tokens} tokens make "
            f"{num_prompt_tokens + wanted}, and this model's maximum context length is "
            f"{limits.max_model_len} tokens: shorten the prompt, or ask for at most "
            f"{limits.max_model_len - num_prompt_tokens}",
            "max_tokens",
        )


def structured_outputs_of(body: SamplingFields) -> StructuredOutputsParams | None:
    """The form that a request wants, whichever of the ways of saying so it uses.

    Raises:
        ApiError: Two ways at once.
        ConfigError: The form itself is wrong.
    """
    forms = [
        form for form in (_of_format(body), _of_vllm(body), _of_guided(body)) if form is not None
    ]
    if len(forms) > 1:
        raise ApiError(
            400, "response_format, structured_outputs and guided_* exclude each other: keep one"
        )
    return StructuredOutputsParams(**forms[0]) if forms else None


def _shared(body: SamplingFields, limits: Limits) -> dict[str, Any]:
    """Changes to the defaults that both kinds of requests know."""
    changes = {name: getattr(body, name) for name in COPIED if name in body.model_fields_set}
    changes = {name: value for name, value in changes.items() if value is not None}
    if body.top_k is not None:
        # more than all of them is all of them, in numbers that a device holds
        changes["top_k"] = min(body.top_k, limits.vocab_size)
    if body.truncate_prompt_tokens is not None:
        changes["truncate_prompt_tokens"] = body.truncate_prompt_tokens
    return changes


def _build(
    body: SamplingFields, default: SamplingParams, changes: dict[str, Any], limits: Limits
) -> SamplingParams:
    kind = RequestOutputKind.DELTA if body.stream else RequestOutputKind.FINAL_ONLY
    form = structured_outputs_of(body)
    if form is not None:
        changes["structured_outputs"] = form
    if changes.get("truncate_prompt_tokens") == -1 and changes.get("max_tokens"):
        # as many as leave room for the whole answer
        room = limits.max_model_len - changes["max_tokens"]
        changes["truncate_prompt_tokens"] = max(room, 1)
    params = default.clone(**changes, output_kind=kind)
    _check_limits(params, limits)
    return params


def _check_limits(params: SamplingParams, limits: Limits) -> None:
    if params.n > limits.max_answers:
        raise ApiError(400, f"n={params.n} must be at most {limits.max_answers}", "n")
    for name in ("logprobs", "prompt_logprobs"):
        _check_count(name, getattr(params, name), limits)


def _check_count(name: str, count: int | None, limits: Limits) -> None:
    """Refuse more log probabilities a position than there may be; -1 stands for all."""
    if count is None or limits.max_logprobs == -1:
        return
    if count == -1 or count > limits.max_logprobs:
        raise ApiError(
            400,
            f"{name}={count} exceeds the server's limit of {limits.max_logprobs} a position: "
            "lower it, or start the server with a higher --max-logprobs",
            name,
        )


def _checked_length(name: str, max_tokens: int | None, limits: Limits) -> int | None:
    if max_tokens is None:
        return None
    if max_tokens < 1:
        raise ApiError(400, f"{name}={max_tokens} must be at least 1", name)
    if max_tokens > limits.max_model_len:
        raise ApiError(
            400,
            f"{name}={max_tokens} exceeds max_model_len={limits.max_model_len}: request fewer "
            "output tokens",
            name,
        )
    return max_tokens


def _of_format(body: SamplingFields) -> dict[str, Any] | None:
    wanted = body.response_format
    if wanted is None or wanted.type == "text":
        return None
    if wanted.type == "json_object":
        return {"json_object": True}
    schema = wanted.json_schema
    if schema is None or schema.json_schema is None:
        raise ApiError(
            400,
            "response_format of type json_schema needs json_schema with a name and a schema",
            "response_format",
        )
    return {"json": schema.json_schema}


def _of_vllm(body: SamplingFields) -> dict[str, Any] | None:
    wanted: StructuredOutputs | None = body.structured_outputs
    if wanted is None:
        return None
    given = wanted.model_dump(exclude_none=True, by_alias=True)
    if given.pop("disable_additional_properties", False):
        raise ApiError(
            400,
            "structured_outputs.disable_additional_properties is not supported: write "
            "additionalProperties into the schema",
            "structured_outputs",
        )
    return given


def _of_guided(body: SamplingFields) -> dict[str, Any] | None:
    given = {form: getattr(body, name) for name, form in GUIDED.items()}
    return {form: value for form, value in given.items() if value is not None} or None
