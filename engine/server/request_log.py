"""One log line when a request comes, and one when it has ended, where the operator wants them.

Says what was asked and what became of it. Text of clients stands in it only as far as
max_log_len allows, and the formatters escape it. Knows no line's format.
"""

import logging
from dataclasses import fields as fields_of
from typing import Any

from engine.request_listener import RequestListener, RequestRecord
from engine.server.logging import fields, shorten
from engine.server.request_context import current_request_id
from workbench.sampling_params import SamplingParams

logger = logging.getLogger(__name__)
_DEFAULTS = SamplingParams()
_UNTOLD = {"output_kind", "bad_words_token_ids"}


class RequestLog(RequestListener):
    """Writes the lines.

    Args:
        max_log_len: Most characters of a text or list of a client; None: all.
    """

    def __init__(self, max_log_len: int | None = None) -> None:
        self._max_log_len = max_log_len
        self._http_ids: dict[str, str] = {}

    def on_arrival(self, request_id: str, num_prompt_tokens: int, params: SamplingParams) -> None:
        """Say what is asked; parameters that have their default are left out."""
        http_id = current_request_id()
        if http_id is not None:
            self._http_ids[request_id] = http_id
        told = {
            field.name: self._told(getattr(params, field.name))
            for field in fields_of(params)
            if field.name not in _UNTOLD
            and getattr(params, field.name) != getattr(_DEFAULTS, field.name)
        }
        about = {"engine_request_id": request_id, "prompt_tokens": num_prompt_tokens}
        logger.info("request received", extra=fields(**about, **told))

    def on_finished(self, record: RequestRecord) -> None:
        """Say what became of it."""
        facts: dict[str, Any] = {
            "engine_request_id": record.request_id,
            "finish_reason": ",".join(dict.fromkeys(record.finish_reasons)),
            "prompt_tokens": record.num_prompt_tokens,
            "cached_tokens": record.num_cached_tokens,
            "output_tokens": record.num_output_tokens,
            "preemptions": record.num_preemptions,
            "queue_s": _gap(record.arrival_time, record.scheduled_time),
            "ttft_s": _gap(record.arrival_time, record.first_token_time),
            "e2e_s": _gap(record.arrival_time, record.finish_time),
            "client_id": self._told(record.client_id),
            "detail": None if record.detail is None else self._told(record.detail),
        }
        http_id = self._http_ids.pop(record.request_id, None)
        known = {key: value for key, value in facts.items() if value is not None}
        logger.info("request finished", extra=fields(request_id=http_id, **known))

    def _told(self, value: Any) -> Any:
        """Numbers as they are, everything else as text of limited length."""
        if isinstance(value, int | float):
            return value
        return shorten(str(list(value) if isinstance(value, tuple) else value), self._max_log_len)


def _gap(start: float, end: float | None) -> float | None:
    return None if end is None else round(end - start, 6)
