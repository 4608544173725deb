"""`Memo` and `Reader`: the number of events in an event stream, their times and their ids.

The counts are exact, and cheap. In a fan-out all streams are sent the same bytes, so the bytes of
one read are analysed once and looked up for the other streams (`Memo`). That works for a read that
begins and ends between two events, and between two chunks; any other goes through `Chunks`
(RFC 9112 section 7.1) and `Blocks`, which keep an unfinished part for the next read.

An event is a block with a `data` field (WHATWG HTML, 9.2.6: a block without one is not dispatched),
so neither comments nor a block of `id` and `retry` count. Lines may end in LF, CRLF or CR.

The time at which an event was sent stands at the beginning of its data, in seconds since 1970,
either bare or as the first member of a JSON object: `data: 1700000000.123456 ...`, `data: {"t":
1700000000.12}`. Of each read the first and the last such event are sampled, half of the read's
events each: the first has waited longest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, NamedTuple, final

MAX_CHUNK_LINE: Final = 256  # a size and its extensions; nobody sends extensions
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024
MEMO_READS: Final = 256  # reads that are remembered; one pass over all subscribers needs one
MEMO_BYTES: Final = 256 * 1024  # longest read that is remembered

_MAX_HEX_DIGITS: Final = 15
_DATA: Final = re.compile(rb"^data(?::|$)", re.MULTILINE)
_ID: Final = re.compile(rb"^id(?:: ?(.*))?$", re.MULTILINE)
_RESET: Final = re.compile(rb"^event: ?reset$", re.MULTILINE)
_TIME: Final = re.compile(
    rb'^data: ?(?:\{ ?"t": ?)?([0-9]{9,11}(?:\.[0-9]+)?)(?![\w.])', re.MULTILINE
)
_NUMBER: Final = re.compile(rb"(.*?)([0-9]{1,18})\Z", re.DOTALL)


class BadStreamError(Exception):
    """The bytes are no event stream in the framing that was announced."""


class Mark(NamedTuple):
    """One id: what stands before its number, the number, and whether it came with data."""

    head: bytes
    number: int
    is_event: bool


class Found(NamedTuple):
    """The contents of some whole blocks.

    `first` and `last` are the times of the first and last event that has one, 0 if none has.
    `marks` are the ids that end in a number, `unnumbered` the events without such an id. `run` is
    the one head, first and last number if all events have ids that count up by one.
    """

    events: int
    timed: int
    first: float
    last: float
    marks: tuple[Mark, ...]
    unnumbered: int
    resets: int
    run: tuple[bytes, int, int] | None


def analyse(blocks: bytes) -> Found:
    """Analyse whole blocks, their lines ended by LF and each followed by a blank line."""
    events = resets = unnumbered = 0
    marks: list[Mark] = []
    for block in blocks.split(b"\n\n"):
        is_event = _DATA.search(block) is not None
        mark = _mark(block, is_event=is_event)
        events += is_event
        resets += _RESET.search(block) is not None
        unnumbered += is_event and mark is None
        if mark is not None:
            marks.append(mark)
    times = [float(found) for found in _TIME.findall(blocks)]
    first, last = (times[0], times[-1]) if times else (0.0, 0.0)
    run = None if unnumbered else _run(marks)
    return Found(events, len(times), first, last, tuple(marks), unnumbered, resets, run)


def _mark(block: bytes, *, is_event: bool) -> Mark | None:
    ids = _ID.findall(block)
    found = _NUMBER.match(ids[-1]) if ids else None
    return Mark(found[1], int(found[2]), is_event) if found else None


def _run(marks: list[Mark]) -> tuple[bytes, int, int] | None:
    if not marks or not all(mark.is_event and mark.head == marks[0].head for mark in marks):
        return None
    numbers = [mark.number for mark in marks]
    first, last = numbers[0], numbers[-1]
    return (marks[0].head, first, last) if numbers == list(range(first, last + 1)) else None


@final
@dataclass(slots=True)
class Chunks:
    """Takes the chunked framing off a body, however it is cut."""

    ended: bool = False
    _left: int = 0  # of the current chunk, the CRLF behind it included
    _held: bytes = b""

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a chunk."""
        return not self._left and not self._held and not self.ended

    def feed(self, data: bytes) -> bytes:
        """Return the body's bytes in the next piece of the message.

        Raises:
            BadStreamError: it isn't chunked.
        """
        data, at = self._held + data, 0
        self._held = b""
        pieces: list[bytes] = []
        while at < len(data) and not self.ended:
            if not self._left:
                end = data.find(b"\r\n", at)
                if end < 0:
                    self._held = data[at:]
                    if len(self._held) > MAX_CHUNK_LINE:
                        raise BadStreamError("a chunk's size has no end")
                    break
                self._left = _chunk_size(data[at:end]) + 2
                at = end + 2
                if self._left == 2:  # noqa: PLR2004 - the last chunk: a size of 0, and the CRLF
                    self.ended = True
                    break
            at = self._take(data, at, pieces)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _take(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Take what there is of the current chunk; its last two bytes are the CRLF."""
        here = min(self._left, len(data) - at)
        payload = min(here, max(0, self._left - 2))
        pieces.append(data[at : at + payload])
        self._left -= here
        return at + here


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > _MAX_HEX_DIGITS or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadStreamError(f"no chunk's size: {line[:40]!r}")
    return int(digits, 16)


@final
@dataclass(slots=True)
class Blocks:
    """Cuts a body into whole blocks, and gives all lines the same end."""

    # Grows in place: an event that comes in small pieces isn't copied for each of them.
    _held: bytearray = field(default_factory=bytearray)
    _cr: bytes = b""  # a CR at the end of a piece: an LF may follow

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a block."""
        return not self._held and not self._cr

    def feed(self, body: bytes) -> bytes:
        """Return the blocks that the next piece of the body completes.

        Raises:
            BadStreamError: one is longer than `MAX_EVENT_BYTES`.
        """
        body = self._cr + body
        self._cr = b""
        if b"\r" in body:
            if body.endswith(b"\r"):
                body, self._cr = body[:-1], b"\r"
            body = body.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        # The blank line may have begun in the held bytes.
        begin = max(0, len(self._held) - 1)
        self._held += body
        # 0 if there is none: what `rfind` says then is -1.
        end = self._held.rfind(b"\n\n", begin) + 1
        end += end > 0
        blocks = bytes(self._held[:end])
        del self._held[:end]
        if len(self._held) > MAX_EVENT_BYTES:
            raise BadStreamError(f"an event is longer than {MAX_EVENT_BYTES} bytes")
        return blocks


@final
class BodyReader:
    """One stream's body: framing, blocks, and the way around both."""

    __slots__ = ("_blocks", "chunks")

    def __init__(self, *, chunked: bool) -> None:
        # Without chunks, only the end of the connection ends the body.
        self.chunks = Chunks() if chunked else None
        self._blocks = Blocks()

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a block, and a chunk if there are any."""
        return self._blocks.is_between and (self.chunks is None or self.chunks.is_between)

    @property
    def ended(self) -> bool:
        """Whether the body's end was announced and came."""
        return self.chunks is not None and self.chunks.ended

    def feed(self, data: bytes) -> Found:
        """Analyse the blocks that the next piece of the message completes.

        Raises:
            BadStreamError: it is none in this framing.
        """
        body = data if self.chunks is None else self.chunks.feed(data)
        return analyse(self._blocks.feed(body))


@final
class Memo:
    """Remembers the contents of a read, for the other streams that are sent the same."""

    def __init__(self) -> None:
        self._known: dict[bytes, Found] = {}

    def read(self, reader: BodyReader, data: bytes) -> Found:
        """Return what `reader.feed` returns, from memory if that is possible.

        Raises:
            BadStreamError: it is none in this framing.
        """
        if not reader.is_between:
            return reader.feed(data)
        found = self._known.get(data)
        if found is None:
            found = reader.feed(data)
            if reader.is_between and len(data) <= MEMO_BYTES:
                if len(self._known) >= MEMO_READS:
                    self._known.clear()
                self._known[data] = found
        return found
