"""`SSEParser`: each rule of WHATWG HTML 9.2.6, whole, byte by byte and with junk behind."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, TypeAlias, cast

import pytest
from tables import table

from h3trio._wire.event import MAX_RETRY, SSEEvent
from h3trio._wire.parser import DEFAULT_MAX_EVENT_SIZE, EventTooLargeError, SSEParser

if TYPE_CHECKING:
    from collections.abc import Callable

Cut: TypeAlias = "Callable[[bytes], list[bytes]]"

BOM = b"\xef\xbb\xbf"


def message(data: str, *, event: str = "message", id: str = "") -> SSEEvent:
    """Make an event as a parser does, with type and id filled in."""
    return SSEEvent(data, event=event, id=id)


def feed_all(parser: SSEParser, chunks: list[bytes]) -> list[SSEEvent]:
    """Feed one chunk after the other and join what comes out."""
    return [event for chunk in chunks for event in parser.feed(chunk)]


def whole(stream: bytes) -> list[bytes]:
    """Leave a stream in one piece."""
    return [stream]


def byte_by_byte(stream: bytes) -> list[bytes]:
    """Cut a stream into single bytes."""
    return [stream[i : i + 1] for i in range(len(stream))]


def parse(stream: bytes) -> tuple[list[SSEEvent], str, int | None]:
    """Parse a stream in several ways, which must agree; return events, last id, retry."""
    junk = [b"id: junk", b"\xff\0"]
    outcomes = []
    for chunks in ([stream], byte_by_byte(stream), [stream, *junk], [b"", stream, b"", b""]):
        parser = SSEParser()
        outcomes.append((feed_all(parser, chunks), parser.last_event_id, parser.retry))
    assert outcomes.count(outcomes[0]) == len(outcomes)
    return outcomes[0]


@table(
    "stream, events",
    [
        # Lines and blocks.
        (b"", []),
        (b"\n\r\r\n\n", []),
        (b"data: a\n\n", [message("a")]),
        (b"data: a\r\r", [message("a")]),
        (b"data: a\r\n\r\n", [message("a")]),
        (b"data: a\n\r", [message("a")]),
        (b"data: a\r\ndata: b\rdata: c\n\n", [message("a\nb\nc")]),
        (b"data: a\n\ndata: b\n\n", [message("a"), message("b")]),
        (b"data: a\r\rdata: b\r\r", [message("a"), message("b")]),
        # `data`: the value may be empty or missing, the field may not.
        (b"data:\n\n", [message("")]),
        (b"data\n\n", [message("")]),
        (b"data\ndata\n\n", [message("\n")]),
        (b"data:a\ndata:\n\n", [message("a\n")]),
        (b"data:\ndata:a\n\n", [message("\na")]),
        # One space is removed, no more and nothing else.
        (b"data:a\n\ndata: a\n\ndata:  a \n\n", [message("a"), message("a"), message(" a ")]),
        (b"data:\ta\n\n", [message("\ta")]),
        (b"data : a\n\n", []),
        (b" data: a\n\n", []),
        # The first colon counts.
        (b"data: a: b\n\n", [message("a: b")]),
        (b"data::\n\n", [message(":")]),
        # Comments and unknown fields.
        (b": x\n:\n:data: y\n\n", []),
        (b"data: a\n: x\ndata: b\n\n", [message("a\nb")]),
        (b"dat: a\nDATA: b\ndatax: c\nx\ndata\0: d\n\n", []),
        # `event`: the last one counts, for one block only, and empty means "message".
        (b"event: e\ndata: a\n\ndata: b\n\n", [message("a", event="e"), message("b")]),
        (b"data: a\nevent: e\n\n", [message("a", event="e")]),
        (b"event: e\nevent: f\ndata: a\n\n", [message("a", event="f")]),
        (b"event: e\nevent:\ndata: a\n\n", [message("a")]),
        (b"event: e\nevent\ndata: a\n\n", [message("a")]),
        (b"event: e\n\ndata: a\n\n", [message("a")]),
        # `id`: stays for the blocks that follow, until changed or emptied.
        (b"id: 1\ndata: a\n\ndata: b\n\n", [message("a", id="1"), message("b", id="1")]),
        (b"id: 1\nid: 2\ndata: a\n\n", [message("a", id="2")]),
        (b"id: 1\n\ndata: a\n\n", [message("a", id="1")]),
        (b"id: 1\ndata: a\n\nid\ndata: b\n\n", [message("a", id="1"), message("b")]),
        (b"id: 1\nid: 2\0\ndata: a\n\n", [message("a", id="1")]),
        (b"id:  1 \ndata: a\n\n", [message("a", id=" 1 ")]),
        # What is cut off by the end is discarded.
        (b"data: a", []),
        (b"data: a\n", []),
        (b"data: a\n\ndata: b\n", [message("a")]),
        # One BOM, at the very start.
        (BOM + b"data: a\n\n", [message("a")]),
        (BOM + BOM + b"data: a\n\ndata: b\n\n", [message("b")]),
        (b"\n" + BOM + b"data: a\n\n", []),
        (BOM[:2] + b"data: a\n\ndata: b\n\n", [message("b")]),
        (BOM[:1] + b"\ndata: b\n\n", [message("b")]),
        (BOM + b"\n\n", []),
        # UTF-8: one U+FFFD for each maximal part of a broken character.
        ("data: é↗😀\n\n".encode(), [message("é↗😀")]),
        (b"data: \xff\xfe\n\n", [message("\ufffd\ufffd")]),
        (b"data: a\xe2\x86b\n\n", [message("a\ufffdb")]),
        (b"data: \xf0\x9f\x98\ndata: x\n\n", [message("\ufffd\nx")]),
        (b"data: \xed\xa0\x80\n\n", [message("\ufffd\ufffd\ufffd")]),
        (b"event: \xc3\nid: \xc3\ndata: x\n\n", [message("x", event="\ufffd", id="\ufffd")]),
        (b"\xffdata: x\n\n", []),
        # Characters that other software takes for line ends.
        ("data: a\x85b\u2028c\u2029d\ve\ff\n\n".encode(), [message("a\x85b\u2028c\u2029d\ve\ff")]),
        (b"data: a\x1cb\x1dc\x1ed\n\n", [message("a\x1cb\x1dc\x1ed")]),
        (b"data: a\0b\n\n", [message("a\0b")]),
    ],
)
def test_events(stream: bytes, events: list[SSEEvent]) -> None:
    """A stream gives these events, however it is cut."""
    assert parse(stream)[0] == events


def test_an_event_type_may_hold_nul() -> None:
    """NUL in an event type is passed through, as 9.2.6 says, though we'd never send it."""
    ((event,), _, _) = parse(b"event: a\0b\ndata: x\n\n")
    assert (event.event, event.data) == ("a\0b", "x")


