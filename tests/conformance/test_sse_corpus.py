"""The corpus of event streams: the standard's own tests and those of seven other parsers.

Each case is read in the chunking its source uses, whole, byte by byte, cut in two at every place,
and with junk behind; and what came out of it is encoded again and read once more.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NotRequired, TypeAlias, TypedDict

import pytest
import tools

from h3trio._wire.event import SSEEvent
from h3trio._wire.parser import SSEParser

if TYPE_CHECKING:
    from collections.abc import Iterator

NAME = "sse_corpus.json"
CASE_COUNT = 147

# Two cuts of a stream of 50,000 bytes at every place would be 2.5 GB to read.
MAX_CUT_EVERYWHERE = 300

Seen: TypeAlias = tuple[list[tuple[str | None, ...]], str, int | None]


class Dispatched(TypedDict):
    """An event as the corpus has it."""

    type: str
    data: str
    lastEventId: str


class Case(TypedDict):
    """One stream of the corpus, as its `format` key describes it: `text` or `hex` is there."""

    id: str
    source: str
    text: NotRequired[str]
    hex: NotRequired[str]
    chunks: NotRequired[list[str]]
    events: list[Dispatched]
    retry: NotRequired[int]
    last_event_id: NotRequired[str]


def load() -> list[Case]:
    """Read the corpus, or nothing if it isn't there: the first test says so then."""
    path = tools.CORPORA / NAME
    if not path.is_file():
        return []
    cases: list[Case] = json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


CASES = load()


def stream_of(case: Case) -> bytes:
    """Return the bytes of a case."""
    if "text" in case:
        return case["text"].encode()
    assert "hex" in case
    return bytes.fromhex(case["hex"])


def chunkings(case: Case) -> Iterator[tuple[str, list[bytes]]]:
    """List the ways to feed a case, each with a name."""
    stream = stream_of(case)
    yield "whole", [stream]
    yield "byte by byte", [stream[i : i + 1] for i in range(len(stream))]
    yield (
        "byte by byte with nothing between",
        [part for i in range(len(stream)) for part in (stream[i : i + 1], b"")],
    )
    yield "with junk behind", [stream, b"id: junk: \xff\0"]
    if "chunks" in case:
        yield "as its source does", [chunk.encode() for chunk in case["chunks"]]
    if len(stream) <= MAX_CUT_EVERYWHERE:
        for i in range(1, len(stream)):
            yield f"cut at {i}", [stream[:i], stream[i:]]


def read(chunks: list[bytes]) -> Seen:
    """Feed the chunks to a new parser; return events, last event id and retry."""
    parser = SSEParser()
    events = [event for chunk in chunks for event in parser.feed(chunk)]
    return [(e.event, e.data, e.id) for e in events], parser.last_event_id, parser.retry


def test_the_corpus_is_there() -> None:
    """All cases of the corpus are found, or this is skipped with the reason."""
    tools.require_corpus(NAME)
    assert len(CASES) == CASE_COUNT


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_case_is_read_right(case: Case) -> None:
    """The events, the last event id and the reconnection time are those of the corpus."""
    expected = [(e["type"], e["data"], e["lastEventId"]) for e in case["events"]]
    for name, chunks in chunkings(case):
        events, last_event_id, retry = read(chunks)
        assert events == expected, name
        assert last_event_id == case.get("last_event_id", last_event_id), name
        assert retry == case.get("retry"), name


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_a_case_survives_being_sent_on(case: Case) -> None:
    """An event read, encoded and read again is the same (a type with NUL can't be encoded)."""
    expected = [(e["type"], e["data"], e["lastEventId"]) for e in case["events"]]
    sendable = [event for event in expected if "\0" not in event[0]]
    wire = [SSEEvent(data, event=kind, id=id).encode() for kind, data, id in sendable]
    assert read([b"".join(wire)])[0] == sendable
