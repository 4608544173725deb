"""The coding and the charset that a request's header names for its body."""

from __future__ import annotations

import gzip
import zlib

import pytest
from tables import table

from h3trio import HTTPError
from h3trio._http.content import INPUT_BYTES, STEP_BYTES, Decoder, content_coding, require_utf8
from h3trio._http.headers import Headers

GZIP = b"\x1f\x8b"
TEXT = b"some text, again and again; " * 20


def fields(name: str, *values: str) -> Headers:
    """Make headers with these lines of one field."""
    return Headers([(name.encode(), value.encode()) for value in values])


def decode(coding: str, *pieces: bytes, max_bytes: int = STEP_BYTES) -> list[bytes]:
    """Decode pieces; return what the steps gave."""
    decoder, steps = Decoder(coding), list[bytes]()
    for piece in pieces:
        decoder.feed(piece)
        while not decoder.needs_input:
            steps.append(decoder.step(max_bytes))
    decoder.finish()
    return steps


@table(
    "lines, coding",
    [
        ((), None),
        (("",), None),
        (("identity",), None),
        (("gzip",), "gzip"),
        (("GZip ",), "gzip"),
        (("x-gzip",), "x-gzip"),
        (("deflate",), "deflate"),
        (("identity, gzip",), "gzip"),
    ],
)
def test_one_coding(lines: tuple[str, ...], coding: str | None) -> None:
    """One coding that is undone here is named in any case; `identity` is none."""
    assert content_coding(fields("content-encoding", *lines)) == coding


@table("lines", [("br",), ("compress",), ("gzip, gzip",), ("gzip", "gzip"), ("gzip;q=1",), ("gz",)])
def test_another_coding(lines: tuple[str, ...]) -> None:
    """Any other coding, and more than one, is a 415 that tells which are taken."""
    with pytest.raises(HTTPError) as caught:
        content_coding(fields("content-encoding", *lines))
    assert caught.value.status == 415
    assert caught.value.headers == {"Accept-Encoding": "gzip, deflate"}


def test_a_part_of_a_body() -> None:
    """A body that says it is a part of another one is a 400."""
    with pytest.raises(HTTPError, match=r"400.*Content-Range"):
        content_coding(fields("content-range", "bytes 0-3/10"))


@table(
    "value, fits",
    [
        ("text/plain", True),
        ("text/plain;charset=UTF-8", True),
        ('text/plain; charset="utf-8"', True),
        ("text/plain; Charset=utf8", True),
        ("text/plain; charset=us-ascii", True),
        ('text/plain; title="; charset=latin-1"', True),
        ("text/plain; charset=iso-8859-1", False),
        ('text/plain; a=b;charset="UTF-16"', False),
        ("text/plain; charset=utf-8; charset=latin-1", False),
        ('text/plain; a="\\""; charset=latin-1', False),
        ("text/plain; charset = latin-1", False),
    ],
)
def test_charset(value: str, *, fits: bool) -> None:
    """A charset is UTF-8 or a part of it, else a 415."""
    headers = fields("content-type", value)
    if fits:
        require_utf8(headers)
    else:
        with pytest.raises(HTTPError, match="415"):
            require_utf8(headers)


CODED = [
    ("gzip", gzip.compress(TEXT)),
    ("x-gzip", gzip.compress(TEXT)),
    ("deflate", zlib.compress(TEXT)),
    ("gzip", gzip.compress(TEXT[:100]) + gzip.compress(b"") + gzip.compress(TEXT[100:])),
]


@table("size", [1, 7, 10_000])
@table("max_bytes", [1, 5, STEP_BYTES])
@table("coding, coded", CODED)
def test_decode(coding: str, coded: bytes, size: int, max_bytes: int) -> None:
    """However it is cut and asked for, it comes out whole; a gzip may have several members."""
    pieces = [coded[start : start + size] for start in range(0, len(coded), size)]
    steps = decode(coding, *pieces, max_bytes=max_bytes)
    assert b"".join(steps) == TEXT
    assert max(map(len, steps)) <= max_bytes


@table("coding, coded", CODED)
def test_a_broken_coding(coding: str, coded: bytes) -> None:
    """What is cut short in a member, changed, followed by something or not coded is a 400."""
    broken = [coded[:size] for size in range(1, len(coded)) if not coded[size:].startswith(GZIP)]
    broken += [coded[:-1] + bytes([coded[-1] ^ 1]), b"", coded + b"x", coded + b"\0", b"{}", TEXT]
    if coding == "deflate":
        broken.append(coded * 2)
        broken.append(zlib.compress(TEXT, wbits=-15))
        with_dictionary = zlib.compressobj(zdict=b"some text")
        broken.append(with_dictionary.compress(TEXT) + with_dictionary.flush())
    for data in broken:
        with pytest.raises(HTTPError) as caught:
            decode(coding, data)
        assert caught.value.status == 400, data


def test_a_step_is_bounded() -> None:
    """A step returns at most 64 KiB, and reads 4 KiB or the end of one member."""
    steps = decode("gzip", gzip.compress(bytes(10 * STEP_BYTES)))
    assert max(map(len, steps)) == STEP_BYTES
    stored = zlib.compress(bytes(3 * INPUT_BYTES), level=0)
    assert max(map(len, decode("deflate", stored))) <= INPUT_BYTES
    assert len(decode("gzip", gzip.compress(b"") * 50)) >= 50
