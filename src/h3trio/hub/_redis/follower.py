"""`Follower`: keeps the connections to the store, and takes over what the store tells.

The connections are of use only while somebody listens, so they are this task's: one for messages,
and one for what this hub asks. It subscribes first and reads what it lacks then, so nothing falls
between. It takes both for lost if a call isn't answered in time, or if a word that it publishes
itself isn't heard: a server may be frozen, and subscribers of one that isn't the primary any more
are told nothing. Then it connects again, behind a pause that is drawn at random, and goes on from
its head. Who asks meanwhile waits a moment for that, and gets an error then.
"""

from __future__ import annotations

import logging
import math
import random
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, final

import trio

from h3trio._redis.connect import open_redis
from h3trio._redis.server_info import QUESTIONS, ServerInfo
from h3trio._redis.values import RedisReplyError
from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.retention import MIB

from . import codec, scripts
from .chain import Chain
from .link import Link, StaleError, check_server, describe, durability_of, new_word, translated

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from h3trio._redis.address import RedisAddress
    from h3trio._redis.connection import RedisConnection
    from h3trio._redis.values import Argument, RedisLimits, Reply, Script
    from h3trio.hub._history.history import Durability
    from h3trio.hub._history.record import Record
    from h3trio.hub._history.retention import Retention

    from .pins import Pins

    Deliver: TypeAlias = Callable[[Sequence[Record], int], None]
    Lost: TypeAlias = Callable[[int], None]

logger = logging.getLogger("h3trio.hub")

PATIENCE: Final = 1.0
"""Seconds for which a call waits for a connection that was just lost, before it fails. For the
first one it waits as long as for an answer: nothing says yet that the store is away."""

PROBE_SECONDS: Final = 2.0
"""Seconds from one word that is published to the next."""

FIRST_PAUSE: Final = 0.05
MAX_PAUSE: Final = 2.0
"""Seconds from a lost connection to the next attempt, doubled from one to the next, and half to one
and a half times as long, by chance: or all hubs came at once."""

MAX_TRIES: Final = 5
"""Times that a call is made that the store refuses, as it is in another epoch."""

_FOLLOWED: Final = 200, 1 * MIB
"""Records, and bytes of their frames, that are read at once."""
_LOADED: Final = 500, 1 * MIB
"""The same of the newest part, when it is loaded."""
_CHECKED: Final = 1000
"""Positions of which it is asked at once whether they are still there."""
_DELIVERED: Final = 64
"""Records that are delivered without letting others run."""


