"""`Hub`: publish, subscribe, and the tasks between.

    publish ─▶ Committer ─▶ History ─▶ Log, Feeds ─▶ Sweep ─▶ every ready sink
                                              ▲
    subscribe ─▶ Replay ──────────────────────┘  (from its cursor, then ready)

The hub owns two tasks, the sweep and the committer, and one more where records
have an age limit. A subscription is run by the task that called `subscribe`,
which sleeps while the sweep does the work.
"""

from __future__ import annotations

import random
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self, final

import trio

from h3trio._wire.event import SSEEvent

from ._committer import Committer
from ._fanout.channel import EventChannel
from ._fanout.feed import Windows
from ._fanout.feeds import Feeds
from ._fanout.replay import Replay
from ._fanout.subscriber import EndReason, Subscriber
from ._fanout.sweep import Sweep
from ._history.memory import MemoryHistory
from ._history.selection import NOTHING, Selection
from ._settings import HubSettings
from ._topics import make_updates, selection_of
from ._view import View

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
    from types import TracebackType

    from h3trio._wire.batch import FrameSink

    from ._fanout.subscriber import Policy, Subscription
    from ._history.history import History
    from ._history.record import Record
    from ._history.selection import TopicMatcher
    from ._statistics import HubStatistics, TopicStatistics

_NO_INFO: Final[Mapping[str, object]] = MappingProxyType({})
# How often records are checked against an age limit, as a share of it, and the bounds of that.
_TRIM_SHARE: Final = 0.05
_TRIM_SECONDS: Final = (0.5, 60.0)


