"""Requests wait for their grammars beside the loop: nobody else waits, and they may leave."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from engine.core_grammars import GrammarQueue, computing_clock
from engine.core_loop import CoreLoop
from engine.core_messages import AbortRequests, AddRequest, Call, CallResult, Shutdown
from engine.errors import InputError
from engine.served_core import ServedCore
from engine.wire_params import params_from_wire
from tests.engine.served import scripted_core
from tests.engine.test_core_loop import Line, NothingComesError, add
from workbench.request import RequestStatus
from workbench.structured_output import ALL_TOKENS

LONGEST_WAIT_S = 30.0


class Anything:
    """A grammar that allows everything."""

    num_words = 9
    is_complete = False
    failure = None

    def fill_bitmask(self, row: Any, num_tokens_left: int) -> None:
        row[:] = ALL_TOKENS

    def accept_token(self, token_id: int) -> bool:
        return True

    def rollback(self, num_tokens: int) -> None:
        pass


class GatedCompiler:
    """Compiles when it is let: "bad" does not compile, "panic" makes it break."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.begun = threading.Semaphore(0)
        self.outcomes: dict[str, InputError | None] = {}
        self.num_compiled = 0

    def validate(self, params: Any) -> None:
        self.begun.release()
        assert self.gate.wait(LONGEST_WAIT_S)
        regex = params.structured_outputs.regex
        self.num_compiled += 1
        if regex == "panic":
            raise BaseException("a bug\nand its trace")
        self.outcomes[regex] = InputError("it is bad") if regex == "bad" else None

    def compiled(self, params: Any) -> Anything | None:
        regex = params.structured_outputs.regex
        if regex not in self.outcomes:
            return None
        error = self.outcomes[regex]
        if error is not None:
            raise error
        return Anything()


def formed(handle: int, regex: str, max_tokens: int = 3) -> AddRequest:
    return add(handle, [handle], max_tokens, structured_outputs={"regex": regex})


def gated_core(**settings: Any) -> tuple[ServedCore, GatedCompiler]:
    served, compiler = scripted_core(settings), GatedCompiler()
    grammars: Any = compiler
    served.grammars = grammars
    return served, compiler


@contextmanager
def gated_queue(
    longest_s: float = 5.0,
) -> Iterator[tuple[GrammarQueue, GatedCompiler, list[float]]]:
    now, compiler = [0.0], GatedCompiler()
    grammars: Any = compiler
    queue = GrammarQueue(grammars, longest_s, lambda: lambda: now[0])
    try:
        yield queue, compiler, now
    finally:
        compiler.gate.set()
        queue.close()


def wait_in(queue: GrammarQueue, message: AddRequest) -> None:
    queue.add(message, params_from_wire(message.sampling_params))


def taken_in_time(queue: GrammarQueue) -> list[tuple[int, str | None]]:
    """What the queue gives once it gives something."""
    limit = threading.Event()
    timer = threading.Timer(LONGEST_WAIT_S, limit.set)
    timer.start()
    try:
        while not limit.is_set():
            if taken := queue.take():
                return [(message.handle, reason) for message, reason in taken]
    finally:
        timer.cancel()
    raise AssertionError("nothing came")


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_others_run_to_their_end_while_a_grammar_is_compiled(is_async: bool) -> None:
    served, compiler = gated_core(async_scheduling=is_async)
    line = Line(formed(1, "a*"), add(2, [2], 40), formed(3, "bad"), formed(4, "a*"))

    def before() -> None:
        if any(end.handle == 2 for step in line.steps for end in step.finished):
            compiler.gate.set()

    line.before = before
    with pytest.raises(NothingComesError):
        CoreLoop(served, line).run()
    ends = {end.handle: end for step in line.steps for end in step.finished}
    assert line.tokens(2) == [2] * 40
    assert line.tokens(1) == [1] * 3
    assert line.tokens(4) == [4] * 3
    assert (ends[3].status, ends[3].stop_reason) == (RequestStatus.FINISHED_ERROR, "it is bad")
    # requests for the same form wait for one compilation
    assert compiler.num_compiled == 2
    first = next(step.stats for step in line.steps if step.stats is not None)
    assert (first.num_running, first.num_waiting, first.num_compiling) == (1, 3, 3)