def test_a_parsed_event_has_neither_retry_nor_comment() -> None:
    """The reconnection time is the stream's; a comment is nobody's."""
    ((event,), _, retry) = parse(b": c\nretry: 5\ndata: x\n\n")
    assert (event.retry, event.comment, retry) == (None, None, 5)


@table(
    "stream, last_event_id",
    [
        (b"", ""),
        (b"id: 1\ndata: x\n\n", "1"),
        (b"id: 1\n\n", "1"),
        (b"id: 1\n", ""),
        (b"id: 1\n\nid: 2\n", "1"),
        (b"id: 1\n\nid\n\n", ""),
        (b"id: 1\n\nid: \n\n", ""),
        (b"id: 1\n\nid: \0\n\n", "1"),
        (b"id: 1\n\ndata: x\n\n", "1"),
    ],
)
def test_last_event_id(stream: bytes, last_event_id: str) -> None:
    """The last event id counts from the blank line on, with or without data."""
    assert parse(stream)[1] == last_event_id


def test_last_event_id_goes_on_from_the_stream_before() -> None:
    """A parser for a reconnection starts with the id in force."""
    parser = SSEParser(last_event_id="1")
    assert parser.last_event_id == "1"
    assert parser.feed(b"data: a\n\nid\ndata: b\n\n") == [message("a", id="1"), message("b")]
    assert parser.last_event_id == ""