@final
class Hub:
    """Topics, their subscribers, and one log of everything published.

    Use it as an async context manager, or run it by `nursery.start(hub.run)`.

    Args:
        history: where updates are kept; `MemoryHistory()` if not given.
        settings: limits.
    """

    def __init__(
        self, history: History | None = None, *, settings: HubSettings | None = None
    ) -> None:
        self._history = MemoryHistory() if history is None else history
        self._settings = limits = settings or HubSettings()
        windows = Windows(limits.max_window_records)
        self._sweep = Sweep(windows, flush_interval=limits.flush_interval)
        self._feeds = Feeds(self._sweep, windows)
        self._replay = Replay(self._history)
        self._committer = Committer(self._history, self._deliver, max_waiting=limits.max_waiting)
        self._subscribers: dict[FrameSink, Subscriber] = {}
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self._stack = AsyncExitStack()
        self._running = False
        self._view = View(self._history, self._feeds, self._replay, self._committer)

    def __repr__(self) -> str:
        state = "running" if self._running else "not running"
        return f"<Hub: {state}, {len(self._subscribers)} subscribers>"

    # -- running

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._run())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(exc_type, exc, traceback)

    async def run(self, *, task_status: trio.TaskStatus[Hub] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled; started once the history is open.

        Raises:
            HistoryError: the history can't be opened.
        """
        async with self._run():
            task_status.started(self)
            await trio.sleep_forever()

    @asynccontextmanager
    async def _run(self) -> AsyncGenerator[None]:
        if self._running:
            msg = "this hub runs already"
            raise trio.BusyResourceError(msg)
        self._running = True
        try:
            async with self._history, trio.open_nursery() as nursery:
                self._committer.open()
                nursery.start_soon(self._sweep.run, name="h3trio hub sweep")
                nursery.start_soon(self._committer.run, name="h3trio hub committer")
                if self._history.max_age is not None:
                    nursery.start_soon(self._trim, self._history.max_age, name="h3trio hub trim")
                yield
                nursery.cancel_scope.cancel(reason="the hub is closed")
        finally:
            self._running = False
            self._committer.close()
            for subscriber in list(self._subscribers.values()):
                subscriber.end(EndReason.CLOSED)

    async def _trim(self, max_age: float) -> None:
        low, high = _TRIM_SECONDS
        while True:
            await trio.sleep(min(max(max_age * _TRIM_SHARE, low), high))
            await self._history.trim()

    # -- publishing

    async def publish(
        self,
        event: SSEEvent | str,
        *,
        topics: Iterable[str],
        private: bool = False,
        dedup: str | None = None,
    ) -> str:
        """Store an event and give it to the subscribers of its topics; return its id.

        Never waits for a subscriber. Cancelling it abandons the wait, not the event.

        Args:
            event: what to send; its own `id`, if any, is kept.
            topics: one or more; the first is the canonical one.
            private: whether only subscribers with the right may see it.
            dedup: a key under which a repeated publish is the same publish.

        Raises:
            ValueError: topics, id, type or size aren't allowed.
            OverloadedError: too many publishes wait; nothing was sent to the store.
            OutcomeUnknownError: the store didn't answer; try again with `dedup`.
            HistoryError: it couldn't be stored.
            trio.ClosedResourceError: the hub isn't running.
        """
        return (await self.publish_all([event], topics=topics, private=private, dedup=dedup))[0]

    async def publish_all(
        self,
        events: Sequence[SSEEvent | str],
        *,
        topics: Iterable[str],
        private: bool = False,
        dedup: str | None = None,
    ) -> list[str]:
        """Publish several events in one step, all or none; as `publish`.

        With `dedup`, more than one is a ValueError: each is retained for a time of its own, so
        a repetition could be one in part. Publish them one by one, each with its own key.
        """
        updates = make_updates(
            events, topics=topics, private=private, dedup=dedup, settings=self._settings
        )
        return await self._committer.append(updates)

    def publish_nowait(
        self,
        event: SSEEvent | str,
        *,
        topics: Iterable[str],
        private: bool = False,
        dedup: str | None = None,
    ) -> str:
        """Publish without waiting; as `publish`.

        Raises:
            trio.WouldBlock: the history has to wait for a disk or a network.
        """
        updates = make_updates(
            [event], topics=topics, private=private, dedup=dedup, settings=self._settings
        )
        return self._committer.append_nowait(updates)[0]

    def _deliver(self, record: Record) -> None:
        self._view.count_published(record)
        self._feeds.append(record)

    async def purge(self, topic: str) -> int:
        """Remove a topic's events from the history; return how many there were."""
        try:
            return await self._history.purge(topic)
        finally:
            # Cut short, it removed a part.
            self._replay.forget_pages()

    # -- subscribing

    async def subscribe(
        self,
        writer: FrameSink,
        topics: Iterable[str | TopicMatcher],
        *,
        last_event_id: str | None = None,
        first: int | str | None = None,
        policy: Policy = "resync",
        allow: Iterable[str | TopicMatcher] = (),
        info: Mapping[str, object] = _NO_INFO,
    ) -> EndReason:
        """Send a writer what is published to some topics, until it ends; return why.

        It starts behind `last_event_id`, or with what comes. The stream opens
        with a block that has no data but a cursor and a `retry`. Where history
        is missing, an event of type `reset` tells so: its data is JSON with
        `reason` and the `id` that was asked for.

        Args:
            writer: an `SSEWriter`, or another `FrameSink`.
            topics: exact topics, `"*"` for all, or matchers.
            last_event_id: the last event that the client has.
            first: without an id, start with the last so many events, or with
                `"oldest"`. Default `None`, or `"newest"`: with what comes.
            policy: what if the client falls out of the history while connected:
                `"resync"` tells it and goes on at the head; `"disconnect"` ends.
            allow: topics whose private events it may see.
            info: anything, for `kick` and `subscriptions`.

        Raises:
            ValueError: a topic isn't valid, or there are none or too many.
            trio.BusyResourceError: the writer has a subscription.
            trio.BrokenResourceError: the client is gone.
            trio.ClosedResourceError: the writer was closed, or the hub isn't running.
        """
        self._check_free(writer)
        subscriber = Subscriber(
            writer,
            selection=selection_of(topics, self._settings),
            allow=Selection(allow) if allow else NOTHING,
            info=info,
        )
        self._subscribers[writer] = subscriber
        try:
            await self._feed(
                subscriber, policy, partial(self._begin, subscriber, last_event_id, first)
            )
        finally:
            del self._subscribers[writer]
            self._view.count_ended(subscriber.end_reason)
            subscriber.leave_feed()
            self._feeds.forget_if_empty(subscriber.selection, subscriber.allow)
        assert subscriber.end_reason is not None, "only `end` gets here"
        return subscriber.end_reason

    def check_topics(self, topics: Iterable[str | TopicMatcher]) -> None:
        """Raise the `ValueError` that subscribing or publishing to these would raise."""
        selection_of(topics, self._settings)

    def _check_free(self, writer: FrameSink) -> None:
        if not self._running:
            msg = "the hub isn't running: enter `async with hub`, or start `hub.run`"
            raise trio.ClosedResourceError(msg)
        if writer in self._subscribers:
            msg = "this writer has a subscription"
            raise trio.BusyResourceError(msg)

    @asynccontextmanager
    async def subscription(
        self,
        topics: Iterable[str | TopicMatcher],
        *,
        last_event_id: str | None = None,
        first: int | str | None = None,
        policy: Policy = "resync",
        allow: Iterable[str | TopicMatcher] = (),
        info: Mapping[str, object] = _NO_INFO,
    ) -> AsyncGenerator[EventChannel]:
        """Subscribe from code: `async with hub.subscription(["news"]) as events`.

        The arguments and errors are those of `subscribe`; the channel gives the
        events, `reset` among them.
        """
        channel = EventChannel(max_event_size=self._settings.max_event_bytes)

        async def feed() -> None:
            try:
                await self.subscribe(
                    channel,
                    topics,
                    last_event_id=last_event_id,
                    first=first,
                    policy=policy,
                    allow=allow,
                    info=info,
                )
            except trio.BrokenResourceError:
                return  # the reader closed the channel
            finally:
                channel.end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed, name="h3trio hub subscription")
            yield channel
            nursery.cancel_scope.cancel(reason="the reader is done")

    async def _begin(
        self, subscriber: Subscriber, last_event_id: str | None, first: int | str | None
    ) -> None:
        """Find the cursor and send it: for a client that drops before its first event."""
        lost = await self._replay.start(subscriber, last_event_id=last_event_id, first=first)
        subscriber.is_placed = True
        cursor = self._history.epochs.format(subscriber.position)
        retry = round(1000 * self._settings.reconnect_delay * self._random.uniform(0.5, 1.5))
        await self._replay.give(subscriber, SSEEvent(id=cursor, retry=retry))
        if lost is not None:
            await self._replay.tell_reset(subscriber, lost, last_event_id)

    async def _feed(
        self, subscriber: Subscriber, policy: Policy, begin: Callable[[], Awaitable[None]] | None
    ) -> None:
        """Catch up, be ready, and again whenever the sweep gives the subscriber back."""
        while subscriber.end_reason is None:
            is_up, at_start = False, begin is not None
            with trio.CancelScope() as scope:
                subscriber.interrupt_by(scope)
                if begin is not None:
                    await begin()
                is_up = await self._replay.catch_up(subscriber, behind_since_start=at_start)
                if not is_up and policy == "disconnect":
                    subscriber.end(EndReason.LAGGED)
                elif not is_up:
                    await self._replay.resync(subscriber)
            subscriber.interrupt_by(None)
            del scope  # or it is held for as long as the stream is idle
            begin = None
            if is_up and subscriber.end_reason is None:
                subscriber.position = self._history.log.head
                self._feeds.join(subscriber)
                await subscriber.park()

    # -- looking and steering

    def kick(
        self,
        predicate: Callable[[Subscription], bool],
        reason: EndReason = EndReason.KICKED,
    ) -> int:
        """End the subscriptions that a predicate chooses; return how many."""
        # Without those that have ended, and have yet to unwind.
        running = [s for s in self._subscribers.values() if s.end_reason is None]
        chosen = [s for s in running if predicate(self._view.subscription(s))]
        for subscriber in chosen:
            subscriber.end(reason)
        self._view.kicked += len(chosen)
        return len(chosen)

    def subscriptions(self) -> tuple[Subscription, ...]:
        """A snapshot of all subscriptions."""
        return tuple(map(self._view.subscription, self._subscribers.values()))

    def slow_subscriptions(self, limit: int) -> tuple[Subscription, ...]:
        """Those that are catching up, the farthest behind first, at most so many.

        Not among them is who came with an id that is still looked up. Where nobody is behind it
        costs nothing, else it goes through all subscriptions.
        """
        return self._view.slow(self._subscribers.values(), limit)

    def busiest_topics(self, limit: int) -> tuple[TopicStatistics, ...]:
        """Topics with the most events since the hub was made, then the most subscribers.

        Its cost is bounded: of topics with equally many events, or none, 1,024 are looked at, and
        where more than 64 different selections name a topic, these are compared.
        """
        return self._view.topics(limit)

    @property
    def last_event_id(self) -> str:
        """The cursor at the head of the log."""
        return self._history.epochs.format(self._history.log.head)

    def statistics(self) -> HubStatistics:
        """A snapshot; its cost grows with neither subscribers nor topics nor feeds."""
        return self._view.statistics(len(self._subscribers))
