"""`Committer`: the one way into the log. Updates go in, ids come out, in one order.

A history that can append at once is asked inline, without a checkpoint. For one that waits for a
disk or a network, publishers queue and one task commits: it takes all who wait in one call (group
commit), then puts the records into the log and the feeds, in log order and a turn at a time, and
then wakes the publishers. Were each publisher to do that last step after its own wait, the
scheduler would decide the order of the log. If several hubs share the history, its follower does
that step, and publishers wait for it too: who was answered can read at once.

Publishers that share a commit share no other fate: what the history refuses of one is its own, and
if all together don't find room, each is tried alone.

Cancelling a publisher abandons the wait, not the event.

Whatever a history raises is its publishers', and the committer goes on. Whether it can store at
all is another question, as one event may only have been too large: so it is asked right behind a
failure, and again when somebody wants to know. While it fails it is asked at intervals too, or a
hub that nobody publishes to would count as failing for as long as no probe comes.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import KW_ONLY, dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._tasks import own_error

from ._fanout.latency import Histogram
from ._history.errors import (
    HistoryError,
    HistoryFullError,
    OutcomeUnknownError,
    OverloadedError,
)
from ._history.selection import Turn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._history.history import History
    from ._history.record import Appended, Update
    from ._inflow import Inflow


logger = logging.getLogger("h3trio.hub")

MAX_COMMIT_BYTES: Final = 2 * 1024 * 1024
"""Bytes of memory of the updates of one commit, if it is of several publishers: little beside a
write-ahead log."""

_DELIVERY_COST: Final = 8
"""Records that could be looked at while one is put into the log, for each of its topics; with each
feed that gets it, it is one more."""

CHECK_SECONDS: Final = 1.0
"""The least time from one question whether the history can store to the next: a probe may come
from every machine of a cluster, and the answer may cost a write."""

FAILING_SECONDS: Final = 5.0
"""The time from one question to the next while it fails and nobody else asks."""

UNKNOWN_SECONDS: Final = 30.0
"""Seconds for which a history that can't tell counts as failing after it failed: then a publisher
has to find out, who may be kept away by the probe's answer until then."""


@final
class _Commit:
    """Updates of one publish call, and the ids or the error that its task waits for.

    If several hubs share the history its task waits for the follower too, which has to pass the
    cursor.
    """

    def __init__(self, updates: Sequence[Update]) -> None:
        self.began = perf_counter()
        self.updates = updates
        self.size = sum(update.size for update in updates)
        self.done = trio.Event()
        self.ids: list[str] | None = None
        self.cursor = ""
        self.error: Exception | None = None