@table("bad", ["a\nb", "a\rb", "a\0b", "\ud800"])
def test_an_impossible_last_event_id_is_refused(bad: str) -> None:
    """An id that no stream can set can't be given either: it would end up in events."""
    with pytest.raises(ValueError, match=r"^last_event_id must not contain"):
        SSEParser(last_event_id=bad)


@table(
    "stream, retry",
    [
        (b"", None),
        (b"retry: 5\n", 5),
        (b"retry: 5", None),
        (b"retry:0\n", 0),
        (b"retry: 005\n", 5),
        (b"retry: 5\nretry: 6\n", 6),
        (b"retry: 5\nretry\n", 5),
        (b"retry: 5\nretry:\n", 5),
        (b"retry: 5\nretry:  6\n", 5),
        (b"retry: 5\nretry: 6 \n", 5),
        (b"retry: 5\nretry: -6\n", 5),
        (b"retry: 5\nretry: +6\n", 5),
        (b"retry: 5\nretry: 6_0\n", 5),
        (b"retry: 5\nretry: 6.0\n", 5),
        (b"retry: 5\nretry: 0x6\n", 5),
        ("retry: 5\nretry: ٦\nretry: ²\n".encode(), 5),
        (b"retry: %d\n" % MAX_RETRY, MAX_RETRY),
        (b"retry: 5\nretry: %d\n" % (MAX_RETRY + 1), 5),
        (b"retry: 5\nretry: 1" + b"0" * 5000 + b"\n", 5),
        (b"retry: " + b"0" * 5000 + b"7\n", 7),
    ],
)
def test_retry(stream: bytes, retry: int | None) -> None:
    """Only ASCII digits, of a number that can be held, set the reconnection time."""
    assert parse(stream)[2] == retry


def test_an_event_does_not_wait_for_the_lf_behind_its_cr() -> None:
    """CR ends a line at once; the LF of a CRLF that comes later is no second line end."""
    parser = SSEParser()
    assert parser.feed(b"data: a\r") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"\r") == [message("a")]
    assert parser.feed(b"\ndata: b\r\n") == []
    assert parser.feed(b"") == []
    assert parser.feed(b"\r") == [message("b")]
    assert parser.feed(b"") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: c\r") == []
    assert parser.feed(b"") == []
    assert parser.feed(b"\n") == []
    assert parser.feed(b"data: d\n\n") == [message("c\nd")]


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_can_be_fed(
    kind: Callable[[bytearray], bytes | bytearray | memoryview],
) -> None:
    """Chunks may be bytes, bytearray or memoryview, and belong to the caller again after."""
    parser = SSEParser()
    chunk = bytearray(b"id: 1\ndata: a\n")
    assert parser.feed(kind(chunk)) == []
    chunk[:] = b"x" * len(chunk)
    assert parser.feed(kind(bytearray(b"\n"))) == [message("a", id="1")]


@pytest.mark.parametrize("chunk", ["data: a\n\n", 5, None])
def test_what_is_not_bytes_is_refused(chunk: object) -> None:
    """Text, numbers and None are a TypeError, and the parser can go on."""
    parser = SSEParser()
    with pytest.raises(TypeError, match="bytes-like"):
        parser.feed(cast("bytes", chunk))
    assert parser.feed(b"data: a\n\n") == [message("a")]


# --- the size cap ---


def test_the_default_cap_lets_a_million_bytes_pass() -> None:
    """A default parser reads an event of a million bytes, and refuses 2 MiB."""
    assert DEFAULT_MAX_EVENT_SIZE == 2**20
    (event,) = SSEParser().feed(b"data: " + b"x" * 1_000_000 + b"\n\n")
    assert event.data == "x" * 1_000_000
    with pytest.raises(EventTooLargeError, match="max_event_size, 1048576 bytes"):
        SSEParser().feed(b"data: " + b"x" * 2**21)


CAP = 16

