"""Encoder and parser agree on any events, any bytes and any way to cut them into chunks."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from h3trio._wire.event import MAX_RETRY, SSEEvent
from h3trio._wire.parser import EventTooLargeError, SSEParser

# Half anything, half what parsers trip over.
NASTY = st.sampled_from("\r\n\r\n :\0\v\f\x1c\x85\u2028\ufeff\ufffd↗😀di1")
TEXT = st.text(NASTY | st.characters(codec="utf-8"), max_size=12)
ONE_LINE = TEXT.map(lambda text: text.translate(dict.fromkeys(map(ord, "\r\n\0"))))

EVENTS = st.lists(
    st.builds(
        SSEEvent,
        st.none() | TEXT,
        event=st.none() | ONE_LINE,
        id=st.none() | ONE_LINE,
        retry=st.none() | st.integers(0, MAX_RETRY),
        # Always there, so that no event is empty.
        comment=TEXT,
    )
    | st.builds(SSEEvent, TEXT)
    | st.builds(SSEEvent, id=ONE_LINE),
    max_size=4,
)

BYTES = [
    b"\r",
    b"\n",
    b"\r\n",
    b":",
    b" ",
    b"\0",
    b"1",
    b"\xff",
    b"\xe2\x80",
    b"\xef",
    b"\xef\xbb\xbf",
]
FIELDS = [b"data", b"data: x", b"event: e", b"id", b"id: 1", b"retry", b"retry: 5"]
STREAM = st.binary(max_size=100) | st.lists(st.sampled_from([*BYTES, *FIELDS]), max_size=40).map(
    b"".join
)

CUTS = st.lists(st.integers(0, 300), max_size=12)


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    """Cut a stream at these places, twice at one of them for an empty chunk."""
    bounds = [0, *sorted(min(place, len(stream)) for place in places), len(stream)]
    return [stream[start:end] for start, end in pairwise(bounds)]


def normal(data: str) -> str:
    """Write every line end as LF, as clients see it."""
    return data.replace("\r\n", "\n").replace("\r", "\n")


def dispatched(events: list[SSEEvent]) -> list[SSEEvent]:
    """Say what a client sees of events that were sent."""
    seen, last_id = [], ""
    for event in events:
        last_id = last_id if event.id is None else event.id
        if event.data is not None:
            seen.append(SSEEvent(normal(event.data), event=event.event or "message", id=last_id))
    return seen


def outcome(chunks: list[bytes], cap: int = 2**20) -> tuple[object, ...]:
    """Feed the chunks; return all that can be seen of it, the error too."""
    parser = SSEParser(max_event_size=cap)
    events: list[SSEEvent] = []
    error = None
    try:
        for chunk in chunks:
            events += parser.feed(chunk)
    except EventTooLargeError as exc:
        events += exc.events
        error = str(exc)
    return events, error, parser.last_event_id, parser.retry


@given(EVENTS, CUTS)
@example([SSEEvent("a\r\nb", id=""), SSEEvent(" c\r", event=":")], [8, 9])
def test_what_is_encoded_is_what_is_parsed(events: list[SSEEvent], places: list[int]) -> None:
    """Any events, encoded and cut anywhere, are parsed as the events they were."""
    wire = b"".join(event.encode() for event in events)
    retries = [event.retry for event in events if event.retry is not None]
    ids = [event.id for event in events if event.id is not None]
    parsed, error, last_event_id, retry = outcome(cut(wire, places))
    assert parsed == dispatched(events)
    assert error is None
    assert last_event_id == (ids[-1] if ids else "")
    assert retry == (retries[-1] if retries else None)


@given(EVENTS)
def test_what_is_parsed_can_be_sent_on(events: list[SSEEvent]) -> None:
    """Encoding parsed events gives a stream with the same events."""
    seen = dispatched(events)
    assert SSEParser().feed(b"".join(event.encode() for event in seen)) == seen


@given(STREAM, CUTS)
@example(b"\xef\xbb\xbfdata: x\r\n\r\n", [1, 2, 10, 11, 11, 12])
def test_any_cut_gives_the_same(stream: bytes, places: list[int]) -> None:
    """Any bytes are read without an error, and how they are cut changes nothing."""
    whole = outcome([stream])
    assert whole[1] is None
    assert outcome(cut(stream, places)) == whole
    assert outcome([stream[i : i + 1] for i in range(len(stream))]) == whole


@given(STREAM, CUTS, st.integers(1, 30))
@example(b"data: a\n\ndata: b\n\ndata: too large\n\n", [10], 8)
def test_any_cut_gives_the_same_error(stream: bytes, places: list[int], cap: int) -> None:
    """Under a tight cap too: the same events, and the same error or none."""
    whole = outcome([stream], cap)
    assert outcome(cut(stream, places), cap) == whole
    assert outcome([stream[i : i + 1] for i in range(len(stream))], cap) == whole
