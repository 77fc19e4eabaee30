"""Looking through token ids in slices gives what a look at all of them gives."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.token_ids import SLICE, first_outside, kinds_of


@given(st.lists(st.one_of(st.integers(), st.text(max_size=1), st.booleans(), st.floats())))
def test_kinds_are_those_of_all_values(values: list[Any]) -> None:
    assert kinds_of(values) == set(map(type, values))


def test_slices_are_all_looked_at() -> None:
    ids = [1] * (2 * SLICE + 3)
    assert kinds_of(ids) == {int}
    assert first_outside(ids, 2) is None
    for place in (0, SLICE - 1, SLICE, 2 * SLICE, len(ids) - 1):
        for wrong in (-1, 2, 2**70):
            changed = [*ids[:place], wrong, *ids[place + 1 :], 99]
            assert first_outside(changed, 2) == wrong
        assert kinds_of([*ids[:place], True]) >= {bool}
    assert first_outside([], 2) is None
