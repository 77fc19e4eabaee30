"""Runs inside a vLLM server: its own scheduler, which also writes down what it decides.

    PYTHONPATH=THIS_FOLDER VLLM_STEP_RECORD=FILE vllm serve … \
        --scheduler-cls vllm_step_recorder.RecordingScheduler

Decisions are vLLM's: every method calls its own and then adds a line to the file. Knows vLLM's
scheduler and nothing of the workbench, as it lives in vLLM's environment. A server that schedules
asynchronously (the default on GPUs) takes `RecordingAsyncScheduler`.

A line is a JSON list. Times are those of CLOCK_MONOTONIC, one clock for all processes of a machine.

    ["settings", {...}]                    once
    ["add", time, request, prompt tokens, most output tokens]  a request came to the scheduler
    ["schedule", start, end, [[request, tokens computed before, tokens scheduled, output tokens] …],
     preempted requests, waiting requests, free blocks]
    ["update", start, end, unfinished requests]     the oldest step in flight was taken in
"""

import json
import os
import time
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler

# for a type checker the notes have vLLM's scheduler as their base; in truth it comes after them
_Base: Any = Scheduler if TYPE_CHECKING else object


class _Recording(_Base):
    """The notes; stands before vLLM's scheduler in the order of its bases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        path = os.environ["VLLM_STEP_RECORD"]
        # open as long as the server lives; a line at a time, so that it can be read meanwhile
        record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        self._record_file = os.fdopen(record, "w", buffering=1, encoding="utf-8")
        self._note("settings", self._record_settings())

    def _note(self, *line: Any) -> None:
        self._record_file.write(json.dumps(line, separators=(",", ":")) + "\n")

    def _record_settings(self) -> dict[str, Any]:
        scheduler, cache = self.scheduler_config, self.cache_config
        return {
            "max_num_seqs": scheduler.max_num_seqs,
            "max_num_batched_tokens": scheduler.max_num_batched_tokens,
            "max_model_len": self.max_model_len,
            "enable_chunked_prefill": scheduler.enable_chunked_prefill,
            "long_prefill_token_threshold": scheduler.long_prefill_token_threshold,
            "policy": str(getattr(scheduler.policy, "value", scheduler.policy)),
            "async_scheduling": bool(scheduler.async_scheduling),
            "block_size": cache.block_size,
            "num_gpu_blocks": cache.num_gpu_blocks,
            "enable_prefix_caching": bool(cache.enable_prefix_caching),
        }

    def add_request(self, request: Any) -> None:
        super().add_request(request)
        lengths = request.num_prompt_tokens, request.max_tokens
        self._note("add", time.monotonic(), request.request_id, *lengths)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        output = super().schedule(*args, **kwargs)
        end = time.monotonic()
        if output.total_num_scheduled_tokens:
            rows = []
            for name, tokens in output.num_scheduled_tokens.items():
                request = self.requests[name]
                # the scheduler has already moved the request on by these tokens
                before = request.num_computed_tokens - tokens
                rows.append((name, before, tokens, request.num_output_tokens))
            preempted = sorted(output.preempted_req_ids or ())
            free = self.kv_cache_manager.block_pool.get_num_free_blocks()
            self._note("schedule", start, end, rows, preempted, len(self.waiting), free)
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.monotonic()
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)
        if scheduler_output.total_num_scheduled_tokens:
            self._note("update", start, time.monotonic(), self.get_num_unfinished_requests())
        return outputs


class RecordingScheduler(_Recording, Scheduler):
    """vLLM's scheduler of one step at a time."""


class RecordingAsyncScheduler(_Recording, AsyncScheduler):
    """vLLM's asynchronous scheduler."""
