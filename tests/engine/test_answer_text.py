"""Stop strings: found across token borders, cut where they should be, shown never too early."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.answer_text import AnswerText

Plain = tuple[int, str | None, str]


class Pieces:
    """A decoder whose tokens are indices into a list of strings."""

    def __init__(self, pieces: Sequence[str], rest: str = "") -> None:
        self._pieces = pieces
        self._rest = rest

    def decode(self, token_ids: Sequence[int]) -> str:
        return "".join(self._pieces[token_id] for token_id in token_ids)

    def flush(self) -> str:
        return self._rest


def plain(pieces: list[str], stop: list[str], include: bool, min_tokens: int) -> Plain:
    """Tokens taken, stop string and text, by looking at the whole text after every token."""
    for count in range(1, len(pieces) + 1):
        before, text = "".join(pieces[: count - 1]), "".join(pieces[:count])
        if count <= min_tokens or text == before:
            continue
        found = [
            (place + len(string), order, place)
            for order, string in enumerate(stop)
            for place in range(len(text))
            if text.startswith(string, place) and place + len(string) > len(before)
        ]
        if found:
            end, order, place = min(found)
            return count, stop[order], text[: end if include else place]
    return len(pieces), None, "".join(pieces)


PIECES = st.lists(st.text("ab", max_size=3), max_size=14)
STOPS = st.lists(st.text("ab", min_size=1, max_size=5), max_size=3, unique=True)


@settings(max_examples=300)
@given(
    PIECES,
    STOPS,
    st.booleans(),
    st.integers(0, 5),
    st.lists(st.integers(1, 4), max_size=14),
)
def test_stop_strings_equal_a_look_at_the_whole_text(
    pieces: list[str], stop: list[str], include: bool, min_tokens: int, steps: list[int]
) -> None:
    answer = AnswerText(Pieces(pieces), stop, include, min_tokens)
    taken, found, streamed = 0, None, ""
    steps = [*steps, len(pieces)]
    while taken < len(pieces) and found is None:
        token_ids = list(range(taken, min(taken + steps.pop(0), len(pieces))))
        count, found = answer.append(token_ids)
        taken += count
        streamed += answer.new_text(is_finished=found is not None)
    if found is None:
        answer.finish()
        streamed += answer.new_text(is_finished=True)
    assert (taken, found, streamed) == plain(pieces, stop, include, min_tokens)


@given(PIECES, STOPS)
def test_what_is_shown_stays(pieces: list[str], stop: list[str]) -> None:
    answer = AnswerText(Pieces(pieces), stop)
    shown = ""
    for token_id in range(len(pieces)):
        _, found = answer.append([token_id])
        text = answer.text(is_finished=found is not None)
        assert text.startswith(shown)
        shown = text
        if found is not None:
            return
    answer.finish()
    assert answer.text(is_finished=True).startswith(shown)
    assert answer.text(is_finished=True) == "".join(pieces)


def test_the_rest_of_a_character_comes_at_the_end() -> None:
    answer = AnswerText(Pieces(["a", ""], rest="\ufffd"))
    answer.append([0, 1])
    answer.finish()
    assert answer.text(is_finished=True) == "a\ufffd"
