"""Feeds: what ready subscribers with one selection and one set of rights share.

A feed is a window on the log, holding the records that its ready subscribers
still have to get, and those subscribers. Publishing appends to the window once,
whatever the number of subscribers. A *pass* gives each of them everything from
its cursor to a head that was frozen when the pass began, in one send; then the
window is cut there. At low rates a pass carries one event, under load many, so
batching comes by itself.

A subscriber whose sink took less than everything leaves the feed: it is brought
forward by its own task, out of the log, and comes back. So a window never waits
for a slow client.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._frames import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._record import Record
    from ._selection import Selection
    from ._subscriber import Subscriber

MAX_BATCH_BYTES: Final = 64 * 1024
"""What one send carries at most, or one event: a slow client is owed one batch,
and a short turn of the sweep stays short."""


@final
class Windows:
    """What the feeds of one hub share: a bound on their windows, and the last batch.

    Ten thousand subscribers with a topic of their own and one in common are ten
    thousand feeds; an event of the common topic is still joined and framed once.
    """

    __slots__ = ("_batch", "_records", "max_records", "records")

    def __init__(self, max_records: int) -> None:
        self.max_records = max_records
        self.records = 0
        """Records in all windows; one that stands in several counts in each."""
        self._records: Sequence[Record] = ()
        self._batch: Batch | None = None

    def batch(self, records: Sequence[Record]) -> Batch:
        """Return the joined frames of some records."""
        if len(records) == 1:
            return records[0].batch
        if self._batch is None or records != self._records:
            self._records = records
            self._batch = Batch([record.frame for record in records])
        return self._batch


@final
class Feed:
    """A window of records and the subscribers that are up to date with it."""

    __slots__ = (
        "_cut",
        "_first",
        "_head",
        "_pass",
        "_whole",
        "_window",
        "_windows",
        "allow",
        "dirty",
        "ready",
        "selection",
    )

    def __init__(self, selection: Selection, allow: Selection, windows: Windows) -> None:
        self.selection = selection
        self.allow = allow
        self.ready: dict[Subscriber, None] = {}
        self.dirty = False
        """Whether it stands in the sweep's queue."""
        self._window: list[Record] = []
        self._windows = windows
        self._pass: Iterator[Subscriber] | None = None
        self._whole: Batch | None = None
        self._cut = 0
        self._first = 0
        self._head = 0

    def __repr__(self) -> str:
        return f"<Feed of {self.selection!r}: {len(self.ready)} ready, {len(self._window)} waiting>"

    def allows(self, record: Record) -> bool:
        """Whether its subscribers may see a record that they selected."""
        return not record.private or self.allow.matches(record.topics)

    def add(self, subscriber: Subscriber) -> None:
        """Make a subscriber ready; its position must be the head of the log."""
        self.ready[subscriber] = None
        subscriber.feed = self

    def remove(self, subscriber: Subscriber) -> None:
        """Forget a subscriber; a pass under way skips it."""
        del self.ready[subscriber]

    def append(self, record: Record) -> bool:
        """Add a record for the ready subscribers; `False` if there are none left.

        Where all windows together are full, this one is dropped: its subscribers
        go on from the log, each by its own task.
        """
        if self._windows.records >= self._windows.max_records:
            self.clear()
            for subscriber in list(self.ready):
                subscriber.leave_feed()
        if not self.ready:
            return False
        self._windows.records += 1
        self._window.append(record)
        return True

    def clear(self) -> None:
        """Drop the window, and the pass under way."""
        self._windows.records -= len(self._window)
        self._window.clear()
        self._pass = self._whole = None

    # -- the sweep's part

    def sweep(self, sends: int) -> int:
        """Go on with the pass for at most so many sends; return how many it made."""
        if self._pass is None and not self._begin_pass():
            return 0
        assert self._pass is not None, "begun just now"
        done = 0
        for subscriber in islice(self._pass, sends):
            done += 1
            if subscriber.feed is self and subscriber.position < self._head:
                self._give(subscriber)
        if done < sends:
            self._end_pass()
        return done

    @property
    def is_waiting(self) -> bool:
        """Whether there is something left to sweep."""
        return bool(self._window)

    def _begin_pass(self) -> bool:
        if not self.ready:
            self.clear()
        if not self._window:
            return False
        self._cut = _fitting(self._window)
        records = self._window[: self._cut]
        self._first, self._head = records[0].position, records[-1].position
        self._whole = self._windows.batch(records)
        self._pass = iter(list(self.ready))
        return True

    def _end_pass(self) -> None:
        del self._window[: self._cut]
        self._windows.records -= self._cut
        self._pass = self._whole = None

    def _give(self, subscriber: Subscriber) -> None:
        batch = self._whole
        if subscriber.position >= self._first:
            # It joined while the window was filling.
            batch = self._later(subscriber.position)
        assert batch is not None, "a pass is under way"
        try:
            idle = subscriber.send(batch)
        except trio.WouldBlock:
            # Its handler sends on its own beside us.
            subscriber.leave_feed()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            # Its task finds the same error, in its own words.
            subscriber.leave_feed()
        else:
            subscriber.position = self._head
            if not idle:
                subscriber.leave_feed()

    def _later(self, position: int) -> Batch:
        return self._windows.batch([r for r in self._window[: self._cut] if r.position > position])


def _fitting(window: Sequence[Record]) -> int:
    """How many records one batch takes: at least one, then up to the byte bound."""
    size = 0
    for index, record in enumerate(window):
        size += len(record.frame)
        if size > MAX_BATCH_BYTES and index:
            return index
    return len(window)
