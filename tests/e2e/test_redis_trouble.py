"""What becomes of acknowledged events when Redis is in trouble: each is there, or its loss is told.

Each test prints how many were acknowledged, how many are missing in the end, and how often
subscribers were told of a loss.
"""

from __future__ import annotations

import contextlib
import json
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from e2e.redis_load import EVERYTHING, command, load, read_all, tell, until
from e2e.redis_relay import Relay
from e2e.redis_server import redis_sentinel, redis_server
from hub_helpers import FakeSink

from h3trio import SSEParser
from h3trio.hub import HistoryError, HistoryFullError, Hub, OutcomeUnknownError, RedisHistory
from h3trio.hub._redis import codec
from h3trio.hub._redis.follower import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from h3trio._wire.batch import Batch
    from h3trio.hub import Record

SECONDS = 0.7
CLIENTS = 500
KILLS = 2
MODES: dict[str, dict[str, Any]] = {
    "memory": {},
    "snapshots": {"save": "1 1"},
    "everysec": {"appendonly": "yes", "appendfsync": "everysec"},
    "always": {"appendonly": "yes", "appendfsync": "always"},
}


@pytest.mark.parametrize("mode", MODES)
async def test_kill_9_under_load(tmp_path: Path, mode: str) -> None:
    """With `appendfsync always` nothing is missing; in any mode what is missing was told."""
    async with redis_server(tmp_path, **MODES[mode]) as server, load(server.url) as one:
        for _ in range(KILLS):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.run, 2 * SECONDS)
                await trio.sleep(SECONDS)
                await server.restart()
            await one.recovered()
        report = await one.report()
        tell(mode, one.histories[0].durability, report)
        assert report.acknowledged > 100
        if mode == "always":
            assert (report.missing, report.told) == (set(), 0)
        if report.missing:
            assert report.told >= len(one.sinks)


async def test_a_frozen_server_is_noticed(tmp_path: Path) -> None:
    """Publishers are answered in time, with what is known; nothing is missing afterwards."""
    async with redis_server(tmp_path) as server, load(server.url, timeout=0.5) as one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run, 20)
            await trio.sleep(0.5)
            server.freeze()

            async def is_noticed() -> bool:
                return not any(history.is_connected for history in one.histories)

            await until(is_noticed)
            await trio.sleep(0.5)
            server.thaw()
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        await one.recovered()
        report = await one.report()
        tell("frozen", report, f"slowest {one.slowest:.1f} s")
        assert (report.missing, report.told) == (set(), 0)
        assert one.slowest < 4


async def test_a_hub_that_hears_nothing_connects_again(tmp_path: Path) -> None:
    """Though its calls are answered: it publishes a word now and then, and waits for that."""
    async with redis_server(tmp_path) as server, trio.open_nursery() as nursery:
        relay = Relay(nursery, server.port)
        await relay.start()
        deaf, other = RedisHistory(relay.url, timeout=0.3), RedisHistory(server.url)
        async with Hub(deaf), Hub(other) as hub:
            await hub.publish("1", topics=["a"])
            relay.hold()
            await hub.publish("2", topics=["a"])
            await deaf.health()

            async def is_noticed() -> bool:
                return not deaf.is_connected

            await until(is_noticed)
            relay.release()

            async def has_followed() -> bool:
                return deaf.log.head == other.log.head

            await until(has_followed)
            tell("deaf: acknowledged 2, missing", 2 - len(deaf.log))
            assert len(deaf.log) == 2
        nursery.cancel_scope.cancel()


async def test_a_lost_tail_is_told_to_who_was_offline(tmp_path: Path) -> None:
    """Also by a hub that was started afterwards: its store's table of epochs tells."""
    async with redis_server(tmp_path) as server:
        async with load(server.url, subscribers=0) as one:
            for _ in range(5):
                await one.publish(one.hubs[0])
            await command(server.port, "SAVE")
            for _ in range(5):
                await one.publish(one.hubs[0])
            cursor = one.acknowledged["9"]
            await server.restart()
            await one.recovered()
            for hub in one.hubs:
                assert await resumed(hub, cursor) == ["reset lost", "10", "11"]
        async with Hub(RedisHistory(server.url)) as hub:
            events = await resumed(hub, cursor)
            tell("lost tail: acknowledged 12, missing 5, told", events)
            assert events == ["reset lost", "10", "11"]
            assert await resumed(hub, one.acknowledged["4"]) == ["10", "11"]


