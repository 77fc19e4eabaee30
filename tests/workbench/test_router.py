"""Routers: always a replica that exists, the same choice for the same seed, and each one's aim."""

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import ConfigError, SchedulerError
from workbench.router import (
    LeastOutstanding,
    LoadAndKVPressure,
    LongestPrefix,
    PowerOfTwoChoices,
    RandomRouter,
    RoundRobin,
    Router,
    SessionAffinity,
)

ROUTERS: dict[str, Callable[[], Router]] = {
    "round_robin": RoundRobin,
    "random": lambda: RandomRouter(seed=3),
    "least_requests": LeastOutstanding,
    "least_tokens": lambda: LeastOutstanding(load="tokens"),
    "power_of_two": lambda: PowerOfTwoChoices(seed=3),
    "session": SessionAffinity,
    "session_bounded": lambda: SessionAffinity(load_bound=1.25),
    "longest_prefix": LongestPrefix,
    "load_kv": LoadAndKVPressure,
}


@dataclass
class Replica:
    num_waiting: int = 0
    num_running: int = 0
    num_outstanding_tokens: int = 0
    kv_cache_usage: float = 0.0
    cached: int = 0
    num_queries: int = 0

    def cached_prefix_tokens(self, keys: Sequence[Hashable]) -> int:
        self.num_queries += 1
        return self.cached


@dataclass(frozen=True)
class Asked:
    request_id: str = "r"
    num_prompt_tokens: int = 100
    client_id: str = "default"
    session_id: str | None = None
    block_hashes: Sequence[Hashable] | None = field(default=(1, 2, 3))


replica_lists = st.lists(
    st.builds(
        Replica,
        num_waiting=st.integers(0, 200),
        num_running=st.integers(0, 20),
        num_outstanding_tokens=st.integers(0, 5000),
        kv_cache_usage=st.floats(0, 1),
        cached=st.integers(0, 100),
    ),
    min_size=1,
    max_size=8,
)
requests = st.builds(Asked, session_id=st.none() | st.text(max_size=4))


@pytest.mark.parametrize("name", ROUTERS)
@given(calls=st.lists(st.tuples(requests, replica_lists), max_size=12))
@settings(max_examples=30, deadline=None)
def test_the_choice_exists_repeats_and_asks_each_replica_at_most_once(
    name: str, calls: list[tuple[Asked, list[Replica]]]
) -> None:
    routers = ROUTERS[name](), ROUTERS[name]()
    for request, replicas in calls:
        for replica in replicas:
            replica.num_queries = 0
        first = routers[0].route(request, replicas, 0.0)
        assert 0 <= first < len(replicas)
        assert all(replica.num_queries <= 1 for replica in replicas)
        assert routers[1].route(request, replicas, 0.0) == first


@pytest.mark.parametrize("name", ROUTERS)
def test_no_replica_is_a_clear_error(name: str) -> None:
    with pytest.raises(SchedulerError, match=r"'r7'.*0 replicas"):
        ROUTERS[name]().route(Asked("r7"), [], 0.0)


@pytest.mark.parametrize("name", [name for name in ROUTERS if name != "random"])
@given(num_replicas=st.integers(2, 8), num_requests=st.integers(1, 100))
@settings(max_examples=30, deadline=None)
def test_equal_requests_spread_evenly(name: str, num_replicas: int, num_requests: int) -> None:
    router, replicas = ROUTERS[name](), [Replica() for _ in range(num_replicas)]
    for _ in range(num_requests):
        replica = replicas[router.route(Asked(), replicas, 0.0)]
        replica.num_waiting += 1
        replica.num_outstanding_tokens += 100
    loads = [replica.num_waiting for replica in replicas]
    assert max(loads) - min(loads) <= (8 if name == "power_of_two" else 1)


@pytest.mark.parametrize("name", ["least_requests", "longest_prefix", "load_kv", "session"])
def test_idle_replicas_take_turns(name: str) -> None:
    router, replicas = ROUTERS[name](), [Replica() for _ in range(4)]
    counts = Counter(router.route(Asked(), replicas, 0.0) for _ in range(40))
    assert set(counts.values()) == {10}


def test_round_robin_goes_on_when_replicas_leave_and_come() -> None:
    router = RoundRobin()
    sizes = [3, 3, 3, 2, 2, 4, 4, 4, 1]
    choices = [router.route(Asked(), [Replica()] * size, 0.0) for size in sizes]
    assert choices == [0, 1, 2, 1, 0, 1, 2, 3, 0]


def test_another_seed_gives_another_sequence() -> None:
    def choices(router: Router) -> list[int]:
        return [router.route(Asked(), [Replica()] * 8, 0.0) for _ in range(30)]

    for policy in (RandomRouter, PowerOfTwoChoices):
        assert choices(policy(seed=1)) == choices(policy(seed=1)) != choices(policy(seed=2))


def test_two_choices_never_take_the_most_loaded() -> None:
    router = PowerOfTwoChoices(seed=0)
    replicas = [Replica(num_running=load) for load in (1, 9, 2, 3)]
    assert all(router.route(Asked(), replicas, 0.0) != 1 for _ in range(100))


