"""`SSEEvent`: what is refused, what is written, and that nothing changes afterwards."""

from __future__ import annotations

import copy
import enum
import pickle
from typing import TYPE_CHECKING, Any

import pytest
from tables import table

from h3trio._wire.event import MAX_RETRY, SSEEvent, unchecked_event

if TYPE_CHECKING:
    from collections.abc import Callable

# What `str.splitlines` splits at and the event stream format does not.
NOT_LINE_ENDS = ["\v", "\f", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"]


@table(
    "event, wire",
    [
        (SSEEvent("hi"), b"data: hi\n\n"),
        (SSEEvent(b"hi"), b"data: hi\n\n"),
        (SSEEvent(""), b"data: \n\n"),
        (SSEEvent(" two spaces"), b"data:  two spaces\n\n"),
        (SSEEvent("a\0b"), b"data: a\0b\n\n"),
        (SSEEvent("↗é😀"), "data: ↗é😀\n\n".encode()),
        (SSEEvent("\ufeffx"), b"data: \xef\xbb\xbfx\n\n"),
        (SSEEvent("a\nb"), b"data: a\ndata: b\n\n"),
        (SSEEvent("a\rb"), b"data: a\ndata: b\n\n"),
        (SSEEvent("a\r\nb"), b"data: a\ndata: b\n\n"),
        (SSEEvent("a\n\rb"), b"data: a\ndata: \ndata: b\n\n"),
        (SSEEvent("\n"), b"data: \ndata: \n\n"),
        (SSEEvent("a\n\n"), b"data: a\ndata: \ndata: \n\n"),
        (SSEEvent(b"a\r\nb\rc\nd"), b"data: a\ndata: b\ndata: c\ndata: d\n\n"),
        (SSEEvent("data: x\n: y"), b"data: data: x\ndata: : y\n\n"),
        (SSEEvent("x", event="note"), b"event: note\ndata: x\n\n"),
        (SSEEvent("x", event=" note "), b"event:  note \ndata: x\n\n"),
        (SSEEvent("x", event="message"), b"event: message\ndata: x\n\n"),
        (SSEEvent("x", event=""), b"data: x\n\n"),
        (SSEEvent("x", id="1"), b"id: 1\ndata: x\n\n"),
        (SSEEvent("x", id=""), b"id: \ndata: x\n\n"),
        (SSEEvent("x", id="↗"), "id: ↗\ndata: x\n\n".encode()),
        (SSEEvent("x", retry=0), b"retry: 0\ndata: x\n\n"),
        (SSEEvent("x", retry=MAX_RETRY), b"retry: 9007199254740991\ndata: x\n\n"),
        (SSEEvent(id="7"), b"id: 7\n\n"),
        (SSEEvent(retry=5), b"retry: 5\n"),
        (SSEEvent(retry=5, comment="a\nb"), b": a\n: b\nretry: 5\n"),
        (SSEEvent(event="x", retry=5), b"event: x\nretry: 5\n\n"),
        (SSEEvent(event="e"), b"event: e\n\n"),
        (SSEEvent(id="7", retry=5), b"id: 7\nretry: 5\n\n"),
        (SSEEvent(comment="hi"), b": hi\n"),
        (SSEEvent(comment=""), b":\n"),
        (SSEEvent(comment="a\nb\rc\r\n"), b": a\n: b\n: c\n:\n"),
        (SSEEvent(comment="a\0b"), b": a\0b\n"),
        (SSEEvent(id="7", comment="c"), b": c\nid: 7\n\n"),
        (
            SSEEvent("d", event="e", id="i", retry=9, comment="c"),
            b": c\nevent: e\nid: i\nretry: 9\ndata: d\n\n",
        ),
    ],
)
def test_wire_format(event: SSEEvent, wire: bytes) -> None:
    """Each field has its lines, in the one order, one space after each colon."""
    assert event.encode() == wire


@table("char", NOT_LINE_ENDS)
def test_only_cr_and_lf_end_lines(char: str) -> None:
    """Characters that merely look like line ends are data, comment, type and id."""
    text = f"a{char}b"
    event = SSEEvent(text, event=text, id=text, comment=text)
    wire = f": {text}\nevent: {text}\nid: {text}\ndata: {text}\n\n"
    assert event.encode() == wire.encode()


def test_encoding_is_done_once() -> None:
    """The bytes are kept: a second call returns the very same object."""
    event = SSEEvent("x" * 100, id="1")
    assert event.encode() is event.encode()


@table("char", ["\r", "\n", "\0", "\r\n"])
@table("place", ["{}", "{}a", "a{}", "a{}b", "↗{}b"])
@table("field", ["event", "id"])
def test_a_one_line_field_refuses_cr_lf_and_nul(field: str, place: str, char: str) -> None:
    """Nothing is smuggled through the type or the id, wherever it stands."""
    fields: dict[str, Any] = {field: place.format(char)}
    with pytest.raises(ValueError, match=rf"^{field} must not contain (CR|LF|NUL): index [01]$"):
        SSEEvent("x", **fields)


@table("field", ["data", "event", "id", "comment"])
def test_lone_surrogates_are_refused(field: str) -> None:
    """What UTF-8 can't carry is refused at construction, in every text field."""
    fields: dict[str, Any] = {field: "ab\ud800"}
    with pytest.raises(ValueError, match=rf"^{field} must not contain a lone surrogate: index 2$"):
        SSEEvent(**fields)


@table("data", [b"a\xff", b"\xe2\x80", b"\xed\xa0\x80", b"\xc0\xaf"])
def test_data_that_is_not_utf8_is_refused(data: bytes) -> None:
    """Bytes that aren't UTF-8 are refused, as no client could read them."""
    with pytest.raises(ValueError, match=r"^data must be UTF-8 .* at offset \d$") as caught:
        SSEEvent(data)
    assert type(caught.value) is ValueError


@table(
    "field, value",
    [
        ("data", 1),
        ("data", {"a": 1}),
        ("data", bytearray(b"x")),
        ("event", b"note"),
        ("event", 0),
        ("id", 1),
        ("id", b"1"),
        ("retry", True),
        ("retry", False),
        ("retry", 1.0),
        ("retry", "1"),
        ("comment", b"x"),
        ("comment", 0),
    ],
)
def test_wrong_types_are_refused_by_name(field: str, value: object) -> None:
    """A wrong type is a TypeError that names the field and the type, falsy values too."""
    fields: dict[str, Any] = {field: value}
    with pytest.raises(TypeError, match=rf"^{field} must be .*, not {type(value).__name__}$"):
        SSEEvent(**fields)


@table("retry", [-1, MAX_RETRY + 1, 10**5000, -(10**5000)])
def test_retry_out_of_range_is_refused(retry: int) -> None:
    """A time that is negative, or that not every client could hold, is refused."""
    with pytest.raises(ValueError, match=r"^retry must not be (negative|above 9007199254740991)"):
        SSEEvent("x", retry=retry)


@pytest.mark.parametrize("fields", [{}, {"event": ""}, {"data": None, "id": None}], ids=repr)
def test_an_event_of_nothing_is_refused(fields: dict[str, Any]) -> None:
    """An event that would put nothing on the wire is a mistake, not an event."""
    with pytest.raises(ValueError, match="nothing to send"):
        SSEEvent(**fields)


def test_fields_are_kept_as_given() -> None:
    """Every field can be read back; only bytes become str and an empty type None."""
    event = SSEEvent(b"\xc3\xa9\r\n", event="e", id="", retry=0, comment="c")
    assert (event.data, event.event, event.id, event.retry, event.comment) == (
        "é\r\n",
        "e",
        "",
        0,
        "c",
    )
    bare = SSEEvent("", event="")
    assert (bare.data, bare.event, bare.id, bare.retry, bare.comment) == (
        "",
        None,
        None,
        None,
        None,
    )


def test_subclasses_of_str_and_int_become_plain() -> None:
    """What an enum says of itself never reaches the wire, only its value."""

    class Kind(str, enum.Enum):  # noqa: UP042 - because its str() is not its value
        NOTE = "note"

    class Delay(enum.IntEnum):
        LONG = 5000

    event = SSEEvent(Kind.NOTE, event=Kind.NOTE, id=Kind.NOTE, retry=Delay.LONG, comment=Kind.NOTE)
    assert event.encode() == b": note\nevent: note\nid: note\nretry: 5000\ndata: note\n\n"
    assert {type(event.data), type(event.event), type(event.id), type(event.comment)} == {str}
    assert type(event.retry) is int


def test_a_str_subclass_cannot_lie_about_its_content() -> None:
    """The checks see the characters, not what a subclass claims about them."""

    class Liar(str):
        __slots__ = ()

        def isprintable(self) -> bool:
            return True

        def __contains__(self, key: object) -> bool:
            return False

    with pytest.raises(ValueError, match="id must not contain LF"):
        SSEEvent("x", id=Liar("1\ndata: smuggled"))


@table("name", ["data", "event", "id", "retry", "comment", "other"])
def test_events_are_immutable(name: str) -> None:
    """No field can be set or deleted, and none added."""
    event = SSEEvent("x", event="e", id="1", retry=1, comment="c")
    with pytest.raises(AttributeError):
        setattr(event, name, None)
    with pytest.raises(AttributeError):
        delattr(event, name)
    assert event == SSEEvent("x", event="e", id="1", retry=1, comment="c")


def test_equality_and_hash_go_by_the_five_fields() -> None:
    """Events with equal fields are equal, encoded or not; any other field makes a difference."""
    fields: dict[str, Any] = {"data": "x", "event": "e", "id": "1", "retry": 1, "comment": "c"}
    event, same = SSEEvent(**fields), SSEEvent(**fields)
    same.encode()
    assert event == same
    assert hash(event) == hash(same)
    for name in fields:
        other: dict[str, Any] = {**fields, name: 2 if name == "retry" else "other"}
        assert event != SSEEvent(**other)
    assert event != ("x", "e", "1", 1, "c")
    assert SSEEvent("x", id="") != SSEEvent("x")
    assert SSEEvent("x", event="") == SSEEvent("x")


@table(
    "event, text",
    [
        (SSEEvent("hi"), "SSEEvent('hi')"),
        (SSEEvent(b"hi", id="1"), "SSEEvent('hi', id='1')"),
        (SSEEvent("", event="e"), "SSEEvent('', event='e')"),
        (SSEEvent(id=""), "SSEEvent(id='')"),
        (SSEEvent(retry=0, comment="c"), "SSEEvent(retry=0, comment='c')"),
    ],
)
def test_repr_shows_the_fields_that_are_set(event: SSEEvent, text: str) -> None:
    """The repr is the shortest call that makes the same event."""
    assert repr(event) == text
    assert eval(text, {"SSEEvent": SSEEvent}) == event  # noqa: S307 - because that's the promise


def pickled(event: SSEEvent) -> SSEEvent:
    """Send an event through a pickle."""
    again: SSEEvent = pickle.loads(pickle.dumps(event))  # noqa: S301 - because it is our own
    return again


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickled])
def test_copies_are_equal(duplicate: Callable[[SSEEvent], SSEEvent]) -> None:
    """Copying and pickling keep the fields, those that only a parser can set too."""
    event = SSEEvent("x", event="e", id="1", retry=1, comment="c")
    event.encode()
    assert duplicate(event) == event
    assert duplicate(event).encode() == event.encode()
    parsed = unchecked_event("x", "a\0b", "")
    assert duplicate(parsed) == parsed


