"""From what a publisher asked for to a record with its place: what all histories share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .epochs import check_publisher_id
from .record import Record

if TYPE_CHECKING:
    from h3trio._wire.event import SSEEvent

    from .record import Update

MAX_DEDUP_LENGTH: Final = 255
"""Characters of a `dedup` key: a URL or a hash fits."""


def check_update(update: Update) -> None:
    """Check that an update can be stored by any history.

    Raises:
        ValueError: there is no topic, an empty one or one that UTF-8 can't carry; or its
            id or its `dedup` key isn't allowed.
    """
    if not update.topics:
        msg = "topics must not be empty"
        raise ValueError(msg)
    for topic in update.topics:
        _check_topic(topic)
    if update.event.id is not None:
        check_publisher_id(update.event.id)
    if update.dedup is not None:
        check_dedup(update.dedup)


def _check_topic(topic: str) -> None:
    if not topic:
        msg = "a topic must not be empty"
        raise ValueError(msg)
    try:
        topic.encode()
    except UnicodeEncodeError:
        msg = f"a topic must not contain a lone surrogate: {topic!r}"
        raise ValueError(msg) from None


def check_dedup(key: str) -> None:
    """Check a key under which a repeated publish is the same publish.

    Raises:
        ValueError: it isn't 1 to 255 printable characters.
    """
    if not (0 < len(key) <= MAX_DEDUP_LENGTH and key.isprintable()):
        msg = f"dedup must be 1 to {MAX_DEDUP_LENGTH} printable characters"
        raise ValueError(msg)


def place(update: Update, *, position: int, epoch: str, published: float) -> Record:
    """Make the record of an update: its id and its frame are decided here."""
    event, topics = update.event, update.topics
    wire_id = event.id
    if wire_id is None:
        wire_id = f"{epoch}-{position}"
        frame = _with_id(event, wire_id)
    else:
        frame = event.encode()
    return Record(
        position=position,
        id=wire_id,
        # A topic given twice is one topic: the index of a log holds a record once for each.
        topics=topics if len(topics) == 1 else tuple(dict.fromkeys(topics)),
        private=update.private,
        published=published,
        frame=frame,
        has_own_id=event.id is not None,
    )


def _with_id(event: SSEEvent, wire_id: str) -> bytes:
    """Encode an event that has no id with one."""
    if event.comment is not None:
        return event.replace(id=wire_id).encode()
    # The same at a seventh of the cost: the event was encoded before, to see its size. The id
    # stands behind the type, which is one line, and in front of the rest.
    encoded, line = event.encode(), f"id: {wire_id}\n".encode()
    if event.event is None:
        return line + encoded
    cut = encoded.index(b"\n") + 1
    return b"%b%b%b" % (encoded[:cut], line, encoded[cut:])
