"""Two hubs on a Redis server, publishers at both, and subscribers that keep what they are told.

    async with load(url) as one:
        await one.run(0.5)              # seconds of publishing
        await server.restart()
        await one.recovered()
        report = await one.report()

Each event has a number of its own. What a subscriber got and what it was told of is compared with
what was acknowledged, and with what the store has in the end.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import hiredis
import trio
from hub_helpers import FakeSink

from h3trio.hub import (
    HistoryError,
    Hub,
    HubSettings,
    OutcomeUnknownError,
    OverloadedError,
    RedisHistory,
    Selection,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable
    from collections.abc import Set as AbstractSet

    from h3trio.hub import History

EVERYTHING = Selection(["*"])
PATIENCE = 20.0
STEP = 0.02
SETTINGS = HubSettings(follow_timeout=2.0)


async def command(port: int, *arguments: str) -> str:
    """Send one command on a connection of its own; return what comes."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        packed = hiredis.pack_command(arguments)  # type: ignore[arg-type]  # it takes several
        await stream.send_all(packed)
        return bytes(await stream.receive_some()).decode()


async def count(port: int, *arguments: str) -> int:
    """Send a command, and return the number that it answers."""
    return int((await command(port, *arguments)).strip().removeprefix(":"))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until something is so that other processes decide."""
    with trio.fail_after(PATIENCE):
        while not await condition():  # noqa: ASYNC110 - as above
            await trio.sleep(STEP)


def tell(*words: object) -> None:
    """Say how a test ended: how many were acknowledged, are missing, and were told of."""
    print(*words)  # noqa: T201 - because the numbers are asked for


@dataclass
class Report:
    """What came of a load."""

    acknowledged: int
    stored: int
    """Events that the store has in the end."""
    unknown: int
    """Publishes whose outcome nobody knew."""
    refused: int
    """Publishes of which it was known that they weren't stored."""
    missing: set[str]
    """Acknowledged events that the store doesn't have in the end."""
    told: int
    """Times that a subscriber was told of a loss."""

    def __str__(self) -> str:
        return (
            f"acknowledged {self.acknowledged}, missing {len(self.missing)}, told {self.told},"
            f" unknown {self.unknown}, refused {self.refused}"
        )


