"""Findings about a stream in time, each from what was read."""

from __future__ import annotations

import pytest

from h3trio._cli.doctor.check_head import Finding, Severity
from h3trio._cli.doctor.check_stream import diagnose, exit_status
from h3trio._cli.doctor.reading import Reading
from h3trio._cli.doctor.seen import Resumed, Seen, Sent

OK, INFO, WARNING, ERROR = Severity


def reading_of(*pieces: tuple[float, bytes], seconds: float = 20, ended: str = "") -> Reading:
    """Read pieces that come at these times."""
    reading = Reading()
    for number in range(5):
        reading.look_for(f"mark {number}")
    for at, raw in pieces:
        reading.feed(at, raw)
    reading.end(seconds, ended)
    return reading


def found(
    check: str,
    reading: Reading | None = None,
    *,
    sent: list[Sent] | None = None,
    resumed: Resumed | None = None,
) -> tuple[Severity, str]:
    """Return the finding of a check."""
    seen = Seen(url="http://h/", wait=20, reading=reading, sent=sent, resumed=resumed)
    (finding,) = [finding for finding in diagnose(seen) if finding.check == check]
    assert finding.advice or finding.severity is OK
    return finding.severity, finding.text


def events(*numbers: int) -> bytes:
    """Write the events that were published."""
    return b"".join(b"id: %d\ndata: mark %d\n\n" % (n, n) for n in numbers)


def published(*times: float, problem: str | None = "", took: float = 0) -> list[Sent]:
    """Return events that were published at these times."""
    return [
        Sent(f"mark {number}", at, None if problem is None else at + took, problem)
        for number, at in enumerate(times)
    ]


PUBLISHED = [
    (((1, events(0)), (2, events(1))), published(0.9, 1.9), OK, "2 published events came one"),
    (
        ((3, events(0)), (4, events(1))),
        published(0.9, 1.9),
        WARNING,
        "published events came up",
    ),
    (
        ((2, events(0, 1)),),
        published(0.9, 1.9),
        ERROR,
        "published events came together, up to 1.1",
    ),
    (((2, events(0, 1)),), published(0.9, 1.9, took=1.09), OK, "2 published events came one"),
    (((3, events(0)), (4, events(1))), published(0.9, 1.9, took=2), OK, "2 published events"),
    (((2, events(0, 1)),), published(1.9, 1.95), OK, "2 published events came one by one"),
    (((1, events(0)),), published(0.9, 1.9), ERROR, "only 1 of 2 published events came"),
    ((), published(0.9, 1.9), ERROR, "none of 2 published events came within 20 s"),
    ((), published(0.9, problem="403"), ERROR, "publishing failed: 403"),
    ((), published(0.9, problem=None), ERROR, "nothing could be published in time"),
    (((1, events(0)),), published(0.9, problem=None), OK, "1 published events came one by"),
]


def test_delivery_of_what_was_published(subtests: pytest.Subtests) -> None:
    """Events that were sent apart shall come apart, and soon."""
    for pieces, sent, severity, text in PUBLISHED:
        with subtests.test(pieces=pieces, sent=sent):
            told = found("delivery", reading_of(*pieces), sent=sent)
            assert told[0] is severity
            assert told[1].startswith(text)


def test_a_hub_that_cant_store_is_told_apart() -> None:
    """Where it says 503 no token helps: its store does, or its load."""
    advice = {}
    for problem in ("403: no", "503: no connection to redis://h"):
        seen = Seen(
            url="http://h/", wait=20, reading=reading_of(), sent=published(1, problem=problem)
        )
        (told,) = (one for one in diagnose(seen) if one.check == "delivery")
        advice[problem[:3]] = told.advice
    assert "--token" in advice["403"]
    assert "store is away" in advice["503"]
    assert "--token" not in advice["503"]


UNPUBLISHED = [
    ((), INFO, "no events"),
    (((0, events(0)),), INFO, "1 events, none seen to be held"),
    (((0, events(0, 1, 2)), (5, events(3))), INFO, "4 events, none seen"),
    (((0, b"data: a"), (2, b"b\n\n")), ERROR, "it paused for 2.0 s in the middle of an event"),
    (((0, b":\n"), (9, b":\n\n:\n\n")), ERROR, "2 heartbeats came together"),
    (((0, b":\n:\n"), (9, b":\n\n")), INFO, "no events"),
    (((2, events(0, 1, 2)), (9, events(3, 4, 5))), WARNING, "events came in clumps, up to 3"),
]


def test_delivery_without_publishing(subtests: pytest.Subtests) -> None:
    """A buffer betrays itself by what no writer does."""
    for pieces, severity, text in UNPUBLISHED:
        with subtests.test(pieces=pieces, severity=severity):
            told = found("delivery", reading_of(*pieces))
            assert told[0] is severity
            assert told[1].startswith(text)


