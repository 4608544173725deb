"""`Hub`: publish, subscribe, and the tasks between.

    publish ─▶ Committer ─▶ History ─▶ Log, Feeds ─▶ Sweep ─▶ every ready sink
                                              ▲
    subscribe ─▶ Replay ──────────────────────┘  (from its cursor, then ready)

The hub owns two tasks, the sweep and the committer, and one more if records have an age limit. If
several hubs share the history, records come to each by its follower, a task too, whoever published
them. An error in one of them is logged and counted, and the task runs again. A subscription is run
by the task that called `subscribe`, which sleeps while the sweep does the work.

Values are checked once, where they enter: an `Update` by its constructor, topics of a subscription
and the limits of this hub by `_checks`.
"""

from __future__ import annotations

import inspect
import logging
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Self, final

import trio

from h3trio._tasks import run_again

from ._checks import check_first, make_updates, select
from ._committer import Committer
from ._fanout.channel import subscribed
from ._fanout.feed import FanoutState, Subscriber
from ._fanout.feeds import Feeds
from ._fanout.replay import Replay
from ._fanout.subscription import EndReason, Start
from ._fanout.sweep import Sweep
from ._history.errors import HistoryError, TopicClosedError
from ._history.history import pinned
from ._history.memory import MemoryHistory
from ._history.selection import ALL
from ._inflow import Inflow
from ._nodes import HubNodes
from ._serving import Serving
from ._settings import HubSettings
from ._snapshots import Snapshots

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager
    from types import TracebackType

    from h3trio._wire.batch import FrameSink
    from h3trio._wire.event import SSEEvent

    from ._fanout.channel import EventChannel
    from ._fanout.subscription import Policy, Subscription
    from ._history.history import History
    from ._history.record import Page
    from ._history.selection import TopicMatcher
    from ._nodes import Kicked
    from ._snapshots import HubStatistics, TopicStatistics

logger = logging.getLogger("h3trio.hub")

_NO_INFO: Final[Mapping[str, object]] = MappingProxyType({})


