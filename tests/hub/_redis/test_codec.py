"""What goes to Redis and comes from it: updates, records, the state, messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio import SSEEvent
from h3trio.hub import Record, Update
from h3trio.hub._history.damage import DamagedError
from h3trio.hub._redis import codec

EPOCH = "c2345678"
POSITION = 17

line = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=12)
own_ids = names.filter(lambda id: id == id.strip() and not id.startswith(EPOCH[0]))
events = st.builds(
    SSEEvent,
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40),
    event=st.none() | names.filter(lambda name: name not in ("reset", "cursor")),
    id=st.none() | own_ids,
    retry=st.none() | st.integers(0, 9999),
    comment=st.none() | line | st.just(f"x\nid: {EPOCH}-17\n\nid: bbbbbbbb-0"),
)
updates = st.builds(
    Update,
    events,
    st.lists(names.filter(lambda name: name != "*"), min_size=1, max_size=3),
    private=st.booleans(),
    dedup=st.none() | st.text("ké ", min_size=1, max_size=5),
    last=st.booleans(),
)
silent = st.builds(
    Update,
    st.none(),
    st.just(["a"]),
    private=st.booleans(),
    dedup=st.none(),
    last=st.just(value=True),
)


def entry_of(update: Update, position: int = POSITION) -> list[Any]:
    """Do what the script does with the arguments of an update, as far as the record goes."""
    topics, flags, own, key, _digest, front, back = (
        part if isinstance(part, bytes) else str(part).encode()
        for part in codec.arguments_of(update)
    )
    is_whole = own or not (front or back)
    frame = front if is_whole else front + f"id: {EPOCH}-{position}\n".encode() + back
    fields = {b"e": EPOCH.encode(), b"p": b"12.500000", b"t": topics, b"g": flags, b"i": own}
    fields |= {b"k": key, b"f": frame}
    return [b"%d-0" % position, [part for pair in fields.items() for part in pair]]


def values(record: Record) -> tuple[object, ...]:
    """Everything that a record is."""
    return tuple(getattr(record, name) for name in Record.__slots__)


@given(updates | silent)
def test_a_record_is_what_the_update_would_have_made(update: Update) -> None:
    """Whatever the event: the id that the script makes stands where it would stand without it."""
    made = Record.from_update(update, position=POSITION, epoch=EPOCH, published=12.5)
    assert values(codec.record_of(entry_of(update))) == values(made)


@given(updates, updates, st.booleans())
def test_a_digest_is_that_of_what_repeats(first: Update, second: Update, same: bool) -> None:  # noqa: FBT001 - hypothesis gives it
    """Two updates with a key have the same digest if the second would repeat the first."""
    made = first if same else second
    one, other = (
        Update(u.event, ["a"], private=u.private, last=u.last, dedup="k") for u in (first, made)
    )
    record = Record.from_update(one, position=POSITION, epoch=EPOCH, published=0.0)
    digests = [codec.arguments_of(each)[4] for each in (one, other)]
    assert (digests[0] == digests[1]) == record.repeats(other)


def test_a_key_belongs_to_its_topics_in_any_order() -> None:
    """The same key of other topics is another one, and no two of these look alike."""
    keys = {
        topics: codec.arguments_of(Update(SSEEvent("x"), topics, dedup="k"))[3]
        for topics in (("a", "b"), ("b", "a"), ("a",), ("ab",), ("a b",))
    }
    assert keys["a", "b"] == keys["b", "a"]
    assert len(set(keys.values())) == len(keys) - 1
    assert codec.arguments_of(Update(SSEEvent("x"), ["a"]))[3:5] == ("", "")


GOOD = entry_of(Update(SSEEvent("x"), ["a"]))


def nested(depth: int) -> list[Any]:
    """A list in a list in a list."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


DEEP = nested(10**5)


