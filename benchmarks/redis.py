"""`redis`: hubs that share their log in Redis, against one hub in memory.

Four questions:

1. What does the way through Redis add to an event's delay, from a publish at one node to a
   subscriber at another? Both are quiet, and so is the hub in memory beside them.
2. What does it buy that all who wait go in one call? One process appends events one after the
   other, and then as many as a hub takes at a time, several calls on the way. And is Redis full
   then? A process needs as long for an event as Redis, so it would be the limit itself: here it
   makes the call of a batch once, sends it again and again, and follows nothing.
3. What rate does a hub on Redis hold to 1,000 subscribers, beside one in memory?
4. What does a delivery cost two hubs that have a core each and half of the subscribers? Redis and
   the clients share the second one's core, so its delays are theirs too.

Redis keeps nothing on a disk here: what a disk costs is the disk's. It is Debian's, with its
defaults else, and its own share of a core stands in the table. It runs on the core of the load,
but for the second question, where that is the core of the process that appends.
"""

from __future__ import annotations

import time
from contextlib import asynccontextmanager
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import trio

from h3trio import SSEEvent
from h3trio._redis.address import parse_address
from h3trio._redis.connect import open_redis
from h3trio.hub import RedisHistory, Update
from h3trio.hub._history.retention import MIB, Retention
from h3trio.hub._redis import codec, scripts
from h3trio.hub._redis.history import bounds_of
from h3trio.hub._redis.link import Link
from h3trio.hub._redis.pins import Pins

from . import servers
from .fanout import TOPIC, search
from .report import Report

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from h3trio.hub import Record

    from .bench import Bench, Measured
    from .report import Round
    from .servers import Recipe, Server

_MEMORY: Final = "a hub in memory"
_ACROSS: Final = "published at one node, read at another"
_ONE_BY_ONE: Final = "appends, one by one"
_BATCHED: Final = "appends, batched"
_MADE: Final = "appends, batched, each call made before"
_SUBSCRIBERS: Final = 1000
_P99_MS: Final = 50.0
_QUIET_RATE: Final = 50
_QUIET_SUBSCRIBERS: Final = 10
_START: Final = 64
_TWO_RATE: Final = 50
_SECONDS: Final = 4.0
_BATCH: Final = 500
_BATCHES: Final = 4
_MOST_ADDED_MS: Final = 3.0
_LEAST_BATCHED: Final = 10.0
_LEAST_BUSY: Final = 0.8
_LEAST_OF_MEMORY: Final = 0.6

_prefixes = count(1)


async def run(bench: Bench) -> Report:
    """Measure."""
    report = Report(
        title="Hubs on one Redis, events of 100 bytes",
        columns={
            "offered": "events/s",
            "cpu": "CPU µs/delivery",
            "p50": "p50 ms",
            "p99": "p99 ms",
            "redis": "Redis, share of a core",
            "redis_cpu": "Redis, CPU µs/event",
        },
    )
    recipe = servers.redis()
    start: dict[str, int] = dict.fromkeys(("h3trio", "h3trio on Redis"), _START)
    for this in bench.rounds(report):
        await bench.begin(this)
        async with bench.servers.start(recipe, core=bench.load.core) as redis:
            await _delay(bench, this, redis)
            await _held(bench, this, redis, start)
            await _two_cores(bench, this, redis)
        async with bench.servers.start(recipe) as redis:
            await _appends(bench, this, redis)
    _judge(report)
    return report


def _judge(report: Report) -> None:
    across, memory = (report.values(name, "p50") for name in (_ACROSS, _MEMORY))
    added = [far - near for far, near in zip(across, memory, strict=True)]
    report.check("p50 ms that the way to another node adds", added, most=_MOST_ADDED_MS)
    batched = report.ratios("offered", _BATCHED, _ONE_BY_ONE)
    report.check("appends/s, batched ÷ one by one", batched, least=_LEAST_BATCHED)
    busy = report.values(_MADE, "redis")
    report.check("Redis' share of its core, batched", busy, least=_LEAST_BUSY)
    held = report.ratios("offered", "h3trio on Redis: highest held", "h3trio: highest held")
    report.check("highest held rate, on Redis ÷ in memory", held, least=_LEAST_OF_MEMORY)


def _node(redis: Server, prefix: str, name: str = "h3trio on Redis") -> Recipe:
    """Make a recipe of a hub; those with one prefix share their log."""
    return servers.hub("--store", f"redis://127.0.0.1:{redis.port}?prefix={prefix}", name=name)


def _new_prefix() -> str:
    return f"bench{next(_prefixes)}"


def _add(
    this: Round,
    subject: str,
    rate: float,
    done: Measured,
    *,
    redis: tuple[Server, float] | None = None,
) -> None:
    """Add what was measured, and what Redis used since it had used so much."""
    more: dict[str, float] = {}
    if redis is not None:
        server, before = redis
        used = server.cpu_seconds() - before
        more = {
            "redis": used / done.seconds,
            "redis_cpu": used / max(1, done.published.acked) * 1e6,
        }
    latency = done.received.latency
    figures = {"cpu": done.cpu_per_delivery, "p50": latency.p50, "p99": latency.p99}
    this.add(subject, offered=rate, **figures, **more)


# -- the delay


