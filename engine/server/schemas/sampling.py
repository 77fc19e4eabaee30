"""The fields that completions and chats share: sampling, stops, forms, identity.

Also the fields that are known and cannot be honoured: `REFUSED` says why, by name.
"""

from typing import Annotated, Any

from pydantic import Field

from engine.server.schemas.base import (
    Count,
    CountOrAll,
    Int64,
    Number,
    Penalty,
    RequestSchema,
    Share,
    TokenId,
)
from engine.server.schemas.structured_output import (
    Choices,
    JsonObject,
    ResponseFormat,
    StructuredOutputs,
)

MAX_STOPS = 64
Text = Annotated[str, Field(max_length=4096)]
# what is beyond becomes infinite or zero in the numbers of a device
Temperature = Annotated[float, Field(ge=0, le=1e4, allow_inf_nan=False)]
Repetition = Annotated[float, Field(ge=1e-3, le=1e3, allow_inf_nan=False)]
Bias = Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]
# as many as a vocabulary may have; longer lists would only keep the server busy
MAX_VOCABULARY = 2**18
FewTokenIds = Annotated[list[TokenId], Field(max_length=4096)]
ManyTokenIds = Annotated[list[TokenId], Field(max_length=MAX_VOCABULARY)]
Biases = Annotated[dict[str, Bias], Field(max_length=MAX_VOCABULARY)]
Words = Annotated[list[Text], Field(max_length=1024)]
Stops = Annotated[list[Text], Field(max_length=MAX_STOPS)]


class StreamOptions(RequestSchema):
    """What a stream tells beside the text."""

    include_usage: bool | None = False
    continuous_usage_stats: bool | None = False


class SamplingFields(RequestSchema):
    """Fields of both kinds of requests; names and meanings are OpenAI's and vLLM's."""

    model: str | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Biases | None = None
    presence_penalty: Penalty | None = None
    seed: Int64 | None = None
    stop: Text | Stops | None = None
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Share | None = None
    user: str | None = None
    top_k: CountOrAll | None = None
    min_p: Share | None = None
    repetition_penalty: Repetition | None = None
    stop_token_ids: FewTokenIds | None = None
    include_stop_str_in_output: bool | None = False
    ignore_eos: bool | None = False
    min_tokens: Count | None = 0
    skip_special_tokens: bool | None = True
    spaces_between_special_tokens: bool | None = True
    truncate_prompt_tokens: CountOrAll | None = None
    allowed_token_ids: ManyTokenIds | None = None
    bad_words: Words | None = None
    prompt_logprobs: CountOrAll | None = None
    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: str | JsonObject | None = None
    guided_regex: str | None = None
    guided_choice: Choices | None = None
    guided_grammar: str | None = None
    priority: Int64 | None = 0
    request_id: Annotated[str, Field(max_length=128, pattern=r"^[\x21-\x7e]+$")] | None = None
    session_id: Annotated[str, Field(max_length=1024)] | None = None
    return_tokens_as_token_ids: bool | None = False
    return_token_ids: bool | None = False

    # what follows is known and refused, or taken with one value only (see REFUSED)
    use_beam_search: bool | None = None
    length_penalty: Number | None = None
    logprob_token_ids: Any = None
    watermarking: bool | None = None
    truncation_side: str | None = None
    cache_salt: Any = None
    kv_transfer_params: Any = None
    ec_transfer_params: Any = None
    vllm_xargs: Any = None
    repetition_detection: Any = None
    thinking_token_budget: Any = None
    return_token_offsets: bool | None = None
    stream_interval: Int64 | None = None


REFUSED: dict[str, tuple[tuple[Any, ...], str]] = {
    "suffix": ((None, ""), "insertion needs a model that was trained for it"),
    "prompt_embeds": ((None,), "prompts are text or token ids"),
    "use_beam_search": ((None, False), "beam search is not built"),
    "length_penalty": ((None, 1.0), "it belongs to beam search, which is not built"),
    "logprob_token_ids": ((None, []), "use logprobs"),
    "watermarking": ((None, False), "answers are not marked"),
    "truncation_side": ((None, "left"), "the last tokens of a prompt are kept, never the first"),
    "cache_salt": ((None,), "the prefix cache is shared by all requests"),
    "kv_transfer_params": ((None,), "there is no transfer of KV blocks"),
    "ec_transfer_params": ((None,), "there is no transfer of encoder outputs"),
    "vllm_xargs": ((None, {}), "there are no custom arguments"),
    "repetition_detection": ((None,), "use repetition_penalty or stop"),
    "thinking_token_budget": ((None,), "there is no reasoning parser"),
    "return_token_offsets": ((None, False), "use echo with logprobs, which has text_offset"),
    "stream_interval": ((None, 1), "every token is told as soon as it is there"),
    "mm_processor_kwargs": ((None, {}), "the models read text only"),
    "media_io_kwargs": ((None, {}), "the models read text only"),
    "modalities": ((None, ["text"]), "the models write text only"),
    "audio": ((None,), "the models write text only"),
    "functions": ((None, []), "it is deprecated: use tools"),
    "function_call": ((None, "none"), "it is deprecated: use tool_choice"),
    "web_search_options": ((None,), "there is no web search"),
}
"""By field: the values that are harmless, and why others cannot be honoured."""
