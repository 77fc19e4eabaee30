"""The core's loop on a line that is a list: what goes in, what comes out, step by step."""

import math
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from engine.core_loop import MOST_ROWS_AHEAD, CoreLoop
from engine.core_messages import (
    AbortRequests,
    AddRequest,
    Call,
    CallResult,
    CoreMessage,
    FrontMessage,
    Ready,
    RowsTaken,
    Shutdown,
    StepOutputs,
)
from engine.core_signs import SignsOfLife
from engine.served_core import core_info
from engine.wire_params import params_to_wire
from tests.engine.served import EOS, VOCAB_SIZE, scripted_core
from workbench.outputs import ModelRunnerOutput
from workbench.request import RequestStatus
from workbench.sampling_params import SamplingParams

ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


class NothingComesError(Exception):
    """The core would wait for a message that does not come."""


class Line:
    """The core's end of a line; what comes next is decided as it asks."""

    def __init__(self, *messages: FrontMessage) -> None:
        self.coming = deque(messages)
        self.sent: list[CoreMessage] = []
        self.before: Callable[[], None] | None = None

    def receive(self, wait_s: float) -> list[FrontMessage]:
        if self.before is not None:
            self.before()
        messages = list(self.coming)
        self.coming.clear()
        if wait_s == math.inf and not messages:
            raise NothingComesError
        return messages

    def send(self, message: CoreMessage) -> None:
        self.sent.append(message)

    @property
    def steps(self) -> list[StepOutputs]:
        return [each for each in self.sent if isinstance(each, StepOutputs)]

    def tokens(self, handle: int) -> list[int]:
        got = []
        for step in self.steps:
            for row, token_id in zip(step.handles, step.tokens, strict=True):
                if row == handle:
                    got += [token_id, *step.more_tokens.get(handle, ())]
        return got


def add(handle: int, prompt: list[int], max_tokens: int = 4, **params: Any) -> AddRequest:
    chosen = SamplingParams(**({"max_tokens": max_tokens} | params))
    wire = params_to_wire(chosen)
    return AddRequest(handle, f"r{handle}", prompt, max_tokens, [EOS], wire, arrival_time=0.0)


def serve(line: Line, **settings: Any) -> CoreLoop:
    """Run until the core waits for ever, or is told to end."""
    loop = CoreLoop(scripted_core(settings), line)
    with pytest.raises(NothingComesError):
        loop.run()
    return loop


@ASYNC
def test_requests_go_in_and_tokens_come_out(is_async: bool) -> None:
    line = Line(add(7, [1, 2, 3]), add(9, [4, 5], 2, logprobs=1, prompt_logprobs=0))
    loop = serve(line, async_scheduling=is_async)
    assert isinstance(line.sent[0], Ready)
    assert line.tokens(7) == [1, 2, 3, 1]
    assert line.tokens(9) == [4, 5]
    ends = {end.handle: end for step in line.steps for end in step.finished}
    assert ends[7].status == RequestStatus.FINISHED_LENGTH_CAPPED
    assert ends[9].num_output_tokens == 2
    assert ends[7].scheduled_ts is not None
    assert ends[7].first_token_ts is not None
    assert ends[7].last_token_ts is not None
    assert ends[7].scheduled_ts <= ends[7].first_token_ts <= ends[7].last_token_ts
    told = [each for step in line.steps for each in step.logprobs.get(9, ())]
    assert [each.token_ids[0] for each in told] == [4, 5]
    assert [step.prompt_logprobs[9].start for step in line.steps if step.prompt_logprobs] == [1]
    assert {each.handle for step in line.steps for each in step.started} == {7, 9}
    assert loop._check_integrity() == {"requests": 0, "unfinished": 0, "steps_in_flight": 0}
    last = line.steps[-1].stats
    assert last is not None
    assert (last.num_running, last.num_waiting, last.num_used_blocks) == (0, 0, 0)
    numbers = [step.stats.step for step in line.steps if step.stats is not None]
    assert numbers == sorted(set(numbers))


@ASYNC
def test_an_abort_frees_the_blocks_and_is_not_told(is_async: bool) -> None:
    line = Line(add(1, [1] * 40, 50), add(2, [2], 50))
    asked = iter([False] * 5 + [True] + [False] * 100)

    def before() -> None:
        if next(asked):
            line.coming += [AbortRequests([1, 77]), AbortRequests([1])]

    line.before = before
    serve(line, async_scheduling=is_async)
    assert [end.handle for step in line.steps for end in step.finished] == [2]
    assert 0 < len(line.tokens(1)) < 10
    assert line.tokens(2) == [2] * 50
    assert line.steps[-1].stats is not None
    assert line.steps[-1].stats.num_used_blocks == 0


@ASYNC
def test_an_id_may_come_back_while_its_old_step_is_under_way(is_async: bool) -> None:
    line = Line(add(1, [1], 50))
    again = AddRequest(2, "r1", [9], 3, [], params_to_wire(SamplingParams(logprobs=0)), 0.0)
    asked = iter([False] * 4 + [True] + [False] * 100)

    def before() -> None:
        if next(asked):
            line.coming += [AbortRequests([1]), again]

    line.before = before
    serve(line, async_scheduling=is_async)
    assert line.tokens(2) == [9, 9, 9]
    assert [end.handle for step in line.steps for end in step.finished] == [2]
    told = [each for step in line.steps for each in step.logprobs.get(2, ())]
    assert [each.token_ids[0] for each in told] == [9, 9, 9]


