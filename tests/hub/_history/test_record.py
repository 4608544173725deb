"""`Update` and `Record`: checked when made, and from one to the other; `Page`."""

from __future__ import annotations

import pickle
from itertools import product
from typing import Any

import pytest

from h3trio import SSEEvent, SSEParser
from h3trio.hub import Record, Update


def update(**fields: Any) -> Update:  # noqa: ANN401 - a bad one too
    """Make an update, complete but for the given fields."""
    whole: dict[str, Any] = {"event": SSEEvent("1"), "topics": ("a",), **fields}
    return Update(**whole)


def placed(position: int = 7, **fields: Any) -> Record:  # noqa: ANN401 - as above
    """Make the record of an update."""
    return Record.from_update(update(**fields), position=position, epoch="bcdf2345", published=1.5)


# -- updates


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"topics": ()}, "an update needs at least one topic"),
    ({"topics": ("a", "")}, "a topic may not be empty"),
    ({"topics": ("*",)}, "can be subscribed to, not published to"),
    ({"topics": ("\ud800",)}, "control characters or surrogates"),
    ({"topics": ("a\0b",)}, "control characters or surrogates"),
    ({"topics": ("a\n",)}, "control characters or surrogates"),
    ({"topics": ("\x85",)}, "control characters or surrogates"),
    ({"event": SSEEvent("1", id="bcdf2345-1")}, "id must not look like"),
    ({"event": SSEEvent("1", id="")}, "id must"),
    ({"event": SSEEvent("1", id="\xe9 ")}, "id must"),
    ({"event": SSEEvent("1", event="reset")}, "the type reset is the hub's own"),
    ({"event": SSEEvent("1", event="cursor")}, "the type cursor is the hub's own"),
    ({"event": SSEEvent(comment="only")}, "an event needs data, an id or a retry"),
    *(
        ({"dedup": key}, "dedup must be 1 to 255 printable")
        for key in ("", "a\n", "a\0", "x" * 256, "\ud800")
    ),
]


def test_an_update_that_no_history_can_store_is_never_made(subtests: pytest.Subtests) -> None:
    """The constructor refuses it, with the reason."""
    for fields, problem in REFUSED:
        with subtests.test(problem, fields=fields), pytest.raises(ValueError, match=problem):
            update(**fields)


def test_an_event_that_cant_be_encoded_is_refused() -> None:
    """A parser may find a type with NUL; it is met here, and not in the middle of an append."""
    (event,) = SSEParser().feed(b"event: a\0b\nid: x\ndata: 1\n\n")
    with pytest.raises(ValueError, match="event must not contain NUL"):
        update(event=event)


def test_a_single_string_is_no_list_of_topics() -> None:
    """It would be a topic for each letter."""
    with pytest.raises(TypeError, match="topics must be several, not the string 'news'"):
        update(topics="news")


def test_good_updates_are_made() -> None:
    """Any printable text is a topic or a key, whatever its script."""
    made = update(topics=("☃", "https://example.com/?a=b#c", " "), dedup="Ключ 1 ☃")
    assert (made.topics[0], made.dedup, made.private) == ("☃", "Ключ 1 ☃", False)
    assert update(dedup="x" * 255, event=SSEEvent("1", id="x")).own_id == "x"
    assert update(event=SSEEvent(retry=5)).encoded == b"retry: 5\n"


def test_an_update_without_an_event_closes() -> None:
    """It has no bytes; one that does nothing at all is refused."""
    closing = Update(None, ["a"], last=True)
    assert (closing.encoded, closing.own_id, closing.last) == (b"", None, True)
    with pytest.raises(ValueError, match="has to be the last of its topics"):
        Update(None, ["a"])


def test_a_topic_given_twice_is_one_topic() -> None:
    """Order stays, repetition goes."""
    assert update(topics=iter("babc")).topics == ("b", "a", "c")


def test_an_update_shows_its_topics_and_event() -> None:
    """Its repr is enough to tell what a failing test saw."""
    assert repr(update(topics=("a", "b"))) == "<Update of a, b: SSEEvent('1')>"


# -- from update to record


def test_an_id_is_made_of_epoch_and_position() -> None:
    """Without an id of its own, an event gets the hub's, in its frame too."""
    event = SSEEvent("1\n2", event="note", retry=5, comment="c")
    record = placed(event=event)
    assert (record.id, record.position, record.published) == ("bcdf2345-7", 7, 1.5)
    assert record.frame == event.replace(id="bcdf2345-7").encode()
    assert SSEParser().feed(record.frame)[0].id == "bcdf2345-7"
    assert not record.has_own_id


def test_the_id_stands_where_the_event_would_have_it() -> None:
    """The frame is that of the event with the id as a field, whatever its other fields."""
    texts = ("", " ", "1", "1\n2", "\r\n", "\n\n", ":", "a\0", "é☃")
    events = (None, "", "note", "a: b", "é☃")
    for data, event, retry, comment in product(texts, events, (None, 0), (None, *texts)):
        whole = SSEEvent(data, event=event, retry=retry, comment=comment)
        assert placed(event=whole).frame == whole.replace(id="bcdf2345-7").encode()


def test_a_mere_cursor_gets_an_id() -> None:
    """An event without data is stored like any other."""
    assert placed(event=SSEEvent(retry=5)).frame == b"id: bcdf2345-7\nretry: 5\n\n"


def test_a_publishers_id_is_kept() -> None:
    """It becomes the id on the wire, and the event is framed as it is."""
    record = placed(event=SSEEvent("1", id="x"))
    assert (record.id, record.frame, record.has_own_id) == ("x", b"id: x\ndata: 1\n\n", True)


def test_topics_and_rights_are_kept() -> None:
    """They go from update to record."""
    record = placed(private=True, topics=("b", "a"))
    assert (record.private, record.topics) == (True, ("b", "a"))


# -- records


def test_a_record_shows_place_id_and_topics() -> None:
    """Its repr is enough to tell what a failing test saw."""
    assert repr(placed(topics=("a", "b"))) == "<Record 7: bcdf2345-7 on a, b>"


def test_updates_can_be_pickled() -> None:
    """An update that comes out of a pickle is as good as before."""
    made = pickle.loads(pickle.dumps(update(private=True, dedup="k")))  # noqa: S301 - our own
    assert (made.topics, made.encoded, made.private, made.dedup) == (
        ("a",),
        b"data: 1\n\n",
        True,
        "k",
    )
