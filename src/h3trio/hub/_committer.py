"""The one way into the log: updates in, ids out, in one order.

A history that can append at once is asked inline, without a checkpoint. For one
that waits for a disk or a network, publishers queue and one task commits: it
takes all who wait in one call (group commit), then puts the records into the
log and the feeds, in log order and without a checkpoint, and then wakes the
publishers. Were each publisher to do that last step after its own wait, the
scheduler would decide the order of the log.

Cancelling a publisher abandons the wait, not the event.
"""

from __future__ import annotations

from collections import deque
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol, final, runtime_checkable

import trio

from ._fanout.latency import Histogram
from ._history.errors import HistoryError, OutcomeUnknownError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ._history.history import History
    from ._history.record import Appended, Record, Update


MAX_COMMIT_BYTES: Final = 1024 * 1024
"""Events of one commit: many small ones, and still little beside a write-ahead log."""


@runtime_checkable
class AppendsNowait(Protocol):
    """A history that never waits."""

    def append_nowait(self, updates: Sequence[Update]) -> list[Appended]:
        """As `History.append`."""
        ...


@final
class _Commit:
    """Updates of one publish call, and the task that waits for their ids."""

    __slots__ = ("began", "error", "ids", "size", "task", "updates")

    def __init__(self, updates: Sequence[Update], task: trio.lowlevel.Task) -> None:
        self.began = perf_counter()
        self.updates = updates
        self.size = sum(len(update.event.encode()) for update in updates)
        self.task: trio.lowlevel.Task | None = task
        self.ids: list[str] | None = None
        self.error: Exception | None = None

    def wake(self) -> None:
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)
            self.task = None


@final
class Committer:
    """Brings updates into a history, its log, and the feeds."""

    __slots__ = (
        "_append_nowait",
        "_closed",
        "_commits",
        "_deliver",
        "_history",
        "_idle",
        "_max_waiting",
        "failure",
        "latency",
        "waiting",
    )

    def __init__(
        self, history: History, deliver: Callable[[Record], None], *, max_waiting: int
    ) -> None:
        self._history = history
        # Asked once: a check against a protocol costs more than the publish.
        self._append_nowait = history.append_nowait if isinstance(history, AppendsNowait) else None
        self._deliver = deliver
        self._max_waiting = max_waiting
        self._commits: deque[_Commit] = deque()
        self._idle = trio.lowlevel.ParkingLot()
        self._closed = True
        self.waiting = 0
        """Updates that wait for the history."""
        self.failure: str | None = None
        """What the history said when it last failed."""
        self.latency = Histogram()
        """Seconds from a publish to its ids; of those that have some."""

    def append_nowait(self, updates: Sequence[Update]) -> list[str]:
        """Commit at once.

        Raises:
            trio.WouldBlock: this history has to wait.
            trio.ClosedResourceError: the hub isn't running.
            HistoryError: none was stored.
        """
        self._check_open()
        if self._append_nowait is None:
            raise trio.WouldBlock
        began = perf_counter()
        ids = self._publish(self._append_nowait(updates))
        self.latency.add(perf_counter() - began)
        return ids

    async def append(self, updates: Sequence[Update]) -> list[str]:
        """Commit, and return the ids once the history keeps its promise. A checkpoint.

        Raises:
            OverloadedError: too many wait; nothing was sent to the store.
            OutcomeUnknownError: the store didn't answer.
            HistoryError: none was stored.
            trio.ClosedResourceError: the hub isn't running.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            ids = self.append_nowait(updates)
        except trio.WouldBlock:
            return await self._wait(updates)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return ids

    async def _wait(self, updates: Sequence[Update]) -> list[str]:
        if self.waiting + len(updates) > self._max_waiting:
            msg = f"{self.waiting} updates wait for the history, at most {self._max_waiting} may"
            raise OverloadedError(msg)
        commit = _Commit(updates, trio.lowlevel.current_task())
        self._commits.append(commit)
        self.waiting += len(updates)
        self._idle.unpark()

        def abort(_raise_cancel: object) -> trio.lowlevel.Abort:
            commit.task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)
        if commit.error is not None:
            raise commit.error
        if commit.ids is None:
            self._check_open()
            msg = "the hub was closed"
            raise trio.ClosedResourceError(msg)
        return commit.ids

    async def run(self) -> None:
        """Commit what publishers bring until cancelled."""
        while True:
            while not self._commits:
                await self._idle.park()
            await self._commit(self._take())

    def _take(self) -> list[_Commit]:
        """Take who waits, in order, up to the size of one commit, but at least one."""
        taken: list[_Commit] = []
        size = 0
        while self._commits and (not taken or size + self._commits[0].size <= MAX_COMMIT_BYTES):
            taken.append(self._commits.popleft())
            size += taken[-1].size
        return taken

    async def _commit(self, commits: Sequence[_Commit]) -> None:
        updates = [update for commit in commits for update in commit.updates]
        try:
            appended = await self._history.append(updates)
        except HistoryError as exc:
            self.failure = str(exc)
            for commit in commits:
                commit.error = type(exc)(*exc.args)
                commit.error.__cause__ = exc
        else:
            self.failure = None
            ids = iter(self._publish(appended))
            now = perf_counter()
            for commit in commits:
                commit.ids = [next(ids) for _ in commit.updates]
                self.latency.add(now - commit.began)
        finally:
            self.waiting -= len(updates)
            for commit in commits:
                if commit.ids is None and commit.error is None:
                    # Cancelled as the hub closes, or a bug of the history's: it may have them.
                    commit.error = OutcomeUnknownError("the hub ended before the store answered")
                commit.wake()

    def _publish(self, appended: Sequence[Appended]) -> list[str]:
        """Put committed records into the log and the feeds: no checkpoint in here."""
        log = self._history.log
        for _id, record in appended:
            if record is not None:
                log.append(record)
                self._deliver(record)
        return [id_ for id_, _record in appended]

    def close(self) -> None:
        """Take no more; who waits is told."""
        self._closed = True
        for commit in self._commits:
            self.waiting -= len(commit.updates)
            commit.wake()
        self._commits.clear()

    def open(self) -> None:
        """The history is open: take updates."""
        self._closed = False

    def _check_open(self) -> None:
        if self._closed:
            msg = "the hub isn't running: enter `async with hub`, or start `hub.run`"
            raise trio.ClosedResourceError(msg)
