"""`SQLiteHistory`: a history in an SQLite file, which outlives the process.

The newest part is in memory as `log`; the file has everything. Its one writer works in a thread,
one call after the other, and each call is one transaction: the more updates a call brings, the
fewer syncs each of them costs. Readers have threads of their own, so that a client which replays
yesterday doesn't hold up publishing. None of these threads counts against Trio's limit, which is
for the program's own.

A page that was read may lack records that a transaction has just removed, of which `gaps` doesn't
know yet. So it is kept back until it does: whoever looks at `gaps` after reading sees every gap.
"""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar, final

import trio

from h3trio._limits import check_limit
from h3trio.hub._history.epochs import Epochs, is_own_syntax
from h3trio.hub._history.errors import HistoryFullError
from h3trio.hub._history.gaps import Gaps
from h3trio.hub._history.history import Durability, History, HistoryStatistics
from h3trio.hub._history.log import Log
from h3trio.hub._history.pins import PinnedTopics
from h3trio.hub._history.retention import (
    GIB,
    MAX_PINNED_BYTES,
    MAX_PINNED_EVENTS,
    MIB,
    Retention,
)
from h3trio.hub._history.selection import FORBIDDEN

from . import pages, schema
from .db import Database, translated
from .store import Store
from .sums import Sums

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Collection, Sequence

    from h3trio.hub._history.record import Appended, Page, Update
    from h3trio.hub._history.selection import Selection

    from .sums import Removed

READERS: Final = 2
"""Threads that read: one more than a long search keeps busy."""

MIN_DB_BYTES: Final = 1 * MIB
"""The least that `max_db_bytes` may be: the schema and some pages to turn over."""

_T = TypeVar("_T")


