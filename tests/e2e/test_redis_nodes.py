"""Hubs that share a real Redis: kicks that travel, and what each knows of the others.

What holds for every store is in the suite of histories, which `test_redis_history` runs.
"""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import PATIENCE
from e2e.redis_load import command
from e2e.redis_server import redis_server
from hub_helpers import FakeSink

from h3trio._redis.address import parse_address
from h3trio._redis.connect import open_redis
from h3trio._redis.values import RedisLimits
from h3trio.hub import EndReason, HistoryError, Hub, HubSettings, Kicked, RedisHistory
from h3trio.hub._redis.nodes import RedisNodes

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path


QUIET = "h3trio.hub"


@asynccontextmanager
async def hub_of(url: str, name: str, **settings: float) -> AsyncGenerator[Hub]:
    """Run a hub, until it is a node."""
    limits = HubSettings(node=name, node_interval=1, **settings)  # type: ignore[arg-type]  # numbers
    async with Hub(RedisHistory(url, timeout=1), settings=limits) as hub:
        await until(lambda: bool(hub.statistics().nodes))
        yield hub


async def until(holds: Callable[[], bool]) -> None:
    """Wait for what nothing tells of."""
    with trio.fail_after(PATIENCE):
        while not holds():  # noqa: ASYNC110 - as the docstring says
            await trio.sleep(0.01)


