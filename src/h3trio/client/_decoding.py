"""Taking a stream out of its compression, a bounded piece at a time.

httpx2 can do it too, but all at once: 64 KiB from the network may be 64 MiB of zeros, which would
be in memory before the parser can say that they are too many.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, Protocol, final

from ._errors import ContentEncodingError, LostError

if TYPE_CHECKING:
    from collections.abc import Iterator

PIECE: Final = 64 * 1024
_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS | 32  # zlib finds out which


class Decoder(Protocol):
    """Bytes of a body in, pieces of the stream out."""

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        """Yield what the next bytes hold, at most `PIECE` bytes at a time.

        Raises:
            LostError: the bytes are damaged.
        """
        ...


@final
class Plain:
    """A stream as it is."""

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        for at in range(0, len(raw), PIECE):
            yield raw[at : at + PIECE]


@final
class Inflating:
    """A stream in gzip (of any number of members) or zlib format."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)

    def pieces(self, raw: bytes) -> Iterator[bytes]:
        rest = raw
        while rest:
            if self._inflate.eof:
                self._inflate = zlib.decompressobj(_GZIP_OR_ZLIB)
            # What is left over after a full piece waits inside zlib, the input used up or not.
            while piece := self._decompress(rest):
                rest = self._inflate.unconsumed_tail
                yield piece
            rest = self._inflate.unused_data

    def _decompress(self, data: bytes) -> bytes:
        if self._inflate.eof:
            return b""
        try:
            return self._inflate.decompress(data, PIECE)
        except zlib.error as exc:
            raise LostError(f"the stream's compression is damaged: {exc}") from exc


def decoder_for(content_encoding: str) -> Decoder:
    """Return the decoder for the value of a `Content-Encoding` header, `""` for none.

    Raises:
        ContentEncodingError: it is unknown.
    """
    match content_encoding.strip().lower():
        case "" | "identity":
            return Plain()
        case "gzip" | "x-gzip" | "deflate":
            return Inflating()
        case other:
            raise ContentEncodingError(f"the stream is compressed with {other[:50]!r}")
