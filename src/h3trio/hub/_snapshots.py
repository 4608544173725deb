"""`Snapshots`: makes `HubStatistics` and the like, for people and programs that watch a hub.

None is kept: each is made when it is asked for, out of the counts that the hub's parts keep
anyway. It is made in one step while all streams wait, so none goes through all feeds or all
topics that are selected: there may be a million.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from heapq import nlargest
from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, final

from ._fanout.subscription import Subscription

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from ._committer import Committer
    from ._fanout.feed import Subscriber
    from ._fanout.feeds import Feeds
    from ._fanout.latency import LatencyStatistics
    from ._fanout.replay import Replay
    from ._fanout.subscription import EndReason
    from ._history.history import History, HistoryStatistics

_MAX_WEIGHED: Final = 1024
"""Topics with as many events as the last that is shown, or without any, whose subscribers are
looked at."""
_MAX_WEIGHED_FEEDS: Final = 64
"""Of a topic with more feeds, the feeds are counted and not their subscribers."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """A snapshot of one hub; totals count since it was made."""

    published: int
    """Updates put into its log in total; of a history that hubs share, those of all of them."""
    delivered: int
    """Events given to subscribers, live or replayed: an event counts once for each of them."""
    delivered_bytes: int
    """Bytes of their frames."""
    subscribers: int
    """Subscriptions now."""
    ready: int
    """Subscriptions fed live; the others are catching up."""
    feeds: int
    """Distinct selections with somebody ready."""
    waiting: int
    """Updates that wait for the history now."""
    replays: int
    """Times that a subscriber got events from the log, to come back or to catch up."""
    replayed_events: int
    """Events given that way; they are among `delivered`."""
    resets: int
    """Gaps told in total."""
    follow_timeouts: Mapping[str, int]
    """Waits for the follower of a history that several hubs share which ended without it, after
    `HubSettings.follow_timeout`, by what waited: `publish`, `locate`, `purge`."""
    kicked: int
    """Subscriptions ended by `kick` and `kick_where` in total."""
    ended: Mapping[str, int]
    """Subscriptions ended, by `EndReason`; `left` where the client or its handler went."""
    topics: int
    """Topics that a ready subscriber selected by name, and topics published to whose events are
    counted: 4,096 at most, of which the half with fewer events is forgotten for another.
    `history.topics` has those with an event that is kept."""
    publish: LatencyStatistics
    """Seconds from a publish to its acknowledgement; failed ones aren't among them."""
    sweep: LatencyStatistics
    """Seconds of one round of events to all ready subscribers of a selection, from its first send
    to its last."""
    failure: str | None
    """Why the history can't store, as it said when it was last asked; `None` if it can."""
    task_failures: Mapping[str, int]
    """Errors that the hub's own tasks went on from, by task; absent if never. Those of `committer`
    are commits that failed."""
    history: HistoryStatistics
    """The snapshot of its history."""
    node: str = ""
    """The name of this hub among those that share its history."""
    nodes: tuple[NodeStatistics, ...] = ()
    """All hubs that share its history, this one among them, by name, as they were heard last; empty
    if it isn't shared. The other fields are of this hub alone."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatistics:
    """One of the hubs that share a history, as it told of itself; totals count since it was made.

    Not an exact sum of anything: each is as old as `heard` says.
    """

    name: str
    """Its name; see `HubSettings.node`."""
    version: str
    """Its version of h3trio."""
    heard: float
    """Seconds since the store got this from it."""
    subscribers: int
    """Subscriptions."""
    ready: int
    """Subscriptions fed live; the others are catching up."""
    publishes: int
    """Publishes that it acknowledged: of its own publishers, so that no other counts them."""
    delivered: int
    """Events given to its subscribers, live or replayed."""
    delivered_bytes: int
    """Bytes of their frames."""
    newest: int
    """The position up to which it has followed the store: less than others' if it lags."""
    topics: tuple[TopicStatistics, ...]
    """Its busiest topics, up to 10."""
    slow: tuple[SlowStatistics, ...]
    """Its slowest subscriptions, up to 5."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SlowStatistics:
    """A subscription of some node that is catching up."""

    client: str
    """Its client, if its `info` says so; else empty."""
    topics: tuple[str, ...]
    """Up to 3 of its topics; `*` for all, a pattern as it writes itself."""
    behind: int
    """Events published since its cursor, whatever their topics."""
    since: float
    """Unix time in seconds at which it began, by its node's clock."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatistics:
    """A snapshot of one topic."""

    topic: str
    """Its name."""
    subscribers: int
    """Subscribers that are fed its public events live, whatever they selected."""
    published: int
    """Events published to it; of a topic that isn't among the busiest 2,000, perhaps only the
    latest."""