@asynccontextmanager
async def node_of(url: str, name: str, answer: bytes = b"a") -> AsyncGenerator[RedisNodes]:
    """Listen as a node that answers always the same."""
    nodes = RedisNodes(parse_address(url), RedisLimits(timeout=1), name)

    async def answering(_question: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return answer

    async with trio.open_nursery() as nursery:
        await nursery.start(nodes.listen, answering)
        await nodes.meet(b"", lease=60)
        yield nodes
        nursery.cancel_scope.cancel()


async def met_again(node: RedisNodes) -> None:
    """Meet the others as soon as that is possible again."""
    with trio.fail_after(PATIENCE):
        while True:
            try:
                await node.meet(b"", lease=60)
            except HistoryError:
                await trio.sleep(0.05)
            else:
                return


async def test_a_kick_travels(tmp_path: Path) -> None:
    """Subscriptions end on both hubs, and the sum comes back; each knows the other's counts."""
    ends: list[EndReason] = []

    async def subscribe(hub: Hub, topic: str) -> None:
        ends.append(await hub.subscribe(FakeSink(), [topic], info={"subject": "alice"}))

    async with (
        redis_server(tmp_path) as server,
        hub_of(server.url, "one") as one,
        hub_of(server.url, "two") as two,
        trio.open_nursery() as nursery,
    ):
        for hub in (one, two, two):
            nursery.start_soon(subscribe, hub, "a")
        await until(
            lambda: (
                {node.name: node.subscribers for node in one.statistics().nodes}
                == {"one": 1, "two": 2}
            )
        )
        assert await one.kick_where(subject="alice", topic="a") == Kicked(count=3, silent=())
        assert await one.kick_where(node="two") == Kicked(count=0, silent=())
        assert await one.kick_where(node="three") == Kicked(count=0, silent=("three",))
        await until(lambda: len(ends) == 3)
    assert ends == [EndReason.KICKED] * 3


async def test_a_hub_that_was_just_started_kicks(tmp_path: Path) -> None:
    """It waits for its connection, so a program may start a hub, kick and end."""
    ends: list[EndReason] = []

    async def subscribe(hub: Hub) -> None:
        ends.append(await hub.subscribe(FakeSink(), ["a"]))

    async with (
        redis_server(tmp_path) as server,
        hub_of(server.url, "one") as one,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(subscribe, one)
        await until(lambda: len(one.subscriptions()) == 1)
        async with Hub(RedisHistory(server.url)) as late:
            assert await late.kick_where(topic="a") == Kicked(count=1, silent=())
        await until(lambda: ends == [EndReason.KICKED])


async def test_hubs_with_another_prefix_or_database_are_others(tmp_path: Path) -> None:
    """They meet nobody, and hear no question; publishing ignores databases."""
    async with (
        redis_server(tmp_path) as server,
        node_of(server.url, "one") as one,
        node_of(f"{server.url}/1", "two"),
        node_of(f"{server.url}?prefix=other", "three"),
    ):
        assert [note.name for note in await one.meet(b"", lease=60)] == ["one"]
        assert not (await one.ask(b"q", wait=0.1)).answers


async def test_a_server_that_starts_again_is_come_back_to(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it nothing can be asked; then the nodes meet and answer as before."""
    caplog.set_level(logging.CRITICAL, QUIET)
    async with (
        redis_server(tmp_path) as server,
        node_of(server.url, "one") as one,
        node_of(server.url, "two") as two,
    ):
        await server.kill()
        with pytest.raises(HistoryError):
            await one.ask(b"q", wait=1)
        await server.start()
        for node in (one, two):
            await met_again(node)
        found = await one.ask(b"q", wait=PATIENCE)
        assert (found.answers, found.silent) == ((("two", b"a"),), ())


async def test_who_is_asked_when_the_server_goes_is_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The wait ends with the connection, and not later."""
    caplog.set_level(logging.CRITICAL, QUIET)
    async with (
        redis_server(tmp_path) as server,
        node_of(server.url, "one") as one,
        trio.open_nursery() as nursery,
    ):
        heard = trio.Event()

        async def never(_question: bytes) -> bytes:
            heard.set()
            await trio.sleep_forever()
            raise AssertionError

        two = RedisNodes(parse_address(server.url), RedisLimits(), "two")
        await nursery.start(partial(two.listen, never))
        await two.meet(b"", lease=60)

        async def kill() -> None:
            await heard.wait()
            # Answers come in order: behind this one, who is asked is known.
            await one.meet(b"", lease=60)
            await server.kill()

        nursery.start_soon(kill)
        with trio.fail_after(PATIENCE):
            found = await one.ask(b"q", wait=10 * PATIENCE)
        assert (found.answers, found.silent) == ((), ("two",))
        nursery.cancel_scope.cancel()


async def test_a_frozen_server_is_noticed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its silence is an error within the time that each call has, and behind it all is well."""
    caplog.set_level(logging.CRITICAL, QUIET)
    async with redis_server(tmp_path) as server, node_of(server.url, "one") as one:
        server.freeze()
        try:
            with trio.fail_after(PATIENCE), pytest.raises(HistoryError):
                await one.meet(b"", lease=60)
        finally:
            server.thaw()
        await met_again(one)


async def test_a_full_server_still_knows_the_nodes(tmp_path: Path) -> None:
    """No event can be stored, and kicks travel all the same."""
    async with (
        redis_server(tmp_path) as server,
        open_redis(parse_address(server.url)) as connection,
        node_of(server.url, "one") as one,
        node_of(server.url, "two"),
    ):
        await connection.call("CONFIG", "SET", "maxmemory", "1")
        assert len(await one.meet(b"x", lease=60)) == 2
        assert (await one.ask(b"q", wait=PATIENCE)).answers == (("two", b"a"),)


async def test_what_is_no_question_is_passed_over(tmp_path: Path) -> None:
    """Whoever may publish there can send anything; a node goes on."""
    async with (
        redis_server(tmp_path) as server,
        open_redis(parse_address(server.url)) as connection,
        node_of(server.url, "one") as one,
        node_of(server.url, "two"),
    ):
        junk = [b"", b"x", b"\xff" * 100, b"0123456789abcdef 1\n" + b"x" * 20_000, b"1 2 3\n4"]
        channels = [b"{h3trio}:0:nodes", f"{{h3trio}}:0:nodes:{one._node}".encode()]  # noqa: SLF001 - its own channel has its word
        for channel in channels:
            for data in junk:
                assert await connection.call("PUBLISH", channel, data)
        assert (await one.ask(b"q", wait=PATIENCE)).answers == (("two", b"a"),)


@pytest.mark.parametrize("told", ["x y z q w", "1 a nan nan {}", "x a 99999999999 y {}", ""])
async def test_a_node_that_cannot_be_read_stops_nobody(tmp_path: Path, told: str) -> None:
    """A newer version, or somebody's hand, may have written it."""
    async with redis_server(tmp_path) as server, node_of(server.url, "one") as one:
        await command(server.port, "HSET", "{h3trio}:nodes", "odd", told)
        assert {note.name for note in await one.meet(b"{}", lease=9)} <= {"one", "odd"}
        await command(server.port, "HSET", "{h3trio}:nodes", "odd", told)
        assert (await one.ask(b"q", wait=0.1)).answers == ()


async def test_a_hub_that_is_closed_leaves(tmp_path: Path) -> None:
    """The next kick names nobody as silent; one that died it does."""
    async with redis_server(tmp_path) as server, hub_of(server.url, "one", node_timeout=0.1) as one:
        async with hub_of(server.url, "two"):
            pass
        assert (await one.kick_where(subject="x")).silent == ()
        async with node_of(server.url, "dead"):
            pass
        assert (await one.kick_where(subject="x")).silent == ("dead",)