@pytest.mark.parametrize(
    ("pieces", "ended", "severity", "text"),
    [
        (((0, b":\n"), (15, b":\n")), "", OK, "a comment every 15.0 s of silence"),
        (((0, b":\n"), (40, b":\n")), "", WARNING, "a comment every 40.0 s of silence"),
        (((0, b":\n"),), "", WARNING, "nothing came for 41 s"),
        (((25, events(0)),), "", WARNING, "nothing came for 25 s"),
        (((25, events(0)),), "end", INFO, "none seen; the longest silence was 25.0 s"),
        (tuple((float(n), events(n)) for n in range(41)), "", INFO, "none seen; the longest sile"),
    ],
)
def test_heartbeat(
    pieces: tuple[tuple[float, bytes], ...], ended: str, severity: Severity, text: str
) -> None:
    """A stream isn't silent for long; one that isn't quiet shows no heartbeat."""
    told = found("heartbeat", reading_of(*pieces, seconds=41, ended=ended))
    assert told[0] is severity
    assert told[1].startswith(text)


@pytest.mark.parametrize(
    ("stream", "severity", "text"),
    [
        (b"data: a\n\ndata: b\n\n", WARNING, "2 events without an id"),
        (b"id: 1\ndata: a\n\ndata: b\n\n", INFO, "1 of 2 events have no own id"),
        (b"id: 1\ndata: a\n\n", OK, "each of 1 events has one"),
        (b"id: 1\n\n", OK, "the stream gives one before any event"),
        (b":\n", INFO, "there was no event to have one"),
    ],
)
def test_ids(stream: bytes, severity: Severity, text: str) -> None:
    """Each event has an id, so that a client can say where it was."""
    assert found("ids", reading_of((0, stream))) == (severity, text)


@pytest.mark.parametrize(
    ("line", "severity"),
    [(b"", INFO), (b"retry: 499\n", WARNING), (b"retry: 500\n", OK), (b"retry: 60001\n", WARNING)],
)
def test_retry(line: bytes, severity: Severity) -> None:
    """A delay is told, and neither a storm nor a gap."""
    assert found("retry", reading_of((0, line)))[0] is severity


@pytest.mark.parametrize(
    ("ended", "last", "severity", "text"),
    [
        ("", 1, OK, "none within 20 s"),
        ("end", 19.5, WARNING, "ended after 20.0 s"),
        ("end", 5, WARNING, "ended after 15.0 s of silence"),
        ("cut", 5, ERROR, "cut off after 20.0 s, 15.0 s of them silent at last"),
    ],
)
def test_end(ended: str, last: float, severity: Severity, text: str) -> None:
    """A stream lasts, and an end after a silence is somebody's timeout."""
    assert found("end", reading_of((last, b":\n"), ended=ended)) == (severity, text)


RESUME = [
    (Resumed(asked="1", expected=("2", "3"), ids=("2", "3")), OK, "Last-Event-ID brings the 2"),
    (Resumed(asked="1", expected=("2",), ids=("2", "3")), OK, "Last-Event-ID brings the 1"),
    (Resumed(asked="1", expected=()), INFO, "accepted an id"),
    (Resumed(asked="1", expected=(), ids=("1",)), WARNING, "the event of the id comes again"),
    (Resumed(asked="1", expected=("2", "3"), ids=("2",)), WARNING, "only 1 of the 2 events"),
    (Resumed(asked="1", expected=("2", "3"), ids=("3",)), WARNING, "some of the events that"),
    (Resumed(asked="1", expected=("2",), ids=("0",)), WARNING, "other events came than those"),
    (Resumed(asked="1", expected=("2",), waited=3), WARNING, "nothing within 3 s, though 1"),
    (Resumed(asked="1", expected=("2",), unnumbered=True), WARNING, "only events without id"),
    (Resumed(asked="1", expected=("2",), reset=True, ids=("9",)), WARNING, "a reset: the hub"),
    (Resumed(asked="1", expected=("2",), status=204, problem="?"), WARNING, "204: who comes"),
    (Resumed(asked="1", expected=("2",), status=500, problem="it fails"), ERROR, "it fails"),
]


def test_resume(subtests: pytest.Subtests) -> None:
    """A client that comes back gets the events that followed, or is told."""
    for resumed, severity, text in RESUME:
        with subtests.test(resumed=resumed, severity=severity):
            told = found("resume", resumed=resumed)
            assert told[0] is severity
            assert told[1].startswith(text)


def test_other_findings() -> None:
    """A stream that can't be read, and a time that ran out, are findings too."""
    reading = reading_of((0, b":\n"))
    reading.damage = "broken"
    assert found("form", reading) == (ERROR, "broken")
    (finding,) = [f for f in diagnose(Seen(url="", wait=1, ran_out=True)) if f.check == "time"]
    assert finding.severity is WARNING


def test_exit_status() -> None:
    """The worst finding decides."""
    assert exit_status([]) == 0
    for severity, status in ((OK, 0), (INFO, 0), (WARNING, 1), (ERROR, 3)):
        assert (
            exit_status([Finding("a", "", severity=OK), Finding("b", "", severity=severity)])
            == status
        )