async def _delay(bench: Bench, this: Round, redis: Server) -> None:
    seconds = bench.options.seconds(_SECONDS)
    options: dict[str, Any] = {"rate": _QUIET_RATE, "seconds": seconds}
    async with bench.subscribed(servers.hub(), TOPIC, _QUIET_SUBSCRIBERS) as (server, group):
        done = await bench.measure(server, group, TOPIC, **options)
        _add(this, _MEMORY, _QUIET_RATE, done)
    node = _node(redis, _new_prefix())
    async with (
        bench.servers.start(node) as other,
        bench.subscribed(node, TOPIC, _QUIET_SUBSCRIBERS) as (server, group),
    ):
        before = redis.cpu_seconds()
        done = await bench.measure(server, group, TOPIC, port=other.port, **options)
        _add(this, _ACROSS, _QUIET_RATE, done, redis=(redis, before))


# -- the rate


async def _held(bench: Bench, this: Round, redis: Server, start: dict[str, int]) -> None:
    subscribers = bench.options.scaled(_SUBSCRIBERS)
    for recipe in (servers.hub(), _node(redis, _new_prefix())):
        async with bench.subscribed(recipe, TOPIC, subscribers) as (server, group):
            rate = max(1, start[recipe.name] // 2)
            held = await search(bench, this, server, group, p99_ms=_P99_MS, start=rate)
        start[recipe.name] = held or _START


# -- two cores


async def _two_cores(bench: Bench, this: Round, redis: Server) -> None:
    subscribers, rate = bench.options.scaled(_SUBSCRIBERS), _TWO_RATE
    options: dict[str, Any] = {"rate": rate, "seconds": bench.options.seconds(_SECONDS)}
    async with bench.subscribed(_node(redis, _new_prefix()), TOPIC, subscribers) as (server, group):
        before = redis.cpu_seconds()
        done = await bench.measure(server, group, TOPIC, **options)
        _add(this, f"one hub, {subscribers:,} subscribers", rate, done, redis=(redis, before))
    node, half = _node(redis, _new_prefix()), subscribers // 2
    async with (
        bench.subscribed(node, TOPIC, half) as (first, group),
        bench.servers.start(node, core=bench.load.core) as second,
        bench.load.subscribers(second.port, TOPIC, half) as others,
    ):
        await others.mark()
        used, before = second.cpu_seconds(), redis.cpu_seconds()
        done = await bench.measure(first, group, TOPIC, **options)
        _add(this, f"the first of two hubs, {half:,} each", rate, done, redis=(redis, before))
        received = await others.wait(done.published.acked * half, seconds=5.0)
        cpu = (second.cpu_seconds() - used) / max(1, received.events) * 1e6
        this.add(f"the second of two hubs, {half:,} each", offered=rate, cpu=cpu)


# -- appends


async def _appends(bench: Bench, this: Round, redis: Server) -> None:
    seconds = bench.options.seconds(_SECONDS)
    update = Update(event=SSEEvent("x" * 100), topics=("news",))

    async def measure(subject: str, append: Callable[[], Awaitable[object]], size: int) -> None:
        before, began = redis.cpu_seconds(), time.perf_counter()
        calls = await _repeated(append, 1 if size == 1 else _BATCHES, seconds)
        took, used = time.perf_counter() - began, redis.cpu_seconds() - before
        events = max(1, calls * size)
        redis_cpu = used / events * 1e6
        this.add(subject, offered=events / took, redis=used / took, redis_cpu=redis_cpu)

    for subject, size in ((_ONE_BY_ONE, 1), (_BATCHED, _BATCH)):
        async with _followed(redis) as history:
            await measure(subject, partial(history.append, [update] * size), size)
    async with _linked(redis) as link:
        limits = bounds_of(Retention(max_events=100_000, max_bytes=256 * MIB))
        told = *Pins(1).told(), *limits, *codec.arguments_of(update) * _BATCH
        await measure(_MADE, partial(link.ask, scripts.APPEND, *told, changes=True), _BATCH)


@asynccontextmanager
async def _followed(redis: Server) -> AsyncGenerator[RedisHistory]:
    """Open a history of its own, and follow it as a hub does, without any subscriber."""
    history = RedisHistory(f"redis://127.0.0.1:{redis.port}?prefix={_new_prefix()}")

    def deliver(records: Sequence[Record], head: int) -> None:
        for record in records:
            history.log.append(record)
        history.log.head = max(history.log.head, head)

    async with history, trio.open_nursery() as nursery:
        nursery.start_soon(history.follow, deliver, lambda _position: None)
        await history.health()
        yield history
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def _linked(redis: Server) -> AsyncGenerator[Link]:
    """Connect as a hub does, under a prefix of its own."""
    prefix = _new_prefix()
    address = parse_address(f"redis://127.0.0.1:{redis.port}?prefix={prefix}")
    async with open_redis(address) as connection:
        link = Link(connection, prefix=prefix, db=0)
        await link.begin(0)
        yield link


async def _repeated(append: Callable[[], Awaitable[object]], tasks: int, seconds: float) -> int:
    """Let so many tasks append, one call after the other each; return how many calls were made."""
    calls = 0

    async def appender() -> None:
        nonlocal calls
        while True:
            await append()
            calls += 1

    with trio.move_on_after(seconds):
        async with trio.open_nursery() as nursery:
            for _ in range(tasks):
                nursery.start_soon(appender)
    return calls