@final
class SQLiteHistory(History):
    """Keeps updates in a file.

    A full disk, or a file of `max_db_bytes`, refuses updates; nothing that is within the
    limits is given up for them. Removing works even then, by `purge`, by age, or by
    limits that are lower after a restart, and updates are taken again.

    Args:
        path: the database. It may be missing or empty. Beside it lie `-wal` and `-shm`,
            which are SQLite's and part of it, `.lock` and `-reserve`.
        durability: `"durable"`: an acknowledged update survives the end of power.
            `"fast"`: it survives the end of the process.
        max_events: updates kept. A million is a day at 12 a second.
        max_bytes: bytes of their frames: 1 GiB, what a small server can spare.
        max_age: seconds after which an update is removed. Off by default.
        max_topic_events: updates kept of one topic. Off by default: a hub with many
            topics would need another number than one with few.
        max_topic_bytes: bytes of the frames of one topic; off for the same reason.
        max_pinned_events: updates of pinned topics, which the limits in all pass over, and pinned
            topics. 50,000 are fifty answers of a thousand tokens at once.
        max_pinned_bytes: bytes of the frames of those updates.
        max_db_bytes: size of the file above which updates are refused. Off by default:
            `max_bytes` bounds it too, to about twice as much.
        reserve_bytes: disk space held back for removing on a full disk, 0 for none. The
            write-ahead log's usual 2 MiB have to fit twice.
        tail_events: newest updates that are in memory too: some minutes of a busy hub.
        tail_bytes: bytes of their frames.
        clock: gives Unix time in seconds.

    Raises:
        ValueError, TypeError: a limit isn't a positive number.
    """

    def __init__(  # noqa: PLR0913 - each limit has a name
        self,
        path: str | os.PathLike[str],
        *,
        durability: Literal["durable", "fast"] = "durable",
        max_events: int = 1_000_000,
        max_bytes: int = 1 * GIB,
        max_age: float | None = None,
        max_topic_events: int | None = None,
        max_topic_bytes: int | None = None,
        max_pinned_events: int = MAX_PINNED_EVENTS,
        max_pinned_bytes: int = MAX_PINNED_BYTES,
        max_db_bytes: int | None = None,
        reserve_bytes: int = 4 * MIB,
        tail_events: int = 10_000,
        tail_bytes: int = 16 * MIB,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if durability not in ("durable", "fast"):
            raise ValueError(f"durability must be 'durable' or 'fast', not {durability!r}")
        if max_db_bytes is not None:
            check_limit("max_db_bytes", max_db_bytes, least=MIN_DB_BYTES)
        check_limit("reserve_bytes", reserve_bytes, least=0)
        check_limit("tail_events", tail_events)
        check_limit("tail_bytes", tail_bytes)
        self.durability: Durability = durability
        self.max_age: float | None = max_age
        self.path: Final = _resolved(path)
        """The database, absolute."""
        self._tail = Retention(max_events=tail_events, max_bytes=tail_bytes)
        self._clock = clock
        self._retention = Retention(
            max_events=max_events,
            max_bytes=max_bytes,
            max_age=max_age,
            max_topic_events=max_topic_events,
            max_topic_bytes=max_topic_bytes,
            max_pinned_events=max_pinned_events,
            max_pinned_bytes=max_pinned_bytes,
        )
        self._pinned = PinnedTopics(max_pinned_events)
        self._max_db_bytes = max_db_bytes
        self._reserve_bytes = reserve_bytes
        self._store: Store
        self.log: Log = Log(self._tail)
        self.gaps: Gaps = Gaps()
        self.epochs: Epochs = Epochs()
        self._is_open = False
        # Held while the writer's thread works and until its removals are noted here.
        self._writing = trio.Lock()
        self._writer_threads = trio.CapacityLimiter(1)
        self._reader_threads = trio.CapacityLimiter(READERS)
        # Apart: a probe waits neither for a commit nor for a search.
        self._probe_threads = trio.CapacityLimiter(1)
        self._has_failed = False
        """Whether the last transaction failed."""
        self._readers: list[sqlite3.Connection] = []
        self._sums = Sums()
        """The sums of the last transaction; its removals are noted."""
        self._trimmed = 0

    def __repr__(self) -> str:
        return f"<SQLiteHistory {self.path}: head {self.log.head}>"

    # -- opening and closing

    async def open(self) -> None:
        """Open the file, load its newest part and begin a new epoch.

        Raises:
            HistoryError: the file is foreign, damaged, newer than this code, in use by
                another process, or can't be read or written. It is left as it was.
        """
        if self._is_open:
            raise trio.BusyResourceError("the history is open already")
        await trio.to_thread.run_sync(self._open, limiter=self._writer_threads)
        self.epochs = self._store.epochs
        self._sums = self._store.sums
        self._trimmed = 0
        self._has_failed = False
        self._is_open = True
        self._set_pinned()

    def _open(self) -> None:
        database = Database(
            self.path,
            durability=self.durability,
            max_bytes=self._max_db_bytes,
            reserve_bytes=self._reserve_bytes,
        )
        try:
            self._store = Store(database, retention=self._retention)
            self.log, self.gaps = self._store.load_log(self._tail), self._store.load_gaps()
        except BaseException:
            database.close()
            raise

    async def aclose(self) -> None:
        """Close the file; an append that is under way finishes first."""
        if not self._is_open:
            await trio.lowlevel.checkpoint()
            return
        self._is_open = False
        try:
            async with self._writing:
                await trio.to_thread.run_sync(self._close, limiter=self._writer_threads)
        except trio.Cancelled:
            # Cancelled before it began: then here and now. It is quick, and whoever opens the
            # file next shall find it free.
            self._close()
            raise

    def _close(self) -> None:
        # The writer last: the last to close empties the write-ahead log, and readers can't.
        while self._readers:
            self._readers.pop().close()
        self._store.close()

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("the history is not open")

    # -- writing

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Store updates in one transaction; return once they are as durable as promised.

        Cancelling waits for a transaction that has begun.

        Raises the errors of `History.append`, and `trio.ClosedResourceError` if it isn't open.
        """
        async with self._writing:
            try:
                return await self._append(updates)
            except HistoryFullError:
                # Records may have become too old since somebody last looked.
                limits = self._trim_limits()
                await self._write(lambda store: store.make_room(**limits))
                return await self._append(updates)

    async def _append(self, updates: Sequence[Update]) -> list[Appended]:
        now = self._clock()
        return await self._write(lambda store: store.append(updates, now))

    async def purge(self, topic: str) -> int:
        """Remove a topic's records; return how many.

        Events that are published meanwhile stay. Cancelling stops it half-way.
        """
        before = self.log.head + 1
        return await self._remove_all(lambda store: store.purge(topic, before=before))

    async def trim(self) -> int:
        """Remove records beyond the limits; return how many. Cancelling stops it half-way."""
        limits = self._trim_limits()
        return await self._remove_all(lambda store: store.trim(**limits))

    def pin(self, topic: str) -> None:
        """Pass over a topic's records by the limits in all; see `History.pin`.

        It counts from the next transaction on, in which its records are looked up.
        """
        self._pinned.pin(topic)
        self._set_pinned()

    def unpin(self, topic: str) -> None:
        """Undo one `pin`."""
        self._pinned.unpin(topic)
        self._set_pinned()

    def _set_pinned(self) -> None:
        if self._is_open:
            self._store.pinned = self._pinned.names

    def _trim_limits(self) -> dict[str, Any]:
        # Not a record that is stored and isn't in the log yet: it is about to be delivered.
        age = self.max_age
        published_before = None if age is None else self._clock() - age
        return {"before": self.log.head + 1, "published_before": published_before}

    async def _remove_all(self, remove: Callable[[Store], tuple[bool, Removed]]) -> int:
        removed, more = 0, True
        while more:
            async with self._writing:
                before = self._trimmed
                more = await self._write(remove)
                removed += self._trimmed - before
        return removed

    async def _write(self, work: Callable[[Store], tuple[_T, Removed]]) -> _T:
        """Let the writer's thread work, while `_writing` is held, and take note of its removals."""
        self._check_open()
        try:
            result, removed = await trio.to_thread.run_sync(
                work, self._store, limiter=self._writer_threads
            )
        except Exception:
            self._has_failed = True
            raise
        self._has_failed = False
        self._note(removed)
        return result

    async def health(self) -> bool:
        """Return `True`; see `History.health`.

        While the last transaction went well this looks at the files and writes nothing.

        Raises:
            HistoryError: the file is gone or another's, or there is no room, or no disk.
        """
        self._check_open()
        if self._has_failed:
            async with self._writing:
                await self._write(Store.try_out)
        else:
            # A file system that doesn't answer holds up the thread, not the probe.
            await trio.to_thread.run_sync(
                self._store.check_files, limiter=self._probe_threads, abandon_on_cancel=True
            )
        return True

    def _note(self, removed: Removed) -> None:
        for topic, position in removed.newest.items():
            self.gaps.note(topic, position)
        for topics, position in removed.private.items():
            self.gaps.note_private(topics, position)
        if removed.floor:
            self.gaps.raise_floor(removed.floor)
        for position in removed.positions:
            self.log.remove(position)
        self._trimmed += len(removed.positions)
        self._sums = self._store.sums

    # -- reading

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read selected records behind a position, out of the file; see `History.read`."""
        page, trims = await self._read(
            partial(
                pages.read_page,
                after=after,
                head=self.log.head,
                selection=selection,
                max_records=max_records,
                max_bytes=max_bytes,
            )
        )
        if trims > self._sums.trims:
            async with self._writing:
                assert trims <= self._sums.trims, "noted before the lock is let go"
        return page

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Return the position that a publisher's id stands for; see `History.find`."""
        # No publisher's id has other characters, which SQLite may not even take.
        if is_own_syntax(id) or FORBIDDEN.search(id):
            await trio.lowlevel.checkpoint()
            return None
        # The memory doesn't tell of several topics: one of them may have it in the file alone.
        if selection.is_exact and len(selection.topics) == 1:
            position = await self.log.find(id, selection=selection, allow=allow)
            if position is not None:
                return position
        return await self._read(
            partial(pages.find, id=id, head=self.log.head, selection=selection, allow=allow)
        )

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Whether all of some topics are closed; see `History.are_closed`."""
        unknown: list[str] = []
        for topic in topics:
            closed = self.log.is_closed(topic, allow=allow)
            if closed is None:
                unknown.append(topic)
            elif not closed:
                return False
        # Most hubs have no topic that ends, and need no thread to find that out.
        if not unknown or not self._sums.closed:
            return not unknown
        return await self._read(
            partial(pages.are_closed, topics=unknown, head=self.log.head, allow=allow)
        )

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Return the position behind which the last `count` visible records stand."""
        known = await self.log.position_before_last(count, selection=selection, allow=allow)
        if known is not None:
            return known
        # A turn at a time: a thread that asks matchers keeps Python from all others.
        left, position = count, self.log.head
        while left and position:
            look_back = partial(
                pages.look_back, count=left, head=position, selection=selection, allow=allow
            )
            left, position = await self._read(look_back)
        return position

    async def _read(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        self._check_open()
        return await trio.to_thread.run_sync(self._with_reader, work, limiter=self._reader_threads)

    def _with_reader(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run in a reader's thread; a connection that met an error isn't used again."""
        with translated(self.path):
            is_new = False
            try:
                db = self._readers.pop()
            except IndexError:
                db, is_new = schema.connect(self.path, mode="ro"), True
            try:
                found = work(db)
                if is_new:
                    # After the work, which opened the last of them.
                    self._store.check_files()
            except BaseException:
                db.close()
                raise
            if self._is_open:
                self._readers.append(db)
            else:
                db.close()
        return found

    def statistics(self) -> HistoryStatistics:
        """Return a snapshot; cheap."""
        sums = self._sums
        return HistoryStatistics(
            durability=self.durability,
            events=sums.events,
            bytes=sums.bytes,
            topics=sums.topics,
            oldest=sums.oldest,
            newest=sums.last,
            trimmed=self._trimmed,
            pinned_topics=len(self._pinned.topics),
            pinned_events=sums.pinned_events,
            pinned_bytes=sums.pinned_bytes,
        )


def _resolved(path: str | os.PathLike[str]) -> Path:
    """Follow links, so that one file has one lock, and refuse SQLite's special names."""
    name = os.fspath(path)
    if not name or name.startswith(":"):
        raise ValueError(f"path must name a file, not {name!r}; in memory, use MemoryHistory")
    return Path(name).resolve()
