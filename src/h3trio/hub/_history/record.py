"""What goes into the log and what comes out of it: plain values."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, final

from h3trio._wire.batch import Batch

from .epochs import is_own_syntax

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio._wire.event import SSEEvent


@final
class Update(NamedTuple):
    """What a publisher asks for: one event for one or more topics."""

    # No frozen dataclass: that sets each field by a call, 0.8 of the 25 µs of a publish.

    event: SSEEvent
    """Its `id`, if any, becomes the id on the wire."""
    topics: tuple[str, ...]
    """At least one; the first is the canonical one."""
    private: bool = False
    """Whether only subscribers with the right for a topic may see it."""
    dedup: str | None = None
    """A key under which a repeated publish is the same publish."""


@final
class Record:
    """One update with its place in the log."""

    __slots__ = (
        "_batch",
        "frame",
        "has_own_id",
        "id",
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
    ) -> None:
        self.position: int = position
        """Its place: 1 for the first, and each later one higher."""
        self.id: str = id
        """What stands on the wire: the publisher's id, else `<epoch>-<position>`."""
        self.topics: tuple[str, ...] = topics
        """Where it was published; the first is the canonical one."""
        self.private: bool = private
        """Whether only subscribers with the right for a topic may see it."""
        self.published: float = published
        """Unix time in seconds."""
        self.frame: bytes = frame
        """The event as it is sent, with its id."""
        self.has_own_id: bool = not is_own_syntax(id) if has_own_id is None else has_own_id
        """Whether its publisher chose its id; read off the id where it isn't said."""
        self._batch: Batch | None = None

    def __repr__(self) -> str:
        return f"<Record {self.position}: {self.id} on {', '.join(self.topics)}>"

    @property
    def batch(self) -> Batch:
        """The frame alone as a batch, made once however many feeds it lands in."""
        if self._batch is None:
            self._batch = Batch((self.frame,))
        return self._batch


@final
class Appended(NamedTuple):
    """What became of one update."""

    id: str
    """The id on the wire; of the first publish, where this one repeated its key."""
    record: Record | None
    """`None` if the update was a repetition and nothing was stored."""


@final
class Page(NamedTuple):
    """Some records of the log, in order."""

    records: Sequence[Record]
    """In the order of the log."""
    last: int
    """The position up to which the page answers: where the next one goes on."""
    more: bool
    """Whether the log went on after `last` when the page was read."""
