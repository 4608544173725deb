"""`History`: the interface of an object that keeps a hub's log.

A hub has one log: every update gets one place in one order, whatever its topics. A history gives
the places and keeps the records. The newest part is always in memory too, as `log`, so that "what
comes after this cursor" and "from here on, live" can be asked in one step without a checkpoint
between.

* `append` doesn't touch `log`: the hub does, in log order, and in the same step hands the records
  to its feeds.
* Records that retention removes are noted in `gaps`, private ones by `note_private`: by them, and
  per topic, a cursor is found to have a gap.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Self, final

import trio

from .selection import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from .epochs import Epochs
    from .gaps import Gaps
    from .log import Log
    from .record import Appended, Page, Update
    from .selection import Selection

_TRIM_SHARE: Final = 0.05
"""The time from one check of an age limit to the next, as a share of the limit."""
_TRIM_SECONDS: Final = (0.5, 60.0)
"""The bounds of that time."""

Durability = Literal["memory", "fast", "durable"]
"""An acknowledged publish survives: nothing; the end of the process; the end of power."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStatistics:
    """A snapshot of one history."""

    durability: Durability
    """How much an acknowledged publish survives."""
    events: int
    """Records kept."""
    bytes: int
    """Bytes of their frames."""
    topics: int
    """Topics among them."""
    oldest: int
    """The first kept position, 0 if none."""
    newest: int
    """The last given position, 0 if none."""
    trimmed: int
    """Records removed by retention or purge since the history was opened."""
    pinned_topics: int = 0
    """Topics that are pinned."""
    pinned_events: int = 0
    """Records of those, which the limits in all pass over; they are among `events`."""
    pinned_bytes: int = 0
    """Bytes of their frames."""


class History(trio.abc.AsyncResource):
    """Keeps one log. An async context manager: open while a hub uses it."""

    durability: Durability
    """How much an update survives once `append` has returned."""
    max_age: float | None
    """Seconds after which records are trimmed; `None` if age is no limit."""
    log: Log
    """The newest part, in memory; the hub appends to it the records that `append` returned."""
    gaps: Gaps
    """The newest removed position of each topic, by which a gap is found."""
    epochs: Epochs
    """The positions that ids of each opening may have."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    @abstractmethod
    async def open(self) -> None:
        """Load the newest part into `log`, and begin a new epoch.

        Raises:
            HistoryError: the store can't be used; it is left as it was.
        """

    @abstractmethod
    async def aclose(self) -> None:
        """Finish the work that is under way and let go of the store."""

    def append_nowait(self, updates: Sequence[Update]) -> list[Appended]:  # noqa: ARG002 - for those that override it
        """Store updates as `append` does, but at once; for a history that never waits.

        Raises:
            trio.WouldBlock: this history has to wait, as any does that doesn't override this.
        """
        raise trio.WouldBlock

    @abstractmethod
    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Store updates in the order given, and answer each. An `Update` needs no check.

        All are stored but for repetitions, and those that are refused for a reason of their own:
        a `dedup` key that came with another event for the same topics, in whatever order these
        are, is a `KeyReusedError`; a topic that is closed, also by one in front of it, is a
        `TopicClosedError`, but not for a repetition.

        Raises:
            HistoryFullError: there is no room; none was stored.
            HistoryError: none was stored.
            OutcomeUnknownError: the store didn't say whether they were.
        """

    @abstractmethod
    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read selected records behind a position, up to the head of `log`.

        At least one if there is one; but a long search with matchers may end with an empty page
        that says there is more. Private records are among them; the hub filters. Retention goes
        on meanwhile: look at `gaps` after reading, not before, and no gap is missed.
        """

    @abstractmethod
    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Return the position that a publisher's id stands for, or `None`.

        An id belongs to its topics: only selected records count, and private ones only with a topic
        that is allowed, or it would tell that they exist. Within a topic the newest counts. Of
        several topics that have the id the oldest of these does: the subscriber may be given an
        event twice, but loses none. A search may be given up, by `None`.
        """

    @abstractmethod
    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Return the position behind which the last `count` records stand.

        Selected ones count, and private ones only with a topic that is allowed.
        """

    @abstractmethod
    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Whether all of some topics are closed.

        A topic is closed while it has a record with `last`, up to the head of `log`; but a private
        one counts only with a topic that is allowed, or it would tell that it exists.

        Checkpoints only where a store has to be asked.
        """

    @abstractmethod
    async def purge(self, topic: str) -> int:
        """Remove a topic's records, from `log` too; return how many.

        One that closed the topic is among them: then it, and any other that the record closed, is
        open again. A record without an event leaves no gap, however it goes.
        """

    @abstractmethod
    async def trim(self) -> int:
        """Remove records beyond the age limit; return how many. Other limits hold always."""

    def pin(self, topic: str) -> None:
        """Pass over a topic's records by the limits in all: number, bytes and age; `unpin` ends it.

        They are counted apart, and have limits of their own, beyond which an update for the topic
        is answered by a `PinnedFullError`, unless it closes the topic. A record is pinned while one
        of its topics is. Several pins of one topic are undone one by one. They don't outlive the
        process.

        Raises:
            PinnedFullError: too many topics are pinned.
            NotImplementedError: this history can't, as any that doesn't override this.
        """
        raise NotImplementedError(f"{type(self).__name__} can't pin {topic!r}, or any topic")

    def unpin(self, topic: str) -> None:
        """Undo one `pin`."""
        raise NotImplementedError(f"{type(self).__name__} has pinned no {topic!r}, and no topic")

    async def health(self) -> bool:
        """Return whether it is known that an update could be stored now.

        Asked behind a failed `append`, and when a readiness probe comes. A history that doesn't
        override it never knows: then it is its last `append` that tells, for 30 s.

        Raises:
            HistoryError: it couldn't.
        """
        await trio.lowlevel.checkpoint()
        return False

    @abstractmethod
    def statistics(self) -> HistoryStatistics:
        """Return a snapshot; cheap."""


async def trim_by_age(history: History) -> None:
    """Trim a history that has an age limit, again and again."""
    low, high = _TRIM_SECONDS
    while True:
        await trio.sleep(min(max((history.max_age or 0) * _TRIM_SHARE, low), high))
        await history.trim()


@contextmanager
def pinned(history: History, topic: str) -> Generator[None]:
    """Pin a topic while a block runs.

    Raises:
        ValueError: it is `*`.
        PinnedFullError, NotImplementedError: as of `History.pin`.
    """
    if topic == EVERYTHING:
        raise ValueError("the topic * means every topic, and those can't all be pinned")
    history.pin(topic)
    try:
        yield
    finally:
        history.unpin(topic)
