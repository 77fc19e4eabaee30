"""Which replica takes a request: the same policies in front of simulated and of real replicas.

A router knows what each replica shows of itself (its queue, its KV use, what its prefix cache
holds); it knows nothing of steps, batches or time to come. A new policy is one class with `choose`,
and one yaml. Replicas are named by their place in the list, which may change between calls.

A replica whose place changes while it stays the same one (a server that leaves the list and comes
back) may carry a number of its own, `identity`, from 0 to 2**64 - 1; without it, its place stands
for it.
"""

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from hashlib import blake2b
from math import ceil
from numbers import Integral
from random import Random
from typing import Protocol

from workbench.errors import ConfigError, SchedulerError


class RoutedRequest(Protocol):
    """What a router may read of a request; `block_hashes` holds the keys of its prompt's blocks."""

    @property
    def request_id(self) -> str: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def client_id(self) -> str: ...
    @property
    def session_id(self) -> str | None: ...
    @property
    def block_hashes(self) -> Sequence[Hashable] | None: ...


class ReplicaView(Protocol):
    """What a router may read of a replica.

    Attributes:
        num_waiting, num_running: Requests.
        num_outstanding_tokens: Tokens its requests still need.
        kv_cache_usage: Share of its KV blocks in use, 0 to 1.
    """

    @property
    def num_waiting(self) -> int: ...
    @property
    def num_running(self) -> int: ...
    @property
    def num_outstanding_tokens(self) -> int: ...
    @property
    def kv_cache_usage(self) -> float: ...
    def cached_prefix_tokens(self, keys: Sequence[Hashable]) -> int:
        """Tokens of the longest prefix that its cache holds now."""
        ...


