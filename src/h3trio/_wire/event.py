"""`SSEEvent`: one event, a checked value, and its bytes.

Strategy: the constructor checks everything, so an `SSEEvent` that exists can be framed, and
encoding only joins strings. A value that the format can't carry is refused, never stripped.

Rules of this file:

1. A line ends at CRLF, CR or LF (WHATWG HTML, 9.2.5, `end-of-line`), and nowhere else.
   `str.splitlines` also splits at VT, FF, NEL, U+2028 and more, which are data here.
2. The order on the wire is comments, `event`, `id`, `retry`, `data`: some clients insist on it.
3. There is always one space after the colon. A parser removes exactly one, so leading spaces of a
   value survive.
"""

from __future__ import annotations

from typing import Final, TypeAlias, TypedDict, Unpack, cast, final

# JavaScript holds integers exactly up to here, so every client reads the number that was sent.
MAX_RETRY: Final = 2**53 - 1

_NAMES: Final = ("data", "event", "id", "retry", "comment")
_Fields: TypeAlias = tuple[str | None, str | None, str | None, int | None, str | None]
_NOTHING: Final = (None, None, None, None, None)


class _Changes(TypedDict, total=False):
    data: str | bytes | None
    event: str | None
    id: str | None
    retry: int | None
    comment: str | None


