"""`diagnose`: all findings; here those about a stream in time, its delays, its end and its return.

Strategy: as for the head, each check is a generator of findings from a `Seen`, without I/O. A quiet
stream shows no delays, and a stream without ids can't be resumed: then the finding is no judgement
but says how to learn more.
"""

from __future__ import annotations

import itertools
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .check_head import (
    BUFFER,
    HEAD_CHECKS,
    Finding,
    Severity,
    error,
    info,
    milliseconds,
    ok,
    warning,
)
from .reading import ALONE, TOGETHER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .check_head import Check
    from .reading import Reading
    from .seen import Resumed, Seen, Sent

EXIT_WARNINGS: Final = 1
EXIT_ERRORS: Final = 3

LATE: Final = 1.0  # seconds; nothing but a buffer, or a very busy server, takes that long
CLUMP: Final = 3  # events in one burst
PAUSE: Final = 0.5  # seconds in the middle of an event: more than a lost packet takes
LONG_HEARTBEAT: Final = 30.0  # seconds: many proxies end what is silent for 60, some for 30
SILENCE: Final = 18.0  # seconds: more than our own servers' 15
MIN_RETRY: Final = 500  # milliseconds
MAX_RETRY: Final = 60_000

_KEEP_ALIVE: Final = "Send a comment (`:`) when nothing was sent for 15 s."


def with_reading(check: Callable[[Seen, Reading], Iterator[Finding]]) -> Check:
    """Make a check that is left out where no stream was read."""
    return lambda seen: check(seen, seen.reading) if seen.reading else iter(())


# -- what holds it up


def check_first_byte(_seen: Seen, reading: Reading) -> Iterator[Finding]:
    """A first comment makes proxies pass the head on, so that `onopen` fires."""
    if reading.first_byte is None:
        advice = f"Send a comment at once, as some proxies hold the head until bytes come. {BUFFER}"
        yield warning(f"none within {reading.seconds:.0f} s", advice)
    elif reading.first_byte > LATE:
        advice = f"Send a comment at once. If the server does: {BUFFER}"
        yield warning(f"came {reading.first_byte:.1f} s after the head", advice)
    else:
        yield ok(f"{milliseconds(reading.first_byte)} after the head")


def check_form(_seen: Seen, reading: Reading) -> Iterator[Finding]:
    """A stream that can't be read here, browsers may read or not."""
    if reading.damage:
        yield error(reading.damage, "Find out what sends or changes it.")


def check_delivery(seen: Seen, reading: Reading) -> Iterator[Finding]:
    """Events that were published shall come at once, one by one."""
    if seen.sent is None:
        yield from _unpublished(reading)
        return
    refused = next((sent.problem for sent in seen.sent if sent.problem), "")
    if refused:
        advice = "Give --token if it needs one, or say where to publish by --publish-url."
        if refused.startswith("503"):
            advice = "The hub's store is away or full, or too many publish: its log says which."
        yield error(f"publishing failed: {refused}", advice)
        return
    # An event whose request had no answer may be stored or not.
    sent = [event for event in seen.sent if event.problem == "" or event.mark in reading.arrivals]
    if not sent:
        yield error("nothing could be published in time", "Raise --wait.")
        return
    yield from _delivered(reading, sent)


def _delivered(reading: Reading, sent: Sequence[Sent]) -> Iterator[Finding]:
    came = [event for event in sent if event.mark in reading.arrivals]
    if not came:
        text = f"none of {len(sent)} published events came within {reading.seconds:.0f} s"
        yield error(text, f"Are they published to what this stream carries? If so: {BUFFER}")
        return
    delays = [reading.arrivals[event.mark] - event.at for event in came]
    late = max(_held(reading, event) for event in came)
    if len(came) < len(sent):
        text = f"only {len(came)} of {len(sent)} published events came"
        yield error(text, f"Some are lost, or held. {BUFFER}")
    elif _come_together(reading, came):
        yield error(f"published events came together, up to {late:.1f} s late", BUFFER)
    elif late > LATE:
        text = f"published events came up to {late:.1f} s late"
        yield warning(text, f"Is the server busy? If not: {BUFFER}")
    else:
        times = f"{milliseconds(min(delays))} to {milliseconds(max(delays))}"
        yield ok(f"{len(came)} published events came one by one, in {times}")


