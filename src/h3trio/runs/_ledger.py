"""`Ledger`: runs as a hub's records tell of them. Nothing else is stored of a run.

    <prefix><id>             its events; the terminal one closes the topic, and says how it ended
    <prefix><id>/start       one record: function, owner, who may watch
    <prefix>started          the same record: by this topic all runs are found
    <prefix>of/<owner>       the same record: those of one owner

The record of the start stands in topics of its own, so that viewers never see it. Its `dedup` key
is the run's id: of two starts with one key the first record decides, on whatever node they are. It
stands in front of all events of the run. So the cursor at it is where a viewer begins, and removals
take it first: a run of which a part is gone is unknown, or the viewer is told by `reset`.

All records are private unless the run is public, and viewers are allowed the topic of their run. An
owner is told apart by a hash, which is what the store has of it.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final, cast, final

import trio

from h3trio import EventTooLargeError, SSEEvent, SSEParser
from h3trio.hub import KeyReusedError, Selection, TopicClosedError, read_recent

from ._state import (
    RunState,
    RunStatus,
    event_of,
    public_detail,
    read_json,
    read_terminal,
    terminal_event,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio.hub import Hub, Record

_PARSED_AT_ONCE: Final = 50
"""Events parsed between two checkpoints."""

_ID: Final = re.compile("[0-9a-f]{32}")
_PAGE: Final = {"max_records": 500, "max_bytes": 1024 * 1024}


def new_id() -> str:
    """Return the id of a run without a key: 128 random bits."""
    return secrets.token_hex(16)


def hashed(*parts: str | bytes) -> str:
    """Return 128 bits of a hash of some strings, as hexadecimal digits."""
    state = sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        state.update(b"%d:%b" % (len(data), data))
    return state.hexdigest()[:32]


def owner_hash(owner: str) -> str:
    """Return the hash of an owner, and `""` for the empty one."""
    return hashed("owner", owner) if owner else ""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """The record of a run's start."""

    id: str
    function: str
    owner: str
    """The hash of its owner, `""` for none."""
    public: bool
    fingerprint: str
    """The hash of the payload that its key came with, `""` if none was given."""
    node: str
    """The name of the node that runs it."""
    started: float
    """Unix time in seconds, by the clock of that node: the record has it, so all tell the same."""
    cursor: str
    """The id behind which its events begin."""

    def is_for(self, owner: str) -> bool:
        """Whether somebody may watch and stop it."""
        return self.public or not self.owner or owner_hash(owner) == self.owner

    def status(self, state: RunState, detail: str = "", ended: float | None = None) -> RunStatus:
        """Return the run's status."""
        return RunStatus(
            id=self.id,
            state=state,
            detail=detail,
            function=self.function,
            started=self.started,
            ended=ended,
        )


