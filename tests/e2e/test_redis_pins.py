"""Pins of several hubs on one server: which records stay, who may have more, and for how long."""

from __future__ import annotations

import random
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.redis_load import EVERYTHING, command, count, read_all, until
from e2e.redis_server import redis_server
from trio.testing import wait_all_tasks_blocked

from h3trio._redis.address import parse_address
from h3trio._redis.connect import open_redis
from h3trio.hub import HistoryError, Hub, PinnedFullError, RedisHistory
from h3trio.hub._redis import scripts
from h3trio.hub._redis.pins import Pins

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from h3trio.hub import Record


async def test_noise_takes_nothing_of_a_pinned_topic(tmp_path: Path) -> None:
    """Whoever publishes the noise; without the pin it goes with the rest."""
    async with redis_server(tmp_path) as server:
        one, other = (RedisHistory(server.url, max_events=50) for _ in range(2))
        async with Hub(one) as hub, Hub(other) as noisy:
            with hub.pin("answer"):
                ids = [await hub.publish(str(n), topics=["answer"]) for n in range(10)]
                for _ in range(5):
                    await noisy.publish_all(["noise"] * 100, topics=["noise"])
                assert [id for _data, id in await read_all(one)][:10] == ids
                counted = other.statistics()
                pinned = (counted.pinned_topics, counted.pinned_events, counted.events)
                assert pinned == (1, 10, 60)
            await hub.publish("end", topics=["noise"])
            assert one.statistics().pinned_events == 0
            kept = [data for data, _id in await read_all(one)]
            assert len(kept) == 50
            assert "0" not in kept


async def test_pinned_topics_have_limits_of_their_own(tmp_path: Path) -> None:
    """Of all hubs together: neither more events nor more topics are taken, but a close is."""
    async with redis_server(tmp_path) as server:
        one, other = (RedisHistory(server.url, max_pinned_events=3) for _ in range(2))
        async with Hub(one) as hub, Hub(other) as second:
            with hub.pin("a"), hub.pin("b"):
                await hub.publish("1", topics=["a"])
                with second.pin("c"):
                    await second.publish("2", topics=["c"])
                    with second.pin("d"):
                        with pytest.raises(PinnedFullError):
                            await second.publish("3", topics=["d"])
                        await hub.publish("4", topics=["b"])
                        for topic, publisher in (("a", hub), ("c", second), ("a", second)):
                            with pytest.raises(PinnedFullError):
                                await publisher.publish("5", topics=[topic])
                        await second.publish("6", topics=["other"])
                        await hub.close("a")
            newest = await second.publish("7", topics=["d"])
            await hub.locate(["d"], last_event_id=newest)  # the other hub has it then
            assert [data for data, _id in await read_all(one) if data] == ["1", "2", "4", "6", "7"]


async def test_pins_of_a_hub_that_died_end(tmp_path: Path) -> None:
    """They hold while they are told again; what a hub that lost its connection pins, holds."""
    async with redis_server(tmp_path) as server:
        dead, alive = (RedisHistory(server.url, max_events=5) for _ in range(2))
        async with Hub(alive) as hub, trio.open_nursery() as nursery:
            other = await nursery.start(Hub(dead).run)
            dead.pin("a")
            await other.publish("1", topics=["a"])
            await command(server.port, "CLIENT", "KILL", "TYPE", "normal")
            await until(is_told(server.port, 1))
            nursery.cancel_scope.cancel()
        async with Hub(alive) as hub:
            await hub.publish_all(["noise"] * 10, topics=["noise"])
            assert alive.statistics().pinned_events == 1
            (node,) = [
                line
                for line in (await command(server.port, "HKEYS", "{h3trio}:pins")).split()
                if line[0].isalnum()
            ]
            await command(server.port, "HSET", "{h3trio}:pins", node, "1 1.0")
            await command(server.port, "HSET", "{h3trio}:state", "pins_due", "1")
            await hub.publish_all(["noise"] * 10, topics=["noise"])
            assert alive.statistics().pinned_topics == 0
            assert alive.gaps.newest(EVERYTHING) > 0
            left = await count(server.port, "EXISTS", f"{{h3trio}}:held:{node}", "{h3trio}:kept")
            assert left == 0