@dataclass
class Load:
    """Publishers and subscribers."""

    nursery: trio.Nursery
    hubs: list[Hub]
    histories: list[RedisHistory]
    topics: int = 3
    sinks: list[FakeSink] = field(default_factory=list[FakeSink])
    acknowledged: dict[str, str] = field(default_factory=dict[str, str])
    """The id of each event."""
    unknown: set[str] = field(default_factory=set[str])
    open: set[str] = field(default_factory=set[str])
    """Events whose publisher didn't wait for the end."""
    refused: int = 0
    slowest: float = 0.0
    """Seconds that the slowest publish took."""
    numbers: Any = field(default_factory=itertools.count)
    is_paused: bool = False

    async def subscribe(self, number: int) -> None:
        """Keep a subscriber at a hub, from the oldest on."""
        sink = FakeSink()
        self.sinks.append(sink)
        start = await self.hubs[number].locate(["*"], first="oldest")
        with contextlib.suppress(trio.ClosedResourceError):
            await self.hubs[number].subscribe(sink, start)

    async def publish(self, hub: Hub) -> None:
        """Publish one event, and note what came of it."""
        data = str(next(self.numbers))
        began = trio.current_time()
        self.open.add(data)
        try:
            topic = f"topic/{int(data) % self.topics}"
            self.acknowledged[data] = await hub.publish(data, topics=[topic], dedup=data)
        except OutcomeUnknownError:
            self.unknown.add(data)
        except (HistoryError, OverloadedError):
            self.refused += 1
            await trio.sleep(STEP)
        self.open.discard(data)
        self.slowest = max(self.slowest, trio.current_time() - began)

    async def publish_on(self, hub: Hub) -> None:
        """Publish for ever."""
        while True:
            await self.publish(hub)
            await trio.lowlevel.checkpoint()

    async def run(self, seconds: float, *, publishers: int = 8) -> None:
        """Publish at all hubs for a time."""
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for number in range(publishers):
                    nursery.start_soon(self.publish_on, self.hubs[number % len(self.hubs)])

    async def recovered(self) -> None:
        """Wait until each hub takes events again, and all have followed that."""
        with trio.fail_after(PATIENCE):
            for hub in self.hubs:
                before = len(self.acknowledged)
                while len(self.acknowledged) == before:
                    await self.publish(hub)
            await self.calm()

    async def calm(self) -> None:
        """Wait until all hubs are where the store is, and all subscribers where their hub is."""
        await until(self.is_calm)

    async def is_calm(self) -> bool:
        """Whether nothing is on its way."""
        try:
            heads = {await history.head() for history in self.histories}
        except HistoryError:
            return False
        (head, *others) = heads
        if others or any(one.epochs.resolve(head, one.log.head) is None for one in self.histories):
            return False
        return len({sink.last_event_id for sink in self.sinks if sink.batches}) <= 1

    async def report(self, *, others: AbstractSet[str] = frozenset()) -> Report:
        """Compare everything; whatever a subscriber lacks or has too much, it was told of."""
        await self.calm()
        stored = [data for data, _id in await read_all(self.histories[0])]
        assert stored == [data for data, _id in await read_all(self.histories[1])]
        assert len(set(stored)) == len(stored), "doubled"
        made_up = set(stored) - self.acknowledged.keys() - self.unknown - self.open - others
        assert not made_up, "stored, and said not to be"
        told = 0
        for sink in self.sinks:
            has, losses = followed(sink)
            told += losses
            assert has == stored, f"lacks {set(stored) - set(has)}, has {set(has) - set(stored)}"
        ids = list(self.acknowledged.values())
        assert len(set(ids)) == len(ids), "an id was given twice"
        return Report(
            acknowledged=len(self.acknowledged),
            stored=len(stored),
            unknown=len(self.unknown),
            refused=self.refused,
            missing=self.acknowledged.keys() - set(stored),
            told=told,
        )


def followed(sink: FakeSink) -> tuple[list[str], int]:
    """Return what a client believes to be the log, and how often it was told of a loss.

    A loss takes back what was lost: the id of the `reset` says from where on.
    """
    has: list[tuple[str, int]] = []
    losses = 0
    for event in sink.events:
        position = int((event.id or "-0").rpartition("-")[2])
        if event.event != "reset":
            has.append((event.data or "", position))
        elif json.loads(event.data or "")["reason"] == "lost":
            losses += 1
            has = [one for one in has if one[1] <= position]
    return [data for data, _position in has], losses


async def read_all(history: History) -> list[tuple[str, str]]:
    """Read data and id of everything in a store; again where a busy machine answers too late."""
    found: list[tuple[str, str]] = []
    after, more = 0, True
    with trio.fail_after(PATIENCE):
        while more:
            limits = {"max_records": 500, "max_bytes": 10**6}
            try:
                page = await history.read(after, selection=EVERYTHING, **limits)
            except HistoryError:
                await trio.sleep(STEP)
                continue
            for record in page.records:
                data = record.frame.removesuffix(b"\n\n").rpartition(b"\ndata: ")[2].decode()
                found.append((data, record.id))
            after, more = page.last, page.more
    return found


@contextlib.asynccontextmanager
async def load(url: str, *, subscribers: int = 2, **options: Any) -> AsyncGenerator[Load]:  # noqa: ANN401 - those of the history
    """Run two hubs with subscribers; nobody publishes yet."""
    options = {"timeout": 1.0} | options
    histories = [RedisHistory(url, **options) for _ in range(2)]
    async with contextlib.AsyncExitStack() as stack:
        hubs = [
            await stack.enter_async_context(Hub(history, settings=SETTINGS))
            for history in histories
        ]
        nursery = await stack.enter_async_context(trio.open_nursery())
        one = Load(nursery, hubs, histories)
        for number in range(subscribers):
            nursery.start_soon(one.subscribe, number % 2)
        yield one
        nursery.cancel_scope.cancel()