async def test_a_replica_takes_over(tmp_path: Path) -> None:
    """Sentinel makes it the primary: hubs find it, go on, and tell what it didn't have."""
    async with (
        redis_server(tmp_path / "a") as primary,
        redis_server(tmp_path / "b", replica_of=primary),
        redis_sentinel(tmp_path / "s", "main", primary) as sentinel,
        load(sentinel.url) as one,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run, 2.0)
            await trio.sleep(1)
            await primary.kill()
        await one.recovered()
        report = await one.report()
        tell("failover", report)
        assert report.acknowledged > 100
        assert not report.missing or report.told


async def test_a_demoted_primary_is_left(tmp_path: Path) -> None:
    """It keeps its connections and answers, and nothing that it is told comes from anybody."""
    async with (
        redis_server(tmp_path / "a") as primary,
        redis_server(tmp_path / "b", replica_of=primary) as replica,
        redis_sentinel(tmp_path / "s", "main", primary) as sentinel,
        load(sentinel.url) as one,
    ):
        await one.recovered()

        async def begins() -> bool:
            return "OK" in await command(sentinel.port, "SENTINEL", "FAILOVER", "main")

        await until(begins)
        await replica.wait_line("(MASTER|PRIMARY) MODE enabled")
        await one.recovered()
        report = await one.report()
        tell("demoted", report)
        assert not report.missing or report.told


async def test_a_replica_that_joins_costs_nothing(tmp_path: Path) -> None:
    """The server takes another replication id then: an epoch begins, and nothing is lost."""
    async with redis_server(tmp_path / "a") as primary, load(primary.url) as one:
        await one.recovered()
        epoch = one.histories[0].epochs.current
        async with redis_server(tmp_path / "b", replica_of=primary):

            async def has_begun() -> bool:
                return all(history.epochs.current != epoch for history in one.histories)

            await until(has_begun)
            await one.recovered()
            report = await one.report()
        tell("joined", report)
        assert (report.missing, report.told) == (set(), 0)


async def test_everything_is_flushed(tmp_path: Path) -> None:
    """All is lost, which is told; hubs go on, with ids that nobody had."""
    async with redis_server(tmp_path) as server, load(server.url) as one:
        await one.run(0.3)
        await one.calm()
        before = len(one.acknowledged)
        await command(server.port, "FLUSHALL")
        await one.recovered()
        report = await one.report()
        tell("flushed", report)
        assert len(report.missing) == before
        assert report.told == len(one.sinks)
        newest = max(one.histories[0].log, key=lambda record: record.position)
        assert newest.position > before, "positions go on above the highest"


@pytest.mark.parametrize(
    "further",
    [{"serial": 10**12}, {"serial": 1, "last": 10**15}, {"serial": 1, "epoch": "zzzzzzzz"}],
)
async def test_a_message_of_somebody_else_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, further: dict[str, Any]
) -> None:
    """Whoever may publish on the channel: the store is asked, and the log has one line."""
    async with redis_server(tmp_path) as server, load(server.url) as one:
        await one.run(SECONDS / 3)
        await one.recovered()
        epoch, _, last = (await one.histories[0].head()).rpartition("-")
        state = await command(server.port, "HGET", "{h3trio}:state", "serial")
        forged = {
            **codec.EMPTY._asdict(),
            "epoch": further.get("epoch", epoch),
            "serial": int(state.split()[1]) + further["serial"],
            "last": int(last) + further.get("last", 0),
        }
        header = [str(part) for pair in forged.items() for part in pair]
        message = json.dumps(["log", header, [], [], []])
        for text in [message, "junk"] * 5:
            await command(server.port, "PUBLISH", "{h3trio}:0:messages", text)
        await one.run(SECONDS)
        assert caplog.text.count("is passed over") == len(one.histories)
        assert [history.reconnects for history in one.histories] == [0, 0]
        await command(server.port, "CLIENT", "KILL", "TYPE", "normal")
        await one.recovered()
        report = await one.report()
        tell(report)
        assert (report.missing, report.told, report.unknown) == (set(), 0, 0)


async def test_other_limits_than_those_of_another_hub_are_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each hub removes what is beyond its own; those with the same say nothing."""
    async with redis_server(tmp_path) as server:
        for _ in range(2):
            async with load(server.url, max_events=500) as one:
                await one.recovered()
        assert "other limits" not in caplog.text
        async with Hub(RedisHistory(server.url, max_events=500, max_age=60.5)) as hub:
            await hub.publish("1", topics=["a"])
            await hub.publish("2", topics=["a"])
        assert caplog.text.count("other limits") == 1


async def test_a_key_that_somebody_changed_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Publishers are told that nobody knows what became of their events, and the log says why."""
    async with redis_server(tmp_path) as server, Hub(RedisHistory(server.url)) as hub:
        await hub.publish("1", topics=["a"])
        await command(server.port, "DEL", "{h3trio}:sizes")
        await command(server.port, "SET", "{h3trio}:sizes", "x")
        for _ in range(3):
            with pytest.raises(OutcomeUnknownError, match=r"WRONGTYPE|XADD"):
                await hub.publish("2", topics=["a"])
        assert caplog.text.count("somebody may have changed") == 1


