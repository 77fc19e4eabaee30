"""The memory of what a backend was sent: bounded, and a chain is forgotten from its end."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.prefix_memory import PrefixMemory

chains = st.lists(st.text("ab", max_size=12), max_size=30)


def keys(chain: str) -> list[str]:
    """Chained keys: each names all that came before it."""
    return [chain[: i + 1] for i in range(len(chain))]


@given(chains=chains, room=st.integers(1, 20), asked=st.text("ab", max_size=12))
@settings(max_examples=50, deadline=None)
def test_bounded_and_always_whole_prefixes(chains: list[str], room: int, asked: str) -> None:
    memory = PrefixMemory(room)
    for chain in chains:
        memory.add(keys(chain))
        assert len(memory) <= room
        assert memory.num_known(keys(chain)) == min(len(chain), room)
    known = memory.num_known(keys(asked))
    # the search by halves finds what a search one by one finds
    assert known == next(
        (i for i in range(len(asked)) if asked[: i + 1] not in memory._keys), len(asked)
    )


def test_the_least_recently_sent_is_forgotten() -> None:
    memory = PrefixMemory(4)
    memory.add(keys("aa"))
    memory.add(keys("bb"))
    memory.add(keys("aa"))
    memory.add(keys("b"))
    memory.add(["c"])
    assert [memory.num_known(keys(chain)) for chain in ("aa", "bb", "c")] == [2, 1, 1]
    memory.clear()
    assert memory.num_known(keys("aa")) == len(memory) == 0
