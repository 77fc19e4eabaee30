"""What the server's log lines look like: text for people or JSON for machines, one event a line.

Nothing that a client sent can end a line, move a cursor or colour a terminal: control characters
leave here as escapes. Knows nothing of what is logged; `request_log` and `stats_log` do.
"""

import json
import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from engine.server.request_context import current_request_id
from workbench.errors import ConfigError

LOG_FORMATS = ("text", "json")
LEVELS = ("critical", "error", "warning", "info", "debug", "trace")
TRACE = 5
"""Uvicorn's level below DEBUG."""

# C0 and C1 controls, DEL, line and paragraph separators, bidirectional and invisible marks,
# halves of surrogate pairs
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTINUED = "\n    | "


def escape(text: str) -> str:
    """The text on one line, without characters that a terminal obeys.

    A backslash stays as it is: the result is to be read, not to be parsed.
    """
    return _UNSAFE.sub(_escape_one, text)


def shorten(text: str, limit: int | None) -> str:
    """At most `limit` characters of a text, and how many are missing; None: all of it."""
    if limit is None or len(text) <= limit:
        return text
    return f"{text[:limit]}… ({len(text) - limit} more)"


def log_config(log_format: str = "text", level: str = "info") -> dict[str, Any]:
    """Settings for logging.config.dictConfig, which uvicorn takes as its log_config.

    Every line goes to standard error: the server's own, uvicorn's and its access log.

    Raises:
        ConfigError: No such format or level.
    """
    for name, value, allowed in (
        ("log_format", log_format, LOG_FORMATS),
        ("uvicorn_log_level", level, LEVELS),
    ):
        if value not in allowed:
            raise ConfigError(f"{name}={value!r} must be one of {', '.join(allowed)}")
    own: int | str = TRACE if level == "trace" else level.upper()
    formatter = "JSONFormatter" if log_format == "json" else "TextFormatter"
    loggers = ("engine", "experiments", "uvicorn", "uvicorn.error", "uvicorn.access")
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"()": f"{__name__}.{formatter}"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "formatter": "line",
                "stream": "ext://sys.stderr",
            }
        },
        "loggers": {
            name: {"level": own} if name == "uvicorn.error" else _root_logger(own)
            for name in loggers
        },
        "root": {"handlers": ["stderr"], "level": "WARNING"},
    }


class TextFormatter(logging.Formatter):
    """`TIME LEVEL LOGGER [REQUEST] MESSAGE KEY=VALUE …`, in local time."""

    def format(self, record: logging.LogRecord) -> str:
        """One line; of a traceback, more, each marked as a continuation."""
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record.created))
        parts = [f"{when}.{int(record.msecs):03d}", record.levelname, record.name]
        request_id = _request_id(record)
        if request_id is not None:
            parts.append(f"[{escape(request_id)}]")
        parts.append(escape(record.getMessage()))
        parts += [f"{key}={_shown(value)}" for key, value in _fields(record).items()]
        traceback = _traceback(self, record)
        if traceback is None:
            return " ".join(parts)
        return " ".join(parts) + "".join(
            _CONTINUED + escape(line) for line in traceback.split("\n")
        )


class JSONFormatter(logging.Formatter):
    """One JSON object a line: time (UTC), level, logger, request_id, message and the fields."""

    def format(self, record: logging.LogRecord) -> str:
        """The object, in ASCII."""
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{when}.{int(record.msecs):03d}Z",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        request_id = _request_id(record)
        if request_id is not None:
            line["request_id"] = request_id
        for key, value in _fields(record).items():
            line.setdefault(key, value)
        traceback = _traceback(self, record)
        if traceback is not None:
            line["traceback"] = traceback
        return json.dumps(line, default=str)


def fields(**values: Any) -> dict[str, Any]:
    """What to pass as `extra` to a logger, for facts that machines read.

    A value for `request_id` takes the place of the request's whose code is running.
    """
    return {"workbench_fields": values}


def _root_logger(level: int | str) -> dict[str, Any]:
    return {"handlers": ["stderr"], "level": level, "propagate": False}


def _escape_one(match: re.Match[str]) -> str:
    character = match.group()
    code = ord(character)
    return _SHORT.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    values = getattr(record, "workbench_fields", {})
    return {key: value for key, value in values.items() if key != "request_id"}


def _request_id(record: logging.LogRecord) -> str | None:
    return getattr(record, "workbench_fields", {}).get("request_id") or current_request_id()


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str | None:
    return None if not record.exc_info else formatter.formatException(record.exc_info)


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = escape(str(value))
    return json.dumps(text, ensure_ascii=False) if " " in text or not text else text
