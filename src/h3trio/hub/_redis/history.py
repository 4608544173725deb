"""`RedisHistory`: a history that several hubs on several machines share, in Redis or Valkey.

Every change is one script in the server: it checks, gives positions, keeps to the limits, and tells
all hubs by one message what was added and removed. So there is one order, whoever publishes.

The newest part is in memory too, so that clients who come back all at once don't reach the server.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._limits import check_limit
from h3trio._redis.address import parse_address
from h3trio._redis.connect import open_redis
from h3trio._redis.connection import require_hiredis
from h3trio._redis.values import RedisLimits
from h3trio.hub._history.errors import (
    HistoryError,
    HistoryFullError,
    KeyReusedError,
    PinnedFullError,
)
from h3trio.hub._history.history import Durability, History, HistoryStatistics
from h3trio.hub._history.log import MIN_TOPIC_BYTES, RECORD_TOPIC_BYTES
from h3trio.hub._history.record import Appended, refuse_closed
from h3trio.hub._history.retention import MAX_PINNED_BYTES, MAX_PINNED_EVENTS, MIB, Retention

from . import codec, scripts
from .follower import FIRST_PAUSE, MAX_PAUSE, Follower
from .link import may_pass, translated
from .nodes import RedisNodes
from .pins import Pins
from .reading import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from h3trio._redis.values import Argument, Reply
    from h3trio.hub._history.epochs import Epochs
    from h3trio.hub._history.gaps import Gaps
    from h3trio.hub._history.log import Log
    from h3trio.hub._history.record import Page, Record, Update
    from h3trio.hub._history.selection import Selection

    from .link import Link

logger = logging.getLogger("h3trio.hub")

LEAVE_SECONDS: Final = 1.0
"""Seconds that a hub which is closed takes to say that it goes."""


@final
class RedisHistory(History):
    """Keeps updates in Redis (6 or newer) or Valkey, for all hubs that have the same address.

    Their limits have to be the same too: a hub that finds others warns. Needs the extra `redis`.

    Args:
        url: the server: `redis://[USER:PASSWORD@]HOST[:PORT][/DB]`, `rediss://…`, `unix://PATH`
            or `redis+sentinel://HOST,HOST/NAME`. With `?prefix=` several hubs that have nothing to
            do with each other share a server.
        password: the password, instead of one in the URL.
        durability: refuse a server that keeps less: `"fast"` needs `appendonly yes`, `"durable"`
            `appendfsync always` too. By default any server will do; what it keeps is known once
            the history is open. It is the server's own: a replica that takes its place may lack
            what was just acknowledged, which is told.
        max_events: updates kept in all: some megabytes of the server's memory for each 10,000.
        max_bytes: bytes of their frames.
        max_age: seconds after which an update is removed. Off by default.
        max_topic_events: updates kept of one topic. Off by default.
        max_topic_bytes: bytes of the frames of one topic. Off by default.
        max_pinned_events: updates of pinned topics, which the limits in all pass over, and topics
            that all hubs together pin.
        max_pinned_bytes: bytes of the frames of those updates.
        tail_events: newest updates that are in memory here too.
        tail_bytes: bytes of their frames.
        timeout: seconds for which an answer is waited for: then the server counts as away.
        open_wait: seconds for which `open` tries again where the server can't be reached, as it may
            be started at the same time. What doesn't pass by waiting is raised at once: a wrong
            password, a certificate that isn't trusted, a server that isn't good enough.

    Raises:
        ValueError, TypeError: the URL is wrong, or a limit isn't a positive number.
        ImportError: the extra isn't installed.
    """

    is_shared: bool = True
    """It is shared."""

    def __init__(  # noqa: PLR0913 - each limit has a name
        self,
        url: str,
        *,
        password: str | None = None,
        durability: Durability | None = None,
        max_events: int = 100_000,
        max_bytes: int = 256 * MIB,
        max_age: float | None = None,
        max_topic_events: int | None = None,
        max_topic_bytes: int | None = None,
        max_pinned_events: int = MAX_PINNED_EVENTS,
        max_pinned_bytes: int = MAX_PINNED_BYTES,
        tail_events: int = 10_000,
        tail_bytes: int = 16 * MIB,
        timeout: float = 5.0,
        open_wait: float = 0.0,
    ) -> None:
        require_hiredis()
        if durability not in (None, "memory", "fast", "durable"):
            raise ValueError(f"durability must be memory, fast or durable, not {durability!r}")
        check_limit("tail_events", tail_events)
        check_limit("tail_bytes", tail_bytes)
        check_limit("open_wait", open_wait, whole=False, least=0)
        self._address = parse_address(url, password=password)
        self._retention = Retention(
            max_events=max_events,
            max_bytes=max_bytes,
            max_age=max_age,
            max_topic_events=max_topic_events,
            max_topic_bytes=max_topic_bytes,
            max_pinned_events=max_pinned_events,
            max_pinned_bytes=max_pinned_bytes,
        )
        self._pins = Pins(max_pinned_events)
        self._bounds = bounds_of(self._retention)
        self._has_warned = False
        self._limits = RedisLimits(timeout=timeout)
        self._nodes: RedisNodes | None = None
        self._follower = Follower(
            self._address,
            self._limits,
            wanted=durability,
            pins=self._pins,
            tail=Retention(max_events=tail_events, max_bytes=tail_bytes),
        )
        self._reader = Reader(self._follower)
        self._open_wait = open_wait
        self.max_age: float | None = max_age
        self._show()
        self._removed_before = 0
        self._is_open = False

    def __repr__(self) -> str:
        return f"<RedisHistory {self._address}: head {self.log.head}>"

    def _show(self) -> None:
        chain = self._follower.chain
        self.log: Log = chain.log
        """The newest part, as far as it is followed."""
        self.gaps: Gaps = chain.gaps
        """The newest removed positions, as far as they are followed."""
        self.epochs: Epochs = chain.epochs
        """The store's table of epochs, as far as it is followed."""

    @property
    def durability(self) -> Durability:  # type: ignore[override]  # another server may take over
        """How much an update survives: what the server promised when it was last connected to."""
        return self._follower.durability

    @property
    def address(self) -> str:
        """The server's address, without a password."""
        return str(self._address)

    @property
    def server(self) -> str:
        """The server, and how it keeps what it has, in words; `""` before it was connected to."""
        return self._follower.server

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection now. Without one publishing fails."""
        return self._follower.is_connected

    @property
    def reconnects(self) -> int:
        """The number of connections that were lost."""
        return self._follower.reconnects

    # -- opening and closing

    async def open(self) -> None:
        """Connect, load the newest part, and disconnect: the follower connects anew.

        Raises:
            HistoryError: the server can't be reached, refuses us, isn't good enough, or its keys
                are of another version.
        """
        if self._is_open:
            raise trio.BusyResourceError("the history is open already")
        await self._load()
        self._show()
        self._removed_before = self._follower.chain.header.removed
        self._is_open = True

    async def _load(self) -> None:
        """Load the newest part; try again for a while where the server can't be reached."""
        give_up = trio.current_time() + self._open_wait
        pause = FIRST_PAUSE
        while True:
            try:
                return await self._follower.load()
            except HistoryError as exc:
                left = give_up - trio.current_time()
                if left <= 0 or not may_pass(exc):
                    raise HistoryError(f"can't use {self._address}: {exc}") from exc
                logger.warning("the store can't be used yet, %.0f s are left: %s", left, exc)
            pause = min(2 * pause, MAX_PAUSE)
            await trio.sleep(min(pause, left))

    async def aclose(self) -> None:
        """Take no more updates, be no node, and pin nothing.

        The connections end with the follower, so a short one tells the store. If that can't be done
        within a second, the time of what it was told before runs out.
        """
        self._is_open = False
        nodes, self._nodes = self._nodes, None
        is_node = nodes is not None and nodes.is_known
        await trio.lowlevel.checkpoint()
        if not (is_node or self._pins.were_told):
            return
        try:
            with trio.move_on_after(LEAVE_SECONDS), translated():
                async with open_redis(self._address, limits=self._limits) as connection:
                    if nodes is not None and nodes.is_known:
                        await nodes.leave(connection)
                    if self._pins.were_told:
                        await self._pins.leave(self._follower.link_by(connection))
        except HistoryError as exc:
            logger.info("the store wasn't told that this hub goes: %s", exc)

    def _check_open(self) -> None:
        if not self._is_open:
            raise trio.ClosedResourceError("the history is not open")

    # -- writing

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Store updates in one step; the answers have no records, as those come by the follower.

        Raises the errors of `History.append`, and `trio.ClosedResourceError` if it isn't open.
        """
        self._check_open()
        arguments = [part for update in updates for part in codec.arguments_of(update)]
        try:
            return await self._append(updates, arguments)
        except HistoryFullError:
            # Records may have become too old since somebody last looked.
            if not await self.trim():
                raise
            return await self._append(updates, arguments)

    async def _append(
        self, updates: Sequence[Update], arguments: Sequence[Argument]
    ) -> list[Appended]:
        asked: list[tuple[Link, str]] = []

        def told(link: Link) -> Sequence[Argument]:
            asked.append((link, self._pins.version))
            return *self._pins.told(), *self._bounds, *arguments

        while True:
            reply = await self._follower.ask_with(scripts.APPEND, told, changes=True)
            link, version = asked[-1]
            match reply:
                case [b"ok", list(answers), bytes(others), *_]:
                    self._pins.note(version)
                    self._compare(others.decode())
                    return [
                        _answer(update, answer, link.epoch)
                        for update, answer in zip(updates, answers, strict=True)
                    ]
                case [b"pins"]:
                    self._pins.forget()  # as it was there: tell all of them
                case _:
                    raise HistoryError(f"the store answers {reply!r:.80}")

    def _compare(self, others: str) -> None:
        """Warn, once, if the last append was that of a hub with other limits."""
        if self._has_warned or others in ("", " ".join(self._bounds)):
            return
        self._has_warned = True
        logger.warning(
            "the store was kept to other limits than those of this hub. If another hub has"
            " them, give all the same, as each removes what is beyond its own. They were %s;"
            " these are %s (events, bytes, bytes of topics, events and bytes of a topic,"
            " pinned events and bytes, age; 0 is none)",
            others,
            " ".join(self._bounds),
        )

    async def purge(self, topic: str) -> int:
        """Remove a topic's records from the store; return how many. Cancelling stops it half-way.

        Events that are published meanwhile stay.
        """
        self._check_open()
        removed, before, more = 0, 0, True
        while more:
            reply = await self._follower.ask(scripts.REMOVE, "topic", topic, before, changes=True)
            removed += codec.whole(reply[1])
            more, before = bool(reply[2]), codec.whole(reply[3])
        return removed

    async def trim(self) -> int:
        """Remove records beyond the age limit from the store; return how many."""
        self._check_open()
        if self.max_age is None:
            await trio.lowlevel.checkpoint()
            return 0
        removed, more = 0, True
        limits = self._retention
        pinned = limits.max_pinned_events, limits.max_pinned_bytes
        while more:
            reply = await self._follower.ask(
                scripts.REMOVE, "age", repr(self.max_age), *pinned, changes=True
            )
            removed += codec.whole(reply[1])
            more = bool(reply[2])
        return removed

    def pin(self, topic: str) -> None:
        """Pin a topic; the store is told with the next append, or by the follower."""
        self._pins.pin(topic)

    def unpin(self, topic: str) -> None:
        """Undo one `pin`; the store is told in the same way."""
        self._pins.unpin(topic)

    # -- following

    async def follow(
        self,
        deliver: Callable[[Sequence[Record], int], None],
        lost: Callable[[int], None],
    ) -> None:
        """Connect, and deliver what the store gets; connect again whenever that ends.

        See `History.follow`.
        """
        self._check_open()
        await self._follower.follow(deliver, lost)

    def join(self, name: str) -> RedisNodes:
        """Return this hub's place among those that share the store; see `History.join`."""
        self._nodes = RedisNodes(self._address, self._limits, name)
        return self._nodes

    async def head(self) -> str:
        """Return the cursor at the store's head."""
        self._check_open()
        reply = await self._follower.ask(scripts.PROBE, "head", "")
        return f"{codec.text(reply[1])}-{codec.text(reply[2])}"

    # -- reading

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read selected records behind a position out of the store; see `History.read`."""
        self._check_open()
        return await self._reader.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Return the position that a publisher's id stands for; see `History.find`."""
        self._check_open()
        return await self._reader.find(id, selection=selection, allow=allow)

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Whether all of some topics are closed; see `History.are_closed`."""
        return await self._reader.are_closed(topics, allow=allow)

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Return the position behind which the last `count` visible records stand."""
        self._check_open()
        return await self._reader.position_before_last(count, selection=selection, allow=allow)

    # -- looking

    async def health(self) -> bool:
        """Return `True`; see `History.health`.

        Raises:
            HistoryError: the server is away, or refuses to store.
        """
        self._check_open()
        await self._follower.ask(scripts.PROBE, "store", "")
        return True

    def statistics(self) -> HistoryStatistics:
        """Return a snapshot of what the store has, as it was last told; cheap."""
        known = self._follower.chain.header
        return HistoryStatistics(
            durability=self.durability,
            events=known.events,
            bytes=known.bytes,
            topics=known.topics,
            oldest=known.oldest,
            newest=known.last,
            trimmed=max(known.removed - self._removed_before, 0),
            pinned_topics=known.pinned_topics,
            pinned_events=known.pinned_events,
            pinned_bytes=known.pinned_bytes,
            server=self.server,
            connected=self.is_connected,
            reconnects=self.reconnects,
            behind=max(known.last - self.log.head, 0),
        )


