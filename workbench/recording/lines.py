"""What a recording writes down of requests, decisions and results: plain values, and their line.

Equal lines mean equal values, in the same order, to the last bit of every number.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from enum import Enum
from typing import Any

from workbench.errors import ConfigError
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.outputs import ModelRunnerOutput, SchedulerOutput
from workbench.request import Request
from workbench.sampling_params import RequestOutputKind, SamplingParams

COPIED = (
    "request_id",
    "num_prompt_tokens",
    "max_tokens",
    "arrival_time",
    "priority",
    "client_id",
    "session_id",
    "deadline",
    "predicted_output_tokens",
)
SAME = "as in the step before"
_DEFAULT_PARAMS = SamplingParams()


def request_values(request: Request) -> dict[str, Any]:
    """A request as plain values.

    Raises:
        ConfigError: The keys of its blocks do not follow from its tokens.
    """
    hashes = request.block_hashes
    if hashes is not None and not isinstance(hashes, TokenBlockHashes):
        raise ConfigError(
            f"request {request.request_id!r} keys its blocks by {type(hashes).__name__}, which "
            "does not follow from its tokens: record requests with real tokens"
        )
    values = {name: getattr(request, name) for name in COPIED}
    return values | {
        "prompt_token_ids": request.prompt_token_ids,
        "stop_token_ids": sorted(request.stop_token_ids),
        "sampling_params": request.sampling_params,
        "has_block_hashes": hashes is not None,
    }


def answer_values(step: int, model_output: ModelRunnerOutput) -> dict[str, Any]:
    """A step's results as plain values of their own: taking them in may change the lists."""
    rows = model_output.sampled_token_ids
    return {
        "step": step,
        "tokens": rows and [row[0] if len(row) == 1 else list(row) for row in rows],
        "drafts": {name: list(row) for name, row in model_output.draft_token_ids.items()},
        "failed": dict(model_output.failed),
    }


def grammar_ends(finished: Iterable[Request]) -> dict[str, tuple[int, str | None]]:
    """Tokens, and the reason where it failed, of each request that its grammar has ended."""
    return {
        request.request_id: (request.num_output_tokens, request.grammar.failure)
        for request in finished
        if request.grammar is not None
        and (request.grammar.is_complete or request.grammar.failure is not None)
        and not isinstance(request.stop_reason, int)
    }


class ScheduleLines:
    """The lines of a run's steps, one after the other.

    Equal lines are equal decisions at the same time. A step that decodes what the one before it
    decoded has no rows of its own: SAME stands for them.
    """

    def __init__(self) -> None:
        self._rows: dict[str, int] | None = None

    def line(self, now: float, output: SchedulerOutput) -> str:
        """The line of the next step."""
        rows, decisions = output.num_scheduled_tokens, output.as_dict()
        if rows is self._rows:
            decisions["num_scheduled_tokens"] = SAME
        self._rows = rows
        return encode({"event": "schedule", "now": now, "decisions": decisions})


def encode(values: Mapping[str, Any]) -> str:
    """A line of the file, without its end."""
    return _ENCODER.encode(values)


def _plain(value: Any) -> Any:
    """Plain values of what JSON has no word for."""
    if isinstance(value, SamplingParams):
        return {
            item.name: getattr(value, item.name)
            for item in fields(value)
            if getattr(value, item.name) != getattr(_DEFAULT_PARAMS, item.name)
        }
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "__dataclass_fields__"):
        return {name: getattr(value, name) for name in value.__dataclass_fields__}
    if hasattr(value, "tolist"):  # numbers and arrays of numpy's
        return value.tolist()
    return list(value)


_ENCODER = json.JSONEncoder(separators=(",", ":"), default=_plain, check_circular=False)


def sampling_params(values: Mapping[str, Any] | None) -> SamplingParams | None:
    """Sampling parameters from what was written of them: the fields that are no defaults."""
    if values is None:
        return None
    made = dict(values)
    if "logit_bias" in made:
        made["logit_bias"] = {int(token): bias for token, bias in made["logit_bias"].items()}
    if "output_kind" in made:
        made["output_kind"] = RequestOutputKind(made["output_kind"])
    return SamplingParams(**made)
