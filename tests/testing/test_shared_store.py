"""`SharedMemoryStore`: the topics that each of its hubs pins, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
from shared_helpers import two

from h3trio.hub import Hub, PinnedFullError
from h3trio.testing import SharedMemoryHistory, SharedMemoryStore
from h3trio.testing._shared_store import PIN_SECONDS

if TYPE_CHECKING:
    from trio.testing import MockClock


async def noise(hub: Hub, count: int = 10) -> None:
    """Publish more than the store has room for, in one step: no follower is woken between."""
    await hub.publish_all([str(number) for number in range(count)], topics=["noise"])


def kept(store: SharedMemoryStore, topic: str = "a") -> list[str]:
    """The data of a topic's events in the store."""
    frames = [record.frame.decode() for record in store.memory.log if topic in record.topics]
    return [frame.partition("data: ")[2].strip() for frame in frames]


async def test_a_pin_is_told_without_a_publish(autojump_clock: MockClock) -> None:
    """The follower tells the store, also of the end; what others publish doesn't take it."""
    async with two(autojump_clock, delay=0.1, max_events=4) as both:
        await both.publish(0, "1")
        with both.hubs[1].pin("a"):
            await trio.sleep(1)
            await noise(both.hubs[0])
            assert kept(both.store) == ["1"]
            assert both.hubs[0].statistics().history.pinned_topics == 1
            await trio.sleep(10 * PIN_SECONDS)
            await noise(both.hubs[0])
            assert kept(both.store) == ["1"], "it is told again and again"
        await trio.sleep(1)
        await noise(both.hubs[0])
        assert kept(both.store) == []


async def test_a_pin_is_known_with_the_next_publish(autojump_clock: MockClock) -> None:
    """Whatever its follower does: what a hub publishes to a topic that it pinned is kept."""
    async with two(autojump_clock, max_events=4) as both:
        both.histories[0].hold()
        with both.hubs[0].pin("a"):
            await both.publish(0, "1")
            await noise(both.hubs[1])
            assert kept(both.store) == ["1"]


async def test_a_hub_that_died_pins_for_a_time(autojump_clock: MockClock) -> None:
    """One that comes back in time has lost nothing."""
    async with two(autojump_clock, max_events=4) as both:
        with both.hubs[0].pin("a"):
            await both.publish(0, "1")
            both.histories[0].cut()
            await noise(both.hubs[1])
            await trio.sleep(2 * PIN_SECONDS)
            await noise(both.hubs[1])
            assert kept(both.store) == ["1"]
            both.histories[0].hold()  # it does nothing any more
            await trio.sleep(PIN_SECONDS - 1)
            await noise(both.hubs[1])
            assert kept(both.store) == ["1"]
            await trio.sleep(2)
            await noise(both.hubs[1])
            assert kept(both.store) == []


async def test_a_hub_that_ends_pins_nothing(autojump_clock: MockClock) -> None:
    """The store is told, and needs no time to find it out."""
    async with two(autojump_clock, max_events=4) as both:
        history = both.histories[0].beside()
        async with Hub(history) as third:
            history.pin("a")
            await third.publish("1", topics=["a"])
        await noise(both.hubs[0])
        assert kept(both.store) == []


async def test_pins_outlive_a_replicas_turn(autojump_clock: MockClock) -> None:
    """Also those that the replica hadn't heard of; and they end there as they would."""
    async with two(autojump_clock, max_events=4) as both:
        await both.publish(0, "1")
        with both.hubs[0].pin("a"):
            await trio.sleep(1)
            both.store.replicate()
            with both.hubs[1].pin("b"):
                both.store.fail_over()
                await both.publish(1, "2", "b")
                await trio.sleep(1)
                await noise(both.hubs[1])
                assert (kept(both.store), kept(both.store, "b")) == (["1"], ["2"])
        await trio.sleep(1)
        await noise(both.hubs[1])
        assert (kept(both.store), kept(both.store, "b")) == ([], [])


async def test_too_many_pins_refuse_what_is_published(autojump_clock: MockClock) -> None:
    """Where all hubs together pin more than there is room for, only that topic is refused."""
    store = SharedMemoryStore(max_pinned_events=2, clock=autojump_clock.current_time)
    histories = [SharedMemoryHistory(store) for _ in range(2)]
    async with Hub(histories[0]) as one, Hub(histories[1]) as other:
        with one.pin("a"), one.pin("b"):
            with pytest.raises(PinnedFullError), one.pin("c"):
                pass
            await one.publish("1", topics=["a"])
            with other.pin("c"):
                with pytest.raises(PinnedFullError):
                    await other.publish("2", topics=["c"])
                await other.publish("3", topics=["d"])
                await other.close("c")
