"""The client's side of HTTP/1.1, as far as a test needs it, and strict: values, no I/O.

A chunk that isn't framed as RFC 9112 says is an error, not something to make the best of: the test
kit is there to see such things.
"""

from __future__ import annotations

import enum
from typing import final

_CRLF = b"\r\n"
_BODILESS = (204, 205, 304)


@final
class FramingError(Exception):
    """The server sent something that is no HTTP/1.1."""


class _Framing(enum.Enum):
    HEAD = "head"
    LENGTH = "length"
    CHUNK_SIZE = "chunk size"
    CHUNK = "chunk"
    UNTIL_CLOSE = "until close"
    DONE = "done"


@final
class ResponseReader:
    """Bytes in, the body out; status and headers on the way.

    Attributes:
        status: 0 until the head is there.
        headers: names in lower case, the values of a repeated one joined with `", "`.
    """

    def __init__(self, *, is_head: bool = False) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self._is_head = is_head
        self._framing = _Framing.HEAD
        self._buffer = b""
        self._left = 0

    @property
    def is_done(self) -> bool:
        """Whether the response is whole."""
        return self._framing is _Framing.DONE

    def feed(self, data: bytes) -> bytes:
        """Take the next bytes; return the part of the body that they bring.

        Raises:
            FramingError: they don't fit.
        """
        self._buffer += data
        body = b""
        while (piece := self._step()) is not None:
            body += piece
        return body

    def feed_eof(self) -> bool:
        """Take the connection's end; return whether the response is whole with it."""
        if self._framing is _Framing.UNTIL_CLOSE:
            self._framing = _Framing.DONE
        return self.is_done

    def _step(self) -> bytes | None:
        """Take one thing out of the buffer; `None` if it isn't whole yet."""
        match self._framing:
            case _Framing.HEAD:
                return self._take_head()
            case _Framing.CHUNK_SIZE:
                return self._take_chunk_size()
            case _Framing.CHUNK:
                return self._take_chunk()
            case _Framing.LENGTH:
                return self._take_length()
            case _Framing.UNTIL_CLOSE:
                return self._take(len(self._buffer)) or None
            case _Framing.DONE:
                if self._buffer:
                    raise FramingError(f"behind the response comes {self._buffer[:50]!r}")
                return None

    def _take(self, size: int) -> bytes:
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _take_head(self) -> bytes | None:
        head, end, rest = self._buffer.partition(_CRLF * 2)
        if not end:
            return None
        self._buffer = rest
        version, _, status = head.split(_CRLF)[0].partition(b" ")
        if not version.startswith(b"HTTP/1.") or not status[:3].isdigit():
            raise FramingError(f"no status line: {head[:50]!r}")
        self.status = int(status[:3])
        for line in head.decode("latin-1").split("\r\n")[1:]:
            name, colon, value = line.partition(":")
            if not colon:
                raise FramingError(f"no header: {line!r}")
            key, value = name.lower(), value.strip()
            self.headers[key] = f"{self.headers[key]}, {value}" if key in self.headers else value
        self._choose_framing()
        return b""

    def _choose_framing(self) -> None:
        if 100 <= self.status < 200:  # noqa: PLR2004 - RFC 9110 section 15.2: the real one follows
            self.status = 0
            self.headers.clear()
        elif self._is_head or self.status in _BODILESS:
            self._framing = _Framing.DONE
        elif self.headers.get("transfer-encoding") == "chunked":
            self._framing = _Framing.CHUNK_SIZE
        elif "content-length" in self.headers:
            self._left = int(self.headers["content-length"])
            self._framing = _Framing.LENGTH if self._left else _Framing.DONE
        else:
            self._framing = _Framing.UNTIL_CLOSE

    def _take_length(self) -> bytes | None:
        piece = self._take(self._left)
        self._left -= len(piece)
        if not self._left:
            self._framing = _Framing.DONE
        return piece or None

    def _take_chunk_size(self) -> bytes | None:
        line, end, rest = self._buffer.partition(_CRLF)
        if not end:
            return None
        try:
            self._left = int(line, 16)
        except ValueError:
            raise FramingError(f"no chunk size: {line[:50]!r}") from None
        self._buffer = rest
        self._framing = _Framing.CHUNK
        return b""

    def _take_chunk(self) -> bytes | None:
        if len(self._buffer) < self._left + len(_CRLF):
            return None
        chunk = self._take(self._left)
        if self._take(len(_CRLF)) != _CRLF:
            raise FramingError("a chunk is longer than it says")
        self._framing = _Framing.CHUNK_SIZE if chunk else _Framing.DONE
        return chunk