@final
class Follower:
    """The connection of one hub to its store.

    Args:
        address: the store.
        limits: bounds of each connection.
        wanted: the least durability of a server that will do.
        pins: the topics that this hub pins.
        tail: bounds of the newest part of the log that is in memory.
    """

    def __init__(
        self,
        address: RedisAddress,
        limits: RedisLimits,
        *,
        wanted: Durability | None,
        pins: Pins,
        tail: Retention,
    ) -> None:
        self._address = address
        self._limits = limits
        self._wanted: Durability | None = wanted
        self._pins = pins
        self._tail = tail
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self.chain: Chain = Chain(tail)
        """What was followed."""
        self.durability: Durability = wanted or "memory"
        """How much an update survives, as the server said when it was last connected to."""
        self.server: str = ""
        """The server, as it said itself."""
        self.reconnects: int = 0
        """Connections that were lost."""
        self._link: Link | None = None
        self._linked = trio.Event()
        self._linked_at = self._waited_until = -math.inf
        self._failure = "none was made yet"
        self._followed = trio.lowlevel.ParkingLot()
        self._words: dict[bytes, trio.Event] = {}
        self._has_warned = False
        self._heard = 0

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection."""
        return self._link is not None

    # -- loading

    async def load(self) -> None:
        """Connect, load the newest part, and disconnect; `follow` connects anew.

        Raises:
            HistoryError: as of `RedisHistory.open`.
        """
        self.chain = Chain(self._tail)
        with translated():
            async with open_redis(self._address, limits=self._limits) as connection:
                link = self._accept(connection)
                header, epochs = await link.begin(0)
                self.chain.learn(header, epochs, lambda _position: None)
                await self._load(link, header.last)
                await self._catch_up(link, header, self._keep)
        self._waited_until = trio.current_time() + self._limits.timeout

    def _accept(self, connection: RedisConnection) -> Link:
        self._look(connection.server)
        return self.link_by(connection)

    def link_by(self, connection: RedisConnection) -> Link:
        """Make a link by a connection, in the epoch that is known."""
        link = Link(connection, prefix=self._address.prefix, db=self._address.db)
        link.epoch = self.chain.header.epoch
        return link

    def _look(self, server: ServerInfo) -> None:
        """Look at a server, which may keep what it has in another way than before.

        Raises:
            HistoryError: it isn't good enough.
        """
        # Known even of one that isn't: then it stands there why.
        self.durability = durability_of(server)
        before, self.server = self.server, describe(server)
        if before not in ("", self.server):
            logger.warning("the store keeps what it has in another way: %s", self.server)
        check_server(server, self._wanted)

    async def _load(self, link: Link, head: int) -> None:
        """Load the newest records up to a head, from the newest back."""
        records: list[Record] = []
        size, before, more = 0, head + 1, True
        most, most_bytes = self._tail.max_events, self._tail.max_bytes
        while more and len(records) < most and size < most_bytes:
            count = min(_LOADED[0], most - len(records))
            reply = await link.ask(scripts.READ, "before", before, 0, count, _LOADED[1])
            page = codec.page_of(reply)
            before, more = page.reached, page.more
            loaded = self.chain.records_of(page.entries)
            records += loaded
            size += sum(len(record.frame) for record in loaded)
        self.chain.log.floor = before - 1 if more else 0
        self._keep(records[::-1], head)

    def _keep(self, records: Sequence[Record], head: int) -> None:
        log = self.chain.log
        for record in records:
            log.append(record)
        log.head = max(log.head, head)

    # -- asking

    async def connected(self) -> Link:
        """Return the connection; wait for the first one, and for a moment where it was just lost.

        Raises:
            HistoryError: there is none.
        """
        if self._link is None:
            with trio.move_on_at(self._waited_until):
                await self._linked.wait()
        if self._link is None:
            await trio.lowlevel.checkpoint()
            raise HistoryError(f"no connection to {self._address}: {self._failure}")
        return self._link

    async def ask(self, script: Script, *arguments: Argument, changes: bool = False) -> list[Reply]:
        """Run a script in the epoch that this hub knows; again, if it was another by then.

        Raises the errors of `History.append`.
        """
        return await self.ask_with(script, lambda _link: arguments, changes=changes)

    async def ask_with(
        self,
        script: Script,
        arguments: Callable[[Link], Sequence[Argument]],
        *,
        changes: bool = False,
    ) -> list[Reply]:
        """Do as `ask`, with arguments that are made for each connection."""
        for _ in range(MAX_TRIES):
            link = await self.connected()
            try:
                return await link.ask(script, *arguments(link), changes=changes)
            except StaleError as exc:
                self._unlink(link, str(exc))
        raise HistoryError("the store begins one epoch behind the other")

    async def wait_noted(self, note: int) -> None:
        """Wait until a mark is noted here too.

        Raises:
            HistoryError: that takes too long.
        """
        with trio.move_on_after(self._limits.timeout):
            while self.chain.note < note and self._link is not None:
                await self._followed.park()
        if self.chain.note < note:
            raise HistoryError("this hub lags behind its store")

    # -- following

    async def follow(self, deliver: Deliver, lost: Lost) -> None:
        """Connect, and deliver what the store gets; connect again whenever that ends."""
        pause, said = FIRST_PAUSE, ""
        while True:
            began = trio.current_time()
            try:
                await self._follow(deliver, lost)
            except HistoryError as exc:
                self._failure = str(exc)
            finally:
                self._unlink(self._link, self._failure)
            if self._linked_at >= began and trio.current_time() - self._linked_at > MAX_PAUSE:
                pause, said = FIRST_PAUSE, ""
            if self._failure != said:
                logger.error("the store is away, and is connected to again: %s", self._failure)
                said = self._failure
            await trio.sleep(pause * self._random.uniform(0.5, 1.5))
            pause = min(2 * pause, MAX_PAUSE)

    async def _follow(self, deliver: Deliver, lost: Lost) -> None:
        """Follow by one pair of connections, until one of them is of no more use."""
        opened = partial(open_redis, self._address, limits=self._limits)
        channel = scripts.channel_of(self._address.prefix, self._address.db)
        with translated():
            async with opened() as ears, opened() as connection:
                await ears.call("SUBSCRIBE", channel)
                if ears.server.run_id != connection.server.run_id:
                    raise HistoryError("the two connections lead to different servers")
                link = self._accept(connection)
                header, epochs = await link.begin(self.chain.log.head)
                self.chain.learn(header, epochs, lost)
                self._set_link(link)
                await self._catch_up(link, header, deliver)
                async with trio.open_nursery() as nursery:
                    for work in (
                        partial(self._hear, link, ears, deliver),
                        partial(self._probe, link),
                        partial(self._pins.tell, link),
                        partial(_end_with, connection),
                    ):
                        nursery.start_soon(self._guard, work, nursery.cancel_scope)

    async def _guard(self, work: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        """Do a part of the work; that it can't be done ends the others, for the same reason."""
        try:
            with translated():
                await work()
        except HistoryError as exc:
            if not scope.cancel_called:
                self._failure = str(exc)
            scope.cancel(self._failure)

    def _set_link(self, link: Link) -> None:
        logger.info("connected to the store %s: %s", self._address, self.server)
        self._link, self._linked_at = link, trio.current_time()
        self._has_warned = False
        self._linked.set()

    def _unlink(self, link: Link | None, reason: str) -> None:
        """Let go of a connection; whoever waits for the follower looks again."""
        if link is not None and link is self._link:
            self._link, self._failure = None, reason
            self._waited_until = trio.current_time() + PATIENCE
            self._linked = trio.Event()
            self.reconnects += 1
            link.connection.throw_away(reason)
        self._followed.unpark_all()

    async def _hear(self, link: Link, ears: RedisConnection, deliver: Deliver) -> None:
        """Take over messages as they come."""
        while True:
            push = await ears.pushes.receive()
            self._heard += 1
            if push[0] != b"message":
                continue
            try:
                message = codec.message_of(push[2])
            except DamagedError as exc:
                # If it was one of the store's, its number is missing, and it is asked for.
                self._pass_over(str(exc))
                continue
            if isinstance(message, codec.Change):
                await self._take(link, message, deliver)
            elif (event := self._words.get(message)) is not None:
                event.set()

    def _pass_over(self, problem: str) -> None:
        """Log that a message is passed over.

        Only the first of a connection: whoever may publish on the channel could fill the disk.
        """
        if not self._has_warned:
            logger.error("%s; it is passed over, and so is what comes like it", problem)
        self._has_warned = True

    async def _take(self, link: Link, change: codec.Change, deliver: Deliver) -> None:
        """Take over what a message tells, or ask for what is missing in front of it."""
        chain = self.chain
        match chain.place(change):
            case "next":
                await self._deliver(chain.take(change), change.header.last, deliver)
                chain.close(change.header)
                self._followed.unpark_all()
            case "missing":
                await self._catch_up(link, change.header, deliver)
            case "past":
                await link.ask(scripts.PROBE, "epoch", "")  # if it is so, this raises
                self._pass_over("a message is of an epoch that the store isn't in")
            case "known":
                pass

    async def _catch_up(self, link: Link, goal: codec.Header, deliver: Deliver) -> None:
        """Ask for what wasn't followed, up to a state of the store at least.

        First all marks, then whether the records that are here are still there, then new ones: so
        nobody is sent something from behind a hole before the hole is known. Messages behind `goal`
        are taken over as they come, though some of it is known by then.
        """
        chain, log, more, found = self.chain, self.chain.log, True, goal
        unchecked: list[int] = []
        if goal.removed != chain.removed:
            unchecked = [record.position for record in log]
        while more:
            batch, rest = unchecked[:_CHECKED], unchecked[_CHECKED:]
            most, most_bytes = (0, 0) if rest else _FOLLOWED
            reply = await link.ask(scripts.FOLLOW, log.head, chain.note, most, most_bytes, *batch)
            change, note, head = codec.followed_of(reply)
            records, found = chain.take(change), change.header
            chain.note = note
            if note < change.header.note:
                deliver((), log.head)  # more marks first
                continue
            unchecked = rest
            await self._deliver(records, head, deliver)
            more = bool(rest) or head < change.header.last
        if goal.serial <= found.serial:
            chain.close(goal._replace(note=min(goal.note, chain.note)))
        else:
            self._pass_over("a message tells what the store doesn't")
        self._followed.unpark_all()

    async def _deliver(self, records: Sequence[Record], head: int, deliver: Deliver) -> None:
        """Deliver records, and let others run between; a checkpoint only where there are many."""
        while len(records) > _DELIVERED:
            deliver(records[:_DELIVERED], records[_DELIVERED - 1].position)
            records = records[_DELIVERED:]
            await trio.lowlevel.checkpoint()
        deliver(records, max(head, self.chain.log.head))

    async def _probe(self, link: Link) -> None:
        """Publish a word now and then, which has to be heard here."""
        timeout, server = self._limits.timeout, link.connection.server
        while True:
            await trio.sleep(PROBE_SECONDS)
            word, heard, event = new_word(), self._heard, trio.Event()
            self._words[word.encode()] = event
            try:
                await self._say(link, word)
                with trio.move_on_after(timeout):
                    await event.wait()
            finally:
                del self._words[word.encode()]
            # Where much is told, the word has a long way to go behind all of that.
            if not event.is_set() and heard == self._heard:
                raise HistoryError(f"what is published isn't heard within {timeout:g} s")
            found = ServerInfo.read(await link.connection.pipeline(QUESTIONS))
            if not {*server.replication_ids[:1]} <= {*found.replication_ids}:
                raise HistoryError("the server has another replication id: its past may be another")
            self._look(found)

    async def _say(self, link: Link, word: str) -> None:
        """Publish a word; a server that takes no writes, as its disk is full, is good for it."""
        try:
            await link.ask(scripts.PROBE, "hear", word)
        except StaleError:
            raise
        except HistoryError as exc:
            if not isinstance(exc.__cause__, RedisReplyError):
                raise


async def _end_with(connection: RedisConnection) -> None:
    """Raise when a connection is of no more use."""
    raise HistoryError(await connection.wait_broken())