def test_who_waits_is_counted_and_may_leave() -> None:
    served, compiler = gated_core()
    line = Line(formed(1, "a*"), formed(2, "b*"))
    asked = iter([None, None, Call(1, "check_integrity", []), AbortRequests([1, 2])])

    def before() -> None:
        message = next(asked, Shutdown())
        line.coming += [] if message is None else [message]

    line.before = before
    CoreLoop(served, line).run()
    compiler.gate.set()
    assert [step.queue for step in line.steps] == [(2, 2), (0, 0)]
    (result,) = [each for each in line.sent if isinstance(each, CallResult)]
    assert result.value == {"requests": 2, "unfinished": 0, "steps_in_flight": 0}
    assert not [end for step in line.steps for end in step.finished]


def test_a_grammar_that_takes_too_long_is_refused_and_used_once_it_is_there() -> None:
    with gated_queue(longest_s=5.0) as (queue, compiler, now):
        wait_in(queue, formed(1, "a*"))
        assert compiler.begun.acquire(timeout=LONGEST_WAIT_S)
        now[0] = 5.0
        assert queue.take() == []
        now[0] = 5.5
        ((handle, reason),) = taken_in_time(queue)
        assert handle == 1
        assert reason is not None
        assert reason.startswith("structured_outputs.regex needs more than 5 s to compile")
        # another one is not kept waiting for the same, nor compiled again
        wait_in(queue, formed(2, "a*"))
        assert [handle for handle, _ in taken_in_time(queue)] == [2]
        assert len(queue) == 0
        compiler.gate.set()
        wait_in(queue, formed(3, "b*"))
        assert taken_in_time(queue) == [(3, None)]
        queue.check_integrity()
        assert compiler.outcomes["b*"] is None


def test_time_in_the_queue_of_compilations_does_not_count() -> None:
    with gated_queue() as (queue, compiler, now):
        for handle in range(1, 4):
            wait_in(queue, formed(handle, "a" * handle))
        for _ in range(2):
            assert compiler.begun.acquire(timeout=LONGEST_WAIT_S)
        now[0] = 6.0
        assert sorted(handle for handle, _ in taken_in_time(queue)) == [1, 2]
        assert len(queue) == 1
        compiler.gate.set()
        assert taken_in_time(queue) == [(3, None)]


def test_a_defect_ends_its_request_alone() -> None:
    with gated_queue() as (queue, compiler, _):
        compiler.gate.set()
        wait_in(queue, formed(1, "panic"))
        ((handle, reason),) = taken_in_time(queue)
        assert handle == 1
        assert reason == "structured_outputs.regex does not compile: BaseException: a bug"
        wait_in(queue, formed(2, "a*"))
        assert taken_in_time(queue) == [(2, None)]


def test_nobody_compiles_for_those_who_left() -> None:
    with gated_queue() as (queue, compiler, _):
        for handle in range(1, 5):
            wait_in(queue, formed(handle, "a" * handle))
        for _ in range(2):
            assert compiler.begun.acquire(timeout=LONGEST_WAIT_S)
        queue.drop([3, 77])
        compiler.gate.set()
        taken: list[tuple[int, str | None]] = []
        while len(taken) < 3:
            taken += taken_in_time(queue)
        assert sorted(taken) == [(1, None), (2, None), (4, None)]
        assert compiler.num_compiled == 3


def test_a_thread_s_clock_shows_what_it_computed() -> None:
    clock = computing_clock()
    before, begun = clock(), time.thread_time()
    while time.thread_time() == begun:
        pass
    assert clock() > before
