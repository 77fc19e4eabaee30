"""Facts for listeners: an engine, its steps and ended requests, with harmless defaults."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.core_messages import CoreInfo, StepStats
from engine.request_listener import RequestListener, RequestRecord
from engine.server.state import ServerState
from workbench.sampling_params import SamplingParams

INFO = CoreInfo(
    world="simulator",
    vocab_size=100,
    max_model_len=2048,
    max_prompt_tokens=2047,
    num_kv_blocks=200,
    block_size=16,
    enable_prefix_caching=True,
    max_num_seqs=32,
    max_num_batched_tokens=512,
)


class SilentLLM:
    """As much of an AsyncLLM as listeners see; a test calls them itself."""

    info = INFO

    def __init__(self) -> None:
        self.listeners: list[RequestListener] = []

    def add_listener(self, listener: RequestListener) -> None:
        self.listeners.append(listener)


def make_state() -> ServerState:
    """Of a server around that engine."""
    return ServerState(INFO.max_model_len, INFO.max_num_seqs, INFO.num_kv_blocks)


@contextmanager
def recorded(logger_name: str) -> Iterator[list[logging.LogRecord]]:
    """What a logger is told from INFO on, whatever has been made of its lines before."""
    records: list[logging.LogRecord] = []

    class Recorder(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            records.append(record)

    logger, recorder = logging.getLogger(logger_name), Recorder()
    level = logger.level
    logger.addHandler(recorder)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.removeHandler(recorder)
        logger.setLevel(level)


def step_stats(**changes: Any) -> StepStats:
    """A step; every number is 0 unless it is named."""
    fields: dict[str, Any] = dict.fromkeys(StepStats.__struct_fields__, 0)
    return StepStats(**(fields | {"preempted": [], "accepted_at": []} | changes))


def record(request_id: str = "a", **changes: Any) -> RequestRecord:
    """A request: came at 10.0, ran from 10.5, 5 tokens from 11.0 to 13.0, ended at 13.5."""
    fields: dict[str, Any] = {
        "request_id": request_id,
        "params": SamplingParams(max_tokens=8),
        "arrival_time": 10.0,
        "scheduled_time": 10.5,
        "first_token_time": 11.0,
        "last_token_time": 13.0,
        "finish_time": 13.5,
        "num_prompt_tokens": 30,
        "num_cached_tokens": 16,
        "num_output_tokens": 5,
        "longest_output": 5,
        "num_preemptions": 1,
        "finish_reasons": ("stop",),
    }
    return RequestRecord(**(fields | changes))