def _held(reading: Reading, event: Sent) -> float:
    """Tell how long after it was stored an event came.

    Not after it was sent: where the server is busy, or the machine that looks, the answer to the
    publisher is as late as the event.
    """
    stored = event.at if event.answered is None else event.answered
    return reading.arrivals[event.mark] - stored


def _come_together(reading: Reading, came: Sequence[Sent]) -> bool:
    """Tell whether an event that was stored before waited for the next one."""
    return any(
        reading.arrivals[b.mark] - reading.arrivals[a.mark] < TOGETHER
        and b.at - a.at > 2 * TOGETHER
        and _held(reading, a) > 2 * TOGETHER
        for a, b in itertools.pairwise(came)
    )


def _unpublished(reading: Reading) -> Iterator[Finding]:
    clumps = [b for b in reading.bursts if b.events >= CLUMP and b.silence > ALONE]
    beats = max((burst.comments for burst in reading.bursts if not burst.events), default=0)
    if reading.paused_inside > PAUSE:
        text = f"it paused for {reading.paused_inside:.1f} s in the middle of an event"
        yield error(text, BUFFER)
    elif beats > 1 and reading.bursts[0].comments < beats:
        yield error(f"{beats} heartbeats came together", BUFFER)
    elif len(clumps) > 1:
        most = max(burst.events for burst in clumps)
        text = f"events came in clumps, up to {most} at once after a silence"
        yield warning(text, f"Does the server send them so? If not: {BUFFER}")
    else:
        advice = "To measure it, publish: --publish for a h3trio hub, or --publish-url."
        came = f"{reading.events} events, none seen to be held" if reading.events else "no events"
        yield info(came, advice)


# -- what keeps it alive, and ends it


def check_heartbeat(_seen: Seen, reading: Reading) -> Iterator[Finding]:
    """Without a byte now and then, proxies and NATs give a connection up."""
    beats, silence = reading.heartbeats, reading.longest_silence
    if beats:
        interval = statistics.median(beats)
        text = f"a comment every {interval:.1f} s of silence"
        if interval > LONG_HEARTBEAT:
            advice = "Send one every 15 s: proxies commonly give up after 60 s, some after 30."
            yield warning(text, advice)
        else:
            yield ok(text)
    elif silence > LONG_HEARTBEAT or (silence > SILENCE and not reading.ended):
        advice = f"{_KEEP_ALIVE} To see a longer interval, raise --wait."
        yield warning(f"nothing came for {silence:.0f} s", advice)
    else:
        text = f"none seen; the longest silence was {silence:.1f} s"
        yield info(text, "On a quiet stream, and with a longer --wait, it shows.")


def check_end(seen: Seen, reading: Reading) -> Iterator[Finding]:
    """A stream lasts; whatever ends it costs a reconnect of every client."""
    silence = reading.seconds - reading.last_byte
    if reading.ended == "cut":
        advice = f"It wasn't the server's own end: a proxy's timeout, or a crash. {_KEEP_ALIVE}"
        text = f"cut off after {reading.seconds:.1f} s, {silence:.1f} s of them silent at last"
        yield error(text, advice)
    elif reading.ended and silence > ALONE:
        text = f"ended after {silence:.1f} s of silence"
        yield warning(text, f"It looks like an idle timeout. {_KEEP_ALIVE}")
    elif reading.ended:
        advice = (
            "EventSource comes back for more: if that was all, close it in the page at a last "
            "event; if not, find out what ended it."
        )
        yield warning(f"ended after {reading.seconds:.1f} s", advice)
    else:
        yield ok(f"none within {seen.wait:g} s")


# -- what takes it up again