@final
@dataclass(slots=True, eq=False, repr=False)
class Committer:
    """Brings updates into a history, its log, and the feeds."""

    history: History
    """The history, whose log it appends to."""
    inflow: Inflow
    """The step by which its records come into the log and the feeds."""
    _: KW_ONLY
    max_waiting: int
    """Updates that may wait for the history."""
    max_waiting_bytes: int
    """Bytes of memory that they may take."""
    unready_after: float = 0.0
    """Seconds for which the history may fail before a probe is told."""
    waiting: int = 0
    """Updates that wait for the history."""
    waiting_bytes: int = 0
    """Bytes of memory that they take."""
    failure: str | None = None
    """Why the history can't store; `None` while it can, as far as anybody knows."""
    task_failures: Counter[str] = field(default_factory=Counter[str])
    """Errors in the hub's own tasks, by task; its own are commits that failed."""
    latency: Histogram = field(default_factory=Histogram)
    """Seconds from a publish to its ids; of those that have some."""
    _commits: deque[_Commit] = field(default_factory=deque[_Commit])
    _idle: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)
    _closed: bool = True
    _next_check: float = 0.0
    _failed_at: float = 0.0

    def append_nowait(self, updates: Sequence[Update]) -> list[str]:
        """Commit at once, and return the ids.

        Raises the errors of `Hub.publish_nowait`, but for those of an `Update`.
        """
        self.check_open()
        began = perf_counter()
        appended = self.history.append_nowait(updates)
        self.inflow.publish(appended)
        if (refusal := _refusal(appended)) is not None:
            raise refusal
        self.latency.add(perf_counter() - began)
        return [answer.id for answer in appended]

    async def append(self, updates: Sequence[Update]) -> list[str]:
        """Commit, and return the ids once the history keeps its promise. A checkpoint.

        Raises the errors of `Hub.publish`, but for those of an `Update`.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            ids = self.append_nowait(updates)
        except trio.WouldBlock:
            return await self._wait(updates)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return ids

    async def _wait(self, updates: Sequence[Update]) -> list[str]:
        commit = _Commit(updates)
        count, size = self.waiting + len(updates), self.waiting_bytes + commit.size
        # As many and as large as its publisher wants if none wait: else it could never be stored.
        if self.waiting and (count > self.max_waiting or size > self.max_waiting_bytes):
            raise OverloadedError(
                f"{self.waiting} updates of {self.waiting_bytes} bytes wait for the history,"
                f" at most {self.max_waiting} of {self.max_waiting_bytes} bytes may",
                limit="max_waiting" if count > self.max_waiting else "max_waiting_bytes",
            )
        self._commits.append(commit)
        self.waiting, self.waiting_bytes = count, size
        self._idle.unpark()
        await commit.done.wait()
        if commit.cursor and not self.inflow.has_passed(commit.cursor):
            # It is stored: with an error or without, and if this takes too long too.
            await self.inflow.passed(commit.cursor, "publish")
        if commit.error is not None:
            raise commit.error
        if commit.ids is None:
            self.check_open()
            raise trio.ClosedResourceError("the hub was closed")
        return commit.ids

    async def run(self) -> None:
        """Commit updates of publishers until cancelled."""
        while True:
            while not self._commits:
                await self._rest()
            await self._commit(self._take())

    async def _rest(self) -> None:
        """Wait for a commit, or for the time to ask a history that fails."""
        if self.failure is None:
            await self._idle.park()
            return
        with trio.move_on_after(FAILING_SECONDS) as scope:
            await self._idle.park()
        if scope.cancelled_caught and trio.current_time() >= self._next_check:
            await self._ask()

    def _take(self) -> list[_Commit]:
        """Take those that wait, in order, up to the size of one commit, but at least one."""
        taken: list[_Commit] = []
        size = 0
        while self._commits and (not taken or size + self._commits[0].size <= MAX_COMMIT_BYTES):
            taken.append(self._commits.popleft())
            size += taken[-1].size
        return taken

    async def _commit(self, commits: Sequence[_Commit]) -> None:
        """Commit those taken; publishers whose updates don't fit are told, each for itself."""
        try:
            full = await self._append(commits)
            if full is None or len(commits) == 1:
                return
            # Together they don't fit, but some may: one event can be larger than what is left.
            least: _Commit | None = None
            for commit in commits:
                commit.error = None
            for commit in commits:
                if least is not None and commit.size >= least.size:
                    commit.error = _publishers_own(full)
                elif await self._append([commit]) is not None:
                    least = commit
        finally:
            for commit in commits:
                self._count_out(commit)
                if commit.ids is None and commit.error is None:
                    # Cancelled as the hub closes: the history may have them.
                    commit.error = OutcomeUnknownError("the hub ended before the store answered")
                commit.done.set()

    async def check(self) -> str | None:
        """Ask the history whether it can store, if the last answer is old.

        Returns:
            Why it can't, once it couldn't for `unready_after`.
        """
        now = trio.current_time()
        if self._closed or now < self._next_check:
            await trio.lowlevel.checkpoint()
        else:
            await self._ask()
        if trio.current_time() - self._failed_at < self.unready_after:
            return None
        return self.failure

    async def _ask(self, failed: BaseException | None = None) -> None:
        """Ask the history whether it can store, right behind an error or when a probe comes."""
        # Set before the wait: who comes meanwhile takes the last answer.
        self._next_check = trio.current_time() + CHECK_SECONDS
        try:
            knows = await self.history.health()
        except BaseException as exc:  # noqa: BLE001 - a history may raise anything
            self._note_health(own_error(exc))
            return
        if not knows and failed is not None:
            self._next_check = trio.current_time() + UNKNOWN_SECONDS
        self._note_health(None if knows else failed)

    def _note_health(self, error: BaseException | None) -> None:
        """Remember whether the history can store; log it when that changes."""
        before, self.failure = self.failure, None if error is None else str(error) or repr(error)
        if before is None and error is not None:
            self._failed_at = trio.current_time()
            self._idle.unpark()  # it looks at the time from now on
            trace = None if isinstance(error, HistoryError) else error
            later = f" if that lasts {self.unready_after:g} s" if self.unready_after else ""
            said = "the store fails, the hub isn't ready%s: %s"
            logger.error(said, later, error, exc_info=trace)
        elif before is not None and error is None:
            logger.warning("the store works again, the hub is ready")

    async def _append(self, commits: Sequence[_Commit]) -> HistoryFullError | None:
        """Bring updates into the history and the log; return the error if there is no room."""
        try:
            appended = await self.history.append([u for commit in commits for u in commit.updates])
            await self._deliver(commits, appended)
            self._note_health(None)
        except BaseException as exc:
            error = own_error(exc)
            self.task_failures["committer"] += 1
            if not isinstance(error, HistoryError):
                logger.exception("a commit failed: %r", error, exc_info=error)
            full = error if isinstance(error, HistoryFullError) else None
            if full is None or len(commits) == 1:  # else they are tried alone first
                await self._ask(error)
            for commit in commits:
                if commit.ids is None:
                    commit.error = _publishers_own(error)
            return full
        return None

    async def _deliver(self, commits: Sequence[_Commit], appended: Sequence[Appended]) -> None:
        """Put stored records into the log and the feeds, and let others run between.

        Not cancelled half-way: what is stored is to be in the log.
        """
        turn, answers = Turn(), iter(appended)
        feeds = self.inflow.feeds
        handed = feeds.handed
        for commit in commits:
            own = [next(answers) for _ in commit.updates]
            for answer in own:
                self.inflow.publish([answer])
                topics = () if answer.record is None else answer.record.topics
                cost = _DELIVERY_COST * len(topics) + feeds.handed - handed
                handed = feeds.handed
                if turn.spend(cost):
                    await trio.lowlevel.cancel_shielded_checkpoint()
            commit.ids, commit.error = [answer.id for answer in own], _refusal(own)
            commit.cursor = next((a.cursor for a in reversed(own) if a.cursor), "")
            if commit.error is None:
                self.latency.add(perf_counter() - commit.began)

    def _count_out(self, commit: _Commit) -> None:
        self.waiting -= len(commit.updates)
        self.waiting_bytes -= commit.size

    def close(self) -> None:
        """Take no more; publishers that wait are told."""
        self._closed = True
        for commit in self._commits:
            self._count_out(commit)
            commit.done.set()
        self._commits.clear()

    def open(self) -> None:
        """The history is open: take updates."""
        self._closed = False

    def check_open(self) -> None:
        """Raise `trio.ClosedResourceError` unless the history is open."""
        if self._closed:
            raise trio.ClosedResourceError(
                "the hub isn't running: enter `async with hub`, or start `hub.run`; "
                "in an app: `App(lifespan=lambda: hub)`"
            )


def _publishers_own(error: BaseException) -> Exception:
    """Return an error for one publisher: each raises it in a task of its own."""
    if isinstance(error, HistoryError):
        try:
            copied: Exception = type(error)(*error.args)
        except Exception:  # noqa: BLE001 - a class of somebody's with arguments of its own
            return error
    else:
        copied = OutcomeUnknownError(f"the store failed: {error!r}")
    copied.__cause__ = error
    return copied


def _refusal(answers: Sequence[Appended]) -> Exception | None:
    """Return the first reason why one of some updates was refused."""
    return next((answer.error for answer in answers if answer.error is not None), None)
