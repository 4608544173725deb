"""`HubNodes`: one hub among those that share its history: it tells of itself, asks, and answers.

Counts travel by summaries: every few seconds each node leaves its own with the store, and takes
those of all. So statistics are made at once, out of what was heard last, and a hub that nobody
looks at costs the others nothing more than that.

A kick travels as a question: each node ends the subscriptions that it describes and says how many.
It is a description and no function, as that can't travel. A node that doesn't know one of its words
ends nothing and gives no answer, so that of two versions side by side none ends too much.

Both are JSON. Whatever comes from another node is read as anybody's.
"""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import time
from dataclasses import asdict, dataclass, replace
from secrets import token_hex
from typing import TYPE_CHECKING, Final, cast, final

import trio

from h3trio._tasks import own_error
from h3trio._version import __version__

from ._fanout.subscription import EndReason
from ._history.errors import HistoryError
from ._history.nodes import MAX_NODES, MAX_QUESTION_BYTES, MAX_SUMMARY_BYTES, is_node
from ._history.selection import EVERYTHING, Turn
from ._snapshots import NodeStatistics, SlowStatistics, TopicStatistics

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from ._committer import Committer
    from ._fanout.feed import Subscriber
    from ._history.nodes import NodeNote, Nodes
    from ._history.selection import Selection
    from ._settings import HubSettings
    from ._snapshots import Snapshots

logger = logging.getLogger("h3trio.hub")

LEASE_INTERVALS: Final = 6
"""Summaries that may be missed until a node is none any more: 30 s by default, more than a hub
needs to come back when its connection was lost."""
MAX_ASKING: Final = 16
"""Questions of one hub that are on their way at once; who comes next waits for a turn."""
MAX_TOPICS: Final = 10
"""Topics in a summary, the busiest first."""
MAX_SLOW: Final = 5
"""Subscriptions in a summary, the slowest first."""
MAX_NAMES: Final = 3
"""Topics of one of these."""