def changed(name: bytes, value: bytes | None) -> list[Any]:
    """The good entry with another value, or without one."""
    fields = dict(zip(GOOD[1][::2], GOOD[1][1::2], strict=True))
    fields |= {} if value is None else {name: value}
    if value is None:
        del fields[name]
    return [GOOD[0], [part for pair in fields.items() for part in pair]]


@table(
    "entry, position",
    [
        (None, None),
        ([], None),
        ([b"x", []], None),
        ([b"3-0", [b"e"]], 3),
        ([b"3-0", [b"e", 5]], 3),
        ([b"3-0", [DEEP, b""]], 3),
        (changed(b"e", None), POSITION),
        (changed(b"e", b"\xff"), POSITION),
        (changed(b"p", b"nan"), POSITION),
        (changed(b"p", b"later"), POSITION),
        (changed(b"t", b""), POSITION),
        (changed(b"t", b"a\n\nb"), POSITION),
        (changed(b"f", b""), POSITION),
        (changed(b"f", b"data: x\n"), POSITION),
        (changed(b"f", b"data: \xff\n\n"), POSITION),
    ],
)
def test_a_damaged_entry_names_its_position(entry: Any, position: int | None) -> None:  # noqa: ANN401 - what a server may send
    """Whatever is wrong with it."""
    with pytest.raises(DamagedError) as caught:
        codec.record_of(entry)
    assert caught.value.position == position


def test_fields_of_a_newer_version_are_passed_over() -> None:
    """An entry and a state may have more than is known here."""
    record = codec.record_of([GOOD[0], [*GOOD[1], b"new", b"thing"]])
    assert values(record) == values(codec.record_of(GOOD))
    header = codec.Header.read([*header_of(serial=5), b"new", b"thing"])
    assert header.serial == 5


def header_of(**numbers: int) -> list[bytes]:
    """A state as it comes: all zero but for what is given."""
    fields = dict.fromkeys(codec.EMPTY._fields, 0) | numbers | {"epoch": EPOCH}
    return [str(part).encode() for pair in fields.items() for part in pair]


def packed(*parts: object) -> bytes:
    """Write a message as the scripts do."""

    def text(value: object) -> Any:  # noqa: ANN401 - JSON
        if isinstance(value, list):
            return list(map(text, value))
        return value.decode() if isinstance(value, bytes) else value

    return json.dumps(text(list(parts)), ensure_ascii=False).encode()


def test_a_message_tells_a_change() -> None:
    """What was added, removed and noted, and the state behind that."""
    marks = [b"+a", b"3", "-é\nb".encode(), b"4", b"*c", b"5"]
    message = packed("log", header_of(last=17), ["3", "4"], marks, [GOOD], "new")
    change = codec.message_of(message)
    assert isinstance(change, codec.Change)
    assert (change.header.last, change.gone) == (17, [3, 4])
    assert change.marks == [("+a", 3), ("-é\nb", 4), ("*c", 5)]
    assert [codec.record_of(entry).position for entry in change.entries] == [POSITION]


def test_a_message_may_be_a_probe_or_unknown() -> None:
    """A kind that a newer version has is nothing to this one."""
    assert codec.message_of(packed("probe", "word", "new")) == b"word"
    assert codec.message_of(packed("new", "thing")) == b""


@given(
    st.binary(max_size=60)
    | st.sampled_from([b"[]", b"{}", b"1", b"null", b'"log"', b"[" * 100_000])
)
def test_any_other_message_is_damaged(data: bytes) -> None:
    """The channel may have other publishers; nothing else comes of it."""
    with pytest.raises(DamagedError):
        codec.message_of(data)


@table("parts", [["log", [], [], [], []], ["log", header_of(), ["x"], [], []], ["log", 1, 2, 3, 4]])
def test_half_a_change_is_damaged(parts: list[Any]) -> None:
    """It isn't taken over in part."""
    with pytest.raises(DamagedError):
        codec.message_of(packed(*parts))
