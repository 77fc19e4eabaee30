"""Log lines: one event a line whatever clients send, in both formats, with request ids."""

import asyncio
import json
import logging
import logging.config
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.server.logging import JSONFormatter, TextFormatter, escape, fields, log_config, shorten
from engine.server.observability import ObservabilitySettings
from engine.server.request_context import RequestContext, context_from_headers, enter_context
from engine.server.request_log import RequestLog
from engine.server.stats_log import StatsLog
from tests.engine.server.listening import INFO, record, recorded, step_stats
from workbench.errors import ConfigError
from workbench.sampling_params import SamplingParams

EVIL = "\n2026-01-01 00:00:00.000 INFO forged\r\x1b[31m\u2028\u202e\x00\x85"


def log_record(message: str, **values: object) -> logging.LogRecord:
    made = logging.LogRecord("engine.test", logging.INFO, __file__, 1, message, (), None)
    made.__dict__.update(fields(**values))
    return made


Records = list[logging.LogRecord]


@pytest.fixture
def lines() -> Iterator[Records]:
    with recorded("engine") as records:
        yield records


def told(records: Records) -> list[dict[str, object]]:
    return [json.loads(JSONFormatter().format(each)) for each in records]


@given(st.text())
def test_what_is_escaped_stays_on_its_line(text: str) -> None:
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert not re.search("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]", shown)
    shown.encode()


@given(st.text(), st.text())
def test_a_json_line_is_one_object_of_printable_ascii(message: str, value: str) -> None:
    line = JSONFormatter().format(log_record("%s", key=value))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line)["key"] == value
    line = JSONFormatter().format(log_record(message.replace("%", "")))
    assert json.loads(line)["message"] == message.replace("%", "")


def test_nothing_forges_a_line_of_text() -> None:
    line = TextFormatter().format(log_record("a" + EVIL, key="b" + EVIL, request_id="c" + EVIL))
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line
    assert "key=" in line


def test_a_traceback_is_marked_as_the_same_event() -> None:
    try:
        raise ValueError("broken" + EVIL)
    except ValueError:
        made = log_record("failed")
        made.exc_info = sys.exc_info()
    first, *rest = TextFormatter().format(made).splitlines()
    assert first.endswith("failed")
    assert rest
    assert all(line.startswith("    | ") for line in rest)
    assert "broken" in json.loads(JSONFormatter().format(made))["traceback"]


def test_lines_carry_the_id_of_the_request_that_is_served() -> None:
    async def serve() -> str:
        enter_context(RequestContext("abc-1", {}))
        return await asyncio.create_task(write())

    async def write() -> str:
        return TextFormatter().format(log_record("hello", n=1, ratio=0.123456789))

    line = asyncio.run(serve())
    assert line.endswith("INFO engine.test [abc-1] hello n=1 ratio=0.123457")
    assert "[" not in TextFormatter().format(log_record("hello"))


@pytest.mark.parametrize("value", [b"a b", b"a\x1b", b"", b"x" * 129, "ü".encode()])
def test_only_harmless_ids_are_taken_from_clients(value: bytes) -> None:
    made = context_from_headers([(b"x-request-id", value)]).request_id
    assert re.fullmatch("[0-9a-f]{32}", made)
    context = context_from_headers([(b"x-request-id", b"mine"), (b"traceparent", b"00-1-2-03")])
    assert context == RequestContext("mine", {"traceparent": "00-1-2-03"})


def test_long_texts_are_cut_and_say_so() -> None:
    assert shorten("abcdef", 4) == "abcd… (2 more)"
    assert shorten("abcdef", None) == shorten("abcdef", 6) == "abcdef"


