"""The meaning of a request's body, as its header tells it: content coding, charset, range.

A reader that overlooks one of these takes the body for something else than it is, and nobody
notices. So each is obeyed, or refused with the status that the RFC has for it.

`Decoder` undoes a coding in steps, each of bounded input and output, without I/O: a body of 64 KiB
may stand for 64 MiB.
"""

from __future__ import annotations

import re
import zlib
from typing import TYPE_CHECKING, Final, final

from .errors import HTTPError

if TYPE_CHECKING:
    from .headers import Headers

STEP_BYTES: Final = 64 * 1024
"""Most bytes that one step of a `Decoder` returns; as many as one read of a socket."""

INPUT_BYTES: Final = 4 * 1024
"""Most encoded bytes that one step reads. Blocks of a few bytes, each with Huffman tables of its
own, take longest: so much of them stays below 2 ms, which one connection may take."""

# RFC 9110 sections 8.4.1.2 and 8.4.1.3: "deflate" is the zlib format of RFC 1950, and a recipient
# "SHOULD consider 'x-gzip' to be equivalent to 'gzip'". The numbers are zlib's `wbits`.
_WBITS: Final = {"gzip": zlib.MAX_WBITS + 16, "x-gzip": zlib.MAX_WBITS + 16, "deflate": 15}
_ACCEPTED: Final = {"Accept-Encoding": "gzip, deflate"}

# RFC 9110 section 5.6.6, without its exact grammar: a `;` in quotes begins no parameter. Nothing is
# tried twice: a run of blanks of 16 KiB would take a second.
_PARAMETER: Final = re.compile(r';[ \t]*+([^=;"\s]*+)[ \t]*+=[ \t]*+("(?:[^"\\]|\\.)*+"?|[^;"]*+)')
# US-ASCII is a part of UTF-8. The label without a hyphen is one of WHATWG Encoding section 4.2.
_UTF_8: Final = frozenset({"utf-8", "utf8", "us-ascii"})


def content_coding(headers: Headers) -> str | None:
    """Return the one coding that a body is in, `None` if it is sent as it is.

    Raises:
        HTTPError: 415 with `Accept-Encoding` for a coding that isn't undone here, and for more
            than one (RFC 9110 section 15.5.16); 400 for a part of a body (section 14.5).
    """
    if "content-range" in headers:
        raise HTTPError(400, "Content-Range: a part of a body isn't taken")
    names = [
        name
        for line in headers.get_list("content-encoding")
        for member in line.split(",")
        # RFC 9110 section 8.4: "identity" stands for none.
        if (name := member.strip(" \t").lower()) not in ("", "identity")
    ]
    if not names:
        return None
    if len(names) > 1 or names[0] not in _WBITS:
        raise HTTPError(415, "Content-Encoding is gzip, deflate or none", headers=_ACCEPTED)
    return names[0]


def require_utf8(headers: Headers) -> None:
    """See that a body of text says nothing of another charset than UTF-8.

    Raises:
        HTTPError: 415. To decode it was rejected: text is UTF-8 wherever it goes from here, and
            what a charset's name stands for is not the same everywhere.
    """
    for value in headers.get_list("content-type"):
        for name, text in _PARAMETER.findall(value):
            if name.lower() == "charset" and text.strip('" \t').lower() not in _UTF_8:
                raise HTTPError(415, "charset: text is taken in UTF-8 only")


@final
class Decoder:
    """Undoes one coding.

    Args:
        coding: what `content_coding` returned.
    """

    __slots__ = ("_at", "_data", "_is_full", "_wbits", "_zlib")

    def __init__(self, coding: str) -> None:
        self._wbits = _WBITS[coding]
        self._zlib = zlib.decompressobj(self._wbits)
        self._data = b""
        self._at = 0
        self._is_full = False

    @property
    def needs_input(self) -> bool:
        """Whether a step without more input would return nothing."""
        return self._at == len(self._data) and not self._is_full

    def feed(self, data: bytes) -> None:
        """Add encoded bytes, once it needs input."""
        self._data, self._at = data, 0

    def step(self, max_bytes: int) -> bytes:
        """Return the next decoded bytes, at most `STEP_BYTES`; `b""` may come before the end.

        Raises:
            HTTPError: 400 for what isn't the coding.
        """
        if self._zlib.eof:
            # RFC 1952 section 2.2: a gzip file is "a series of members". zlib's format has one.
            if self._wbits == zlib.MAX_WBITS:
                raise HTTPError(400, "something follows the compressed body")
            self._zlib = zlib.decompressobj(self._wbits)
        piece = self._data[self._at : self._at + INPUT_BYTES]
        most = min(max_bytes, STEP_BYTES)
        try:
            decoded = self._zlib.decompress(piece, most)
        except zlib.error:
            raise HTTPError(400, "the body isn't in its Content-Encoding") from None
        eof = self._zlib.eof
        self._at += len(piece) - len(self._zlib.unused_data if eof else self._zlib.unconsumed_tail)
        # zlib may hold more of what it has read: it says so only by filling what it was given.
        self._is_full = len(decoded) == most and not eof
        return decoded

    def finish(self) -> None:
        """See that the coding is at its end, once all bytes were fed.

        Raises:
            HTTPError: 400, it is cut off.
        """
        if not self._zlib.eof:
            raise HTTPError(400, "the compressed body ends early")