async def test_pins_of_a_hub_that_closes_end_at_once(tmp_path: Path) -> None:
    """Others needn't wait until they are late."""
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url)
        async with Hub(history) as hub:
            history.pin("a")
            await hub.publish("1", topics=["a"])
            assert await count(server.port, "ZCARD", "{h3trio}:kept") == 1
        left = await count(server.port, "EXISTS", "{h3trio}:pins", "{h3trio}:kept")
        assert left == 0


async def test_what_is_pinned_comes_to_the_store(tmp_path: Path) -> None:
    """Whatever changes at once, is on its way when a connection ends, or is forgotten there."""
    draw = random.Random(15)  # noqa: S311 - a test's
    async with redis_server(tmp_path) as server:
        one, other = RedisHistory(server.url), RedisHistory(server.url)
        async with Hub(one) as hub, Hub(other) as second:
            pins: dict[str, ExitStack] = {}
            for _ in range(60):
                async with trio.open_nursery() as nursery:
                    for _ in range(draw.randrange(8)):
                        topic = f"t{draw.randrange(30)}"
                        pins.setdefault(topic, ExitStack()).enter_context(hub.pin(topic))
                        if draw.random() < 0.6:
                            pins.pop(draw.choice(list(pins))).close()
                        nursery.start_soon(has_published, hub, topic)
                        await trio.lowlevel.checkpoint()
                match draw.randrange(10):
                    case 0:
                        await command(server.port, "CLIENT", "KILL", "TYPE", "normal")
                    case 1 if nodes := await listed(server.port, "HKEYS", "{h3trio}:pins"):
                        await command(server.port, "HSET", "{h3trio}:pins", nodes[0], "1 1.0")
                        await command(server.port, "HSET", "{h3trio}:state", "pins_due", "1")
                        await until(partial(has_published, second, "other"))
                    case _:
                        pass
            await until(partial(has_published, hub, "other"))
            assert pins
            assert await listed(server.port, "HKEYS", "{h3trio}:pinned") == sorted(pins)
            kept = await count(server.port, "ZCARD", "{h3trio}:kept")
            assert kept == one.statistics().pinned_events > 0
            for stack in pins.values():
                stack.close()
            await until(partial(has_published, hub, "other"))
            assert await listed(server.port, "HKEYS", "{h3trio}:pinned") == []
            assert one.statistics().pinned_events == 0


async def test_a_hub_that_stood_still_pins_what_it_did(tmp_path: Path) -> None:
    """If nobody else noticed: what it tells next isn't that its pins are over."""
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url, max_events=5)
        async with Hub(history) as hub:
            with hub.pin("a"):
                await hub.publish("x", topics=["a"])
                (node,) = await listed(server.port, "HKEYS", "{h3trio}:pins")
                await command(server.port, "HSET", "{h3trio}:pins", node, "1 1.0")
                await command(server.port, "HSET", "{h3trio}:state", "pins_due", "1")
                await hub.publish_all(["noise"] * 10, topics=["noise"])
                assert history.statistics().pinned_events == 1


async def test_what_is_unpinned_before_the_store_answers_is_told(tmp_path: Path) -> None:
    """It isn't pinned until the hub publishes next, or the time of its pins runs out."""
    async with redis_server(tmp_path) as server:
        async with Hub(RedisHistory(server.url)) as hub:
            await hub.publish("x", topics=["a"])
            server.freeze()
            with hub.pin("a"):
                await wait_all_tasks_blocked(0.1)  # the store is told
            server.thaw()
            await until(partial(has_nothing_pinned, server.port))
        assert await has_nothing_pinned(server.port)


