"""The counts of a stream, however it is cut and framed."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio import SSEParser
from h3trio._cli.bench.count import (
    MAX_CHUNK_LINE,
    MAX_EVENT_BYTES,
    MEMO_READS,
    BadStreamError,
    Blocks,
    BodyReader,
    Chunks,
    Mark,
    Memo,
    analyse,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAM = (
    b"id: e-4\nretry: 2000\n\n"
    b"id: e-5\ndata: 1700000000.5 n=0\n\n"
    b":\n"
    b"event: note\nid: e-6\ndata: two\ndata: lines\n\n"
    b'id: e-7\ndata: {"t": 1700000002.25, "x": 1}\n\n'
    b"data\n\n"
    b": comment\n\n"
)


def test_what_stands_alone_hides_no_event() -> None:
    """A `retry:` and comments in front of an event, without a blank line, are no part of it."""
    blocks = Blocks()
    assert blocks.feed(b":\nretry: 1500\n") == b""
    found = analyse(blocks.feed(b"id: e-5\ndata: 1700000000.5 n=0\n\n:\n"))
    assert (found.events, found.timed, found.run) == (1, 1, (b"e-", 5, 5))


def chunked(body: bytes, size: int) -> bytes:
    """Frame a body in chunks of this size, the last one and its CRLF included."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return framed + b"0\r\n\r\n"


def cuts(data: bytes, size: int) -> Iterator[bytes]:
    """Cut bytes into pieces of this size."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def test_analysis_of_whole_blocks() -> None:
    """Events, times, ids and resets are found; comments and blocks without data are no events."""
    found = analyse(STREAM + b'event: reset\nid: e-9\ndata: {"reason":"x"}\n\n')
    assert found.events == 5
    assert (found.timed, found.first, found.last) == (2, 1700000000.5, 1700000002.25)
    assert found.marks[:2] == (Mark(b"e-", 4, is_event=False), Mark(b"e-", 5, is_event=True))
    assert (found.unnumbered, found.resets, found.run) == (1, 1, None)


def test_ids_that_count_up_are_a_run() -> None:
    """Events whose ids count up by one, under one head, are summed up as a run."""
    assert analyse(b"id:a-9\ndata:x\n\nid:a-10\ndata:y\n\n").run == (b"a-", 9, 10)
    assert analyse(b"id: a-1\ndata: x\n\nid: b-2\ndata: x\n\n").run is None
    assert analyse(b"id: 1\ndata: x\n\nid: 3\ndata: x\n\n").run is None
    assert analyse(b"id: 1\ndata: x\n\ndata: x\n\n").run is None


TIMES = [
    (b"1700000000 x", 1.7e9),
    (b"1700000000.25", 1700000000.25),
    (b'{"t":1700000000.5}', 1700000000.5),
    (b'{ "t": 1700000000.5, "u": 2}', 1700000000.5),
    (b"17", 0),
    (b"1700000000.5.5", 0),
    (b"1700000000x", 0),
    (b'{"u": 1, "t": 1700000000.5}', 0),
    (b"x 1700000000.5", 0),
]


def test_formats_of_times(subtests: pytest.Subtests) -> None:
    """A time stands first in the data, bare or as a JSON object's first member."""
    for data, time in TIMES:
        with subtests.test(data=data, time=time):
            assert analyse(b"data: " + data + b"\n\n").first == time


def test_count_is_the_same_however_it_is_cut(subtests: pytest.Subtests) -> None:
    """Lines of any ending, chunks of any size and reads of any size give the same count."""
    ends, sizes = (b"\n", b"\r\n", b"\r"), (1, 2, 3, 7, 64, 10_000)
    for end, size, frame in itertools.product(ends, sizes, (None, 1, 5, 50, 10_000)):
        with subtests.test(end=end, size=size, frame=frame):
            body = STREAM.replace(b"\n", end)
            sent = body if frame is None else chunked(body, frame)
            reader = BodyReader(chunked=frame is not None)
            found = [reader.feed(piece) for piece in cuts(sent, size)]
            assert sum(f.events for f in found) == 4
            assert [m.number for f in found for m in f.marks] == [4, 5, 6, 7]
            assert sum(f.timed for f in found) == 2
            assert reader.ended == (frame is not None)


