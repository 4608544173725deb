"""`HubSettings`: every limit of a hub, and its name."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Final, final

from ._history.nodes import check_node

_MAY_BE_ZERO: Final = frozenset(
    {"flush_interval", "follow_timeout", "node_timeout", "reconnect_delay", "unready_after"}
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """Limits of one hub.

    Raises:
        ValueError: a limit is less than 1, a time is negative, or one has no end; or `node` can't
            be a name.
    """

    max_topic_length: int = 1024
    """Characters of a topic: room for an IRI, not for a document."""

    max_topics: int = 1000
    """Topics of one update or one subscription."""

    max_topics_bytes: int = 64 * 1024
    """Bytes of the names of these topics together, in UTF-8: 1000 of 64 characters. An event is
    kept with them, and a subscription holds them for as long as it lasts."""

    max_event_bytes: int = 1024 * 1024
    """Bytes of an encoded event. A browser holds all of it before it shows any."""

    max_waiting: int = 10_000
    """Updates that may wait for the history; one more is refused as overload, unless none wait:
    what comes in one publish is its publisher's to bound."""

    max_waiting_bytes: int = 64 * 1024 * 1024
    """Bytes of memory that these updates may take: as much as a history in memory keeps."""

    max_window_records: int = 100_000
    """Records in the windows of all feeds together: the bound on a sweep that falls behind. Beyond
    it, subscribers go on from the log."""

    max_window_bytes: int = 64 * 1024 * 1024
    """Bytes of events behind the newest that these windows may hold, which the history may have let
    go of: as many as one in memory keeps. Beyond it, too, subscribers go on from the log."""

    flush_interval: float = 0.0
    """Seconds for which a record that finds the sweep idle waits for others, to go with them in one
    send. 0 is off: under load batches form by themselves. With 0.01 a steady trickle costs fewer
    sends, and each event comes up to 10 ms later."""

    follow_timeout: float = 5.0
    """Seconds for which a publish, or a subscriber whose place isn't known here yet, waits until
    this hub has followed a history that it shares with others: longer than a follower lags that
    works, shorter than clients wait for an answer."""

    reconnect_delay: float = 2.0
    """Seconds after which clients reconnect: the `retry:` that opens a stream is half to one and a
    half times as long, at random, so that they don't all come at once."""

    unready_after: float = 30.0
    """Seconds for which a history that this hub shares with others may fail before `check_history`
    says so. It fails for all of them at once: a balancer that takes all nodes out has none to send
    subscribers to, who can wait here. As long as a failover or a restart takes, and then some."""

    node: str = ""
    """The name of this hub among those that share its history: 1 to 64 letters, digits, `.`, `_`
    and `-`. If not given: the machine's name, the process's number and four random digits, as two
    containers may have the first two in common. Give one that stays over a restart if metrics are
    kept by it; of two hubs with one name the newer has it."""

    node_interval: float = 5.0
    """Seconds from one summary that is told to these to the next: their counts are for people, and
    each node is sent those of all. One that isn't heard six times is no node any more."""

    node_timeout: float = 2.0
    """Seconds for which `Hub.kick_where` waits for the answers of these: many times what one takes
    that works, and little for who waits for the outcome."""

    def __post_init__(self) -> None:
        if self.node:
            check_node(self.node)
        for field in fields(self):
            if field.name == "node":
                continue
            least = 0 if field.name in _MAY_BE_ZERO else 1
            if not least <= getattr(self, field.name) < math.inf:
                raise ValueError(f"{field.name} must be a number from {least} on")
