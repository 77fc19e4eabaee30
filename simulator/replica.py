"""One simulated server: a real engine core on simulated time."""

from collections.abc import Callable, Generator, Hashable, Sequence

import simpy

from simulator.environment import SimulationEnvironment
from simulator.executor import SimulatedExecutor
from workbench.engine_core import EngineCore
from workbench.request import Request


class Replica:
    """Runs its engine core whenever there is work. A router may look at it (ReplicaView).

    Args:
        env: Simulated time.
        core: The engine core.
        executor: The core's executor.
        on_finish: Called with every request that ends.
        next_arrival: The earliest time at which a request may arrive, seconds; None: every step is
            taken on its own.
    """

    def __init__(
        self,
        env: SimulationEnvironment,
        core: EngineCore,
        executor: SimulatedExecutor,
        on_finish: Callable[[Request], None],
        next_arrival: Callable[[], float] | None = None,
    ) -> None:
        self._env = env
        self.core = core
        self.executor = executor
        self._on_finish = on_finish
        self._next_arrival = next_arrival
        self._wake_up: simpy.Event | None = None
        self._num_outstanding_tokens = 0
        env.process(self._run())

    def add_request(self, request: Request) -> None:
        """Take a request; one that can never run ends at once."""
        if not self.core.add_request(request):
            self._on_finish(request)
            return
        self._num_outstanding_tokens += request.num_prompt_tokens + request.max_tokens
        if self._wake_up is not None:
            self._wake_up.succeed()
            self._wake_up = None

    def _run(self) -> Generator[simpy.Event, None, None]:
        core = self.core
        while True:
            if not core.has_work:
                self._wake_up = self._env.event()
                self.executor.rest()
                yield self._wake_up
            if self._next_arrival is not None:
                end = self.executor.decode_ahead(core.scheduler, self._next_arrival())
                if end > self._env.now:
                    yield self._env.timeout_at(end)
            outputs = yield from core.step()
            for request in outputs.finished:
                self._num_outstanding_tokens -= request.num_prompt_tokens + request.max_tokens
                self._on_finish(request)

    @property
    def num_waiting(self) -> int:
        """Waiting requests."""
        return len(self.core.scheduler.waiting)

    @property
    def num_running(self) -> int:
        """Running requests."""
        return len(self.core.scheduler.running)

    @property
    def num_outstanding_tokens(self) -> int:
        """Prompt and output tokens of its unfinished requests."""
        return self._num_outstanding_tokens

    @property
    def kv_cache_usage(self) -> float:
        """Share of the KV blocks in use, 0 to 1."""
        return self.core.scheduler.kv_cache_manager.usage

    def cached_prefix_tokens(self, keys: Sequence[Hashable]) -> int:
        """Tokens of the longest prefix of these block keys that is cached here."""
        return self.core.scheduler.kv_cache_manager.num_cached_prefix_tokens(keys)