def check_ids(_seen: Seen, reading: Reading) -> Iterator[Finding]:
    """A client that comes back says the last id it saw, if there was any."""
    advice = "Send an `id:` with each event, or who reconnects misses what came meanwhile."
    if reading.numbered < reading.events and not reading.last_event_id:
        yield warning(f"{reading.events} events without an id", advice)
    elif reading.numbered < reading.events:
        text = f"{reading.events - reading.numbered} of {reading.events} events have no own id"
        yield info(text, advice)
    elif reading.events:
        yield ok(f"each of {reading.events} events has one")
    elif reading.last_event_id:
        yield ok("the stream gives one before any event")
    else:
        yield info("there was no event to have one", "Publish, or raise --wait.")


def check_resume(seen: Seen) -> Iterator[Finding]:
    """A client with an id gets the events that follow it (WHATWG HTML, 9.2.3)."""
    if (found := seen.resumed) is None:
        return
    advice = "Begin behind `Last-Event-ID`; if that is gone, say so by an event."
    if found.status == 204:  # noqa: PLR2004 - "no content"
        yield warning("204: who comes back with an id is sent away for good", advice)
    elif found.problem:
        yield error(found.problem, "Who is disconnected can't come back.")
    elif found.reset:
        text = "a reset: the hub no longer has what followed the id"
        yield warning(text, "Keep more of the past, or tell clients to load anew.")
    elif found.asked in found.ids:
        yield warning("the event of the id comes again: Last-Event-ID is ignored", advice)
    elif not found.expected:
        advice = "Nothing followed the id, so nothing could be missed; publish to learn more."
        yield info("accepted an id", advice)
    elif found.ids[: len(found.expected)] == found.expected:
        count = len(found.expected)
        yield ok(f"Last-Event-ID brings the {count} events that followed it")
    else:
        yield warning(_went_wrong(found), advice)


def _went_wrong(found: Resumed) -> str:
    if found.unnumbered or not found.ids:
        came = "only events without id" if found.unnumbered else "nothing"
        return f"{came} within {found.waited:.0f} s, though {len(found.expected)} events followed"
    if found.ids[0] == found.expected[0]:
        return f"only {len(found.ids)} of the {len(found.expected)} events that followed came"
    if found.ids[0] in found.expected:
        return "some of the events that followed were passed over"
    return "other events came than those that followed: Last-Event-ID is ignored"


def check_retry(_seen: Seen, reading: Reading) -> Iterator[Finding]:
    """The time that clients wait before they come back (WHATWG HTML, 9.2.6)."""
    retry = reading.retry
    if retry is None:
        text = "not set: browsers wait 3 to 5 s"
        advice = (
            "Send `retry:`, differing from client to client: a restart brings all back at once."
        )
        yield info(text, advice)
    elif retry < MIN_RETRY:
        advice = (
            "Raise it: a server that is down is asked again by all its clients as fast as that."
        )
        yield warning(f"{retry} ms", advice)
    elif retry > MAX_RETRY:
        yield warning(f"{retry} ms", "Lower it: who is cut off misses events for so long.")
    else:
        yield ok(f"{retry} ms")


def check_time(seen: Seen) -> Iterator[Finding]:
    """Looking has an end, whatever the server does."""
    if seen.ran_out:
        text = "the time for everything was over before everything was looked at"
        yield warning(text, "Something answers very slowly; raise --timeout.")


CHECKS: Final[Mapping[str, Check]] = {
    **HEAD_CHECKS,
    "first bytes": with_reading(check_first_byte),
    "form": with_reading(check_form),
    "delivery": with_reading(check_delivery),
    "heartbeat": with_reading(check_heartbeat),
    "end": with_reading(check_end),
    "ids": with_reading(check_ids),
    "resume": check_resume,
    "retry": with_reading(check_retry),
    "time": check_time,
}


def diagnose(seen: Seen) -> list[Finding]:
    """Make all checks."""
    found = ((name, finding) for name, check in CHECKS.items() for finding in check(seen))
    return [replace(finding, check=name) for name, finding in found]


def exit_status(findings: Sequence[Finding]) -> int:
    """Return the exit status for what was found: 0, `EXIT_WARNINGS` or `EXIT_ERRORS`."""
    worst = max((finding.severity for finding in findings), default=Severity.OK)
    if worst is Severity.ERROR:
        return EXIT_ERRORS
    return EXIT_WARNINGS if worst is Severity.WARNING else 0
