"""A workload on the real engine, in real time: what a simulation is compared with.

Requests come when the workload says, on the wall clock; the engine does the work; the records and
the log of steps are those that a simulation leaves. The answers have the lengths of the workload
(the end-of-sequence token is passed over), so that both worlds serve the same.
"""

import heapq
import time
from collections.abc import Callable, Iterable
from itertools import count

import numpy as np

from engine.build import EngineParts
from engine.clock import WallClock
from engine.core_recorder import RecordedCore
from engine.step_recorder import StepRecorder
from engine.warm_up import warm_up
from engine.workload_tokens import WorkloadTokens
from workbench.kv_cache.block_hash import TokenBlockHashes
from workbench.metrics import RequestRecord, RunResult, StepLog
from workbench.outputs import EngineCoreOutputs
from workbench.recording import RecordingWriter
from workbench.request import Request
from workbench.sampling_params import SamplingParams
from workbench.workload.base import Workload, WorkloadRequest

Progress = Callable[[int, int, float], None]


class ServingRun:
    """One run, to be run once.

    Args:
        parts: The engine.
        workload: The requests.
        seed: Of the prompts' tokens.
        recording: Where everything that the engine is asked and decides is written down, so that
            the run can be replayed; None: nowhere.
    """

    def __init__(
        self,
        parts: EngineParts,
        workload: Workload,
        seed: int = 0,
        recording: RecordingWriter | None = None,
    ) -> None:
        self._parts = parts
        self._core = parts.core
        self._recording = recording
        self._workload = workload
        self._tokens = WorkloadTokens(parts.model.vocab_size, seed)
        self._steps = StepLog()
        self._records: list[RequestRecord] = []
        self._ignored: list[str] = []
        self._items: dict[Request, WorkloadRequest] = {}
        # By time, then by order of becoming known.
        self._arrivals: list[tuple[float, int, WorkloadRequest]] = []
        self._order = count()

    def run(self, progress: Progress | None = None) -> RunResult:
        """Run until every request has ended.

        Args:
            progress: Called after every step with (finished requests, requests, seconds).

        Raises:
            InputError: A request brings tokens that are none of the model's.
        """
        warm_up(self._parts)
        self._expect(self._workload.initial())
        self._core.clock = clock = WallClock()
        self._core.executor = StepRecorder(self._parts.executor, clock, self._steps)
        recorded = None
        if self._recording is not None:
            self._core = recorded = RecordedCore(self._core, self._recording)
        try:
            self._serve(clock, progress or _untold)
        finally:
            self._parts.executor.shutdown()
        duration = clock()
        self._records.sort(key=lambda record: (record.arrival_s, record.request_id))
        return RunResult(
            self._records,
            self._steps,
            duration,
            self._counters(),
            self._ignored,
            None if recorded is None else recorded.close(),
        )

    def _serve(self, clock: WallClock, progress: Progress) -> None:
        core = self._core
        while self._arrivals or core.has_work:
            self._admit(clock())
            if core.has_work:
                outputs = self._step()
                now = clock()
                for request in outputs.finished:
                    self._finish(request, now)
                progress(len(self._records), self._workload.num_requests, now)
            elif self._arrivals:
                time.sleep(max(self._arrivals[0][0] - clock(), 0.0))

    def _expect(self, items: Iterable[WorkloadRequest]) -> None:
        for item in items:
            self._tokens.check(item)
            heapq.heappush(self._arrivals, (item.arrival_time, next(self._order), item))

    def _admit(self, now: float) -> None:
        while self._arrivals and self._arrivals[0][0] <= now:
            _, _, item = heapq.heappop(self._arrivals)
            request = self._request(item)
            self._items[request] = item
            if not self._core.add_request(request):
                self._finish(request, now)

    def _request(self, item: WorkloadRequest) -> Request:
        prompt = self._tokens.prompt(item)
        request = Request(
            item.request_id,
            len(prompt),
            item.num_output_tokens,
            item.arrival_time,
            prompt_token_ids=prompt,
            sampling_params=SamplingParams(
                temperature=0.0, max_tokens=item.num_output_tokens, ignore_eos=True
            ),
            priority=item.priority,
            client_id=item.client_id,
            session_id=item.session_id,
            deadline=item.deadline,
        )
        cache = self._parts.cache_config
        if cache.enable_prefix_caching:
            request.block_hashes = TokenBlockHashes(
                prompt, request.output_token_ids, cache.block_size, cache.prefix_caching_hash_algo
            )
        return request

    def _step(self) -> EngineCoreOutputs:
        step = self._core.step()
        try:
            pending = next(step)
            step.send(pending.result())
        except StopIteration as done:
            outputs: EngineCoreOutputs = done.value
            return outputs
        raise AssertionError("a step waits once")

    def _finish(self, request: Request, now: float) -> None:
        item = self._items.pop(request)
        detail = self._core.scheduler.why_ended(request)
        if request.finish_reason == "ignored":
            self._ignored.append(str(detail))
        # A step in flight when a request ends may still give it tokens.
        answer = request.output_token_ids[: request.num_output_tokens]
        self._tokens.learn(item, request.prompt_token_ids or (), answer)
        self._records.append(_record(request, now, detail))
        self._expect(self._workload.after_finish(request.request_id, now))

    def _counters(self) -> dict[str, float]:
        scheduler = self._core.scheduler
        manager = scheduler.kv_cache_manager
        return {
            "preemptions": scheduler.num_preemptions,
            "prefix_queries_tokens": manager.num_queried_tokens,
            "prefix_hit_tokens": manager.num_hit_tokens,
        }


def _untold(num_finished: int, num_requests: int, seconds: float) -> None:
    """Progress that nobody asked for."""


def _record(request: Request, now: float, detail: str | None) -> RequestRecord:
    return RequestRecord(
        request.request_id,
        0,
        request.arrival_time,
        request.first_scheduled_time,
        now,
        request.num_prompt_tokens,
        request.num_output_tokens,
        request.num_cached_tokens,
        request.num_preemptions,
        request.finish_reason or "error",
        np.array(request.token_times, dtype=np.float64),
        request.client_id,
        request.priority,
        detail,
    )
