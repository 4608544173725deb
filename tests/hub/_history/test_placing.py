"""From update to record: ids, frames, and what can't be stored."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h3trio import SSEEvent, SSEParser
from h3trio.hub._history.placing import check_dedup, check_update, place
from h3trio.hub._history.record import Update


def update(**fields: Any) -> Update:  # noqa: ANN401 - a bad one too
    """Make an update, complete but for what is given."""
    whole: dict[str, Any] = {"event": SSEEvent("1"), "topics": ("a",), **fields}
    return Update(**whole)


def test_an_id_is_made_of_epoch_and_position() -> None:
    """Without an id of its own, an event gets the hub's, in its frame too."""
    event = SSEEvent("1\n2", event="note", retry=5, comment="c")
    record = place(update(event=event), position=7, epoch="bcdf2345", published=1.5)
    assert (record.id, record.position, record.published) == ("bcdf2345-7", 7, 1.5)
    assert record.frame == event.replace(id="bcdf2345-7").encode()
    assert SSEParser().feed(record.frame)[0].id == "bcdf2345-7"


TEXT = st.text(st.characters(codec="utf-8"), max_size=9)
LINE = st.text(st.characters(codec="utf-8", exclude_characters="\r\n\0"), max_size=9)


@given(
    data=TEXT,
    event=st.none() | LINE,
    retry=st.none() | st.integers(0, 99),
    comment=st.none() | TEXT,
)
def test_the_id_stands_where_the_event_would_have_it(
    data: str, event: str | None, retry: int | None, comment: str | None
) -> None:
    """The frame is that of the event with the id as a field, whatever its other fields."""
    whole = SSEEvent(data, event=event, retry=retry, comment=comment)
    record = place(update(event=whole), position=7, epoch="bcdf2345", published=0.0)
    assert record.frame == whole.replace(id="bcdf2345-7").encode()


def test_a_mere_cursor_gets_an_id() -> None:
    """An event without data is stored like any other."""
    record = place(update(event=SSEEvent(retry=5)), position=7, epoch="e", published=0.0)
    assert record.frame == b"id: e-7\nretry: 5\n\n"


def test_a_publishers_id_is_kept() -> None:
    """It becomes the id on the wire, and the event is framed as it is."""
    record = place(update(event=SSEEvent("1", id="x")), position=7, epoch="e", published=0.0)
    assert (record.id, record.frame) == ("x", b"id: x\ndata: 1\n\n")


def test_a_topic_given_twice_is_one_topic() -> None:
    """Order stays, repetition goes."""
    topics = ("b", "a", "b", "c")
    record = place(update(topics=topics), position=1, epoch="e", published=0.0)
    assert record.topics == ("b", "a", "c")


def test_private_is_kept() -> None:
    """The mark goes from update to record."""
    assert place(update(private=True), position=1, epoch="e", published=0.0).private


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"topics": ()}, "topics must not be empty"),
        ({"topics": ("a", "")}, "a topic must not be empty"),
        ({"topics": ("\ud800",)}, "lone surrogate"),
        ({"event": SSEEvent("1", id="bcdf2345-1")}, "id must not look like"),
        ({"event": SSEEvent("1", id="")}, "id must be"),
        ({"dedup": ""}, "dedup must be"),
    ],
)
def test_what_no_history_can_store_is_refused(fields: dict[str, Any], problem: str) -> None:
    """The reason names the field."""
    with pytest.raises(ValueError, match=problem):
        check_update(update(**fields))


def test_good_updates_pass() -> None:
    """Any text is a topic, NUL included: what a hub allows is the hub's to say."""
    check_update(update(topics=("☃", "a\0b", "https://example.com/?a=b#c"), dedup="k"))
    check_update(update(event=SSEEvent("1", id="x")))


@pytest.mark.parametrize("key", ["", "a\n", "a\0", "x" * 256, "\ud800"])
def test_a_key_is_printable_and_short(key: str) -> None:
    """Other keys are refused."""
    with pytest.raises(ValueError, match="dedup must be 1 to 255 printable"):
        check_dedup(key)


def test_keys_may_have_spaces_and_any_script() -> None:
    """Whatever prints is a key."""
    check_dedup("Ключ 1 ☃")
    check_dedup("x" * 255)
