"""`Reading`: one event stream as it came. Bytes and times in, counts and gaps out.

Strategy: no I/O and no clock. Whoever reads hands over each piece as it came, with the seconds
since the answer's head. Pieces that came within `TOGETHER` are one burst, as one write of a server
may take several reads; everything about buffers and heartbeats is told by bursts and the silences
between them. A writer that waits never waits in the middle of an event: a silence there is a
buffer's doing.

All that is kept is bounded: the newest bursts and ids, whatever the length of the stream.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from h3trio._wire.parser import EventTooLargeError, SSEParser

if TYPE_CHECKING:
    from h3trio._wire.event import SSEEvent

TOGETHER: Final = 0.05  # seconds; far above what one write is spread over, far below a heartbeat
ALONE: Final = 1.0  # seconds of silence before a comment that is a heartbeat and no companion
MAX_BURSTS: Final = 1000
MAX_IDS: Final = 64
MAX_EVENT_BYTES: Final = 16 * 1024 * 1024  # as `tail` takes them
_RETRY: Final = b"retry:"


@final
@dataclass(slots=True)
class Burst:
    """Pieces that came together."""

    silence: float  # seconds without a byte before it
    events: int = 0  # that it completed
    comments: int = 0  # lines that are comments


@final
class Reading:
    """One stream as it was read; times are in seconds since the head."""

    def __init__(self, *, is_readable: bool = True) -> None:
        self.is_readable = is_readable  # whether the compression is one that is undone
        self._parser = SSEParser(max_event_size=MAX_EVENT_BYTES)
        self._line = b""  # of the unfinished line: its first bytes are enough
        self._skip_lf = False
        self._in_block = False
        self._looked_for: set[str] = set()
        self.damage = ""  # what made the stream unreadable on the way, `""` if nothing did
        self.bytes = 0  # those of the stream, decompressed if it is readable
        self.events = 0  # blocks with data
        self.comments = 0  # lines that are comments
        self.numbered = 0  # events with an id of their own
        self.ids: deque[str] = deque(maxlen=MAX_IDS)  # the newest ids of events, in order
        self.first_byte: float | None = None  # when it came, `None` if none did
        self.last_byte = 0.0  # when it came, 0 if none did
        self.bursts: deque[Burst] = deque(maxlen=MAX_BURSTS)  # the newest
        self.paused_inside = 0.0  # the longest silence that began in the middle of an event
        # When a text that was looked for came first in an event's data.
        self.arrivals: dict[str, float] = {}
        # How the server ended it: `""` if it didn't, `"end"` in an orderly way, `"cut"`.
        self.ended = ""
        self.seconds = 0.0  # how long it was read

    @property
    def last_event_id(self) -> str:
        """The id to send on reconnecting, if not empty."""
        return self._parser.last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds, if the stream sets one."""
        return self._parser.retry

    @property
    def is_inside(self) -> bool:
        """Whether the last byte was in the middle of an event."""
        return self._in_block or bool(self._line)

    @property
    def heartbeats(self) -> list[float]:
        """The silences that a comment alone has ended."""
        return [b.silence for b in self.bursts if b.comments and not b.events and b.silence > ALONE]

    @property
    def longest_silence(self) -> float:
        """The longest time without a byte, that at the end included."""
        return max([self.seconds - self.last_byte, *(burst.silence for burst in self.bursts)])

    def look_for(self, text: str) -> None:
        """Note when an event comes that has this text in its data."""
        self._looked_for.add(text)

    def feed(self, now: float, piece: bytes) -> None:
        """Take a piece."""
        silence, self.last_byte = now - self.last_byte, now
        if self.first_byte is None or silence > TOGETHER:
            self.bursts.append(Burst(silence))
            if self.is_inside:
                self.paused_inside = max(self.paused_inside, silence)
        if self.first_byte is None:
            self.first_byte = now
        self.bytes += len(piece)
        events: list[SSEEvent] = []
        if self.is_readable and not self.damage:
            self._scan(piece)
            try:
                events = self._parser.feed(piece)
            except EventTooLargeError as exc:
                events = [*exc.events]
                self.damage = f"a line or an event is above {MAX_EVENT_BYTES:,} bytes"
        self._note(now, events)

    def end(self, now: float, how: str = "") -> None:
        """Say when the reading ended, and how if the server ended it."""
        self.seconds, self.ended = now, how

    def _note(self, now: float, events: list[SSEEvent]) -> None:
        self.events += len(events)
        self.bursts[-1].events += len(events)
        for event in events:
            # `event.id` is the id in force: an event has its own if that has changed.
            if event.id and (not self.ids or self.ids[-1] != event.id):
                self.ids.append(event.id)
                self.numbered += 1
            for text in [text for text in self._looked_for if text in (event.data or "")]:
                self._looked_for.remove(text)
                self.arrivals[text] = now

    def _scan(self, piece: bytes) -> None:
        """Count what the parser passes over: comments, and whether a block is unfinished."""
        if self._skip_lf and piece.startswith(b"\n"):
            piece = piece[1:]
        if not piece:
            return
        self._skip_lf = piece.endswith(b"\r")
        lines = (self._line + piece).splitlines()
        self._line = b"" if piece.endswith((b"\r", b"\n")) else lines.pop()[: len(_RETRY)]
        for line in lines:
            if line.startswith(b":"):
                self.comments += 1
                self.bursts[-1].comments += 1
            elif not line.startswith(_RETRY):  # that field is done with, and may stand alone
                self._in_block = bool(line)
