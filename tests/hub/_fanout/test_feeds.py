"""`Feeds`: a record lands in those that selected it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import pytest
from hub_helpers import FakeSink, record

from h3trio.hub._fanout.feed import FanoutState, Subscriber
from h3trio.hub._fanout.feeds import MAX_MATCH_BYTES, Feeds
from h3trio.hub._fanout.sweep import Sweep
from h3trio.hub._history.selection import NOTHING, Selection, TopicMatcher


@dataclass(frozen=True)
class Prefix:
    """Matches topics that begin with a text."""

    text: str

    def matches(self, topic: str, /) -> bool:
        """Whether the topic begins so."""
        return topic.startswith(self.text)


@dataclass(frozen=True)
class Counting(Prefix):
    """Matches like `Prefix`, and notes each topic that it was asked of."""

    asked: list[str]

    def __hash__(self) -> int:
        return hash(self.text)

    def matches(self, topic: str, /) -> bool:
        """Whether the topic begins so."""
        self.asked.append(topic)
        return super().matches(topic)


def joined(feeds: Feeds, *topics: str | TopicMatcher, allow: Selection = NOTHING) -> Subscriber:
    """A new subscriber, ready."""
    subscriber = Subscriber(FakeSink(), selection=Selection(topics), allow=allow, info={})
    feeds.join(subscriber)
    return subscriber


def waiting(subscriber: Subscriber) -> bool:
    """Whether the subscriber's feed has something for it."""
    return subscriber.feed is not None and bool(subscriber.feed.window)


def make_feeds() -> Feeds:
    """Feeds without a running sweep."""
    return Feeds(Sweep(FanoutState(1000)))


def test_equal_selections_and_rights_share_a_feed() -> None:
    """The order of the topics doesn't matter; the rights do."""
    feeds = make_feeds()
    one, two = joined(feeds, "a", "b"), joined(feeds, "b", "a")
    other = joined(feeds, "a", "b", allow=Selection(["a"]))
    assert one.feed is two.feed
    assert other.feed is not one.feed
    assert len(feeds) == 2


def test_exact_topics_matchers_and_everything() -> None:
    """A record lands in every feed that selected one of its topics, once."""
    feeds = make_feeds()
    exact, pattern = joined(feeds, "news/a"), joined(feeds, Prefix("news/"))
    everything, mixed = joined(feeds, "*"), joined(feeds, "x", Prefix("sport"))
    feeds.append(record(1, "news/a", "news/b"))
    assert [waiting(each) for each in (exact, pattern, everything, mixed)] == [True] * 3 + [False]
    feed = pattern.feed
    assert repr(feed).endswith("1 waiting>")
    feeds.append(record(2, "x"))
    assert waiting(mixed)


def test_a_matcher_is_asked_once_per_topic() -> None:
    """The answer is kept, and forgotten when the feeds with matchers change."""
    feeds = make_feeds()
    asked: list[str] = []
    joined(feeds, Counting("n", asked))
    for position in range(1, 4):
        feeds.append(record(position, "news"))
    assert asked == ["news"]
    late = joined(feeds, Prefix("ne"))
    feeds.append(record(4, "news"))
    assert waiting(late)
    assert asked == ["news", "news"]


def test_the_answers_of_matchers_are_bounded_in_bytes() -> None:
    """Long topics are few, and the newest of them."""
    feeds = make_feeds()
    asked: list[str] = []
    joined(feeds, Counting("never", asked))
    topics = [f"{n}/{'x' * 10_000}" for n in range(MAX_MATCH_BYTES // 10_000 + 1)]
    for position, topic in enumerate(topics):
        feeds.append(record(position, topic))
    feeds.append(record(len(topics), topics[-1]))
    assert len(asked) == len(topics)
    feeds.append(record(len(topics) + 1, topics[0]))
    assert len(asked) == len(topics) + 1


def test_a_topic_of_several_feeds_is_left_by_each() -> None:
    """Whoever goes first, the others get what comes."""
    for order in permutations(range(3)):
        feeds = make_feeds()
        members = [joined(feeds, "a", extra) for extra in ("b", "c", "d")]
        for position, leaving in enumerate(order, 1):
            feeds.append(record(position, "a"))
            assert [waiting(one) for one in members if one.feed] == [True] * (4 - position)
            members[leaving].leave_feed()
            feeds.forget_if_empty(members[leaving].selection, members[leaving].allow)
        assert feeds.topics == {}


def test_a_forgotten_feed_gets_nothing() -> None:
    """When the last subscriber has left, the feed goes and its topics with it."""
    feeds = make_feeds()
    for topics in (("a", "b"), ("*",), (Prefix("a"),)):
        subscriber = joined(feeds, *topics)
        subscriber.leave_feed()
        feeds.forget_if_empty(subscriber.selection, subscriber.allow)
        assert len(feeds) == 0
        feeds.append(record(1, "a"))


def test_private_records_only_where_allowed() -> None:
    """A private record skips the feeds without the right."""
    feeds = make_feeds()
    without, with_right = joined(feeds, "a"), joined(feeds, "a", allow=Selection(["a"]))
    feeds.append(record(1, "a", private=True))
    assert (waiting(without), waiting(with_right)) == (False, True)


@pytest.mark.slow
def test_windows_hold_so_many_bytes_behind_the_newest() -> None:
    """Whose sweep lags farther goes on from the log; all windows together are bounded."""
    feeds = Feeds(Sweep(FanoutState(1000, max_bytes=8000)))
    readers = [joined(feeds, f"t{n}") for n in range(1000)]
    for position in range(1, 1001):
        one = record(position, f"t{position - 1}", data="x" * 80)
        feeds.append(one)
        held = sum(len(r.frame) for each in readers if each.feed for r in each.feed.window)
        assert held <= 8000 + 8 * len(one.frame)
    late = [reader.position for reader in readers if reader.feed is None]
    assert late == list(range(len(late)))
    assert 900 < len(late) < 950