def test_what_is_held_grows_in_place() -> None:
    """An event that comes in many pieces is copied once, and not for each of them."""
    held = bytearray()
    blocks = Blocks(held)
    assert [blocks.feed(b"data: x") for _ in range(99)] == [b""] * 99
    assert blocks.feed(b"\n\nid") == b"data: x" * 99 + b"\n\n"
    assert held.decode() == "id"


line = st.sampled_from(
    [b"data: x", b"data", b"id: 7", b"", b"", b": c", b"event: e", b"database: no", b"x\rdata:y"]
)


@given(st.lists(line, max_size=12), st.integers(1, 9), st.integers(1, 9))
def test_counts_what_a_parser_counts(lines: list[bytes], frame: int, size: int) -> None:
    """The events are those that a parser dispatches."""
    body = b"\n".join(lines)
    reader = BodyReader(chunked=True)
    events = sum(reader.feed(piece).events for piece in cuts(chunked(body, frame), size))
    assert events == len(SSEParser().feed(body))


@given(st.binary(max_size=60), st.integers(1, 20), st.integers(1, 20))
def test_chunks_are_taken_off(body: bytes, frame: int, size: int) -> None:
    """Whatever the chunks and the reads, the body comes out, and its end is seen."""
    chunks = Chunks()
    sent = chunked(body, frame) + b"junk"
    assert b"".join(map(chunks.feed, cuts(sent, size))) == body
    assert chunks.ended


BAD_CHUNK_SIZES = [b"", b"x", b"-1", b"+1", b"0x1", b"1_0", b"1" * 16]


def test_bad_chunk_sizes(subtests: pytest.Subtests) -> None:
    """A chunk without a size ends the reading."""
    for line in BAD_CHUNK_SIZES:
        with subtests.test(line=line), pytest.raises(BadStreamError):
            Chunks().feed(line + b"\r\n")


def test_chunk_extensions_and_their_limit() -> None:
    """Extensions are skipped; a line of the limit waits for its end, a longer one doesn't."""
    assert Chunks().feed(b"2;a=b\r\nhi\r\n") == b"hi"
    assert Chunks().feed(b"1;".ljust(MAX_CHUNK_LINE, b"x")) == b""
    with pytest.raises(BadStreamError):
        Chunks().feed(b"1;".ljust(MAX_CHUNK_LINE + 1, b"x"))


def test_longest_event() -> None:
    """An event of the limit is held; one byte more ends the reading."""
    blocks = Blocks()
    assert blocks.feed(b"x" * MAX_EVENT_BYTES) == b""
    with pytest.raises(BadStreamError):
        blocks.feed(b"x")


def test_same_bytes_are_analysed_once() -> None:
    """A second stream that is sent the same gets the same finding, and is as far as the first."""
    memo, one, other = Memo(), BodyReader(chunked=True), BodyReader(chunked=True)
    sent = chunked(STREAM, 1000).removesuffix(b"0\r\n\r\n")
    found = memo.read(one, sent)
    assert memo.read(other, sent) is found
    assert found.events == 4
    assert other.is_between


def test_memory_is_not_used_amid_an_event() -> None:
    """Bytes that go on with an event that was cut off mean something else."""
    memo = Memo()
    piece = b"data: 1\n\n"
    assert memo.read(BodyReader(chunked=False), piece).events == 1
    cut = BodyReader(chunked=False)
    assert memo.read(cut, b": ") == analyse(b"")
    assert memo.read(cut, piece).events == 0
    assert memo.read(cut, piece).events == 1


def test_last_chunk_is_not_from_memory() -> None:
    """The end of a stream is seen by each of them."""
    memo = Memo()
    for _ in range(2):
        reader = BodyReader(chunked=True)
        memo.read(reader, chunked(STREAM, 1000))
        assert reader.ended


def test_memory_is_bounded() -> None:
    """One more than is remembered, and what was first is analysed anew."""
    memo = Memo()
    first = memo.read(BodyReader(chunked=False), b"data: 0\n\n")
    for number in range(1, MEMO_READS):
        memo.read(BodyReader(chunked=False), b"data: %d\n\n" % number)
    assert memo.read(BodyReader(chunked=False), b"data: 0\n\n") is first
    memo.read(BodyReader(chunked=False), b"data: x\n\n")
    assert memo.read(BodyReader(chunked=False), b"data: 0\n\n") is not first