@final
@dataclass(slots=True, eq=False, repr=False)
class Snapshots:
    """Snapshots of one hub, and the counts that none of its parts has."""

    _history: History
    _feeds: Feeds
    _replay: Replay
    _committer: Committer
    _ended: Counter[str] = field(default_factory=Counter[str])
    kicked: int = 0
    """Subscriptions ended by `kick` and `kick_where` in total."""

    def count_ended(self, reason: EndReason | None) -> None:
        """Count the end of a subscription; `None` is for its client's or its handler's doing."""
        self._ended["left" if reason is None else reason.value] += 1

    def statistics(
        self, subscribers: int, *, node: str = "", nodes: tuple[NodeStatistics, ...] = ()
    ) -> HubStatistics:
        """Return the statistics of the hub as a whole, at a bounded cost."""
        fanout, replay, committer = self._feeds.state, self._replay, self._committer
        inflow = committer.inflow
        counts, selected = inflow.topic_counts, self._feeds.topics
        return HubStatistics(
            published=inflow.published,
            delivered=fanout.delivered + replay.replayed_events,
            delivered_bytes=fanout.delivered_bytes + replay.replayed_bytes,
            subscribers=subscribers,
            ready=fanout.ready,
            feeds=len(self._feeds),
            waiting=committer.waiting,
            replays=replay.replays,
            replayed_events=replay.replayed_events,
            resets=replay.resets,
            follow_timeouts=MappingProxyType(dict(inflow.timeouts)),
            kicked=self.kicked,
            ended=MappingProxyType(dict(self._ended)),
            topics=len(selected) + sum(topic not in selected for topic in counts),
            publish=committer.latency.statistics(),
            sweep=fanout.passes.statistics(),
            failure=committer.failure,
            task_failures=MappingProxyType(dict(committer.task_failures)),
            history=self._history.statistics(),
            node=node,
            nodes=nodes,
        )

    def topics(self, limit: int) -> tuple[TopicStatistics, ...]:
        """Return the busiest topics: the most events, then the most subscribers."""
        counts, selected = self._committer.inflow.topic_counts, self._feeds.topics

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
        """List topics that hold the busiest, with a bounded number of those that tie."""
        counts = self._committer.inflow.topic_counts
        tied: Iterator[str]
        # A topic with an event outranks those without: these count only if there are too few.
        if len(counts) < limit:
            above = list(counts)
            tied = (topic for topic in self._feeds.topics if topic not in counts)
        else:
            least = nlargest(limit, counts.values())[-1] if limit > 0 else 0
            above = [topic for topic, count in counts.items() if count > least]
            tied = (topic for topic, count in counts.items() if count == least)
        return above + list(islice(tied, max(limit, _MAX_WEIGHED)))

    def slow(self, subscribers: Collection[Subscriber], limit: int) -> tuple[Subscription, ...]:
        """Return the subscriptions that are catching up, the farthest behind first."""
        if len(subscribers) == self._feeds.state.ready:
            return ()
        behind = (
            subscriber
            for subscriber in subscribers
            if subscriber.feed is None and subscriber.is_placed
        )
        chosen = nlargest(limit, behind, key=lambda subscriber: -subscriber.position)
        return tuple(map(self.subscription, chosen))

    def subscription(self, subscriber: Subscriber) -> Subscription:
        """Return the snapshot of one subscription."""
        ready = subscriber.feed is not None
        is_behind = subscriber.is_placed and not ready
        return Subscription(
            topics=subscriber.selection,
            allow=subscriber.allow,
            info=subscriber.info,
            cursor=self._history.epochs.format(subscriber.position),
            truncated=subscriber.truncated,
            ready=ready,
            since=subscriber.since,
            # A ready one has all that it selected, though its cursor may be an old one.
            behind=max(0, self._history.log.head - subscriber.position) if is_behind else 0,
        )