def test_replace_changes_what_is_named() -> None:
    """`replace` makes a new event with some fields changed, and leaves the old one alone."""
    event = SSEEvent("x", event="e", id="1", retry=1, comment="c")
    event.encode()
    assert event.replace(id="2", retry=None) == SSEEvent("x", event="e", id="2", comment="c")
    assert event.replace(id="2").encode() == b": c\nevent: e\nid: 2\nretry: 1\ndata: x\n\n"
    assert event.replace(data=b"y", event=None).encode() == b": c\nid: 1\nretry: 1\ndata: y\n\n"
    assert event == SSEEvent("x", event="e", id="1", retry=1, comment="c")


def test_replace_checks_like_the_constructor() -> None:
    """No change gets past the checks, and no unknown name either."""
    with pytest.raises(ValueError, match="id must not contain LF"):
        SSEEvent("x").replace(id="a\nb")
    with pytest.raises(ValueError, match="nothing to send"):
        SSEEvent("x").replace(data=None)
    unknown: dict[str, Any] = {"type": "x"}
    with pytest.raises(TypeError, match="type"):
        SSEEvent("x").replace(**unknown)


def test_a_type_with_nul_is_not_passed_on() -> None:
    """An event type with NUL, which a parser must accept, is refused when it is to be sent."""
    event = unchecked_event("x", "a\0b", "1")
    assert event.event == "a\0b"
    for attempt in (event.encode, event.replace):
        with pytest.raises(ValueError, match="event must not contain NUL"):
            attempt()
    assert event.replace(event="ab").encode() == b"event: ab\nid: 1\ndata: x\n\n"
