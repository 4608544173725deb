"""The chunked coding: data in one piece, extensions and trailers bounded and thrown away."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio import Settings
from h3trio._http.chunks import ChunkReader
from h3trio._http.strict import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterable

SETTINGS = Settings(max_head_bytes=100, max_header_count=3)


def read(pieces: Iterable[bytes]) -> tuple[bytes, bytes | None]:
    """Read a body from pieces; return it, and what is behind its end if it has one."""
    reader, body, behind = ChunkReader(SETTINGS), b"", None
    for piece in pieces:
        if behind is not None:
            behind += piece
            continue
        data, rest = reader.feed(piece)
        body += data
        if reader.complete:
            behind = rest
        else:
            assert rest == b""
    return body, behind


def status_of(sent: bytes) -> int:
    """Return what a body is refused with, whole and byte by byte, 0 if it isn't."""
    statuses = set()
    for size in (len(sent), 1):
        try:
            read(sent[i : i + size] for i in range(0, len(sent), size))
        except ProtocolError as error:
            statuses.add(error.status)
        else:
            statuses.add(0)
    (status,) = statuses
    return status


@pytest.mark.parametrize("behind", [b"", b"GET /", b"\0\xff"])
@pytest.mark.parametrize("size", [1, 2, 5, 1000])
def test_body(size: int, behind: bytes) -> None:
    """A body is its chunks' data, however it is cut, and what comes behind it is left alone."""
    sent = b'3\r\nabc\r\n0A ; x="\\"y"\r\n0123456789\r\n00\r\nT: u\r\n\r\n' + behind
    pieces = [sent[i : i + size] for i in range(0, len(sent), size)]
    assert read(pieces) == (b"abc0123456789", behind)


def test_chunks_come_in_one_piece() -> None:
    """Many chunks that arrive together are one value."""
    reader = ChunkReader(SETTINGS)
    assert reader.feed(b"1\r\nx\r\n" * 1000) == (b"x" * 1000, b"")
    assert not reader.complete


def test_sizes() -> None:
    """A size is below 2^63."""
    assert status_of(b"7fffffffffffffff\r\nabc") == 0
    assert status_of(b"8000000000000000\r\nabc") == 400


def test_extensions_are_bounded_in_total() -> None:
    """All extensions of a body together are bounded; the lines of small chunks don't count."""
    # Of each line 18 bytes are free: a size of 16 digits and the CRLF.
    line = b"1;%b\r\nx\r\n" % (b"e" * 64)
    assert status_of(line * 2) == 0
    assert status_of(line * 2 + b"1;0123456789abc\r\n") == 0
    assert status_of(line * 2 + b"1;0123456789abcdef\r\n") == 431
    assert status_of(b"1\r\nx\r\n" * 1000) == 0
    assert status_of(b"1;" + b"e" * 117) == 431


def test_trailers_are_bounded() -> None:
    """Trailers are bounded in bytes and in number."""
    # With the line's name and both ends, and 18 bytes free.
    assert status_of(b"0\r\nX: %b\r\n\r\n" % (b"x" * 111)) == 0
    assert status_of(b"0\r\nX: %b\r\n\r\n" % (b"x" * 112)) == 431
    assert status_of(b"0\r\n" + b"X: y\r\n" * 3 + b"\r\n") == 0
    assert status_of(b"0\r\n" + b"X: y\r\n" * 4 + b"\r\n") == 431
    assert status_of(b"0\r\n" + b"x" * 119) == 431


CHUNKS = st.lists(st.binary(min_size=1, max_size=20), max_size=5)


@given(CHUNKS, st.binary(max_size=10), st.lists(st.integers(1, 20), max_size=20))
def test_any_body_in_any_pieces(chunks: list[bytes], behind: bytes, cuts: list[int]) -> None:
    """Any data comes out as it went in, wherever it is cut."""
    sent = (
        b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + behind
    )
    pieces = []
    for size in cuts:
        pieces.append(sent[:size])
        sent = sent[size:]
    assert read([piece for piece in [*pieces, sent] if piece]) == (b"".join(chunks), behind)


PARTS = st.sampled_from([b"1", b"0", b"f", b";a", b"\r", b"\n", b"\r\n", b"x", b" ", b"\0", b": "])


@given(st.lists(PARTS, max_size=15).map(b"".join))
def test_any_bytes_are_read_or_refused_alike(sent: bytes) -> None:
    """Whatever is sent, it is read or refused in the same way however it is cut."""
    assert status_of(sent) in {0, 400, 431} if sent else True
