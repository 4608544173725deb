"""The chunked transfer coding of RFC 9112 section 7.1, read strictly and with bounds.

`feed` takes what has arrived and gives the data of all its chunks in one piece: a client that sends
its body in chunks of one byte costs one value for each read, not for each chunk. Sizes have no
sign, prefix or separator, lines end with CRLF, and an extension is one by the grammar: it is thrown
away, but a proxy that reads its CR or LF as the end of the line would see another body.

Extensions and trailers have no use here and are bounded together, as one more head: section 7.1.1
asks to "limit the total length of chunk extensions received in a request".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, final

from .strict import STRAY, ProtocolError, check_trailers

if TYPE_CHECKING:
    from .settings import Settings

_MAX_SIZE: Final = 2**63 - 1
_TOKEN: Final = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
# RFC 9110 section 5.6.4, a quoted-pair being a backslash and what may follow it.
_QUOTED: Final = rb'"(?:[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\x7e\x80-\xff])*+"'
_SIZE_LINE: Final = re.compile(
    rb"0*+([0-9A-Fa-f]{0,16})((?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*+)\r\n"
    % (_TOKEN, _TOKEN, _QUOTED)
)
# A line without extension: many small chunks are no offence.
_FREE: Final = len(b"7fffffffffffffff\r\n")
_HEXDIGITS: Final = frozenset(b"0123456789abcdefABCDEF")


@final
class ChunkReader:
    """Reads one chunked body."""

    __slots__ = ("_held", "_left", "_overhead", "_scanned", "_settings", "_trailers", "complete")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        # The start of a line, or of a trailer section, whose end has not arrived.
        self._held = b""
        self._scanned = 0
        # Bytes to come of the chunk under way and the CRLF behind it; 0 between chunks.
        self._left = 0
        self._overhead = 0
        self._trailers = False
        self.complete = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return the body in them, and what is behind its end once it is `complete`.

        Raises:
            ProtocolError: 400 for what is no chunk or no trailer, 431 for more of extensions and
                trailers than a head may have.
        """
        self._scanned = len(self._held)
        data, self._held = self._held + data, b""
        pieces: list[bytes] = []
        place = 0
        while place < len(data) and not self.complete:
            if self._trailers:
                place = self._trailer_end(data, place)
            elif self._left:
                place = self._take(data, place, pieces)
            else:
                place = self._size_line(data, place)
        return b"".join(pieces), data[place:]

    def _take(self, data: bytes, place: int, pieces: list[bytes]) -> int:
        """Take chunk data, then each byte of the CRLF behind it."""
        if self._left > 2:  # noqa: PLR2004 - the CRLF
            piece = data[place : place + self._left - 2]
            pieces.append(piece)
            self._left -= len(piece)
            return place + len(piece)
        if data[place] != (0x0D if self._left == 2 else 0x0A):  # noqa: PLR2004 - CR, then LF
            raise ProtocolError(400, "a chunk doesn't end where its size says")
        self._left -= 1
        return place + 1

    def _size_line(self, data: bytes, place: int) -> int:
        end = data.find(b"\n", place) + 1
        if not end:
            # Refused early: the line of a client with other line ends might never come.
            if data[place] not in _HEXDIGITS:
                raise ProtocolError(400, "a chunk has no size")
            return self._hold(data, place)
        found = _SIZE_LINE.fullmatch(data, place, end)
        # An empty group stands for zeros alone, and those must be there.
        if found is None or data[place] not in _HEXDIGITS:
            raise ProtocolError(400, "the line of a chunk is not size and extensions")
        size = int(found[1] or b"0", 16)
        if size > _MAX_SIZE:
            raise ProtocolError(400, "a chunk is not below 2^63")
        self._overhead += self._cost(end - place)
        self._trailers = not size
        self._left = size + 2 if size else 0
        return end

    def _trailer_end(self, data: bytes, place: int) -> int:
        if data.startswith(b"\r\n", place):
            end = place
        else:
            end = data.find(b"\r\n\r\n", place) + 2
            if end < 2:  # noqa: PLR2004 - not found
                return self._hold_trailers(data, place)
        self._overhead += self._cost(end + 2 - place)
        check_trailers(data[place:end], self._settings.max_header_count)
        self.complete = True
        return end + 2

    def _hold_trailers(self, data: bytes, place: int) -> int:
        if STRAY.search(data, max(place, self._scanned - 1)):
            raise ProtocolError(400, "a trailer is not a line of text")
        return self._hold(data, place)

    def _hold(self, data: bytes, place: int) -> int:
        """Keep the start of a line until the rest of it arrives."""
        self._cost(len(data) - place)
        self._held = data[place:]
        return len(data)

    def _cost(self, size: int) -> int:
        """Return what a line counts, or refuse it if that is too much."""
        cost = max(0, size - _FREE)
        if self._overhead + cost > self._settings.max_head_bytes:
            raise ProtocolError(
                431, "chunk extensions and trailers are too large", limit="max_head_bytes"
            )
        return cost