@given(sessions=st.lists(st.text(), min_size=1, max_size=50), num_replicas=st.integers(1, 8))
@settings(max_examples=50, deadline=None)
def test_a_session_stays_or_moves_to_the_new_replica(
    sessions: list[str], num_replicas: int
) -> None:
    router = SessionAffinity()
    for session in sessions:
        request = Asked(session_id=session)
        home = router.route(request, [Replica()] * num_replicas, 0.0)
        busy = [Replica(num_waiting=i * 9) for i in range(num_replicas)]
        assert router.route(request, busy, 1.0) == home
        grown = router.route(request, [Replica()] * (num_replicas + 1), 2.0)
        assert grown in (home, num_replicas)


@dataclass
class NamedReplica(Replica):
    identity: int = 0


@given(
    session=st.text(),
    identities=st.lists(st.integers(0, 2**64 - 1), min_size=2, max_size=8, unique=True),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_a_session_follows_the_identity_of_its_replica_and_not_its_place(
    session: str, identities: list[int], data: st.DataObject
) -> None:
    def home(identities: list[int]) -> int:
        replicas = [NamedReplica(identity=identity) for identity in identities]
        return identities[SessionAffinity().route(Asked(session_id=session), replicas, 0.0)]

    first = home(identities)
    assert home(data.draw(st.permutations(identities))) == first
    lost = data.draw(st.sampled_from(identities))
    if lost != first:
        assert home([identity for identity in identities if identity != lost]) == first


def test_a_place_stands_for_a_replica_without_an_identity() -> None:
    for i in range(50):
        asked = Asked(session_id=f"s{i}")
        named = [NamedReplica(identity=place) for place in range(4)]
        plain = [Replica()] * 4
        router = SessionAffinity()
        assert router.route(asked, named, 0.0) == router.route(asked, plain, 0.0)


def test_sessions_spread_over_the_replicas() -> None:
    router, replicas = SessionAffinity(), [Replica()] * 8
    homes = Counter(router.route(Asked(session_id=f"s{i}"), replicas, 0.0) for i in range(4000))
    assert min(homes.values()) > 400
    assert max(homes.values()) < 600


@given(
    loads=st.lists(st.integers(0, 50), min_size=2, max_size=8),
    bound=st.floats(1.0, 3.0),
    session=st.text(),
)
@settings(max_examples=100, deadline=None)
def test_a_session_spills_over_within_the_bound(
    loads: list[int], bound: float, session: str
) -> None:
    replicas = [Replica(num_running=load) for load in loads]
    chosen = SessionAffinity(load_bound=bound).route(Asked(session_id=session), replicas, 0.0)
    assert loads[chosen] <= bound * (sum(loads) + 1) / len(loads)


def test_longest_prefix_follows_the_cache_while_loads_are_balanced() -> None:
    router = LongestPrefix(balance_abs_threshold=10, balance_rel_threshold=2.0)
    replicas = [Replica(num_running=1), Replica(num_running=11, cached=80), Replica(num_running=5)]
    assert router.route(Asked(), replicas, 0.0) == 1
    replicas[1].num_running = 12
    assert router.route(Asked(), replicas, 0.0) == 0
    assert replicas[1].num_queries == 1  # out of balance: the caches are not even asked
    for replica in replicas:
        replica.num_running += 20  # the difference is the same, the ratio is below 2
    assert router.route(Asked(), replicas, 0.0) == 1


def test_longest_prefix_takes_the_least_loaded_of_equals_and_ignores_small_matches() -> None:
    replicas = [Replica(3, 0, cached=64), Replica(2, 0, cached=64), Replica(1, 0, cached=16)]
    assert LongestPrefix().route(Asked(), replicas, 0.0) == 1
    assert LongestPrefix(cache_threshold=0.7).route(Asked(), replicas, 0.0) == 2
    assert LongestPrefix().route(Asked(block_hashes=None), replicas, 0.0) == 2


def test_load_and_kv_weighs_all_three() -> None:
    prefix = [Replica(num_outstanding_tokens=50), Replica(num_outstanding_tokens=80, cached=64)]
    assert LoadAndKVPressure().route(Asked(), prefix, 0.0) == 1
    assert LoadAndKVPressure(overlap_weight=0.0).route(Asked(), prefix, 0.0) == 0
    assert LoadAndKVPressure(load_weight=3.0).route(Asked(), prefix, 0.0) == 0
    full = [Replica(kv_cache_usage=0.9), Replica(kv_cache_usage=0.2, num_outstanding_tokens=30)]
    assert LoadAndKVPressure().route(Asked(), full, 0.0) == 1
    assert LoadAndKVPressure(kv_weight=0.0).route(Asked(), full, 0.0) == 0


def test_settings_out_of_range_are_refused_in_one_line() -> None:
    for build in (
        lambda: LeastOutstanding(load="tokenz"),
        lambda: PowerOfTwoChoices(0, load=""),
        lambda: SessionAffinity(load_bound=0.5),
        lambda: LongestPrefix(cache_threshold=-0.1),
        lambda: LongestPrefix(cache_threshold=1.1),
        lambda: LongestPrefix(balance_abs_threshold=-1),
        lambda: LongestPrefix(balance_rel_threshold=0.9),
        lambda: LoadAndKVPressure(load_weight=-1.0),
    ):
        with pytest.raises(ConfigError) as error:
            build()
        assert "\n" not in str(error.value)