async def test_a_server_that_keeps_less_than_before_is_told(tmp_path: Path) -> None:
    """While it runs: what it keeps now is told, and a level that was asked for refused."""
    async with redis_server(tmp_path, appendonly="yes", appendfsync="everysec") as server:
        told, wanting = RedisHistory(server.url), RedisHistory(server.url, durability="fast")
        async with Hub(told) as hub, Hub(wanting) as strict:
            await strict.publish("1", topics=["a"])
            assert told.durability == "fast"
            await command(server.port, "CONFIG", "SET", "appendonly", "no")

            async def is_noticed() -> bool:
                await trio.lowlevel.checkpoint()
                return told.durability == "memory" and not wanting.is_connected

            await until(is_noticed)
            assert "no append-only file" in told.server
            assert (wanting.durability, wanting.server) == ("memory", told.server)
            await hub.publish("2", topics=["a"])
            with pytest.raises(HistoryError, match="set appendonly yes"):
                await strict.publish("3", topics=["a"])


async def test_the_memory_is_full(tmp_path: Path) -> None:
    """Publishers are told so, nothing is torn, and what is removed makes room."""
    async with redis_server(tmp_path, maxmemory="6mb") as server, load(server.url) as one:
        hub, big = one.hubs[0], "x" * 20_000
        stored = await published(hub, big, 1000, HistoryFullError)
        assert 10 < stored < 1000
        assert all(history.is_connected for history in one.histories)
        before = one.histories[1].statistics().events
        assert (before, await hub.purge("big")) == (stored, stored)
        await one.histories[0].health()
        await one.publish(hub)
        await one.calm()
        assert [history.statistics().events for history in one.histories] == [1, 1]
        tell("full: acknowledged", stored + 1, "missing 0")


async def test_a_hub_starts_while_others_publish(tmp_path: Path) -> None:
    """Nothing falls between what it loads, what it reads behind that, and what it hears."""
    async with redis_server(tmp_path) as server, load(server.url) as one:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.run, 20)
            for _ in range(6):
                await trio.sleep(0.1)
                history = RedisHistory(server.url, tail_events=50)
                async with Hub(history):
                    await trio.sleep(0.2)
                    places = [record.position for record in history.log]
                    assert places == list(range(places[0], places[-1] + 1))
            nursery.cancel_scope.cancel()
        await one.recovered()
        report = await one.report()
        tell("started", report)
        assert (report.missing, report.told) == (set(), 0)


async def test_a_follower_that_is_slower_than_the_limits(tmp_path: Path) -> None:
    """It is told of what was removed before it came there, and has the rest."""
    async with redis_server(tmp_path) as server:
        fast, slow = (RedisHistory(server.url, max_events=20, tail_events=5) for _ in range(2))
        async with Hub(fast) as hub, slow:
            for number in range(100):
                await hub.publish(str(number), topics=["a"])
            assert slow.log.head == 0
            async with trio.open_nursery() as nursery:
                nursery.start_soon(slow.follow, partial(keep, slow), lost)

                async def has_followed() -> bool:
                    return slow.epochs.resolve(await fast.head(), slow.log.head) is not None

                await until(has_followed)
                kept = await read_all(slow)
                tell("slow: 100 published, 20 kept,", len(kept), "read")
                assert [data for data, _id in kept] == [str(number) for number in range(80, 100)]
                assert slow.gaps.newest(EVERYTHING) == 80
                nursery.cancel_scope.cancel()


async def test_hubs_with_other_prefixes_and_databases_share_nothing(tmp_path: Path) -> None:
    """Not even what they hear: publishing ignores databases."""
    async with redis_server(tmp_path) as server:
        urls = [server.url, f"{server.url}?prefix=other", f"{server.url}/3"]
        async with contextlib.AsyncExitStack() as stack:
            histories = [RedisHistory(url) for url in urls]
            hubs = [await stack.enter_async_context(Hub(history)) for history in histories]
            for number, hub in enumerate(hubs):
                for _ in range(number + 1):
                    await hub.publish(str(number), topics=["a"])
            found = [[data for data, _id in await read_all(history)] for history in histories]
            assert found == [["0"], ["1", "1"], ["2", "2", "2"]]
            assert [history.log.head for history in histories] == [1, 2, 3]


