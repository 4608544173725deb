"""What a hub shows of itself: snapshots for people and programs that watch it.

Nothing here is kept: each is made when it is asked for, out of what the hub's parts count
anyway. It is made in one step while all streams wait, so none goes through all feeds or all
topics that are selected: there may be a million.
"""

from __future__ import annotations

from collections import Counter
from heapq import nlargest
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from ._fanout.subscriber import Subscription
from ._statistics import HubStatistics, TopicStatistics
from ._topic_counts import MAX_COUNTED, TopicCounts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from ._committer import Committer
    from ._fanout.feeds import Feeds
    from ._fanout.replay import Replay
    from ._fanout.subscriber import EndReason, Subscriber
    from ._history.history import History
    from ._history.record import Record

# Topics with as many events as the last that is shown, or without any, whose subscribers are
# looked at: some milliseconds of it.
_MAX_WEIGHED: Final = 1024
# Of a topic with more feeds than that, the feeds are counted and not who stands in them.
_MAX_WEIGHED_FEEDS: Final = 64


@final
class View:
    """Snapshots of one hub, and the counts that none of its parts has."""

    __slots__ = (
        "_committer",
        "_counts",
        "_ended",
        "_feeds",
        "_history",
        "_published",
        "_replay",
        "kicked",
    )

    def __init__(
        self, history: History, feeds: Feeds, replay: Replay, committer: Committer
    ) -> None:
        self._history = history
        self._feeds = feeds
        self._replay = replay
        self._committer = committer
        self._published = 0
        self._counts = TopicCounts()
        self._ended: Counter[str] = Counter()
        self.kicked = 0

    # -- counting

    def count_published(self, record: Record) -> None:
        """Count an event, once in all and once for each of its topics."""
        self._published += 1
        counts = self._counts
        for topic in record.topics:
            if topic in counts:
                counts[topic] += 1
            else:
                if len(counts) >= MAX_COUNTED:
                    counts.make_room()
                counts[topic] = 1

    def count_ended(self, reason: EndReason | None) -> None:
        """Count the end of a subscription; no reason is its client's or its handler's."""
        self._ended["left" if reason is None else reason.value] += 1

    # -- showing

    def statistics(self, subscribers: int) -> HubStatistics:
        """The hub as a whole, at a bounded cost."""
        windows, replay, committer = self._feeds.windows, self._replay, self._committer
        counts, selected = self._counts, self._feeds.topics
        return HubStatistics(
            published=self._published,
            delivered=windows.delivered + replay.replayed_events,
            delivered_bytes=windows.delivered_bytes + replay.replayed_bytes,
            subscribers=subscribers,
            ready=windows.ready,
            feeds=len(self._feeds),
            waiting=committer.waiting,
            replays=replay.replays,
            replayed_events=replay.replayed_events,
            resets=replay.resets,
            kicked=self.kicked,
            ended=MappingProxyType(dict(self._ended)),
            topics=len(selected) + sum(topic not in selected for topic in counts),
            publish=committer.latency.statistics(),
            sweep=windows.passes.statistics(),
            failure=committer.failure,
            history=self._history.statistics(),
        )

    def topics(self, limit: int) -> tuple[TopicStatistics, ...]:
        """The busiest topics: the most events, then the most subscribers."""
        counts, selected = self._counts, self._feeds.topics

        def weight(topic: str) -> tuple[int, int]:
            feeds = selected.get(topic, ())
            if len(feeds) > _MAX_WEIGHED_FEEDS:
                return counts.get(topic, 0), len(feeds)
            return counts.get(topic, 0), sum(len(feed.ready) for feed in feeds)

        return tuple(
            TopicStatistics(
                topic=topic,
                subscribers=self._feeds.count_ready(topic),
                published=counts.get(topic, 0),
            )
            for topic in nlargest(limit, self._candidates(limit), key=weight)
        )

    def _candidates(self, limit: int) -> list[str]:
        """Topics among which the busiest are, with a bounded number of those that tie."""
        counts = self._counts
        tied: Iterator[str]
        # Who was published to outranks who wasn't: the others count only where those are too few.
        if len(counts) < limit:
            above = list(counts)
            tied = (topic for topic in self._feeds.topics if topic not in counts)
        else:
            least = nlargest(limit, counts.values())[-1] if limit > 0 else 0
            above = [topic for topic, count in counts.items() if count > least]
            tied = (topic for topic, count in counts.items() if count == least)
        return above + list(islice(tied, max(limit, _MAX_WEIGHED)))

    def slow(self, subscribers: Collection[Subscriber], limit: int) -> tuple[Subscription, ...]:
        """Those that are catching up, the farthest behind first."""
        if len(subscribers) == self._feeds.windows.ready:
            return ()
        behind = (
            subscriber
            for subscriber in subscribers
            if subscriber.feed is None and subscriber.is_placed
        )
        chosen = nlargest(limit, behind, key=lambda subscriber: -subscriber.position)
        return tuple(map(self.subscription, chosen))

    def subscription(self, subscriber: Subscriber) -> Subscription:
        """One subscription."""
        ready = subscriber.feed is not None
        is_behind = subscriber.is_placed and not ready
        return Subscription(
            topics=subscriber.selection,
            allow=subscriber.allow,
            info=subscriber.info,
            cursor=self._history.epochs.format(subscriber.position),
            ready=ready,
            since=subscriber.since,
            # Who is ready has all that it selected, though its cursor may be an old one.
            behind=max(0, self._history.log.head - subscriber.position) if is_behind else 0,
        )
