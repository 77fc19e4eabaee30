"""Server-sent events in whole pieces: what was sent to a client always ends at an event's end.

So an error can be told as an event of its own when a backend breaks off in the middle of one.
Only the tail of an event that has not come whole yet is held back; nobody could read it anyway.
"""

ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
MAX_HELD_BYTES = 1 << 20


class EventFramer:
    """Cuts a stream of bytes at the ends of events."""

    def __init__(self) -> None:
        self._held = b""

    def push(self, piece: bytes) -> bytes:
        """The bytes that may be sent on now, in order; may be none.

        An event longer than a mebibyte is sent on in parts.
        """
        data = self._held + piece if self._held else piece
        if data.endswith(ENDS[0]):  # the usual case
            self._held = b""
            return data
        end = max(found + len(mark) if (found := data.rfind(mark)) >= 0 else 0 for mark in ENDS)
        if len(data) - end > MAX_HELD_BYTES:
            end = len(data)
        self._held = data[end:]
        return data[:end]

    def rest(self) -> bytes:
        """What is left at the end of the stream."""
        rest, self._held = self._held, b""
        return rest
