"""`History`: the interface of an object that keeps a hub's log.

A hub has one log: every update gets one place in one order, whatever its topics. A history gives
the places and keeps the records. The newest part is always in memory too, as `log`, so that "what
comes after this cursor" and "from here on, live" can be asked in one step without a checkpoint
between.

* `append` doesn't touch `log`: the hub does, in log order, and in the same step hands the records
  to its feeds.
* If several hubs share the store, none of them knows by its own `append` what stands in front of
  the new record. So that answers ids only, and all records, its own among them, come to a hub by
  `follow`, its *follower*.
* Records that retention removes are noted in `gaps`, private ones by `note_private`: by them, and
  per topic, a cursor is found to have a gap.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Self, final

import trio

from .selection import EVERYTHING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Generator, Sequence

    from .epochs import Epochs
    from .gaps import Gaps
    from .log import Log
    from .nodes import Nodes
    from .record import Appended, Page, Record, Update
    from .selection import Selection

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
    server: str = ""
    """The server that keeps them, and how, as it said itself; empty if there is none."""
    connected: bool = True
    """Whether the store can be reached: a file, or memory, always."""
    reconnects: int = 0
    """Connections to it that were lost."""
    behind: int = 0
    """Positions that the store has given and this hub hasn't followed, as far as it was told."""


class History(trio.abc.AsyncResource):
    """Keeps one log. An async context manager: open while a hub uses it."""

    is_shared: bool = False
    """Whether several hubs share the store: then `append` returns no record, and `follow` has them
    all."""
    durability: Durability
    """How much an update survives once `append` has returned."""
    max_age: float | None
    """Seconds after which records are trimmed; `None` if age is no limit."""
    log: Log
    """The newest part, in memory; the hub appends to it the records that `append` returned, or
    those that `follow` delivers."""
    gaps: Gaps
    """The newest removed position of each topic, by which a gap is found."""
    epochs: Epochs
    """The positions that ids of each epoch may have."""

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    @abstractmethod
    async def open(self) -> None:
        """Load the newest part into `log`, and begin a new epoch unless the past is the same.

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

        Whatever has to be one with the order of the log is decided in the store's own step: the
        position and the id, repetitions, refusals. If the store `is_shared`, the answers have a
        `cursor` and no record.

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
        If the store `is_shared` it is the follower that removes them from `log`, and the purge has
        a place in the order: who followed up to the `head` behind it has removed them.
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

        If the store `is_shared`, a topic is pinned while any hub pins it. There this only declares
        what this hub wants, as it may not wait. The history tells its store all topics that it
        pins: with each `append`, in the same step and in front of the updates, so that what a hub
        publishes to a topic that it pinned is pinned; and by its follower, soon after this and at
        intervals. The latest state counts, whichever message comes last. The store lets go of what
        a hub has told once it hasn't told it for a time (a lease): so a hub that died pins nothing
        for ever, and one that lost its connection for a moment loses no pin. What was removed
        before the store was told stays removed. A topic for which the store has no room, as many
        hubs pin many, isn't pinned yet: then the hub's updates for it are answered by the
        `PinnedFullError`, as above.

        Raises:
            PinnedFullError: too many topics are pinned; of those of this hub, if it `is_shared`.
            NotImplementedError: this history can't, as any that doesn't override this.
        """
        raise NotImplementedError(f"{type(self).__name__} can't pin {topic!r}, or any topic")

    def unpin(self, topic: str) -> None:
        """Undo one `pin`; if the store `is_shared`, that is told like a pin."""
        raise NotImplementedError(f"{type(self).__name__} has pinned no {topic!r}, and no topic")

    async def follow(
        self,
        deliver: Callable[[Sequence[Record], int], None],
        lost: Callable[[int], None],
    ) -> None:
        """Deliver what the store gets, from the head of `log` on, until cancelled.

        Of a history that `is_shared`; the hub runs it, and runs it again behind an error. It alone
        changes `log`, `gaps` and `epochs` while it runs, without a checkpoint within these steps:

        * `deliver(records, head)` gets the next records, in the order of the log, and the position
          up to which they are all. The hub puts them into `log` and its feeds. There may be none,
          as what was there is removed, or only `gaps` or `epochs` have changed.
        * What is removed is noted in `gaps` and taken out of `log` before the records that stood
          behind it are delivered. A purge is noted by `Gaps.note_purge` besides.
        * `lost(position)` says that the past behind a position isn't the store's: it was lost, and
          those positions are given again. `epochs` has the new table by then (`Epochs.learn`). The
          hub lets `log` and `gaps` end there, and tells those who were sent more.

        Raises:
            HistoryError: the store can't be reached, or is damaged.
        """
        raise NotImplementedError

    async def head(self) -> str:
        """Return the cursor at the store's head: of a history that `is_shared`, as of now.

        Raises:
            HistoryError: the store can't be reached.
        """
        await trio.lowlevel.checkpoint()
        return self.epochs.format(self.log.head)

    def join(self, name: str) -> Nodes | None:  # noqa: ARG002 - for those that override it
        """Return a hub's place among those that share the store; `None` if it has no way to them.

        Of a history that `is_shared`; the hub asks once it is open. Without it the hub knows of no
        other, and `Hub.kick_where` says that it can't.

        Args:
            name: what the others call the hub, as of `HubSettings.node`.
        """
        return None

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
