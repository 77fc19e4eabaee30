"""What is sent to a server for one request: the JSON of a completion or of a chat completion.

Knows the fields of the API. Knows no lengths, no times and no connection.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from workbench.errors import ConfigError
from workbench.workload.base import WorkloadRequest

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
JSON_HEADERS = {"Content-Type": "application/json", "Accept": "text/event-stream"}
Prompt = str | Sequence[int]


def encoded(body: Mapping[str, Any]) -> bytes:
    """JSON without spaces."""
    return json.dumps(body, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBody:
    """How requests to one endpoint look.

    Attributes:
        endpoint: A path; one that ends in /chat/completions gets messages, any other a prompt.
        model: The name that the server knows.
        ignore_eos: Have answers of exactly the length asked for (an extension of vLLM and others).
        with_token_ids: Ask for the ids of the answer's tokens (an extension of vLLM).
        params: Sampling parameters and other fields, as they are.
    """

    endpoint: str
    model: str
    ignore_eos: bool = True
    with_token_ids: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.endpoint.startswith("/"):
            raise ConfigError(f"--endpoint {self.endpoint}: a path begins with /, as {COMPLETIONS}")

    @property
    def is_chat(self) -> bool:
        return self.endpoint.endswith("/chat/completions")

    def of(self, prompt: Prompt, item: WorkloadRequest) -> bytes:
        """The body of a request with this prompt: text, or token ids for a plain completion."""
        body: dict[str, Any] = {"model": self.model}
        if self.is_chat:
            body["messages"] = [{"role": "user", "content": prompt}]
            body["max_completion_tokens"] = item.num_output_tokens
        else:
            body["prompt"] = prompt
            body["max_tokens"] = item.num_output_tokens
        body |= {"stream": True, "stream_options": {"include_usage": True}}
        if self.ignore_eos:
            body["ignore_eos"] = True
        if self.with_token_ids:
            body["return_token_ids"] = True
        if item.priority:
            body["priority"] = item.priority
        if item.client_id != "default":
            body["user"] = item.client_id
        return encoded(body | dict(self.params))
