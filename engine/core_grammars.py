"""Requests of a core that wait for their grammars, which are compiled in threads beside its loop.

llguidance gives up the interpreter's lock while it compiles, so steps go on meanwhile. What was
compiled the compiler keeps; one compilation serves all requests that wait for the same form. Knows
requests as they came; knows no scheduler and no step.
"""

import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from queue import SimpleQueue
from threading import Thread, get_ident
from typing import TYPE_CHECKING

from engine.background import step_back
from engine.core_messages import AddRequest
from engine.errors import InputError, one_line
from workbench.sampling_params import SamplingParams
from workbench.structured_outputs_params import StructuredOutputsParams

if TYPE_CHECKING:
    from engine.structured_output import GrammarCompiler

LONGEST_COMPILE_S = 5.0
"""Seconds of computing that a grammar may take to compile; ordinary ones take milliseconds."""
NUM_THREADS = 2
ThreadClock = Callable[[], float]


def computing_clock() -> ThreadClock:
    """A clock of the running thread, for any thread to read while it runs.

    It shows the time that the thread computed, so that a busy machine makes no grammar too large;
    where a system cannot tell it, the time that has passed.
    """
    if sys.platform != "linux":
        return time.monotonic
    return partial(time.clock_gettime, time.pthread_getcpuclockid(get_ident()))


class _Compilation:
    """The compiling of one form.

    Args:
        params: Of a request that asks for it.

    Attributes:
        waiting: Requests that wait for it, by their handles.
        clock: Of the thread that compiles it; None while it is queued.
        started: What it showed at the beginning.
        is_done: Whether it has ended.
        defect: What it ended by that no grammar should cause, or None.
    """

    def __init__(self, params: SamplingParams) -> None:
        self.params = params
        self.waiting: dict[int, AddRequest] = {}
        self.clock: ThreadClock | None = None
        self.started = 0.0
        self.is_done = False
        self.defect: str | None = None


class GrammarQueue:
    """The waiting requests of one core. Its methods belong to the thread of the core's loop.

    Args:
        compiler: Compiles.
        longest_s: Seconds that a grammar may take to compile before its requests are refused.
        make_clock: Called in the thread that compiles; tells its seconds.
    """

    def __init__(
        self,
        compiler: "GrammarCompiler",
        longest_s: float = LONGEST_COMPILE_S,
        make_clock: Callable[[], ThreadClock] | None = None,
    ) -> None:
        self._compiler = compiler
        self._longest_s = longest_s
        self._make_clock = make_clock or computing_clock
        self._compilations: dict[StructuredOutputsParams, _Compilation] = {}
        self._forms: dict[int, StructuredOutputsParams] = {}
        self._tasks: SimpleQueue[_Compilation | None] = SimpleQueue()
        self._threads: list[Thread] = []

    def __len__(self) -> int:
        """Requests that wait."""
        return len(self._forms)

    def add(self, message: AddRequest, params: SamplingParams) -> None:
        """Let a request wait for a grammar that the compiler does not know yet."""
        form = params.structured_outputs
        assert form is not None, "only what has a form waits for a grammar"
        self._forms[message.handle] = form
        compilation = self._compilations.get(form)
        if compilation is not None:
            compilation.waiting[message.handle] = message
            return
        compilation = self._compilations[form] = _Compilation(params)
        compilation.waiting[message.handle] = message
        self._tasks.put(compilation)
        self._start_threads()

    def drop(self, handles: Iterable[int]) -> None:
        """Forget requests; those that do not wait here are passed over."""
        for handle in handles:
            form = self._forms.pop(handle, None)
            if form is not None:
                del self._compilations[form].waiting[handle]

    def take(self) -> list[tuple[AddRequest, str | None]]:
        """Requests that wait no longer, each with the reason where it is refused."""
        taken: list[tuple[AddRequest, str | None]] = []
        for form, compilation in list(self._compilations.items()):
            reason = self._why_refused(form, compilation)
            if reason is None and not compilation.is_done:
                continue
            taken += [(message, reason) for message in compilation.waiting.values()]
            self.drop(list(compilation.waiting))
            if compilation.is_done:
                del self._compilations[form]
        return taken

    def close(self) -> None:
        """Let the threads end, each with what it compiles now."""
        for _ in self._threads:
            self._tasks.put(None)

    def check_integrity(self) -> None:
        """Check that both books tell of the same requests."""
        waiting = {
            handle: form
            for form, compilation in self._compilations.items()
            for handle in compilation.waiting
        }
        assert waiting == self._forms, "a request waits for no grammar"

    def _why_refused(self, form: StructuredOutputsParams, compilation: _Compilation) -> str | None:
        name = f"structured_outputs.{form.form}"
        if compilation.defect is not None:
            return f"{name} does not compile: {compilation.defect}"
        clock = compilation.clock
        if compilation.is_done or clock is None or clock() - compilation.started <= self._longest_s:
            return None
        return (
            f"{name} needs more than {self._longest_s:g} s to compile, which is the limit: make it "
            "smaller, with fewer alternatives and properties"
        )

    def _start_threads(self) -> None:
        while len(self._threads) < NUM_THREADS:
            # a daemon: the end of a process waits for no grammar
            thread = Thread(target=self._work, name="grammars", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self) -> None:
        step_back()
        clock = self._make_clock()
        for compilation in iter(self._tasks.get, None):
            # those who asked may have left
            if compilation.waiting:
                compilation.started, compilation.clock = clock(), clock
                compilation.defect = self._compile(compilation.params)
            compilation.is_done = True

    def _compile(self, params: SamplingParams) -> str | None:
        """Have a form compiled; the compiler remembers the outcome, but for a defect."""
        try:
            self._compiler.validate(params)
        except InputError:
            return None
        except BaseException as error:  # a panic of llguidance's is no Exception
            return one_line(error)
        return None
