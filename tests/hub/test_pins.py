"""Pinned topics: whole beside any noise, counted apart, and bounded by a refusal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import FakeSink, WrappedHistory
from trio.testing import wait_all_tasks_blocked

from h3trio.hub import Hub, MemoryHistory, PinnedFullError, Selection, SQLiteHistory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from h3trio.hub import History

    Make = Callable[..., History]


class Clock:
    """Unix time that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


@pytest.fixture(params=["memory", "sqlite"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes a history with some limits; in a file, a few are in memory."""

    def make(**limits: Any) -> History:  # noqa: ANN401 - those of the history
        if request.param == "memory":
            return MemoryHistory(**limits)
        return SQLiteHistory(tmp_path / "hub.db", durability="fast", tail_events=5, **limits)

    return make


async def publish(hub: Hub, topic: str, count: int) -> list[str]:
    """Publish so many, each in a step of its own."""
    return [await hub.publish(str(number), topics=[topic]) for number in range(count)]


async def left(hub: Hub, topic: str) -> list[str | None]:
    """Read what is left of a topic, as a client that comes for all of it."""
    sink = FakeSink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lambda: hub.subscribe(sink, [topic], first="oldest"))
        await wait_all_tasks_blocked()
        while not all(one.ready for one in hub.subscriptions()):
            await trio.sleep(0.001)
            await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    return sink.data


async def beside_noise(history: History, noise: int) -> None:
    """Publish ten of a pinned topic, one now and then among the noise of others."""
    async with Hub(history) as hub:
        with hub.pin("run"):
            for number in range(10):
                await hub.publish(str(number), topics=["run"])
                for begin in range(0, noise // 10, 1000):
                    some = ["x"] * min(1000, noise // 10 - begin)
                    await hub.publish_all(some, topics=["noise"])
            assert await left(hub, "run") == list(map(str, range(10)))
            assert not (await hub.locate(["run"], first="oldest")).truncated
            counted = hub.statistics().history
            assert (counted.pinned_topics, counted.pinned_events) == (1, 10)
            assert counted.events <= 10_010
        await publish(hub, "noise", 1)
        counted = hub.statistics().history
        assert (counted.pinned_topics, counted.pinned_events, counted.pinned_bytes) == (0, 0, 0)


async def test_a_pinned_topic_is_whole_beside_noise(make: Make) -> None:
    """However much is published to other topics, all of it is there."""
    await beside_noise(make(max_events=50), 1000)


@pytest.mark.slow
async def test_a_pinned_topic_is_whole_beside_a_hundred_thousand_others(make: Make) -> None:
    """Ten of one topic among 100,000 of another, in a history of 10,000."""
    await beside_noise(make(max_events=10_000), 100_000)


async def test_age_and_bytes_pass_over_it_too(make: Make) -> None:
    """Only others are too old, or too large together; once unpinned, it is as they are."""
    clock = Clock()
    async with Hub(history := make(max_age=60, max_bytes=200, clock=clock)) as hub:
        await publish(hub, "run", 5)
        with hub.pin("run"):
            await publish(hub, "noise", 10)
            clock.now += 61
            await publish(hub, "noise", 1)
            await history.trim()
            assert (await left(hub, "run"), await left(hub, "noise")) == (list("01234"), ["0"])
            assert not history.gaps.has_gap(Selection(["run"]), 0)
        assert await history.trim() == 5
        assert hub.statistics().history.events == 1


async def test_topics_keep_their_own_limits(make: Make) -> None:
    """What bounds one topic bounds a pinned one."""
    async with Hub(make(max_topic_events=3)) as hub:
        with hub.pin("run"):
            await publish(hub, "run", 5)
            assert await left(hub, "run") == ["2", "3", "4"]
            assert hub.statistics().history.pinned_events == 3
            await hub.purge("run")
            assert hub.statistics().history.pinned_events == 0


@pytest.mark.parametrize("limits", [{}, {"max_topic_events": 3}])
async def test_a_close_that_was_kept_for_a_pinned_event_goes(
    make: Make, limits: dict[str, int]
) -> None:
    """It stays for an event of its topic that is pinned by another, and not longer than that."""
    topics = [f"{number}" for number in range(10)]
    async with Hub(history := make(max_events=5, **limits)) as hub:
        with hub.pin("run"), hub.pin("other"):
            await publish(hub, "other", 1)
            for topic in topics:
                await hub.publish("x", topics=[topic, "run"])
                await hub.publish("end", topics=[topic], last=True)
                await publish(hub, f"noise {topic}", 5)
            kept = topics[-limits.get("max_topic_events", 10) :]
            assert [t for t in topics if (await hub.locate([t])).closed] == kept
            await hub.purge("run")
            for topic in topics:
                await publish(hub, f"noise {topic}", 1)
            assert not [t for t in topics if (await hub.locate([t])).closed]
            assert history.statistics().events == 6


@pytest.mark.slow
@pytest.mark.parametrize("limits", [{"max_pinned_events": 40}, {"max_pinned_bytes": 50_000}])
async def test_closes_that_are_kept_for_pinned_events_are_bounded(
    make: Make, limits: dict[str, int]
) -> None:
    """They have the room of pinned events; for which there is none go as all others do."""
    topics = [f"{number}" for number in range(30)]
    async with Hub(history := make(max_events=10, max_bytes=50_000, **limits)) as hub:
        with hub.pin("run"):
            for topic in topics:
                await hub.publish("x", topics=[topic, "run"])
            for topic in topics:
                await hub.publish("end" * 1000, topics=[topic], last=True)
            await publish(hub, "noise", 10)
            assert len(await left(hub, "noise")) == 10
            assert len(await left(hub, "run")) == 30
            counted = history.statistics()
            assert counted.pinned_events == counted.events - 10
            assert counted.pinned_events <= limits.get("max_pinned_events", 60)
            assert counted.pinned_bytes <= limits.get("max_pinned_bytes", 60_000) + 3100
            assert 0 < len([t for t in topics if (await hub.locate([t])).closed]) < 30
        await publish(hub, "noise", 1)
        counted = history.statistics()
        assert (counted.pinned_events, counted.events) == (0, 10)


@pytest.mark.parametrize("limit", ["max_pinned_events", "max_pinned_bytes"])
async def test_what_there_is_no_room_for_is_refused(make: Make, limit: str) -> None:
    """Each publisher for itself; others, and the last of the topic, are taken all the same."""
    outcome: list[str] = []

    async def try_one(hub: Hub, topic: str) -> None:
        try:
            await hub.publish("x", topics=[topic])
        except PinnedFullError as exc:
            outcome.append(exc.limit)
        else:
            outcome.append(topic)

    most = {"max_pinned_events": 3, "max_pinned_bytes": 1200}[limit]
    async with Hub(make(**{limit: most})) as hub:
        with hub.pin("run"):
            while not outcome or outcome[-1] != limit:
                await try_one(hub, "run")
            taken = len(outcome) - 1
            assert taken == 3 or (limit == "max_pinned_bytes" and 3 < taken < 100)
            outcome.clear()
            async with trio.open_nursery() as nursery:
                for topic in ["run", "other"] * 3:
                    nursery.start_soon(try_one, hub, topic)
            assert sorted(outcome) == sorted([limit, "other"] * 3)
            with pytest.raises(PinnedFullError):
                await hub.publish_all(["1", "2"], topics=["other", "run"])
            await hub.publish("end", topics=["run"], last=True)
            assert await left(hub, "run") == ["x"] * taken + ["end"]


async def test_one_step_may_go_beyond(make: Make) -> None:
    """Several events that are published in one step are stored or refused together."""
    async with Hub(make(max_pinned_events=3)) as hub:
        with hub.pin("run"):
            await hub.publish_all(["x"] * 5, topics=["run"])
            with pytest.raises(PinnedFullError):
                await hub.publish_all(["x"] * 5, topics=["run"])
            assert hub.statistics().history.pinned_events == 5


async def test_so_many_topics_may_be_pinned(make: Make) -> None:
    """As many as events; again is no other topic, and what is let go makes room."""
    async with Hub(make(max_pinned_events=2)) as hub:
        with hub.pin("a"):
            with (
                hub.pin("b"),
                hub.pin("a"),
                pytest.raises(PinnedFullError, match="2 topics are pinned"),
                hub.pin("c"),
            ):
                pass
            with hub.pin("c"):
                assert hub.statistics().history.pinned_topics == 2
        assert hub.statistics().history.pinned_topics == 0


async def test_a_pin_holds_over_a_restart_of_the_hub(make: Make) -> None:
    """The program has pinned it: what it then opens again keeps to it."""
    history = make(max_events=2)
    async with Hub(history) as hub:
        await publish(hub, "run", 2)
    with hub.pin("run"):
        async with Hub(history) as again:
            await publish(again, "noise", 5)
            assert await left(again, "run") == ["0", "1"]


async def test_what_can_t_be_pinned_is_refused() -> None:
    """All topics, what is no topic, and any topic of a history that can't."""
    async with Hub() as hub:
        for topic in ("*", "", "a\n"):
            with pytest.raises(ValueError, match="topic"), hub.pin(topic):
                pass
    async with Hub(WrappedHistory()) as hub:
        with pytest.raises(NotImplementedError, match="WrappedHistory can't pin 'a'"), hub.pin("a"):
            pass
