"""`SSEParser`: reads an event stream, bytes in whatever chunks they come.

Strategy: this is WHATWG HTML, 9.2.6 "Interpreting an event stream", on bytes instead of decoded
text. Every character with a meaning is ASCII, and in UTF-8 an ASCII byte is never part of another
character, so lines and fields are cut first and values decoded after, with the same U+FFFD.

Rules of this file:

1. How the bytes are cut into chunks changes nothing: neither the events nor the error.
2. Work is linear. A chunk is searched for line ends once; its rest waits in a bytearray.
3. A line ends at its CR: an event never waits for an LF that may not come, and skips it later.
4. What is held is bounded by `max_event_size`, whatever the peer sends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from h3trio._limits import check_limit

from .event import MAX_RETRY, SSEEvent, one_line, unchecked_event

if TYPE_CHECKING:
    from collections.abc import Sequence

# Enough for an event of a million bytes, which servers do send (whole documents, model answers,
# small images in base64), and still little enough to hold for each of a thousand streams.
DEFAULT_MAX_EVENT_SIZE: Final = 2**20

_BOM: Final = b"\xef\xbb\xbf"
_LF: Final = 0x0A
_MAX_RETRY_DIGITS: Final = len(str(MAX_RETRY))


@final
class EventTooLargeError(ValueError):
    """An event stream held a line or an event above the parser's `max_event_size`.

    Attributes:
      limit: The `max_event_size`, in bytes.
      events: The whole events that the failing `SSEParser.feed` had found before, which no other
        call returns. Empty when an earlier `feed` failed.
    """

    def __init__(self, message: str, *, limit: int = 0, events: Sequence[SSEEvent] = ()) -> None:
        super().__init__(message)
        self.limit = limit
        self.events: tuple[SSEEvent, ...] = tuple(events)


@final
class SSEParser:
    """One event stream being read. Make a new one for each connection.

    A parsed event has `data` with LF between its lines; `event` as the stream named it,
    else "message"; as `id` the last event id in force, ``""`` if there is none; and
    neither `retry`, which belongs to the stream, nor `comment`.

    An event that the stream's end cuts off is discarded: simply stop feeding.

    Args:
      max_event_size: The most bytes of one line, its field name included and its line end not, and
        of the data of one event, with one byte for each line end.
      last_event_id: The last event id until the stream sets one: for a client that reconnects,
        that of the stream before.

    Raises:
      TypeError: an argument has the wrong type.
      ValueError: `max_event_size` is less than 1, or `last_event_id` has a CR, LF or NUL.
    """

    __slots__ = (
        "_data",
        "_failed",
        "_id_buffer",
        "_last_event_id",
        "_max_event_size",
        "_retry",
        "_skip_lf",
        "_start",
        "_tail",
        "_type",
    )

    def __init__(
        self, *, max_event_size: int = DEFAULT_MAX_EVENT_SIZE, last_event_id: str = ""
    ) -> None:
        check_limit("max_event_size", max_event_size)
        self._max_event_size = max_event_size
        self._failed = False
        # Bytes that may be the start of a BOM; None once that is decided.
        self._start: bytes | None = b""
        self._skip_lf = False
        self._tail = bytearray()
        # The buffers of 9.2.6. `_data` keeps an LF behind each line, so that it is empty
        # only if there was no data line at all.
        self._data = bytearray()
        self._type = b""
        self._id_buffer = one_line("last_event_id", last_event_id)
        self._last_event_id = self._id_buffer
        self._retry: int | None = None

    @property
    def last_event_id(self) -> str:
        """The last event id in force: what to send on reconnecting, if not empty.

        An `id` counts from the blank line that ends its block, with data or without.
        """
        return self._last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds, ``None`` until the stream sets one.

        It counts from the end of its line. A number above `MAX_RETRY` is ignored.
        """
        return self._retry

    def feed(self, chunk: bytes | bytearray | memoryview) -> list[SSEEvent]:
        """Take the next bytes and return the events that they complete, in order.

        Raises:
          EventTooLargeError: the stream went over `max_event_size`, now or in an earlier
            call: it can't be read further. Its `events` hold what was complete before.
          TypeError: `chunk` is not bytes.
        """
        if type(chunk) is not bytes:
            # By way of a view, as `bytes(5)` is five zeros.
            chunk = bytes(memoryview(chunk))
        events: list[SSEEvent] = []
        if self._failed:
            raise self._too_large(events)
        limit = self._max_event_size
        for line in self._complete_lines(chunk):
            if not line:
                if (event := self._dispatch()) is not None:
                    events.append(event)
                continue
            if len(line) > limit:
                raise self._too_large(events)
            self._take_field(line)
            if len(self._data) > limit:
                raise self._too_large(events)
        if len(self._tail) > limit:
            raise self._too_large(events)
        return events

    def _complete_lines(self, chunk: bytes) -> list[bytes]:
        """Return the lines that `chunk` ends, without line ends; keep the rest."""
        if self._start is not None:
            chunk = self._after_bom(self._start + chunk)
        if not chunk:
            return []
        if self._skip_lf and chunk[0] == _LF:
            chunk = chunk[1:]
        self._skip_lf = chunk.endswith(b"\r")
        # Unlike that of str, `bytes.splitlines` splits at CRLF, CR and LF only.
        lines = chunk.splitlines()
        rest = b"" if chunk.endswith((b"\r", b"\n")) or not lines else lines.pop()
        if lines and self._tail:
            lines[0] = bytes(self._tail) + lines[0]
            self._tail.clear()
        self._tail += rest
        return lines

    def _after_bom(self, start: bytes) -> bytes:
        """Return `start` without the one BOM it may have, nothing if that's undecided."""
        if len(start) < len(_BOM) and _BOM.startswith(start):
            self._start = start
            return b""
        self._start = None
        return start.removeprefix(_BOM)

    def _take_field(self, line: bytes) -> None:
        """Act on a line that isn't blank. A comment is a field without a name."""
        if line.startswith(b"data: "):  # as below, but faster: nearly all lines are so
            self._data += line[6:]
            self._data += b"\n"
            return
        name, _, value = line.partition(b":")
        if value.startswith(b" "):
            value = value[1:]
        if name == b"data":
            self._data += value
            self._data += b"\n"
        elif name == b"event":
            self._type = value
        elif name == b"id":
            if b"\0" not in value:
                self._id_buffer = _decode(value)
        elif name == b"retry":
            self._take_retry(value)

    def _take_retry(self, value: bytes) -> None:
        if not value.isdigit():
            return
        # Python won't read an int of 4,301 digits, so count them first.
        digits = value.lstrip(b"0") or b"0"
        if len(digits) <= _MAX_RETRY_DIGITS and int(digits) <= MAX_RETRY:
            self._retry = int(digits)

    def _dispatch(self) -> SSEEvent | None:
        """End the block: return its event, unless it has no data line."""
        self._last_event_id = self._id_buffer
        name, self._type = self._type, b""
        if not self._data:
            return None
        del self._data[-1]
        data = _decode(self._data)
        self._data.clear()
        return unchecked_event(data, _decode(name) or "message", self._last_event_id)

    def _too_large(self, events: list[SSEEvent]) -> EventTooLargeError:
        """Give up on the stream."""
        self._failed = True
        limit = self._max_event_size
        msg = f"a line or an event's data is above max_event_size, {limit} bytes"
        return EventTooLargeError(msg, limit=limit, events=events)


def _decode(value: bytes | bytearray) -> str:
    """Decode as WHATWG does: one U+FFFD for each maximal part of a broken character."""
    return value.decode("utf-8", "replace")