FITTING = [
    b"data: 7890123456\n\n",
    b"data:67890123456\r\n\r\n",
    b": 34567890123456\n\n",
    b"data: 789012345\ndata: 23456\n\n",  # 9 + 1 + 5 + 1 bytes of data
    b"data\n" * CAP + b"\n",
    (b"data: 789012345\n\n" * 3) + b": x\n" * 100,
    b"data: 7890123456",
    BOM + b"data: 7890123456\n\n",
]
TOO_LARGE = [
    b"data: 78901234567\n\n",
    b"data: 78901234567",
    b"data:678901234567\r\n\r\n",
    b": 345678901234567",
    b"unknown field, no colon\n",
    b"id: 5678901234567\n",
    b"data: 789012345\ndata: 234567\n\n",
    b"data: 789012345\ndata: 234567\n",
    b"data\n" * (CAP + 1),
    b"data: 7\n" * 100,
    BOM + b"data: 78901234567\n\n",
]


@table("cut", [whole, byte_by_byte])
@table("stream", FITTING)
def test_up_to_the_cap_all_is_read(stream: bytes, cut: Cut) -> None:
    """Lines and data of exactly the cap are read, any number of them."""
    expected = feed_all(SSEParser(), [stream])
    assert feed_all(SSEParser(max_event_size=CAP), cut(stream)) == expected


@table("cut", [whole, byte_by_byte])
@table("stream", TOO_LARGE)
def test_above_the_cap_is_an_error(stream: bytes, cut: Cut) -> None:
    """One byte more than the cap, in a line of any kind or in an event's data, is refused."""
    with pytest.raises(EventTooLargeError, match="max_event_size, 16 bytes") as caught:
        feed_all(SSEParser(max_event_size=CAP), cut(stream))
    assert caught.value.limit == CAP
    assert caught.value.events == ()


def test_an_unfinished_line_is_refused_at_the_byte_that_is_too_much() -> None:
    """The error doesn't wait for a line end that may never come."""
    parser = SSEParser(max_event_size=CAP)
    assert feed_all(parser, byte_by_byte(b"x" * CAP)) == []
    with pytest.raises(EventTooLargeError):
        parser.feed(b"x")


def test_events_before_the_error_are_not_lost() -> None:
    """What was complete before the event that is too large comes with the error, once."""
    parser = SSEParser(max_event_size=CAP)
    stream = b"id: 1\nretry: 5\ndata: a\n\ndata: b\n\nid: 2\nretry: 000000006" + b"0" * CAP
    with pytest.raises(EventTooLargeError) as caught:
        parser.feed(stream)
    assert caught.value.events == (message("a", id="1"), message("b", id="1"))
    assert (parser.last_event_id, parser.retry) == ("1", 5)
    with pytest.raises(EventTooLargeError) as again:
        parser.feed(b"\n\n")
    assert again.value.events == ()


def test_after_the_error_nothing_is_read_any_more() -> None:
    """A stream that went over the cap stays refused, with the same words."""
    parser = SSEParser(max_event_size=CAP)
    messages = set()
    for chunk in (b"x" * (CAP + 1), b"\n\ndata: a\n\n", b""):
        with pytest.raises(EventTooLargeError) as caught:
            parser.feed(chunk)
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_the_error_survives_pickling() -> None:
    """The error keeps its words, its limit and its events on the way to another process."""
    error = EventTooLargeError("too large", limit=16, events=[message("a")])
    copied = pickle.loads(pickle.dumps(error))  # noqa: S301 - because the pickle is our own
    assert (str(copied), copied.limit, copied.events) == ("too large", 16, (message("a"),))
    assert isinstance(error, ValueError)


@table(
    "size, error",
    [(0, ValueError), (-1, ValueError), (True, TypeError), (1.5, TypeError), ("1", TypeError)],
)
def test_a_cap_that_is_no_cap_is_refused(size: object, error: type[Exception]) -> None:
    """`max_event_size` is an integer of at least 1."""
    with pytest.raises(error, match=r"^max_event_size must be"):
        SSEParser(max_event_size=cast("int", size))


@pytest.mark.slow
def test_a_megabyte_byte_by_byte() -> None:
    """Work grows with the bytes, not with bytes times length: else this would take minutes."""
    parser = SSEParser()
    line = b"data: " + b"x" * (2**20 - 6)
    assert feed_all(parser, byte_by_byte(line + b"\n")) == []
    (event,) = parser.feed(b"\n")
    assert event.data == "x" * (2**20 - 6)
