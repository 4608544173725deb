"""`Reader`: reads what is older than the newest part in memory, and searches in the store.

What topics select, the server finds by its indexes. Matchers are asked here, about what the server
sends page by page: how much that may be in one step is bounded, and how long a search may take.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.epochs import is_own_syntax
from h3trio.hub._history.record import Page, page_of
from h3trio.hub._history.retention import MIB
from h3trio.hub._history.selection import FORBIDDEN, Turn

from . import codec, scripts

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from h3trio._redis.values import Argument, Reply, Script
    from h3trio.hub._history.log import Log
    from h3trio.hub._history.record import Record
    from h3trio.hub._history.selection import Selection

    from .follower import Follower

MAX_READS: Final = 100
"""Pages that are read at the same time; others wait."""

_SCANNED: Final = 1000, 1 * MIB
"""Records, and bytes of their frames, that come in one step where matchers are asked about them."""
_LOOKED: Final = 1000, 16 * MIB
"""The same of records that the server goes over, and whose topics come only."""
_TOPICS: Final = 100
"""Topics by which the server reads in one step: it looks for the next record of each."""
_FOUND: Final = 1000
"""Places of one id that are looked at in one step."""
_SEARCHES: Final = 20
"""Steps after which a search for an id is given up."""


@final
class Reader:
    """Reads a store.

    Args:
        follower: the connection to it.
    """

    def __init__(self, follower: Follower) -> None:
        self._follower = follower
        self._limiter = trio.CapacityLimiter(MAX_READS)

    @property
    def _log(self) -> Log:
        return self._follower.chain.log

    async def _ask(self, script: Script, *arguments: Argument) -> list[Reply]:
        async with self._limiter:
            return await self._follower.ask(script, *arguments)

    async def _page(
        self, way: str, *, start: int, bound: int, limits: tuple[int, int], selection: Selection
    ) -> codec.Entries:
        """Read entries behind a position, or in front of one, by a few topics in each step.

        Each step goes only as far as those before it came: up to there the page has all.
        """
        topics = tuple(selection.topics) if selection.is_exact else ()
        steps = max(1, math.ceil(len(topics) / _TOPICS))
        most, most_bytes = limits[0], limits[1] // steps
        page: codec.Entries | None = None
        for at in range(0, steps * _TOPICS, _TOPICS):
            until = bound if page is None else page.reached
            asked = topics[at : at + _TOPICS]
            reply = await self._ask(scripts.READ, way, start, until, most, most_bytes, *asked)
            found = codec.page_of(reply)
            page = found if page is None else codec.merged(page, found, forward=way == "behind")
        assert page is not None, "there is one step at least"
        return page

    async def read(
        self, after: int, *, selection: Selection, max_records: int, max_bytes: int
    ) -> Page:
        """Read a page; see `History.read`."""
        head = self._log.head
        if after >= head or not selection:
            await trio.lowlevel.checkpoint()
            return Page((), max(after, head), more=False)
        bounds = max_records, max_bytes
        if selection.matchers:
            bounds = max(max_records, _SCANNED[0]), max(max_bytes, _SCANNED[1])
        page = await self._page(
            "behind", start=after, bound=head, limits=bounds, selection=selection
        )
        # Whoever looks at the gaps next finds there what this page lacks.
        await self._follower.wait_noted(page.note)
        records = await _selected(page.entries, selection)
        # There is more if this hub has followed more meanwhile.
        return page_of(
            records,
            end=page.reached,
            head=self._log.head,
            max_records=max_records,
            max_bytes=max_bytes,
        )

    async def find(self, id: str, *, selection: Selection, allow: Selection) -> int | None:
        """Find a publisher's id; see `History.find`."""
        if not id or is_own_syntax(id) or FORBIDDEN.search(id):
            await trio.lowlevel.checkpoint()
            return None
        # The memory doesn't tell of several topics: one of them may have it in the store alone.
        if selection.is_exact and len(selection.topics) == 1:
            position = await self._log.find(id, selection=selection, allow=allow)
            if position is not None:
                return position
        topics = selection.topics if selection.is_exact else ()
        newest, behind = _Newest(selection, allow), ""
        for _ in range(_SEARCHES):
            reply = await self._ask(scripts.FIND, "id", id, behind, _FOUND, *topics)
            places, behind = codec.places_of(reply)
            await newest.look(places)
            if not behind:
                break
        if behind or (topics and newest.is_cut(_FOUND)):
            return None
        found = newest.oldest
        # Else the follower has to come there first; who asks is told to wait for it.
        return found if found is not None and found <= self._log.head else None

    async def are_closed(self, topics: Collection[str], *, allow: Selection) -> bool:
        """Whether all topics are closed; see `History.are_closed`."""
        head, unknown = self._log.head, list[str]()
        for topic in topics:
            closed = self._log.is_closed(topic, allow=allow)
            if closed is None:
                unknown.append(topic)
            elif not closed:
                return False
        # Most hubs have no topic that ends, and needn't ask to find that out.
        if not unknown or not self._follower.chain.header.closed:
            return not unknown
        places, _behind = codec.places_of(await self._ask(scripts.FIND, "closed", *unknown))
        # Not by a record that this hub has yet to get, or had yet to when it was asked.
        head = min(head, self._log.head)
        found = {p.topic for p in places if p.position <= head and p.is_visible(allow)}
        return found.issuperset(unknown)

    async def position_before_last(
        self, count: int, *, selection: Selection, allow: Selection
    ) -> int:
        """Return the position behind which the last `count` records stand."""
        head = self._log.head
        known = await self._log.position_before_last(count, selection=selection, allow=allow)
        if known is not None:
            return known
        left, before, more, turn = count, head + 1, bool(selection), Turn()
        while more:
            page = await self._page(
                "look", start=before, bound=0, limits=_LOOKED, selection=selection
            )
            for look in codec.looks_of(page.entries):
                names = look.topics
                if turn.spend(selection.cost(len(names)) + allow.cost(len(names))):
                    await trio.lowlevel.checkpoint()
                is_visible = look.has_event and (not look.private or allow.matches(names))
                left -= is_visible and selection.matches(names)
                if not left:
                    return look.position - 1
            before, more = page.reached, page.more
        return 0


