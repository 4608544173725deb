"""`Nodes`: finds nodes that are gone, where several share a history, by the order of its log.

Each node publishes a beat, three times in a lease, to a topic that all of them read. Another node
is gone if, by the log, it was silent between two beats of one's own that are a lease apart. So no
two clocks are compared, and a node that stood still itself takes nobody for gone: what the others
published meanwhile stands between its own beats.

Where a beat of one's own is missing, or late, the time begins anew: the store was away, and the
others, whose beats it didn't take either, need as long as oneself to come back. (A lease by the
store's clock ends in that time for all of them.)

The runs of a node that is gone are ended by whoever notices first: a topic closes once. A node that
was taken for gone, and wakes, is told by the same topic, and by each publish that is refused.

A beat also names the runs of other nodes that have viewers here, if anybody wants to know.
"""

from __future__ import annotations

import json
import math
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast, final

import trio

from h3trio import SSEEvent
from h3trio.hub import HistoryError, OverloadedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from h3trio.hub import Hub

_BEATS: Final = 3
"""Beats in a lease: two may be lost."""

_LATE: Final = 1.5
"""How much later than due a beat comes back that makes the time begin anew, as a factor."""

_NAMED: Final = 1000
"""Runs that are named in one beat; it is an event of 40 KiB at most."""


@final
@dataclass(slots=True)
class _Node:
    """Another node, as it was heard."""

    since: float | None = None
    """The time at which our first beat behind its last one came back; `None` before."""


@final
class Nodes:
    """The nodes that share a history.

    Args:
        hub: with the history.
        topic: the topic that they all read.
        name: of this node.
        lease: seconds of silence after which a node is gone.
        watched: gives the runs of other nodes that have viewers here.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        topic: str,
        name: str,
        lease: float,
        watched: Callable[[], Iterable[str]],
    ) -> None:
        self._hub = hub
        self._topic = topic
        self._name = name
        self._lease = lease
        self._watched = watched
        self._others: dict[str, _Node] = {}
        self._beats: dict[int, float] = {}
        self._serial = 0
        self._epoch = ""
        self._latest = -math.inf
        """The time at which our newest beat came back."""
        # Bounded by what happens while its reader is at work on one of them.
        self._news = deque[tuple[str, str]]()
        self._arrived = trio.lowlevel.ParkingLot()

    def expect(self, names: Iterable[str]) -> None:
        """Take nodes for living, and find out whether they are."""
        for name in names:
            if name != self._name:
                self._others.setdefault(name, _Node())

    async def tell(self, kind: Literal["ended", "removed"], id: str) -> None:
        """Tell the other nodes that this one has ended a run of theirs, or removed a run.

        It is tried again until the store takes it.
        """
        while True:
            with suppress(HistoryError, OverloadedError):
                await self._publish({"node": self._name, kind: id})
                return
            await trio.sleep(self._lease / _BEATS)

    async def next_news(self) -> tuple[str, str]:
        """Wait for news.

        Returns:
            `("gone", node)`; `"ended"`, `"removed"` or `"watched"` and the id of a run; or
            `("lost", "")`, the newest records may be lost, as the store has begun an epoch.
        """
        while not self._news:
            await self._arrived.park()
        return self._news.popleft()

    async def beat(self) -> None:
        """Publish beats until cancelled."""
        while True:
            self._serial += 1
            self._beats[self._serial] = trio.current_time()
            watched = list(self._watched())
            try:
                await self._publish(
                    {"node": self._name, "beat": self._serial, "watched": watched[:_NAMED]}
                )
                for start in range(_NAMED, len(watched), _NAMED):
                    named = watched[start : start + _NAMED]
                    await self._publish({"node": self._name, "watched": named})
            except (HistoryError, OverloadedError):
                # The hub tells of a store that fails. Here it is a beat that is missing.
                self._beats.pop(self._serial, None)
            await trio.sleep(self._lease / _BEATS)

    async def _publish(self, told: dict[str, object]) -> None:
        event = SSEEvent(json.dumps(told), event="node")
        await self._hub.publish(event, topics=[self._topic], private=True)

    async def listen(self) -> None:
        """Read what the nodes publish, until cancelled."""
        async with self._hub.subscription([self._topic], allow=[self._topic]) as events:
            async for event in events:
                if event.event == "node":
                    self._heard(cast("dict[str, object]", json.loads(event.data or "{}")))
                elif event.event == "reset":
                    self._begin_anew()  # beats may be missing that others have sent
        raise trio.ClosedResourceError("the hub was closed")

    def _heard(self, told: dict[str, object]) -> None:
        name = str(told.get("node"))
        if name == self._name:
            if (sent := self._beats.pop(cast("int", told.get("beat", 0)), None)) is not None:
                self._own_beat(sent)
            return
        self._others[name] = _Node()
        for kind in ("ended", "removed"):
            if kind in told:
                self._tell(kind, str(told[kind]))
        for id in cast("list[str]", told.get("watched", [])):
            self._tell("watched", id)

    def _own_beat(self, sent: float) -> None:
        epoch = self._hub.last_event_id.partition("-")[0]
        if self._epoch not in ("", epoch):
            self._tell("lost", "")
        self._epoch = epoch
        now = trio.current_time()
        if now - self._latest > _LATE * self._lease / _BEATS:
            self._begin_anew()
        self._latest = now
        for name, node in list(self._others.items()):
            if node.since is None:
                node.since = now
            elif sent - node.since >= self._lease:
                del self._others[name]
                self._tell("gone", name)

    def _begin_anew(self) -> None:
        for node in self._others.values():
            node.since = None

    def _tell(self, kind: str, name: str) -> None:
        self._news.append((kind, name))
        self._arrived.unpark_all()
