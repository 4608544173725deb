"""`Snapshots`: their figures, and their cost, counted in looks."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import pytest
import trio
from hub_helpers import FakeSink
from trio.testing import wait_all_tasks_blocked

from h3trio.hub import Hub, MemoryHistory
from h3trio.hub._committer import Committer
from h3trio.hub._fanout.feed import FanoutState, Subscriber
from h3trio.hub._fanout.feeds import Feeds
from h3trio.hub._fanout.replay import Replay
from h3trio.hub._fanout.sweep import Sweep
from h3trio.hub._history.selection import NOTHING, Selection
from h3trio.hub._inflow import Inflow
from h3trio.hub._snapshots import Snapshots

if TYPE_CHECKING:
    from _collections_abc import dict_values
    from collections.abc import Iterator

    from h3trio.hub import HubStatistics
    from h3trio.hub._fanout.feed import Feed

K = TypeVar("K")
V = TypeVar("V")

SELECTED = 5000


class Watched(dict[K, V]):
    """A dictionary that counts the looks at its items."""

    looks = 0

    def __iter__(self) -> Iterator[K]:
        for key in super().__iter__():
            self.looks += 1
            yield key

    def __contains__(self, key: object) -> bool:
        self.looks += 1
        return super().__contains__(key)

    def get(self, key: K, default: V | None = None) -> V | None:  # type: ignore[override]  # one of its three forms
        """Look one up."""
        self.looks += 1
        return super().get(key, default)

    def values(self) -> dict_values[K, V]:
        """Look at all."""
        self.looks += len(self)
        return super().values()


class Shown:
    """Snapshots of some feeds, with a count of the looks at them."""

    def __init__(self) -> None:
        history = MemoryHistory()
        self._feeds = Feeds(Sweep(FanoutState(1000)))
        replay = Replay(history)
        self._inflow = Inflow(history, self._feeds, replay, [], timeout=1)
        self._committer = Committer(history, self._inflow, max_waiting=1, max_waiting_bytes=1)
        self._snapshots = Snapshots(history, self._feeds, replay, self._committer)
        self.topics: Watched[str, tuple[Feed] | dict[Feed, None]] = Watched()
        self.keys: Watched[tuple[Selection, Selection], Feed] = Watched()
        self._feeds.topics, self._feeds._by_key = self.topics, self.keys  # noqa: SLF001 - nothing else tells of looks

    def join(self, *topics: str) -> Subscriber:
        """Put one more subscriber into a feed."""
        subscriber = Subscriber(FakeSink(), selection=Selection(topics), allow=NOTHING, info={})
        self._feeds.join(subscriber)
        self.topics.looks = self.keys.looks = 0
        return subscriber

    def publish(self, *topics: str) -> None:
        """Count an event for each of some topics."""
        for topic in topics:
            self._inflow._count((topic,))  # noqa: SLF001 - without a record in a history

    def statistics(self) -> HubStatistics:
        """The statistics of the hub."""
        return self._snapshots.statistics(0)

    def busiest(self, limit: int) -> list[str]:
        """The names of the busiest topics."""
        return [topic.topic for topic in self._snapshots.topics(limit)]


def crowd() -> Shown:
    """Four feeds that 5,000 topics were selected for."""
    shown = Shown()
    topics = [f"t{n}" for n in range(SELECTED)]
    shown.join(*topics)
    for n in range(3):
        shown.join(*topics[n : n + 10])
    return shown


@pytest.mark.parametrize("published", [0, 10, 100])
def test_what_is_selected_costs_a_snapshot_nothing(published: int) -> None:
    """The hub as a whole looks at topics with a count, and at no feed."""
    shown = crowd()
    shown.publish(*(f"t{n}" for n in range(published)))
    found = shown.statistics()
    assert (found.topics, found.ready, found.feeds) == (SELECTED, 4, 4)
    assert (shown.topics.looks, shown.keys.looks) == (published, 0)


@pytest.mark.parametrize(("published", "most"), [(0, 2200), (10, 2200), (100, 300)])
def test_a_bounded_number_of_topics_is_looked_at(published: int, most: int) -> None:
    """Those published to are enough if there are enough of them; else some more, not all."""
    shown = crowd()
    shown.publish(*(f"p{n}" for n in range(published)))
    assert len(shown.busiest(50)) == 50
    assert 0 < shown.topics.looks <= most
    assert shown.keys.looks == 0


def test_topics_with_equal_counts_are_bounded_too() -> None:
    """Of 4,000 topics with one event each, a quarter is looked at."""
    shown = crowd()
    shown.publish(*(f"t{n}" for n in range(4000)))
    assert len(shown.busiest(50)) == 50
    assert shown.topics.looks <= 1200


def test_the_busiest_have_the_most_events_then_the_most_subscribers() -> None:
    """Whatever was published to comes before what wasn't; of equals, the one with more ready."""
    shown = Shown()
    for topics in (["alone"], ["crowded"], ["crowded"], ["crowded", "silent"], ["alone", "x"]):
        shown.join(*topics)
    shown.join("silent")
    shown.publish("nobody", "alone", "crowded", "busy", "busy")
    for limit in range(8):
        wanted = ["busy", "crowded", "alone", "nobody", "silent", "x"]
        assert shown.busiest(limit) == wanted[:limit]


def test_a_topic_of_many_feeds_outranks_one_of_a_few() -> None:
    """A topic that a hundred selections have in common comes first, though none is summed up."""
    shown = Shown()
    for n in range(100):
        shown.join(f"own{n}", "common")
    assert shown.busiest(1) == ["common"]


def test_who_is_ready_is_counted() -> None:
    """A subscriber that joins a feed counts until it leaves."""
    shown = Shown()
    one, _two = shown.join("a"), shown.join("a", "b")
    assert shown.statistics().ready == 2
    one.leave_feed()
    assert shown.statistics().ready == 1


async def test_whose_cursor_is_looked_up_is_not_behind(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until it is known where a client stands, it isn't said to lack the whole log."""

    async def find(_history: MemoryHistory, _event_id: str, **_options: Selection) -> None:
        await trio.sleep_forever()

    monkeypatch.setattr(MemoryHistory, "find", find)
    async with Hub() as hub:
        for n in range(5):
            await hub.publish(str(n), topics=["a"])
        search = trio.CancelScope()

        async def subscribe() -> None:
            with search:
                await hub.subscribe(FakeSink(), ["a"], last_event_id="somebody-else's")

        nursery.start_soon(subscribe)
        await wait_all_tasks_blocked()
        assert hub.slow_subscriptions(5) == ()
        (found,) = hub.subscriptions()
        assert (found.behind, found.ready) == (0, False)
        search.cancel()
