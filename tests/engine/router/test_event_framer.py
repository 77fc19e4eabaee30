"""Nothing is lost or reordered, and everything before the end stops at an event's end."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.router.event_framer import MAX_HELD_BYTES, EventFramer

END = st.sampled_from([b"\n\n", b"\r\n\r\n"])
event = st.tuples(st.binary(max_size=20).map(lambda b: b"data: " + b.hex().encode()), END)


@given(events=st.lists(event, max_size=10), rest=st.binary(max_size=5), data=st.data())
@settings(max_examples=50, deadline=None)
def test_pieces_are_cut_at_events(
    events: list[tuple[bytes, bytes]], rest: bytes, data: st.DataObject
) -> None:
    rest = rest.hex().encode()
    stream = b"".join(text + end for text, end in events) + rest
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=15)))
    framer, sent = EventFramer(), b""
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        out = framer.push(stream[start:end])
        assert out == b"" or out.endswith((b"\n\n", b"\r\n\r\n"))
        sent += out
        # whatever could be read is not held back
        assert len(stream[:end]) - len(sent) <= max((len(t) + 4 for t, _ in events), default=0) + 10
    assert sent == stream[: len(stream) - len(rest)]
    assert sent + framer.rest() == stream
    assert framer.rest() == b""


@pytest.mark.parametrize("mark", [b"\n\n", b"\r\n\r\n", b"\r\r"])
def test_a_whole_event_goes_on_at_once(mark: bytes) -> None:
    framer = EventFramer()
    assert framer.push(b"data: 1" + mark + b"da") == b"data: 1" + mark
    assert framer.push(b"ta: 2" + mark) == b"data: 2" + mark


def test_an_event_without_an_end_is_not_held_for_ever() -> None:
    framer = EventFramer()
    assert framer.push(b"x" * MAX_HELD_BYTES) == b""
    assert len(framer.push(b"y")) == MAX_HELD_BYTES + 1