class Router(ABC):
    """Base of all routers."""

    def route(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        """Index of the replica that takes the request.

        Raises:
            SchedulerError: there is no replica, or the policy named one that does not exist.
        """
        if not replicas:
            raise SchedulerError(
                f"request {request.request_id!r} has 0 replicas to go to and needs 1: "
                "start a replica, or hold the request back until one is up"
            )
        chosen = self.choose(request, replicas, now)
        if not isinstance(chosen, Integral) or not 0 <= chosen < len(replicas):
            raise SchedulerError(
                f"{type(self).__name__}.choose returned {chosen!r} for request "
                f"{request.request_id!r}: it must return a whole number from 0 to "
                f"{len(replicas) - 1}, the place of a replica in the list"
            )
        return int(chosen)

    @abstractmethod
    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        """The policy: an index into `replicas`, which is not empty; `now` in seconds."""


def _num_requests(replicas: Sequence[ReplicaView]) -> list[int]:
    return [replica.num_waiting + replica.num_running for replica in replicas]


def _num_tokens(replicas: Sequence[ReplicaView]) -> list[int]:
    return [replica.num_outstanding_tokens for replica in replicas]


_LOADS = {"requests": _num_requests, "tokens": _num_tokens}


def _check_load(name: str) -> str:
    if name not in _LOADS:
        raise ConfigError(f"load={name!r} is unknown: choose one of {', '.join(_LOADS)}")
    return name


def _check_at_least(limit: float, **values: float) -> None:
    for name, value in values.items():
        if not value >= limit:
            raise ConfigError(f"{name}={value} is below {limit:g}: set it to at least {limit:g}")


class _TakesTurns(Router):
    """A router whose equals take turns, so that idle replicas are used alike."""

    _turn = 0

    def _least(self, costs: Sequence[float]) -> int:
        start, num_replicas = self._turn, len(costs)
        index = min(range(num_replicas), key=lambda i: (costs[i], (i - start) % num_replicas))
        self._turn = index + 1
        return index


class RoundRobin(Router):
    """Each replica in turn. Fair by count, blind to the size of requests and to caches."""

    def __init__(self) -> None:
        self._next = 0

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        index = self._next % len(replicas)
        self._next = index + 1
        return index


class RandomRouter(Router):
    """Any replica with equal chance: the baseline that needs no state.

    Args:
        seed: Of its stream of random numbers.
    """

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        return self._random.randrange(len(replicas))


class LeastOutstanding(_TakesTurns):
    """The replica with the least work in hand (join the shortest queue); equals take turns.

    Args:
        load: What counts as work: "requests" or "tokens" still needed.
    """

    def __init__(self, load: str = "requests") -> None:
        self._loads = _LOADS[_check_load(load)]

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        return self._least(self._loads(replicas))


class PowerOfTwoChoices(Router):
    """The less loaded of two replicas drawn at random (Mitzenmacher, IEEE TPDS 2001).

    Almost as even as asking all of them, and free of herds where loads are reported late.

    Args:
        seed: Of its stream of random numbers.
        load: What counts as work: "requests" or "tokens" still needed.
    """

    def __init__(self, seed: int, load: str = "requests") -> None:
        self._random = Random(seed)
        self._loads = _LOADS[_check_load(load)]

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        if len(replicas) == 1:
            return 0
        first, second = self._random.sample(range(len(replicas)), 2)
        load_first, load_second = self._loads((replicas[first], replicas[second]))
        return first if load_first <= load_second else second


class SessionAffinity(_TakesTurns):
    """All requests of a session to one replica, where its prefix is cached.

    Rendezvous hashing (Thaler and Ravishankar, IEEE/ACM ToN 1998): a replica that is added or lost
    moves only its own share of the sessions (at the end of the list, unless replicas carry an
    `identity`). A request without a session goes to the replica with the fewest requests.

    Args:
        load_bound: A session spills over to its next replica while its own holds more than
            `load_bound` x the mean number of requests (consistent hashing with bounded loads;
            Mirrokni et al., SODA 2018); at least 1. None: it never does.
    """

    def __init__(self, load_bound: float | None = None) -> None:
        if load_bound is not None:
            _check_at_least(1, load_bound=load_bound)
        self._load_bound = load_bound

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        session = request.session_id
        if session is None:
            return self._least(_num_requests(replicas))
        scores = [
            _score(session, getattr(replica, "identity", index))
            for index, replica in enumerate(replicas)
        ]
        if self._load_bound is None:
            return scores.index(max(scores))
        loads = _num_requests(replicas)
        most = ceil(self._load_bound * (sum(loads) + 1) / len(loads))
        return max(range(len(loads)), key=lambda index: (loads[index] < most, scores[index]))


def _score(session_id: str, identity: int) -> bytes:
    return blake2b(session_id.encode(), digest_size=8, salt=identity.to_bytes(8)).digest()


class LongestPrefix(_TakesTurns):
    """The replica whose cache holds most of the prompt, as long as the loads are balanced.

    The rule of SGLang's cache-aware router, with exact look-ups in place of its estimate. Out of
    balance (by both thresholds), or with too little found anywhere, the replica with the fewest
    requests takes it; equals take turns.

    Args:
        cache_threshold: Share of the prompt, 0 to 1, that the best replica must hold.
        balance_abs_threshold: Out of balance if the loads differ by more requests than this ...
        balance_rel_threshold: ... and the largest is more than this times the smallest.

    Raises:
        ConfigError: a threshold out of range.
    """

    def __init__(
        self,
        cache_threshold: float = 0.3,
        balance_abs_threshold: int = 64,
        balance_rel_threshold: float = 1.5,
    ) -> None:
        _check_at_least(
            0, cache_threshold=cache_threshold, balance_abs_threshold=balance_abs_threshold
        )
        _check_at_least(1, balance_rel_threshold=balance_rel_threshold)
        if cache_threshold > 1:
            raise ConfigError(f"cache_threshold={cache_threshold} is above 1: it is a share")
        self._cache_threshold = cache_threshold
        self._balance_abs_threshold = balance_abs_threshold
        self._balance_rel_threshold = balance_rel_threshold

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        loads = _num_requests(replicas)
        if not request.block_hashes or self._is_out_of_balance(loads):
            return self._least(loads)
        cached = [replica.cached_prefix_tokens(request.block_hashes) for replica in replicas]
        longest = max(cached)
        if not longest or longest < self._cache_threshold * request.num_prompt_tokens:
            return self._least(loads)
        return self._least(
            [
                load if tokens == longest else float("inf")
                for load, tokens in zip(loads, cached, strict=True)
            ]
        )

    def _is_out_of_balance(self, loads: list[int]) -> bool:
        most, fewest = max(loads), min(loads)
        return (
            most - fewest > self._balance_abs_threshold
            and most > self._balance_rel_threshold * fewest
        )


class LoadAndKVPressure(_TakesTurns):
    """The replica with the least expected work for this request, in tokens.

        cost = overlap_weight x (prompt - cached prefix)       what it would have to compute
             + load_weight x tokens that its requests still need   what stands before it
             + kv_weight x prompt x share of KV blocks in use      how near it is to preempting

    After the cost that NVIDIA Dynamo's KV router minimises (blocks to prefill plus active blocks).
    A large overlap_weight favours cache hits and so TTFT; a large load_weight evens out ITL.

    Args:
        overlap_weight, load_weight, kv_weight: At least 0; 0 leaves a term out.
    """

    def __init__(
        self, overlap_weight: float = 1.0, load_weight: float = 1.0, kv_weight: float = 1.0
    ) -> None:
        _check_at_least(
            0, overlap_weight=overlap_weight, load_weight=load_weight, kv_weight=kv_weight
        )
        self._overlap_weight = overlap_weight
        self._load_weight = load_weight
        self._kv_weight = kv_weight

    def choose(self, request: RoutedRequest, replicas: Sequence[ReplicaView], now: float) -> int:
        prompt = request.num_prompt_tokens
        keys = request.block_hashes if self._overlap_weight else None
        return self._least([self._cost(replica, prompt, keys) for replica in replicas])

    def _cost(self, replica: ReplicaView, prompt: int, keys: Sequence[Hashable] | None) -> float:
        cached = replica.cached_prefix_tokens(keys) if keys else 0
        return (
            self._overlap_weight * (prompt - cached)
            + self._load_weight * replica.num_outstanding_tokens
            + self._kv_weight * prompt * replica.kv_cache_usage
        )