@final
class SSEEvent:
    r"""One event of an event stream, immutable (WHATWG HTML, 9.2.5).

    Args:
      data: The payload. CRLF, CR and LF in it separate lines; a client sees each as LF. Bytes must
        be UTF-8 and are held as `str`. ``None`` writes no data line: clients dispatch nothing, but
        still take `id` and `retry`. ``""`` is an event with empty data.
      event: The event type. ``""`` becomes ``None``, the type "message". No CR, LF or NUL.
      id: The id a client sends back as ``Last-Event-ID``. ``""`` tells it to forget the one it has.
        No CR, LF or NUL.
      retry: The reconnection time in milliseconds, 0 to `MAX_RETRY`. Clients built on JavaScript
        timers reconnect at once if it is 2**31 (25 days) or more.
      comment: Text that clients ignore, of as many lines as you like.

    Raises:
      TypeError: a field has the wrong type (a bool is no number here).
      ValueError: a field can't be put on the wire, or all are missing. Both messages start with
        the field's name.

    Events are equal if all five fields are, line ends of `data` included.
    """

    # Properties over slots, not an overridden `__setattr__`: the constructor's stores stay plain.
    __slots__ = ("_comment", "_data", "_event", "_id", "_retry", "_wire")

    def __init__(
        self,
        data: str | bytes | None = None,
        *,
        event: str | None = None,
        id: str | None = None,
        retry: int | None = None,
        comment: str | None = None,
    ) -> None:
        self._data = None if data is None else _data(data)
        self._event = None if event is None else one_line("event", event) or None
        self._id = None if id is None else one_line("id", id)
        self._retry = None if retry is None else _milliseconds(retry)
        self._comment = None if comment is None else _text("comment", comment)
        self._wire: bytes | None = None
        if data is None and self._fields() == _NOTHING:
            raise ValueError("data, event, id, retry and comment are all missing: nothing to send")

    @property
    def data(self) -> str | None:
        """The payload as given, or ``None`` if there is no data line."""
        return self._data

    @property
    def event(self) -> str | None:
        """The event type, or ``None`` for the default, "message"."""
        return self._event

    @property
    def id(self) -> str | None:
        """The event id; ``""`` resets the client's, ``None`` leaves it alone."""
        return self._id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds."""
        return self._retry

    @property
    def comment(self) -> str | None:
        """Text for people and proxies, which clients ignore."""
        return self._comment

    def encode(self) -> bytes:
        """Return the event as UTF-8, made at the first call and kept.

        It ends with a blank line, unless it holds nothing but a comment and `retry`. These take
        effect at the end of their line, and many clients, such as httpx-sse, OpenAI's and
        fetch-event-source, show a blank line behind them as an empty event.

        Raises:
          ValueError: the event came from a stream whose event type holds NUL. A parser
            has to accept that, this side doesn't pass it on.
        """
        wire = self._wire
        if wire is None:
            self._wire = wire = self._encode()
        return wire

    def replace(self, **changes: Unpack[_Changes]) -> SSEEvent:
        """Return a new event with these fields changed, checked like any other."""
        fields = {**dict(zip(_NAMES, self._fields(), strict=True)), **changes}
        return SSEEvent(**cast("_Changes", fields))

    __replace__ = replace  # what `copy.replace` calls, from Python 3.13 on

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, SSEEvent):
            return NotImplemented
        return self._fields() == other._fields()

    def __hash__(self) -> int:
        return hash(self._fields())

    def __repr__(self) -> str:
        shown = [] if self._data is None else [repr(self._data)]
        shown += [
            f"{name}={value!r}"
            for name, value in zip(_NAMES[1:], self._fields()[1:], strict=True)
            if value is not None
        ]
        return f"SSEEvent({', '.join(shown)})"

    def __getstate__(self) -> _Fields:
        return self._fields()

    def __setstate__(self, state: _Fields) -> None:
        # Unchecked: what was an event before is one again, a parsed one too.
        self._data, self._event, self._id, self._retry, self._comment = state
        self._wire = None

    def _fields(self) -> _Fields:
        return self._data, self._event, self._id, self._retry, self._comment

    def _encode(self) -> bytes:
        head = "" if self._comment is None else _comment_lines(self._comment)
        if self._event is not None:
            # Checked again, as `unchecked_event` lets a NUL through.
            head += f"event: {one_line('event', self._event)}\n"
        if self._id is not None:
            head += f"id: {self._id}\n"
        if self._retry is not None:
            head += f"retry: {self._retry}\n"
        if self._data is not None:
            # As bytes: their `replace` is several times as fast as that of str.
            lines = _with_lf(self._data).encode().replace(b"\n", b"\ndata: ")
            return b"%bdata: %b\n\n" % (head.encode(), lines)
        # A comment and `retry` are done with at the end of their line (9.2.6). What follows may
        # stand right behind them, so the blank line would only show clients an empty event.
        is_block = self._event is not None or self._id is not None
        return f"{head}\n".encode() if is_block else head.encode()


def unchecked_event(data: str, event: str, id: str) -> SSEEvent:
    """Make an event of the fields that a parser found, without the constructor's checks.

    A stream may hold an event type with a NUL in it, which 9.2.6 says to dispatch and the
    constructor refuses. Fields cut out of a line and decoded have no lone surrogate, CR or LF.
    """
    made = SSEEvent.__new__(SSEEvent)
    made.__setstate__((data, event, id, None, None))
    return made


def _data(value: str | bytes) -> str:
    """Return the payload as plain `str`."""
    if isinstance(value, bytes):
        try:
            return str(value, "utf-8")
        except UnicodeDecodeError as exc:
            problem = f"{exc.reason} at offset {exc.start}"
            raise ValueError(f"data must be UTF-8 if it is bytes: {problem}") from None
    return _text("data", value, "str, bytes or None")


def one_line(name: str, value: str) -> str:
    """Return `value`, which has to stay on one line, as plain `str`.

    Raises:
      TypeError: it is no `str`.
      ValueError: it has a CR, LF, NUL or lone surrogate. Both messages start with `name`.
    """
    text = _text(name, value)
    # One C call clears nearly every text; only the others are looked at closely.
    if not text.isprintable():
        for char, code in (("\r", "CR"), ("\n", "LF"), ("\0", "NUL")):
            if char in text:
                raise ValueError(f"{name} must not contain {code}: index {text.index(char)}")
    return text


def _text(name: str, value: object, accepted: str = "str or None") -> str:
    """Return a text that UTF-8 can carry, as plain `str`."""
    if type(value) is not str:
        if not isinstance(value, str):
            raise TypeError(f"{name} must be {accepted}, not {type(value).__name__}")
        # A subclass may override the methods that the checks here rely on.
        value = str.__str__(value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError as exc:
            problem = f"a lone surrogate: index {exc.start}"
            raise ValueError(f"{name} must not contain {problem}") from None
    return value


def _milliseconds(value: object) -> int:
    """Return a reconnection time as plain `int`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"retry must be int (milliseconds) or None, not {type(value).__name__}")
    if not 0 <= value <= MAX_RETRY:
        # The value itself stays out: it may be one that Python won't print.
        problem = "negative" if value < 0 else f"above {MAX_RETRY}"
        raise ValueError(f"retry must not be {problem} (milliseconds)")
    return int.__int__(value)


def _with_lf(text: str) -> str:
    """Turn every line end into LF."""
    if "\r" in text:
        return text.replace("\r\n", "\n").replace("\r", "\n")
    return text


def _comment_lines(text: str) -> str:
    """Write each line behind a colon; an empty line is the bare colon of a heartbeat."""
    lines = _with_lf(text).split("\n")
    return "".join(f": {line}\n" if line else ":\n" for line in lines)