def test_what_the_core_refuses_ends_as_an_error() -> None:
    line = Line(add(1, [1] * 70), add(2, [1]), add(3, [1], structured_outputs={"regex": "a"}))
    line.coming.append(AddRequest(4, "r2", [1], 4, [], {}, 0.0))
    serve(line, max_model_len=64)
    ends = {end.handle: end for step in line.steps for end in step.finished}
    assert "exceed max_model_len=64" in str(ends[1].stop_reason)
    assert ends[2].status == RequestStatus.FINISHED_LENGTH_CAPPED
    assert "no grammars" in str(ends[3].stop_reason)
    assert "in use" in str(ends[4].stop_reason)
    for handle in (1, 3, 4):
        assert ends[handle].status == RequestStatus.FINISHED_ERROR


def test_a_core_that_is_too_far_ahead_waits_for_its_front() -> None:
    requests = [add(handle, [handle], 1000) for handle in range(1, 65)]
    line = Line(*requests)
    loop = serve(line)
    num_rows = sum(len(step.handles) + 1 for step in line.steps)
    assert MOST_ROWS_AHEAD <= num_rows < MOST_ROWS_AHEAD + 65
    line.sent.clear()
    line.coming.append(RowsTaken(num_rows))
    with pytest.raises(NothingComesError):
        loop.run()
    assert sum(len(step.handles) + 1 for step in line.steps) >= MOST_ROWS_AHEAD


def test_calls_are_answered_between_steps() -> None:
    line = Line(
        Call(1, "block_usage", []),
        Call(2, "nothing_of_this_name", []),
        Call(3, "reset_prefix_cache", ["too", "many"]),
        Call(4, "lock", []),
        Shutdown(),
    )
    served = scripted_core({})
    served.calls = {"lock": object}
    CoreLoop(served, line).run()
    results = [each for each in line.sent if isinstance(each, CallResult)]
    assert list(results[0].value) == [0, 2048]
    assert "no call 'nothing_of_this_name'" in str(results[1].error)
    assert "reset_prefix_cache failed: TypeError" in str(results[2].error)
    assert "lock failed: TypeError" in str(results[3].error)


def test_accepted_drafts_come_as_further_tokens_and_are_counted() -> None:
    served = scripted_core({"num_speculative_tokens": 2})
    model: Any = served.core.executor
    sample = model.sample_tokens

    def sample_with_drafts(grammar_output: Any) -> Any:
        step = model._step
        drafts = step.scheduled_spec_decode_tokens
        pending = sample(grammar_output)
        output: ModelRunnerOutput = pending.result()
        rows: Any = output.sampled_token_ids
        for row, request_id in zip(rows, step.num_scheduled_tokens, strict=True):
            # the first draft is right, the second one is not
            row += [7] if request_id in drafts else []
        output.draft_token_ids = {request_id: [7, 8] for request_id in step.num_scheduled_tokens}
        return pending

    model.sample_tokens = sample_with_drafts
    line = Line(add(1, [5], 9))
    with pytest.raises(NothingComesError):
        CoreLoop(served, line).run()
    assert line.tokens(1)[:5] == [5, 5, 7, 5, 7]
    stats = line.steps[-1].stats
    assert stats is not None
    assert stats.num_draft_tokens == pytest.approx(2 * stats.num_drafts, abs=2)
    assert stats.num_accepted_tokens == stats.num_drafts > 0
    assert stats.accepted_at == [stats.num_accepted_tokens]


def test_the_longest_prompt_of_a_core_is_known() -> None:
    for num_blocks, longest in ((1, 16), (3, 48), (1000, 2047)):
        info = core_info(
            scripted_core({"num_blocks": num_blocks}).core, world="engine", vocab_size=VOCAB_SIZE
        )
        assert info.max_prompt_tokens == longest


class NotedSigns(SignsOfLife):
    """Signs of life in words, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def get_on(self) -> None:
        self.told.append("on")

    def rest(self) -> None:
        self.told.append("rest")


@ASYNC
def test_a_loop_tells_that_it_gets_on(is_async: bool) -> None:
    signs, line = NotedSigns(), Line(add(1, [1, 2], 3))
    with pytest.raises(NothingComesError):
        CoreLoop(scripted_core({"async_scheduling": is_async}), line, signs).run()
    # three tokens are three steps; it rests before them and after them
    steps = sum(bool(step.handles) for step in line.steps)
    assert steps == 3
    assert signs.told == ["rest", "on", *["on"] * steps, "rest"]


def test_turns_that_compute_nothing_are_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    served, signs, line = scripted_core({}), NotedSigns(), Line(add(1, [1, 2], 3))
    turns = iter(range(20))

    def before() -> None:
        if next(turns, None) is None:
            raise NothingComesError

    line.before = before
    monkeypatch.setattr(served.core, "step", lambda: iter(()))
    with pytest.raises(NothingComesError):
        CoreLoop(served, line, signs).run()
    assert signs.told == ["rest", "on"]