_LARGEST: Final = 2**63 - 1
_COUNTS: Final = ("subscribers", "ready", "publishes", "delivered", "delivered_bytes", "newest")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Kicked:
    """The outcome of a kick that went to all nodes."""

    count: int
    """Subscriptions that were ended, by all nodes that answered."""
    silent: tuple[str, ...]
    """The names of the nodes that didn't answer in time: how many they ended isn't known."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class _Chosen:
    """The description of the subscriptions that a kick ends: all that is given has to fit."""

    subject: str | None = None
    topic: str | None = None
    client: str | None = None
    node: str | None = None

    def fits(self, subscriber: Subscriber) -> bool:
        info, topics = subscriber.info, subscriber.selection
        return (
            (self.subject is None or info.get("subject") == self.subject)
            and (self.client is None or info.get("client") == self.client)
            and (self.topic is None or _has_topic(topics, self.topic))
        )

    def question(self) -> bytes:
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return json.dumps({"kick": given}).encode()


@final
class HubNodes:
    """The nodes of one hub's history, this hub among them.

    Args:
        settings: has its name and times.
        committer: has the history, and counts failures of the hub's tasks.
        subscribers: of this hub.
        snapshots: of this hub, and the count of those that were kicked.
    """

    def __init__(
        self,
        settings: HubSettings,
        committer: Committer,
        subscribers: Collection[Subscriber],
        snapshots: Snapshots,
    ) -> None:
        self.name: str = settings.node or _make_name()
        """The name of this hub."""
        self._interval, self._timeout = settings.node_interval, settings.node_timeout
        self._history = committer.history
        self._subscribers = subscribers
        self._snapshots = snapshots
        self._failures = committer.task_failures
        self._nodes: Nodes | None = None
        self._turns = trio.CapacityLimiter(MAX_ASKING)
        self._met: tuple[NodeStatistics, ...] = ()
        self._met_at = 0.0

    def join(self) -> bool:
        """Take a place among the nodes, the history is open; return whether there is one."""
        self._met = ()
        self._nodes = self._history.join(self.name) if self._history.is_shared else None
        return self._nodes is not None

    async def run(self) -> None:
        """Answer the others and tell of this hub, until cancelled."""
        nodes = self._nodes
        assert nodes is not None, "the hub has joined"
        async with trio.open_nursery() as nursery:
            # Who can be asked listens.
            await nursery.start(nodes.listen, self._answer)
            await self._meet(nodes)

    async def _meet(self, nodes: Nodes) -> None:
        """Tell of this hub and hear of the others, again and again; an error is for the next."""
        said = ""
        while True:
            try:
                notes = await nodes.meet(self._summary(), lease=LEASE_INTERVALS * self._interval)
            except HistoryError as exc:
                self._failures["nodes"] += 1
                if str(exc) != said:
                    logger.error("the other nodes can't be heard: %s", exc)  # noqa: TRY400 - it says all there is
                said = str(exc)
            else:
                said = ""
                await self._note(notes)
            await trio.sleep(self._interval)

    def statistics(self) -> tuple[NodeStatistics, ...]:
        """Return the nodes as they were heard last, by name; none if no history is shared."""
        since = time.monotonic() - self._met_at
        return tuple(replace(node, heard=node.heard + since) for node in self._met)

    # -- ending subscriptions

    async def kick(
        self, *, subject: str | None, topic: str | None, client: str | None, node: str | None
    ) -> Kicked:
        """End the subscriptions that are described, on all nodes; see `Hub.kick_where`."""
        chosen = _Chosen(subject=subject, topic=topic, client=client, node=node)
        if chosen == _Chosen():
            raise TypeError("say which subscriptions end: by subject, topic, client or node")
        for name, value in asdict(chosen).items():
            if value is not None and not isinstance(value, str):
                raise TypeError(f"{name} is a string, not {value!r}")
        question = chosen.question()
        if len(question) > MAX_QUESTION_BYTES:
            size = f"{MAX_QUESTION_BYTES} bytes, not {len(question)}"
            raise ValueError(f"what describes the subscriptions may have {size}")
        if self._history.is_shared and self._nodes is None:
            raise NotImplementedError(f"{type(self._history).__name__} has no way to other hubs")
        count = await self._kick(chosen)
        if self._nodes is None or node == self.name:
            unknown = () if node in (None, self.name) else (node,)
            return Kicked(count=count, silent=cast("tuple[str, ...]", unknown))
        async with self._turns:
            found = await self._nodes.ask(question, wait=self._timeout, only=node)
        counts = [(name, _kicked(answer)) for name, answer in found.answers]
        # An answer that says nothing is none.
        silent = {*found.silent, *(name for name, kicked in counts if kicked is None)}
        count += sum(kicked or 0 for _name, kicked in counts)
        return Kicked(count=count, silent=tuple(sorted(silent)))

    async def _kick(self, chosen: _Chosen) -> int:
        """End those of this hub; return how many. A checkpoint, and more if there are many."""
        await trio.lowlevel.checkpoint()
        if chosen.node not in (None, self.name):
            return 0
        turn, count = Turn(), 0
        for subscriber in list(self._subscribers):
            if turn.spend(subscriber.selection.cost(chosen.topic is not None)):
                await trio.lowlevel.checkpoint()
            # Without those that have ended, and have yet to unwind.
            if subscriber.end_reason is None and chosen.fits(subscriber):
                subscriber.end(EndReason.KICKED)
                count += 1
                self._snapshots.kicked += 1
        return count

    async def _answer(self, question: bytes) -> bytes:
        """Answer another node; nothing where the question isn't understood or an error came."""
        chosen = _read_question(question)
        if chosen is None:
            logger.warning("another node asked what this hub doesn't understand: %.200r", question)
            return b""
        try:
            return json.dumps({"kicked": await self._kick(chosen)}).encode()
        except BaseException as exc:
            error = own_error(exc)
            logger.exception("a kick of another node failed: %r", error, exc_info=error)
            return b""

    # -- telling

    def _summary(self) -> bytes:
        """Return what this node tells of itself, within `MAX_SUMMARY_BYTES`."""
        found = self._snapshots.statistics(len(self._subscribers))
        summary: dict[str, object] = {
            "version": __version__,
            "subscribers": found.subscribers,
            "ready": found.ready,
            "publishes": found.publish.count,
            "delivered": found.delivered,
            "delivered_bytes": found.delivered_bytes,
            "newest": self._history.log.head,
        }
        left = MAX_SUMMARY_BYTES - len(json.dumps(summary)) - len(', "topics": [], "slow": []')
        slow = self._snapshots.slow(self._subscribers, MAX_SLOW)
        tables: dict[str, list[dict[str, object]]] = {
            "topics": [asdict(topic) for topic in self._snapshots.topics(MAX_TOPICS)],
            "slow": [
                {
                    "client": str(one.info.get("client", "")),
                    "topics": _names(one.topics),
                    "behind": one.behind,
                    "since": one.since,
                }
                for one in slow
            ],
        }
        for name, rows in tables.items():
            kept = summary[name] = list[dict[str, object]]()
            for row in rows:
                # A long name leaves its row out, and no other.
                if (size := len(json.dumps(row)) + len(", ")) <= left:
                    kept.append(row)
                    left -= size
        # Escaped to ASCII: a client may ask for a topic that UTF-8 can't carry.
        return json.dumps(summary).encode()

    async def _note(self, notes: Sequence[NodeNote]) -> None:
        """Take over what the store has of all nodes."""
        read: dict[str, NodeStatistics] = {}
        # Beside this one, whatever a store lets in.
        for note in notes[: MAX_NODES + 1]:
            if is_node(note.name):
                read[note.name] = _read_summary(note)
            await trio.lowlevel.checkpoint()
        self._met = tuple(read[name] for name in sorted(read))
        self._met_at = time.monotonic()