async def test_a_neighbour_version_works_beside_this_one(tmp_path: Path) -> None:
    """A newer one that says so may put more into state, records and messages."""
    async with redis_server(tmp_path) as server, load(server.url) as one:
        await one.recovered()
        changed = ("version", "2", "needs", "1", "new", "thing")
        await command(server.port, "HSET", "{h3trio}:state", *changed)
        await command(server.port, "PUBLISH", "{h3trio}:0:messages", '["new", {}]')
        await one.recovered()
        async with Hub(RedisHistory(server.url)) as hub:
            await hub.publish("new", topics=["a"])
        report = await one.report(others={"new"})
        assert (report.missing, report.told) == (set(), 0)


async def test_an_unknown_version_is_refused(tmp_path: Path) -> None:
    """It is left as it is, and hubs that run leave it once they connect again."""
    async with redis_server(tmp_path) as server:
        async with Hub(RedisHistory(server.url)) as hub:
            await hub.publish("1", topics=["a"])
        await command(server.port, "HSET", "{h3trio}:state", "version", "3", "needs", "2")
        with pytest.raises(HistoryError, match="version 3"):
            await RedisHistory(server.url).open()
        await command(server.port, "DEL", "{h3trio}:state")
        with pytest.raises(HistoryError, match="is gone, and others of its keys"):
            await RedisHistory(server.url).open()


async def test_a_server_that_is_not_good_enough_is_refused(tmp_path: Path) -> None:
    """One that evicts, or keeps less than was asked for: at the start, and when that changes."""
    async with redis_server(tmp_path, appendonly="yes") as server:
        with pytest.raises(HistoryError, match="appendfsync always"):
            await RedisHistory(server.url, durability="durable").open()
        history = RedisHistory(server.url, durability="fast", timeout=1)
        async with Hub(history) as hub:
            await hub.publish("1", topics=["a"])
            assert history.durability == "fast"
            await command(server.port, "CONFIG", "SET", "appendfsync", "always")
            await command(server.port, "CLIENT", "KILL", "TYPE", "normal")

            async def is_durable() -> bool:
                return history.durability == "durable"

            await until(is_durable)
            await command(server.port, "CONFIG", "SET", "maxmemory-policy", "volatile-lru")
            await command(server.port, "CLIENT", "KILL", "TYPE", "normal")

            async def is_refused() -> bool:
                try:
                    await hub.publish("2", topics=["a"])
                except HistoryError as exc:
                    return "noeviction" in str(exc)
                return False

            await until(is_refused)
        with pytest.raises(HistoryError, match="noeviction"):
            await RedisHistory(server.url).open()


async def test_a_server_that_is_away_is_told(tmp_path: Path) -> None:
    """At the start by an error, later to publishers; subscribers stay, and get what comes."""
    async with redis_server(tmp_path) as server, load(server.url) as one:
        await one.recovered()
        await server.stop()
        with pytest.raises(HistoryError, match="refused"):
            await RedisHistory(server.url).open()
        assert await published(one.hubs[0], "x", 1, HistoryError) == 0
        assert not one.histories[0].is_connected
        assert one.hubs[0].statistics().subscribers == 1
        await server.start()
        await one.recovered()
        report = await one.report()
        tell("away", report)
        assert report.told == len(one.sinks)


async def test_a_server_is_tried_again_at_growing_intervals(tmp_path: Path) -> None:
    """And at once where a connection was lost that had lasted."""
    async with redis_server(tmp_path) as server, trio.open_nursery() as nursery:
        relay = Relay(nursery, server.port)
        await relay.start()
        async with Hub(RedisHistory(relay.url)) as hub:
            await hub.publish("1", topics=["a"])
            await server.stop()
            before = relay.connections
            await trio.sleep(4)
            tries = relay.connections - before
            assert 4 <= tries <= 20, tries  # of the follower, and of the connection for nodes
            assert await published(hub, "2", 1, HistoryError) == 0
        nursery.cancel_scope.cancel()


async def test_a_call_waits_for_the_first_connection(tmp_path: Path) -> None:
    """As long as for an answer: that it takes its time doesn't say that the store is away."""
    async with redis_server(tmp_path) as server, trio.open_nursery() as nursery:
        relay = Relay(nursery, server.port)
        await relay.start()
        relay.hold()
        async with Hub(RedisHistory(relay.url)) as hub, trio.open_nursery() as publishing:
            publishing.start_soon(partial(hub.publish, "x", topics=["a"]))
            await trio.sleep(1.5 * PATIENCE)
            relay.release()
        nursery.cancel_scope.cancel()


