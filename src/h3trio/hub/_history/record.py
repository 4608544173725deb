"""`Update` and `Record`: the values that go into the log and stand in it; `Appended` and `Page`.

An `Update` is checked when it is made, so whoever is given one trusts it: the committer and every
history store it as it is. Only the limits of one hub are beside it, in `Hub`.
"""

from __future__ import annotations

from sys import getsizeof
from typing import TYPE_CHECKING, Final, NamedTuple, final

from .epochs import check_publisher_id, is_own_syntax
from .errors import KeyReusedError, TopicClosedError
from .selection import EVERYTHING, check_several, check_topic

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from h3trio._wire.event import SSEEvent

    from .selection import Selection

RESET: Final = "reset"
"""The type of the event that tells a subscriber of a gap. No publisher's event may have it."""

CURSOR: Final = "cursor"
"""The type of the event that brings a browser its cursor. No publisher's event may have it."""

_UPDATE_BYTES: Final = 1024
"""Bytes of an update beside its event and its topics: objects, and those of the task that waits."""

MAX_DEDUP_LENGTH: Final = 255
"""Characters of a `dedup` key: a URL or a hash fits."""


@final
class Update:
    """One event for one or more topics, as a publisher asks for it: good for any history.

    Args:
        event: what to send. Its `id`, if any, becomes the id on the wire. `None` sends nothing,
            for an update that only closes its topics.
        topics: at least one; the first is the canonical one. One given twice counts once.
        private: whether only subscribers with the right for a topic may see it.
        dedup: a key under which a repeated publish is the same publish, for these topics: 1 to
            255 printable characters.
        last: whether it closes its topics: nothing can be published to them behind it.

    Raises:
        ValueError: there is no topic, or one is empty, `*`, or holds a control character or a
            surrogate; the event has the type `reset` or `cursor`, or neither data nor id nor
            retry; its id isn't 1 to 512 bytes of UTF-8, holds a control character, begins or ends
            with a space, or looks like one of the hub's own; there is no event, and `last` isn't
            set; or the `dedup` key isn't allowed.
        TypeError: topics is a single string.
    """

    # No frozen dataclass: that sets each field by a call, on the path of every publish.
    __slots__ = ("dedup", "encoded", "event", "last", "own_id", "private", "topics")

    def __init__(
        self,
        event: SSEEvent | None,
        topics: Iterable[str],
        *,
        private: bool = False,
        dedup: str | None = None,
        last: bool = False,
    ) -> None:
        check_several(topics)
        self.topics: Final[tuple[str, ...]] = tuple(dict.fromkeys(topics))
        """Where it is published, each topic once; the first is the canonical one."""
        if not self.topics:
            raise ValueError("an update needs at least one topic")
        for topic in self.topics:
            check_topic(topic)
        if EVERYTHING in self.topics:
            raise ValueError(
                "the topic * means every topic; it can be subscribed to, not published to"
            )
        if dedup is not None and not (0 < len(dedup) <= MAX_DEDUP_LENGTH and dedup.isprintable()):
            raise ValueError(f"dedup must be 1 to {MAX_DEDUP_LENGTH} printable characters")
        if event is not None:
            _check_event(event)
        elif not last:
            raise ValueError("an update without an event has to be the last of its topics")
        self.event: Final[SSEEvent | None] = event
        """The event to send, if there is one."""
        self.encoded: Final[bytes] = b"" if event is None else event.encode()
        """The event as bytes, without an id of the hub's."""
        self.own_id: Final[str | None] = None if event is None else event.id
        """The id that its publisher chose."""
        self.private: Final[bool] = private
        """Whether only subscribers with the right for a topic may see it."""
        self.dedup: Final[str | None] = dedup
        """A key under which a repeated publish is the same publish."""
        self.last: Final[bool] = last
        """Whether it closes its topics."""

    def __repr__(self) -> str:
        return f"<Update of {', '.join(self.topics)}: {self.event!r}>"

    @property
    def size(self) -> int:
        """About the bytes of memory that it takes, for limits."""
        topics = sum(map(getsizeof, self.topics))
        return _UPDATE_BYTES + 2 * len(self.encoded) + topics

    @property
    def scoped_key(self) -> tuple[str, ...] | None:
        """The `dedup` key and its topics, in whatever order they were given; `None` without one.

        A key belongs to its topics: who may not publish to them can't use it up.
        """
        return None if self.dedup is None else (self.dedup, *sorted(self.topics))


def _check_event(event: SSEEvent) -> None:
    if event.event == RESET:
        raise ValueError("the type reset is the hub's own: it tells subscribers of a gap")
    if event.event == CURSOR:
        raise ValueError("the type cursor is the hub's own: it brings browsers their cursor")
    id = event.id
    if id is not None:
        check_publisher_id(id)
    elif event.data is None and event.retry is None:
        raise ValueError("an event needs data, an id or a retry to be published")