@final
class Hub:
    """Topics, their subscribers, and one log of everything published.

    Use it as an async context manager, or run it by `nursery.start(hub.run)`.

    Args:
        history: keeps the updates; `MemoryHistory()` if not given.
        settings: limits; `HubSettings()` if not given.
    """

    def __init__(
        self, history: History | None = None, *, settings: HubSettings | None = None
    ) -> None:
        self._history = MemoryHistory() if history is None else history
        self._settings = limits = settings or HubSettings()
        self._make = partial(make_updates, limits)
        state = FanoutState(limits.max_window_records, limits.max_window_bytes)
        self._sweep = Sweep(state, flush_interval=limits.flush_interval)
        self._feeds = Feeds(self._sweep)
        self._replay = Replay(self._history)
        self._subscribers: dict[FrameSink, Subscriber] = {}
        subscribers, timeout = self._subscribers.values(), limits.follow_timeout
        self._inflow = Inflow(self._history, self._feeds, self._replay, subscribers, timeout)
        self._serving = Serving(self._inflow, limits.reconnect_delay)
        self._committer = Committer(
            self._history,
            self._inflow,
            max_waiting=limits.max_waiting,
            max_waiting_bytes=limits.max_waiting_bytes,
            unready_after=limits.unready_after if self._history.is_shared else 0.0,
        )
        self._snapshots = Snapshots(self._history, self._feeds, self._replay, self._committer)
        self._nodes = HubNodes(limits, self._committer, subscribers, self._snapshots)
        self._stack = AsyncExitStack()
        self._running = False

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
            raise trio.BusyResourceError(
                "this hub runs already; a test's second client of an app whose lifespan runs it "
                "connects with lifespan=False"
            )
        self._running = True
        try:
            async with self._history, trio.open_nursery() as nursery:
                self._committer.open()
                tasks = {"sweep": self._sweep.run, "committer": self._committer.run}
                if self._history.is_shared:
                    tasks["follower"] = self._inflow.follow
                if self._nodes.join():
                    tasks["nodes"] = self._nodes.run
                if self._history.max_age is not None:
                    tasks["trim"] = self._inflow.trim
                failures = self._committer.task_failures
                again = partial(run_again, logger=logger, failures=failures, expected=HistoryError)
                for name, run in tasks.items():
                    after = self._feeds.release if name == "sweep" else None
                    task = partial(again, run, name=name, after_error=after)
                    nursery.start_soon(task, name=f"h3trio hub {name}")
                yield
                nursery.cancel_scope.cancel(reason="the hub is closed")
        finally:
            self._running = False
            self._committer.close()
            self._inflow.close()
            for subscriber in list(self._subscribers.values()):
                subscriber.end(EndReason.CLOSED)

    # -- publishing

    async def publish(
        self,
        event: SSEEvent | str,
        *,
        topics: Iterable[str],
        private: bool = False,
        dedup: str | None = None,
        last: bool = False,
    ) -> str:
        """Store an event and give it to the subscribers of its topics; return its id.

        Never waits for a subscriber. Cancelling it abandons the wait, not the event.

        Args:
            event: what to send, or its data; its own `id`, if any, is kept.
            topics: one or more; the first is the canonical one.
            private: whether only subscribers with the right may see it.
            dedup: a key under which a repeated publish is the same publish, for these topics.
            last: whether it closes these topics, see `close`.

        Raises:
            ValueError: topics, id, type, size or key aren't allowed; see `Update`.
            TopicClosedError: one of the topics is closed.
            PinnedFullError: one of the topics is pinned, and those that are have no room left.
            KeyReusedError: the key came with another event for the same topics.
            TypeError: topics is a single string.
            OverloadedError: too many publishes wait; nothing was sent to the store.
            OutcomeUnknownError: the store didn't answer; try again with `dedup`.
            HistoryError: it couldn't be stored.
            trio.ClosedResourceError: the hub isn't running.
        """
        updates = self._make([event], topics, private=private, dedup=dedup, last=last)
        return (await self._committer.append(updates))[0]

    async def publish_all(
        self,
        events: Sequence[SSEEvent | str],
        *,
        topics: Iterable[str],
        private: bool = False,
        dedup: str | None = None,
        last: bool = False,
    ) -> list[str]:
        """Publish several events in one step, all or none; otherwise like `publish`.

        With `last`, the last of them closes the topics. It alone is stored where one of them is
        pinned and there is no room for the others.

        With `dedup`, more than one is a ValueError: each is retained for a time of its own, so
        a repetition could be one in part. Publish them one by one, each with its own key.
        """
        updates = self._make(events, topics, private=private, dedup=dedup, last=last)
        return await self._committer.append(updates)

    def publish_nowait(
        self,
        event: SSEEvent | str,
        *,
        topics: Iterable[str],
        private: bool = False,
        dedup: str | None = None,
        last: bool = False,
    ) -> str:
        """Publish without waiting; otherwise like `publish`.

        Raises:
            trio.WouldBlock: the history has to wait for a disk or a network.
        """
        updates = self._make([event], topics, private=private, dedup=dedup, last=last)
        return self._committer.append_nowait(updates)[0]

    async def wait_published(self) -> None:
        """Wait until an event is published, whatever its topics, or some are removed.

        For who looks at the history now and then, and not when nothing is new.
        """
        await self._inflow.published_lot.park()

    async def read_log(self, after: int) -> Page:
        """Read the next records behind a position, private ones too: for who keeps a copy.

        Up to 64 KiB of frames, or one record. No checkpoint if they are in memory. A damaged one is
        passed over, as if it were removed.

        Raises:
            HistoryError: the history can't be read.
        """
        return await self._replay.page(after, ALL)

    async def close(self, *topics: str, private: bool = False) -> None:
        """Close topics: nothing can be published to them behind this. Those that are stay so.

        A subscription to nothing but closed topics ends, by `EndReason.COMPLETE`, once it was given
        everything. To close a topic with its last event, publish that with `last`.

        A topic is closed until the record of that is removed, by retention behind all others of
        the topic, or by `purge`. Then it is as new.

        Args:
            topics: one or more.
            private: whether only subscribers with the right may know: for all others it is open.

        Raises the errors of `publish` but for `TopicClosedError`.
        """
        updates = self._make([None], topics, private=private, dedup=None, last=True)
        try:
            await self._committer.append(updates)
        except TopicClosedError:
            for topic in topics if len(updates[0].topics) > 1 else ():
                await self.close(topic, private=private)

    async def purge(self, topic: str) -> int:
        """Remove a topic's events, and that it was closed; return how many there were."""
        return await self._inflow.purge(topic)

    def pin(self, topic: str) -> AbstractContextManager[None]:
        """Keep a topic's events while the block runs, beside any others; see `History.pin`.

        Raises its errors, and `ValueError` if the topic isn't valid, or `*`.
        """
        self.check_topics([topic])
        return pinned(self._history, topic)

    # -- subscribing

    async def locate(
        self,
        topics: Iterable[str | TopicMatcher],
        *,
        last_event_id: str | None = None,
        first: int | str | None = None,
        allow: Iterable[str | TopicMatcher] = (),
    ) -> Start:
        """Find where a stream of some topics begins, for `subscribe`, before its head goes out.

        Whatever is published from here on, that stream has it.

        Args:
            topics: exact topics, `"*"` for all, or matchers.
            last_event_id: the last event that the client has: the stream begins behind it.
            first: without an id, begin with so many of the last events, or with `"oldest"`.
                Default `None`, or `"newest"`: with the next event. A number may be a string of
                digits, so that a query's value can be handed on.
            allow: topics whose private events it may see.

        Raises:
            ValueError: a topic isn't valid, or there are none or too many; or `first` isn't.
            HistoryError: the history can't be read.
            trio.ClosedResourceError: the hub isn't running.
        """
        self._committer.check_open()
        selection, allowed = select(self._settings, topics, allow)
        first = check_first(first)
        await trio.lowlevel.checkpoint()
        return await self._inflow.locate(selection, allowed, last_event_id, first)

    async def subscribe(
        self,
        writer: FrameSink,
        topics: Iterable[str | TopicMatcher] | Start,
        *,
        last_event_id: str | None = None,
        first: int | str | None = None,
        policy: Policy = "resync",
        allow: Iterable[str | TopicMatcher] = (),
        info: Mapping[str, object] = _NO_INFO,
        cursor: bool | None = None,
    ) -> EndReason:
        """Send a writer the events of some topics, until it ends; return the reason.

        The stream begins at a `Start`, or where `locate` finds by the same arguments. Only a
        `Start` has headers by which everyone is told where: an `SSEWriter`'s are out by now.
        It opens with a `retry`. If history is missing, an event of type `reset` tells so: its data
        is JSON with `reason` and the `id` that was asked for; its id is good on reconnect.

        Args:
            writer: an `SSEWriter`, or another `FrameSink`.
            topics: what `locate` returned; or exact topics, `"*"` for all, or matchers.
            last_event_id: as of `locate`, and so `first` and `allow`: not beside a `Start`.
            first: where to begin without an id.
            policy: if the client falls out of the history while connected, `"resync"` tells it
                and goes on at the head; `"disconnect"` ends.
            allow: topics whose private events it may see.
            info: anything, for `kick` and `subscriptions`.
            cursor: whether it opens with an event of type `cursor` that has the cursor as its id;
                by default if the writer says `is_event_source`: browsers can't read headers.

        Raises:
            ValueError: a topic isn't valid, or there are none or too many; or `first` isn't.
            TypeError: `last_event_id`, `first` or `allow` beside a `Start`.
            trio.BusyResourceError: the writer has a subscription.
            trio.BrokenResourceError: the client is gone.
            trio.ClosedResourceError: the writer was closed, or the hub isn't running.
        """
        self._committer.check_open()
        if writer in self._subscribers:
            raise trio.BusyResourceError("this writer has a subscription")
        start = topics if isinstance(topics, Start) else None
        if start is not None and (last_event_id is not None or first is not None or allow):
            raise TypeError("a Start says where to begin and what is allowed: give it alone")
        selection, allowed = select(self._settings, topics, allow)
        first = check_first(first)
        cursor = getattr(writer, "is_event_source", False) is True if cursor is None else cursor
        subscriber = Subscriber(
            writer, selection=selection, allow=allowed, info=info, wants_cursor=cursor
        )
        self._subscribers[writer] = subscriber
        try:
            await self._serving.serve(subscriber, policy, start or (last_event_id, first))
        finally:
            del self._subscribers[writer]
            self._snapshots.count_ended(subscriber.end_reason)
            subscriber.leave_feed()
            self._feeds.forget_if_empty(subscriber.selection, subscriber.allow)
        assert subscriber.end_reason is not None, "only `end` gets here"
        return subscriber.end_reason

    def check_topics(self, topics: Iterable[str | TopicMatcher]) -> None:
        """Raise the `ValueError` that subscribing or publishing to these would raise."""
        select(self._settings, topics)

    def subscription(
        self,
        topics: Iterable[str | TopicMatcher],
        *,
        last_event_id: str | None = None,
        first: int | str | None = None,
        policy: Policy = "resync",
        allow: Iterable[str | TopicMatcher] = (),
        info: Mapping[str, object] = _NO_INFO,
    ) -> AbstractAsyncContextManager[EventChannel]:
        """Subscribe from code: `async with hub.subscription(["news"]) as events`.

        The arguments and errors are those of `subscribe`; the channel gives the events, `reset`
        among them. It begins where the log stands when the block is entered.
        """
        locate = partial(self.locate, topics, last_event_id=last_event_id, first=first, allow=allow)
        subscribe = partial(self.subscribe, policy=policy, info=info)
        return subscribed(locate, subscribe, max_event_size=self._settings.max_event_bytes)

    # -- looking and steering

    def kick(
        self,
        predicate: Callable[[Subscription], bool],
        reason: EndReason = EndReason.KICKED,
    ) -> int:
        """End the subscriptions of this hub that a predicate chooses; return how many.

        Raises:
            TypeError: the predicate is async: what it returns isn't awaited, and would choose all.
        """
        if inspect.iscoroutinefunction(predicate):
            raise TypeError("the predicate of kick is a `def`, as nobody waits for it")
        # Without those that have ended, and have yet to unwind.
        running = [s for s in self._subscribers.values() if s.end_reason is None]
        chosen = [s for s in running if predicate(self._snapshots.subscription(s))]
        for subscriber in chosen:
            subscriber.end(reason)
        self._snapshots.kicked += len(chosen)
        return len(chosen)

    async def kick_where(
        self,
        *,
        subject: str | None = None,
        topic: str | None = None,
        client: str | None = None,
        node: str | None = None,
    ) -> Kicked:
        """End the subscriptions that fit, on all hubs that share the history; say how many.

        All that is given has to fit. No form of `kick`, as it waits for the other hubs, up to
        `HubSettings.node_timeout`. Clients come back unless they have lost the right before.

        Args:
            subject: the `"subject"` of the subscription's `info`: the `sub` of a token.
            topic: one whose events it gets, however it asked for it; `"*"`: it asked for all.
            client: the `"client"` of its `info`: an IP address.
            node: the name of the one hub that is to do it.

        Raises:
            TypeError, ValueError: nothing is given, or no string, or more than 16 KiB.
            HistoryError: the store can't be reached: it was done on this hub alone.
            NotImplementedError: the history is shared and has no way to the other hubs.
            trio.ClosedResourceError: the hub isn't running.
        """
        self._committer.check_open()
        return await self._nodes.kick(subject=subject, topic=topic, client=client, node=node)

    def subscriptions(self) -> tuple[Subscription, ...]:
        """Return a snapshot of each subscription of this hub."""
        return tuple(map(self._snapshots.subscription, self._subscribers.values()))

    def slow_subscriptions(self, limit: int) -> tuple[Subscription, ...]:
        """Return up to `limit` subscriptions that are catching up, the farthest behind first.

        Those whose id is still looked up are not among them. If nobody is behind it costs nothing,
        else it goes through all subscriptions.
        """
        return self._snapshots.slow(self._subscribers.values(), limit)

    def busiest_topics(self, limit: int) -> tuple[TopicStatistics, ...]:
        """Return up to `limit` topics: the most events in this hub first, then most subscribers.

        Its cost is bounded: of topics with equally many events, or none, 1,024 are looked at, and
        if more than 64 different selections name a topic, these are compared.
        """
        return self._snapshots.topics(limit)

    @property
    def history(self) -> History:
        """The history that keeps its log, to read from."""
        return self._history

    @property
    def last_event_id(self) -> str:
        """The cursor at the head of the log."""
        return self._history.epochs.format(self._history.log.head)

    async def check_history(self) -> str | None:
        """Return why the history can't store updates now, `None` if it can: for readiness probes.

        It is asked once a second at most; between, the last answer counts. One that hubs share may
        fail for `HubSettings.unready_after` before that is told here; `statistics` has it at once.
        """
        return await self._committer.check()

    def statistics(self) -> HubStatistics:
        """Return a snapshot; its cost grows with neither subscribers nor topics nor feeds."""
        name, nodes = self._nodes.name, self._nodes.statistics()
        return self._snapshots.statistics(len(self._subscribers), node=name, nodes=nodes)