async def _selected(entries: Iterable[Reply], selection: Selection) -> list[Record]:
    """Make records of those entries that are selected.

    Raises:
        DamagedError: one can't be read; it has the page in front of it.
    """
    records: list[Record] = []
    turn = Turn()
    for entry in entries:
        try:
            record = codec.record_of(entry)
        except DamagedError as exc:
            if not records:
                raise
            page = Page(records, records[-1].position, more=True)
            raise DamagedError(str(exc), position=exc.position, page=page) from exc
        if turn.spend(selection.cost(len(record.topics))):
            await trio.lowlevel.checkpoint()
        if selection.matches(record.topics):
            records.append(record)
    return records


@final
class _Newest:
    """The newest visible record of each selected topic."""

    def __init__(self, selection: Selection, allow: Selection) -> None:
        self._selection = selection
        self._allow = allow
        self._turn = Turn()
        self._newest: dict[str, int] = {}
        self._hidden: dict[str, int] = {}

    async def look(self, places: Iterable[codec.Place]) -> None:
        """Look at places, of each topic the newest first."""
        for place in places:
            cost = self._selection.cost(1) + self._allow.cost(len(place.secret))
            if self._turn.spend(cost):
                await trio.lowlevel.checkpoint()
            if place.topic in self._newest or not self._selection.matches_topic(place.topic):
                continue
            if place.is_visible(self._allow):
                self._newest[place.topic] = place.position
            else:
                self._hidden[place.topic] = self._hidden.get(place.topic, 0) + 1

    def is_cut(self, most: int) -> bool:
        """Whether a topic may have a visible one behind as many hidden ones as came at most."""
        return any(
            count >= most for topic, count in self._hidden.items() if topic not in self._newest
        )

    @property
    def oldest(self) -> int | None:
        """The oldest of them."""
        return min(self._newest.values(), default=None)