async def test_a_late_call_changes_no_newer_pins(tmp_path: Path) -> None:
    """The server may read what a lost connection told behind what came by the next one."""
    pins = Pins(9)
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url)
        async with Hub(history), open_redis(parse_address(server.url)) as connection:
            keys = [scripts.state_key("h3trio")]
            state = scripts.channel_of("h3trio", 0), history.epochs.current
            late = [pins.told()]
            pins.pin("a")
            late.append(pins.told())
            pins.pin("b")
            for told in (pins.told(), *late):
                await connection.eval_script(scripts.PINS, keys, [*state, *told, 9])
                assert await listed(server.port, "HKEYS", "{h3trio}:pinned") == ["a", "b"]
            pins.unpin("a")
            pins.unpin("b")
            await connection.eval_script(scripts.PINS, keys, [*state, *pins.told(), 9])
            assert await has_nothing_pinned(server.port)


async def has_nothing_pinned(port: int) -> bool:
    """Whether the store knows of no pins."""
    return await count(port, "EXISTS", "{h3trio}:pins", "{h3trio}:pinned") == 0


async def has_published(hub: Hub, topic: str) -> bool:
    """Try to publish, though the connection may be about to end; return whether that was so."""
    with suppress(HistoryError):
        await hub.publish("x", topics=[topic])
        return True
    return False


async def listed(port: int, *arguments: str) -> list[str]:
    """Send a command, and return the texts that it answers, sorted."""
    return sorted((await command(port, *arguments)).split("\r\n")[2::2])


async def test_a_large_topic_is_pinned_step_by_step(tmp_path: Path) -> None:
    """Nothing of it goes meanwhile; all is counted in the end, and nothing once it is unpinned."""
    async with redis_server(tmp_path) as server:
        one, other = (RedisHistory(server.url, max_events=5000) for _ in range(2))
        async with Hub(one) as hub, Hub(other) as noisy:
            for _ in range(10):
                await noisy.publish_all(["x"] * 450, topics=["a"])
            await noisy.publish_all(["x"] * 500, topics=["noise"])
            with hub.pin("a"):
                # The first step is that of an append, which counts a part only.
                await hub.publish("x", topics=["a"])
                first = other.statistics().pinned_events
                await noisy.publish_all(["x"] * 1000, topics=["noise"])
                await until(has_pinned(other, 4501))
                await noisy.publish_all(["x"] * 4000, topics=["noise"])
                kept = [record.topics for record in await everything(other)]
                assert kept.count(("a",)) == 4501
            await until(has_pinned(other, 0))
            for _ in range(12):
                await noisy.publish_all(["x"] * 500, topics=["noise"])
            kept = [record.topics for record in await everything(other)]
            assert (kept.count(("a",)), len(kept)) == (0, 5000)
            assert 0 < first < 4501
            assert await count(server.port, "EXISTS", "{h3trio}:kept", "{h3trio}:counted") == 0


async def everything(history: RedisHistory) -> list[Record]:
    """Read all records of a store."""
    found: list[Record] = []
    after, more = 0, True
    while more:
        page = await history.read(after, selection=EVERYTHING, max_records=500, max_bytes=10**6)
        found += page.records
        after, more = page.last, page.more
    return found


def has_pinned(history: RedisHistory, events: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many records are counted as pinned."""

    async def condition() -> bool:
        await trio.lowlevel.checkpoint()
        return history.statistics().pinned_events == events

    return condition


def is_told(port: int, hubs: int) -> Callable[[], Awaitable[bool]]:
    """Whether so many hubs have told what they pin."""

    async def condition() -> bool:
        return await count(port, "HLEN", "{h3trio}:pins") == hubs

    return condition


async def test_nothing_is_left_when_all_is_gone(tmp_path: Path) -> None:
    """Indexes, keys, closes and pins go with their records."""
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url)
        async with Hub(history) as hub:
            with hub.pin("a"):
                await hub.publish("1", topics=["a", "b"], dedup="k")
                await hub.close("a")
            for topic in ("a", "b"):
                await hub.purge(topic)
            await hub.publish("end", topics=["c"])
            await hub.purge("c")
            left = sorted((await command(server.port, "KEYS", "*")).split()[2::2])
            assert left == [
                f"{{h3trio}}:{name}"
                for name in ("epochs", "log", "marks", "nodes", "noted", "state")
            ]