def _make_name() -> str:
    """Make a name that nobody has: the machine, the process, and digits at random."""
    machine = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0]).strip("-")
    return f"{machine[:32] or 'node'}-{os.getpid()}-{token_hex(2)}"


def _has_topic(selection: Selection, topic: str) -> bool:
    return selection.everything if topic == EVERYTHING else selection.matches_topic(topic)


def _names(selection: Selection) -> list[str]:
    if selection.everything:
        return [EVERYTHING]
    return [*sorted(selection.topics), *sorted(map(str, selection.matchers))][:MAX_NAMES]


# -- reading what comes from another node


def _object(data: bytes | object) -> dict[str, object]:
    """Return an object of JSON, or of a part of it; an empty one for anything else."""
    try:
        value: object = json.loads(data) if isinstance(data, bytes) else data
    except (ValueError, RecursionError):
        value = None
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return value if 0 <= value <= _LARGEST else 0


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _list(value: object, most: int) -> list[object]:
    return cast("list[object]", value)[:most] if isinstance(value, list) else []


def _read_question(question: bytes) -> _Chosen | None:
    asked = _object(question)
    given = asked.get("kick")
    if asked.keys() != {"kick"} or not isinstance(given, dict) or not given:
        return None
    texts = cast("dict[str, object]", given)
    known = texts.keys() <= {"subject", "topic", "client", "node"}
    if not known or not all(isinstance(text, str) for text in texts.values()):
        return None
    return _Chosen(**cast("dict[str, str]", texts))


def _kicked(answer: bytes) -> int | None:
    told = _object(answer)
    return int(_number(told["kicked"])) if "kicked" in told else None


def _read_summary(note: NodeNote) -> NodeStatistics:
    """Read a summary of any version: a field that is missing or of another kind counts as zero."""
    told = _object(note.summary if len(note.summary) <= MAX_SUMMARY_BYTES else b"")
    counts = {name: int(_number(told.get(name))) for name in _COUNTS}
    return NodeStatistics(
        name=note.name,
        version=_text(told.get("version")),
        heard=note.age,
        topics=tuple(
            TopicStatistics(
                topic=_text(row.get("topic")),
                subscribers=int(_number(row.get("subscribers"))),
                published=int(_number(row.get("published"))),
            )
            for row in map(_object, _list(told.get("topics"), MAX_TOPICS))
        ),
        slow=tuple(
            SlowStatistics(
                client=_text(row.get("client")),
                topics=tuple(map(_text, _list(row.get("topics"), MAX_NAMES))),
                behind=int(_number(row.get("behind"))),
                since=_number(row.get("since")),
            )
            for row in map(_object, _list(told.get("slow"), MAX_SLOW))
        ),
        **counts,
    )