@final
class Ledger:
    """Writes and reads the records of runs.

    Args:
        hub: the hub that has them.
        prefix: what all their topics begin with.
        clock: gives Unix time in seconds.
    """

    def __init__(self, hub: Hub, *, prefix: str, clock: Callable[[], float] = time.time) -> None:
        self._hub = hub
        self.prefix: Final = prefix
        self.clock: Callable[[], float] = clock
        self.nodes: str = f"{prefix}nodes"
        """The topic by which nodes tell each other that they live."""

    # -- names

    def topic(self, id: str) -> str:
        """Return the topic of a run's events."""
        return f"{self.prefix}{id}"

    def start_topic(self, id: str) -> str:
        """Return the topic of the record of a run's start."""
        return f"{self.prefix}{id}/start"

    @property
    def index(self) -> str:
        """The topic by which all runs are found."""
        return f"{self.prefix}started"

    def owner_topic(self, owner: str) -> str:
        """Return the topic by which the runs of an owner are found, given its hash."""
        return f"{self.prefix}of/{owner}"

    # -- writing

    async def start(
        self,
        id: str,
        *,
        function: str,
        owner: str,
        public: bool,
        fingerprint: str,
        node: str,
        nonce: str,
        started: float,
    ) -> About | None:
        """Publish the record of a start; `None` if there is another with this id.

        No two starts have the same `nonce`, so that the second is refused, and not taken for a
        repetition of the first. A start that is tried again has the same, and the same time.

        Raises the errors of `Hub.publish`, but for `KeyReusedError`.
        """
        told = {
            "id": id,
            "function": function,
            "owner": owner,
            "public": public,
            "fingerprint": fingerprint,
            "node": node,
            "nonce": nonce,
            "started": started,
        }
        topics = [self.start_topic(id), self.index, *([self.owner_topic(owner)] if owner else ())]
        event = SSEEvent(json.dumps(told), event="run")
        try:
            cursor = await self._hub.publish(event, topics=topics, private=True, dedup=id)
        except KeyReusedError:
            return None
        return About(
            id=id,
            function=function,
            owner=owner,
            public=public,
            fingerprint=fingerprint,
            node=node,
            started=started,
            cursor=cursor,
        )

    async def end(self, about: About, state: RunState, detail: str, *, key: str) -> RunStatus:
        """Publish the terminal event; return how the run ended, which may be by another's event.

        Args:
            about: the run.
            state: how it ends.
            detail: the message or the reason.
            key: the same if it is tried again: then it is the same event.

        Raises the errors of `Hub.publish`, but for `TopicClosedError`.
        """
        detail = public_detail(detail)
        event, topic = terminal_event(state, detail), self.topic(about.id)
        try:
            await self._hub.publish(
                event, topics=[topic], private=not about.public, dedup=key, last=True
            )
        except TopicClosedError:
            return await self._end_by_another(about)
        except EventTooLargeError:
            if not detail:
                raise
            return await self.end(about, state, "", key=key)
        return about.status(state, detail, self.clock())

    async def _end_by_another(self, about: About) -> RunStatus:
        await self._catch_up()
        status = await self.status(about)
        if status.state is RunState.RUNNING:
            # Closed without an event, by somebody else's hand.
            status = about.status(RunState.INTERRUPTED, ended=self.clock())
        return status

    def end_nowait(self, about: About, state: RunState, detail: str) -> None:
        """Publish the terminal event at once.

        Raises:
            trio.WouldBlock: the history has to wait.
            TopicClosedError: the run has ended.
        """
        event, topic = terminal_event(state, detail), self.topic(about.id)
        self._hub.publish_nowait(event, topics=[topic], private=not about.public, last=True)

    async def hide(self, id: str, cursor: str) -> None:
        """Remove the record of a run's start, unless another run was started with its key."""
        known = await self.find(id)
        if known is not None and known.cursor == cursor:
            await self._hub.purge(self.start_topic(id))

    async def purge_hidden(self, id: str) -> None:
        """Remove the events of a run that is hidden, unless another was started with its key."""
        if await self.find(id) is None:
            await self.purge_events(id)

    async def purge_events(self, id: str) -> bool:
        """Remove what there is of the events of a run, and that its topic is closed.

        Returns:
            Whether there was anything.
        """
        if await self._newest(self.topic(id)) is None:
            return False
        await self._hub.purge(self.topic(id))
        return True

    # -- reading

    async def find(self, id: str) -> About | None:
        """Return the run of an id, `None` if there is none.

        One that was just started on another node is found: this one comes up to the store first.

        Raises:
            HistoryError: the history can't be read, or this node doesn't come up to it.
        """
        if _ID.fullmatch(id) is None:
            await trio.lowlevel.checkpoint()
            return None
        topic = self.start_topic(id)
        found = await self._newest(topic)
        if found is None and self._hub.history.is_shared:
            await self._catch_up()
            found = await self._newest(topic)
        return None if found is None else _about(found)

    async def _catch_up(self) -> None:
        """Wait until this node has what the store has now, where hubs share it."""
        if self._hub.history.is_shared:
            head = await self._hub.history.head()
            await self._hub.locate([self.index], last_event_id=head)

    async def status(self, about: About) -> RunStatus:
        """Return how a run stands, by its events."""
        last = await self._newest(self.topic(about.id))
        if last is None or not last.last:
            return about.status(RunState.RUNNING)
        state, detail = read_terminal(last)
        return about.status(state, detail, last.published)

    async def all(self) -> list[About]:
        """Return all runs, the oldest first."""
        return await self._all(self.index)

    async def of_owner(self, owner: str, *, limit: int) -> list[About]:
        """Return the newest runs of an owner, given its hash, the newest first."""
        return (await self._all(self.owner_topic(owner)))[: -limit - 1 : -1]

    async def events(self, about: About) -> tuple[list[SSEEvent], str, bool]:
        """Return the events so far but the terminal one; the cursor behind them; and a mark.

        The mark says whether they are all that were published so far.
        """
        topic, cursor = self.topic(about.id), about.cursor
        recent = await read_recent(
            self._hub.history, [topic], count=10**9, last_event_id=cursor, allow=[topic]
        )
        events: list[SSEEvent] = []
        # One parser for all: what it costs to make one is that of some events.
        largest = max((len(record.frame) for record in recent.records), default=0)
        parser = SSEParser(max_event_size=largest + 1)
        for number, record in enumerate(recent.records):
            if not record.last:
                events += parser.feed(record.frame)
                cursor = self._hub.history.epochs.format(record.position)
            if number % _PARSED_AT_ONCE == _PARSED_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
        return events, cursor, recent.gap is None

    async def _newest(self, topic: str) -> Record | None:
        recent = await read_recent(self._hub.history, [topic], count=1, allow=[topic])
        return recent.records[-1] if recent.records else None

    async def _all(self, topic: str) -> list[About]:
        history, selection = self._hub.history, Selection([topic])
        found: list[About] = []
        position, head = 0, history.log.head
        while position < head:
            page = history.log.read(position, selection=selection, **_PAGE)
            if page is None:
                page = await history.read(position, selection=selection, **_PAGE)
            for number, record in enumerate(page.records, 1):
                if (about := _about(record)) is not None:
                    found.append(about)
                if number % _PARSED_AT_ONCE == 0:
                    await trio.lowlevel.checkpoint()
            position = page.last
            await trio.lowlevel.checkpoint()
        return found


def _about(record: Record) -> About | None:
    """Read the record of a start; `None` if it is something else, published by somebody else."""
    try:
        told = cast("dict[str, str]", read_json(event_of(record)))
        if _ID.fullmatch(told["id"]) is None:
            return None
        return About(
            id=told["id"],
            function=told["function"],
            owner=told["owner"],
            public=bool(told["public"]),
            fingerprint=told["fingerprint"],
            node=told["node"],
            started=float(told["started"]),
            cursor=record.id,
        )
    except (ValueError, KeyError, TypeError):
        return None