def bounds_of(limits: Retention) -> tuple[str, ...]:
    """Return the limits as the script that appends takes them."""
    bounds = (
        limits.max_events,
        limits.max_bytes,
        max(MIN_TOPIC_BYTES, RECORD_TOPIC_BYTES * limits.max_events),
        limits.max_topic_events or 0,
        limits.max_topic_bytes or 0,
        limits.max_pinned_events,
        limits.max_pinned_bytes,
        limits.max_age or 0,
    )
    return tuple(map(str, bounds))


def _answer(update: Update, answer: Reply, epoch: str) -> Appended:
    """Read the script's answer to one update."""
    match answer:
        case bytes():
            own = f"{epoch}-{answer.decode()}"
            return Appended(update.own_id or own, None, cursor=own)
        case [b"again", bytes(id), bytes(last)]:
            # It stands somewhere in front of the head.
            return Appended(id.decode(), None, cursor=f"{epoch}-{last.decode()}")
        case [b"key"]:
            problem = f"the key {update.dedup!r} was used for another event of the same topics"
            return Appended("", None, KeyReusedError(problem))
        case [b"closed", bytes(topic)]:
            return refuse_closed(topic.decode())
        case [b"pinned", bytes(limit)]:
            problem = "pinned topics have no room for another event, or there are too many of them"
            return Appended("", None, PinnedFullError(problem, limit=limit.decode()))
        case _:
            return Appended("", None, HistoryError(f"the store answers {answer!r:.80}"))