def test_a_request_has_a_line_when_it_comes_and_one_when_it_ends(
    lines: Records,
) -> None:
    log = RequestLog(max_log_len=5)
    params = SamplingParams(max_tokens=8, stop=["x" * 50])

    async def arrive() -> None:
        enter_context(RequestContext("http-1", {}))
        log.on_arrival("a", 30, params)

    asyncio.run(arrive())
    log.on_finished(record("a", params=params, client_id="somebody", detail=None))
    came, ended = told(lines)
    assert came["prompt_tokens"] == 30
    assert came["max_tokens"] == 8
    assert came["stop"] == "['xxx… (49 more)"
    assert "temperature" not in came
    facts = {"request_id": "http-1", "engine_request_id": "a", "finish_reason": "stop"}
    numbers = {"queue_s": 0.5, "ttft_s": 1.0, "e2e_s": 3.5, "output_tokens": 5, "preemptions": 1}
    assert (facts | numbers | {"client_id": "someb… (3 more)"}).items() <= ended.items()
    assert "detail" not in ended


def test_statistics_are_rates_since_the_last_line(
    lines: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr("engine.server.stats_log.time.perf_counter", lambda: now[0])

    async def body() -> None:
        log = StatsLog(INFO, interval_s=3600.0)
        log.on_arrival("a", 30, SamplingParams())
        stats = step_stats(num_prefill_tokens=40, num_running=2, num_waiting=1, num_used_blocks=50)
        log.on_step(stats, None)
        log.on_step(step_stats(num_running=2, prefix_queries=40, prefix_hits=10), None)
        log.on_tokens("a", 6, 1.0, True)
        now[0] += 2.0
        log.write()
        log.on_step(step_stats(num_used_blocks=20, prefix_queries=60, prefix_hits=30), None)
        now[0] += 4.0
        log.write()
        log.close()

    asyncio.run(body())
    first, second = told(lines)
    assert (first["prompt_tokens_per_s"], first["generation_tokens_per_s"]) == (20, 3)
    assert (first["running"], first["prefix_hit_rate"]) == (2, 0.25)
    assert (second["prompt_tokens_per_s"], second["prefix_hit_rate"]) == (0, 1.0)
    assert second["kv_cache_usage"] == 0.1


def test_an_idle_engine_has_one_last_line(lines: Records) -> None:
    async def body() -> None:
        log = StatsLog(INFO, interval_s=0.001)
        enter_context(RequestContext("abc", {}))
        log.on_arrival("a", 30, SamplingParams())
        log.on_step(step_stats(), None)
        while log._timer is not None:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(body(), 10))
    assert [line["message"] for line in told(lines)] == ["engine statistics"] * 2


def test_a_new_core_counts_from_zero(lines: Records) -> None:
    log = StatsLog(INFO)
    log.on_step(step_stats(prefix_queries=100, prefix_hits=50), None)
    log.write()
    log.on_core_dead("killed by signal 9")
    log.on_step(step_stats(prefix_queries=10, prefix_hits=1), None)
    log.write()
    assert [each["prefix_hit_rate"] for each in told(lines)] == [0.5, 0.1]


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_configuration_is_taken_by_logging(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("", "engine", "experiments", "uvicorn", "uvicorn.error", "uvicorn.access")
    loggers = [logging.getLogger(name) for name in names]
    before = [(each, list(each.handlers), each.level, each.propagate) for each in loggers]
    try:
        logging.config.dictConfig(log_config(log_format, "debug"))
        logging.getLogger("uvicorn.access").info("%s %d", "GET /", 200)
        logging.getLogger("engine.server").debug("hello")
        captured = capsys.readouterr()
    finally:
        for each, handlers, level, propagate in before:
            each.handlers[:], each.propagate = handlers, propagate
            each.setLevel(level)
    assert captured.out == ""
    access, hello = captured.err.splitlines()
    if log_format == "json":
        assert json.loads(access)["message"] == "GET / 200"
        assert json.loads(hello)["level"] == "DEBUG"
    else:
        assert access.endswith("INFO uvicorn.access GET / 200")
        assert hello.endswith("DEBUG engine.server hello")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("log_format", "xml"),
        ("log_level", "loud"),
        ("log_stats_interval", 0.0),
        ("max_log_len", -1),
        ("enable_log_requests", "yes"),
    ],
)
def test_settings_are_checked(setting: str, value: object) -> None:
    changes: dict[str, Any] = {setting: value}
    with pytest.raises(ConfigError, match=setting):
        ObservabilitySettings(**changes)