async def test_clients_go_from_hub_to_hub(tmp_path: Path) -> None:
    """Hubs end in turn while others publish; each client has the whole log, in order, once."""
    async with redis_server(tmp_path) as server, trio.open_nursery() as nursery:
        running: dict[int, Hub] = {}
        published_ids: list[str] = []
        sinks = [Wanderer() for _ in range(CLIENTS)]

        async def run_hub(number: int, *, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
            with trio.CancelScope() as scope:
                async with Hub(RedisHistory(server.url)) as hub:
                    running[number] = hub
                    task_status.started(scope)
                    try:
                        await trio.sleep_forever()
                    finally:
                        del running[number]

        async def publish(hub: Hub) -> None:
            while True:
                published_ids.append(await hub.publish("x", topics=["a"]))
                await trio.sleep(0.005)

        scopes = [await nursery.start(run_hub, number) for number in range(2)]
        async with Hub(RedisHistory(server.url)) as always, trio.open_nursery() as publishers:
            publishers.start_soon(publish, always)
            for number, sink in enumerate(sinks):
                nursery.start_soon(sink.wander, running, number % 2)
            for turn in range(4):
                await trio.sleep(0.5)
                scopes[turn % 2].cancel()
                await trio.sleep(0.2)
                scopes[turn % 2] = await nursery.start(run_hub, turn % 2)
            publishers.cancel_scope.cancel()

        async def has_all() -> bool:
            return all(len(sink.ids) >= len(published_ids) for sink in sinks)

        await until(has_all)
        assert len({tuple(sink.ids) for sink in sinks}) == 1
        tell(f"wandered: acknowledged {len(published_ids)}, {CLIENTS} clients, missing 0")
        assert sinks[0].ids[: len(published_ids)] == published_ids
        nursery.cancel_scope.cancel()


async def test_old_events_go_by_age(tmp_path: Path) -> None:
    """By the server's clock, whichever hub trims; pinned ones stay."""
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url, max_age=0.2)
        async with Hub(history) as hub, Hub(RedisHistory(server.url)) as other:
            with hub.pin("kept"):
                await other.publish("1", topics=["gone"])
                await hub.publish("2", topics=["kept"])
                await trio.sleep(0.3)
                await hub.publish("3", topics=["gone"])

                async def has_trimmed() -> bool:
                    return history.statistics().trimmed > 0

                await until(has_trimmed)
                assert (await read_all(history))[0][0] == "2"
                assert history.gaps.newest(EVERYTHING) > 0


class Wanderer:
    """A client that comes back to another hub when its own ends."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def wander(self, hubs: dict[int, Hub], number: int) -> None:
        """Subscribe wherever there is a hub, behind the last event."""
        while True:
            number = number if number in hubs else 1 - number
            if number not in hubs:
                await trio.sleep(0.01)
                continue
            sink = Collector(self.ids)
            options = {"last_event_id": self.ids[-1]} if self.ids else {"first": "oldest"}
            with contextlib.suppress(trio.ClosedResourceError, HistoryError):
                hub = hubs[number]
                await hub.subscribe(sink, await hub.locate(["a"], **options))
            await trio.lowlevel.checkpoint()


class Collector(FakeSink):
    """Keeps the ids only."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__()
        self._ids = ids
        self._parser = SSEParser()

    def send_batch_nowait(self, batch: Batch) -> bool:
        """Take it."""
        for event in self._parser.feed(batch.payload):
            assert event.event != "reset", "nothing is lost, and nobody lags"
            self._ids.append(event.id or "")
        return True


async def resumed(hub: Hub, cursor: str) -> list[str]:
    """Come back with an id; return what comes until there is no more."""
    sink = FakeSink()
    start = await hub.locate(["*"], last_event_id=cursor)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.subscribe, sink, start)
        await trio.sleep(0.3)
        nursery.cancel_scope.cancel()
    return [
        f"reset {json.loads(event.data or '')['reason']}"
        if event.event == "reset"
        else event.data or ""
        for event in sink.events
    ]


async def published(hub: Hub, data: str, most: int, error: type[Exception]) -> int:
    """Publish up to so many, or to an error; return how many were stored."""
    for count in range(most):
        try:
            await hub.publish(data, topics=["big"])
        except error:
            return count
    return most


def lost(position: int) -> None:
    """Nothing is."""
    raise AssertionError(position)


def keep(history: RedisHistory, records: Sequence[Record], head: int) -> None:
    """Do as a hub does with what its follower delivers."""
    for record in records:
        history.log.append(record)
    history.log.head = head