@final
class Record:
    """One update with its place in the log."""

    __slots__ = (
        "frame",
        "has_own_id",
        "id",
        "last",
        "position",
        "private",
        "published",
        "topics",
    )

    def __init__(
        self,
        *,
        position: int,
        id: str,
        topics: tuple[str, ...],
        private: bool,
        published: float,
        frame: bytes,
        has_own_id: bool | None = None,
        last: bool = False,
    ) -> None:
        self.position: int = position
        """Its place: 1 for the first, and each later one higher."""
        self.id: str = id
        """The id on the wire: the publisher's, else `<epoch>-<position>`."""
        self.topics: tuple[str, ...] = topics
        """Where it was published; the first is the canonical one."""
        self.private: bool = private
        """Whether only subscribers with the right for a topic may see it."""
        self.published: float = published
        """Unix time in seconds."""
        self.frame: bytes = frame
        """The event as it is sent, with its id; `b""` if there is none, as it only closes."""
        self.has_own_id: bool = not is_own_syntax(id) if has_own_id is None else has_own_id
        """Whether its publisher chose its id; read off the id where it isn't said."""
        self.last: bool = last
        """Whether it closes its topics: it is the last record of each."""

    @classmethod
    def from_update(cls, update: Update, *, position: int, epoch: str, published: float) -> Record:
        """Make the record of an update: here its id and its frame are decided.

        Args:
            update: what to store.
            position: its place, higher than all before.
            epoch: the name of the current epoch, for an id of the hub's own.
            published: Unix time in seconds.
        """
        own_id = update.own_id
        id = f"{epoch}-{position}" if own_id is None else own_id
        return cls(
            position=position,
            id=id,
            topics=update.topics,
            private=update.private,
            published=published,
            frame=_with_id(update, id) if own_id is None else update.encoded,
            has_own_id=own_id is not None,
            last=update.last,
        )

    def __repr__(self) -> str:
        return f"<Record {self.position}: {self.id} on {', '.join(self.topics)}>"

    def repeats(self, update: Update) -> bool:
        """Whether an update for the same topics would have made the same record."""
        own_id = update.own_id
        mine = self.private, self.last, self.has_own_id
        if mine != (update.private, update.last, own_id is not None):
            return False
        return self.frame == (update.encoded if own_id else _with_id(update, self.id))

    def is_visible(self, allow: Selection) -> bool:
        """Whether a subscriber that is allowed the private events of some topics may see it."""
        return not self.private or allow.matches(self.topics)


def _with_id(update: Update, id: str) -> bytes:
    """Encode an event that has no id with one."""
    event = update.event
    if event is None:
        return b""
    if event.comment is not None or event.data is None:
        # Without data, `encode` decides by the id whether a blank line follows.
        return event.replace(id=id).encode()
    # The same without encoding again. The id stands behind the type, which is one line, and in
    # front of the rest.
    encoded, line = update.encoded, f"id: {id}\n".encode()
    if event.event is None:
        return line + encoded
    cut = encoded.index(b"\n") + 1
    return b"%b%b%b" % (encoded[:cut], line, encoded[cut:])


@final
class Appended(NamedTuple):
    """The outcome of one update: stored, a repetition, or refused."""

    id: str
    """The id on the wire; of the first publish, where this one repeated its key; `""` if refused.
    """
    record: Record | None
    """`None` if nothing was stored."""
    error: Exception | None = None
    """The reason if the update was refused, for its publisher alone."""
    cursor: str = ""
    """Of a history that several hubs share: the cursor at which a hub has what was stored, in the
    syntax of the hub's own ids; `""` if refused."""


def answer_repetition(first: Record, update: Update) -> Appended:
    """Answer an update whose `dedup` key has a record: a repetition of it, or refused."""
    if first.repeats(update):
        return Appended(first.id, None)
    problem = f"the key {update.dedup!r} was used for another event of the same topics"
    return Appended("", None, KeyReusedError(problem))


def refuse_closed(topic: str) -> Appended:
    """Answer an update for a topic that is closed."""
    return Appended("", None, TopicClosedError(f"the topic {topic!r} is closed"))


@final
class Page(NamedTuple):
    """Some records of the log, in order."""

    records: Sequence[Record]
    """In the order of the log."""
    last: int
    """The position up to which the page answers: where the next one goes on."""
    more: bool
    """Whether the log went on after `last` when the page was read."""


def page_of(
    found: Iterable[Record], *, end: int, head: int, max_records: int, max_bytes: int
) -> Page:
    """Fill a page with found records up to its limits, but with at least one if there is one.

    Args:
        found: selected records in order, made as they are asked for.
        end: the position up to which they answer.
        head: the position at which the log ended.
        max_records: records on the page.
        max_bytes: bytes of their frames.
    """
    records: list[Record] = []
    size = 0
    for record in found:
        size += len(record.frame)
        if records and (len(records) >= max_records or size > max_bytes):
            return Page(records, records[-1].position, more=True)
        records.append(record)
    return Page(records, end, more=end < head)
