"""Counting what comes over a stream: events, comments, silences, whatever the pieces."""

from __future__ import annotations

import pytest

from h3trio._cli.doctor.reading import MAX_BURSTS, MAX_EVENT_BYTES, MAX_IDS, Reading

STREAM = b":\r\nid: 1\r\ndata: a\r\n\r\n: two\n:three\n\nid: 2\ndata: b\n\ndata: c\n\ndata: d"


def read(*pieces: tuple[float, bytes]) -> Reading:
    """Read pieces that come at these times."""
    reading = Reading()
    for at, piece in pieces:
        reading.feed(at, piece)
    return reading


@pytest.mark.parametrize("size", [1, 2, 3, len(STREAM)])
def test_events_and_comments_are_counted(size: int) -> None:
    """However the bytes are cut, the counts are the same."""
    pieces = [(0.0, STREAM[at : at + size]) for at in range(0, len(STREAM), size)]
    reading = read(*pieces)
    assert (reading.events, reading.comments, reading.numbered) == (3, 3, 2)
    assert (list(reading.ids), reading.last_event_id) == (["1", "2"], "2")
    assert reading.bytes == len(STREAM)
    assert len(reading.bursts) == 1
    assert reading.is_inside


def test_silences_are_told_apart() -> None:
    """Bytes within a moment are one burst; a comment alone, after a silence, is a heartbeat."""
    reading = read(
        (0.5, b":\n"), (0.52, b"\n"), (3.5, b":\n\n"), (7, b"data: a\n\n:\n"), (9, b":\n")
    )
    reading.end(12)
    assert reading.first_byte == 0.5
    assert [burst.silence for burst in reading.bursts] == pytest.approx([0.5, 2.98, 3.5, 2])
    assert reading.heartbeats == pytest.approx([2.98, 2])
    assert reading.longest_silence == pytest.approx(3.5)
    reading.end(20)
    assert reading.longest_silence == pytest.approx(11)


@pytest.mark.parametrize(
    ("pieces", "paused"),
    [
        (((0, b"data: a\n\n"), (2, b"data: b\n\n")), 0),
        (((0, b":\n"), (2, b"data: b\n\n")), 0),
        (((0, b":\nretry: 5\n"), (2, b"data: b\n\n")), 0),
        (((0, b"retry"), (0, b": 1"), (0, b"500\n"), (2, b"data: b\n\n")), 0),
        (((0, b"data: a\nretry: 5\n"), (2, b"\n")), 2),
        (((0, b"retry: 1"), (2, b"500\n")), 2),
        (((0, b"data: a\n"), (2, b"\n")), 2),
        (((0, b"data: a"), (2, b"b\n\n"), (5, b"\n")), 2),
        (((0, b":"), (2, b"\n")), 2),
        (((0, b"data: a\n\r"), (2, b"\ndata: b\n\n")), 0),
    ],
)
def test_a_pause_in_the_middle_of_an_event(
    pieces: tuple[tuple[float, bytes], ...], paused: float
) -> None:
    """A silence counts as such only where an event, or a line, was unfinished."""
    assert read(*pieces).paused_inside == paused


def test_texts_are_found_in_events() -> None:
    """The first event whose data has a text tells when it arrived."""
    reading = Reading()
    reading.look_for("x 1")
    reading.feed(1, b"event: x 1\ndata: none\n\n")
    reading.feed(2, b'data: {"a": "x 1"}\n\n')
    reading.feed(3, b"data: x 1\n\n")
    assert reading.arrivals == {"x 1": 2}


def test_a_compression_that_is_not_undone() -> None:
    """Bytes in a compression that isn't known are only timed."""
    reading = Reading(is_readable=False)
    reading.feed(1, b"garbled")
    assert (reading.events, reading.bytes, reading.first_byte) == (0, 7, 1)


def test_a_giant_event_is_damage() -> None:
    """A giant event ends the counting, not the reading."""
    reading = read((1, b"data: a\n\ndata: " + bytes(MAX_EVENT_BYTES)), (2, b"data: a\n\n"))
    assert "is above 16,777,216 bytes" in reading.damage
    assert (reading.events, reading.last_byte) == (1, 2)


def test_what_is_kept_is_bounded() -> None:
    """Of a long stream the newest is kept, the counts are of all."""
    reading = read(*((float(n), b"id: %d\ndata:\n\n" % n) for n in range(MAX_BURSTS + 5)))
    assert (len(reading.bursts), len(reading.ids)) == (MAX_BURSTS, MAX_IDS)
    assert (reading.events, reading.numbered) == (MAX_BURSTS + 5, MAX_BURSTS + 5)
