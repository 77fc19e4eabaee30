"""Where the body of an HTTP/1.1 response begins and ends.

Knows heads, chunks and lengths; feeds on bytes as they come. Knows no connection and no content.
"""

from workbench.errors import WorkbenchError

MAX_HEAD = 65_536


class FramingError(WorkbenchError):
    """The bytes are no HTTP response."""


class ResponseFraming:
    """Takes one response apart.

    Attributes:
        status: Of the response; 0 before its head has come.
        is_over: The body is complete.
        keeps_alive: The connection can take another request afterwards.
        ends_with_connection: Only the end of the connection ends the body.
    """

    __slots__ = (
        "_head", "_is_chunked", "_missing", "_rest", "ends_with_connection", "is_over",
        "keeps_alive", "status",
    )  # fmt: skip

    def __init__(self) -> None:
        self.status = 0
        self.is_over = False
        self.keeps_alive = True
        self.ends_with_connection = False
        self._head = b""
        self._is_chunked = False
        self._missing = 0  # bytes of the body, or of the chunk with its line end
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The content in these bytes. Raises FramingError."""
        if not self.status:
            data = self._read_head(data)
            if not self.status:
                return b""
        if self._is_chunked:
            return self._chunks(data)
        if self.ends_with_connection:
            return data
        self._missing -= len(data)
        if self._missing <= 0:
            self.is_over = True
            self.keeps_alive = self.keeps_alive and self._missing == 0
        return data

    def _read_head(self, data: bytes) -> bytes:
        """What follows the head; an informational response (100) is passed over."""
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end < 0:
            if len(self._head) > MAX_HEAD or not b"HTTP/".startswith(self._head[:5]):
                raise FramingError("what the server sends is no HTTP response")
            return b""
        first, *lines = self._head[:end].decode("latin-1").split("\r\n")
        words = first.split(" ", 2)
        if len(words) < 2 or not words[0].startswith("HTTP/") or not words[1].isdecimal():
            raise FramingError(f"the server's response begins with {first[:60]!r}")
        rest = self._head[end + 4 :]
        self._head = b""
        if words[1].startswith("1"):
            return self._read_head(rest) if rest else b""
        self._read_headers(lines, is_old=words[0] == "HTTP/1.0")
        self.status = int(words[1])
        return rest

    def _read_headers(self, lines: list[str], is_old: bool) -> None:
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip().lower()
        self.keeps_alive = "close" not in headers.get("connection", "close" if is_old else "")
        if "chunked" in headers.get("transfer-encoding", ""):
            self._is_chunked = True
        elif "content-length" in headers:
            self._missing = int(headers["content-length"])
            self.is_over = self._missing == 0
        else:
            self.ends_with_connection = True
            self.keeps_alive = False

    def _chunks(self, data: bytes) -> bytes:
        if not self._rest and not self._missing:  # nearly always: one whole chunk
            end = data.find(b"\r\n")
            if 0 < end < 9:
                size = _size(data[:end])
                if size and len(data) == end + size + 4:
                    return data[end + 2 : -2]
        return self._any_chunks(data)

    def _any_chunks(self, data: bytes) -> bytes:
        data = self._rest + data
        self._rest = b""
        content = []
        at = 0
        while at < len(data) and not self.is_over:
            if self._missing:
                piece = data[at : at + self._missing]
                at += len(piece)
                inside = max(self._missing - 2, 0)  # without the line end of the chunk
                content.append(piece[:inside])
                self._missing -= len(piece)
                continue
            end = data.find(b"\r\n", at)
            if end < 0:
                self._rest = data[at:]
                break
            size = _size(data[at:end].split(b";")[0])
            if size == 0 and (over := self._end_of_trailer(data, end)) < 0:
                self._rest = data[at:]
                break
            at = end + 2 if size else over
            self._missing = size + 2 if size else 0
            self.is_over = size == 0
        if self.is_over and at < len(data):
            self.keeps_alive = False
        return b"".join(content)

    @staticmethod
    def _end_of_trailer(data: bytes, end: int) -> int:
        """Where the body ends whose last chunk's size ends at `end`; -1 if it has not all come."""
        if data[end + 2 : end + 4] == b"\r\n":
            return end + 4
        found = data.find(b"\r\n\r\n", end + 2)
        return found + 4 if found >= 0 else -1


def _size(text: bytes) -> int:
    try:
        return int(text, 16)
    except ValueError:
        raise FramingError(f"a chunk of the response has the size {text[:20]!r}") from None
