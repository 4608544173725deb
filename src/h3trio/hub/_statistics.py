"""What a hub tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._fanout.latency import LatencyStatistics
    from ._history.history import HistoryStatistics


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """A snapshot of one hub; totals count since it was made."""

    published: int
    """Updates stored in total."""
    delivered: int
    """Events given to subscribers, live or replayed: an event counts once for each of them."""
    delivered_bytes: int
    """Bytes of their frames."""
    subscribers: int
    """Subscriptions now."""
    ready: int
    """Those fed live; the others are catching up."""
    feeds: int
    """Distinct selections with somebody ready."""
    waiting: int
    """Updates that wait for the history."""
    replays: int
    """Times that a subscriber got events from the log, to come back or to catch up."""
    replayed_events: int
    """Events given that way; they are among `delivered`."""
    resets: int
    """Gaps told in total."""
    kicked: int
    """Subscriptions ended by `kick` in total."""
    ended: Mapping[str, int]
    """Subscriptions ended, by `EndReason`; `left` where the client or its handler went."""
    topics: int
    """Topics that somebody ready selected by name, and those published to whose events are
    counted: 4,096 at most, of which the half with fewer events is forgotten for another.
    `history.topics` has those with an event that is kept."""
    publish: LatencyStatistics
    """From a publish to its acknowledgement; failed ones aren't among them."""
    sweep: LatencyStatistics
    """One round of events to all ready subscribers of a selection, from its first send to its
    last."""
    failure: str | None
    """What the history said when it last failed to store, `None` once it stored again."""
    history: HistoryStatistics
    """The same of what it keeps its log in."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TopicStatistics:
    """A snapshot of one topic."""

    topic: str
    """Its name."""
    subscribers: int
    """Those that are fed its public events live, by whatever they selected."""
    published: int
    """Events published to it; of a topic that isn't among the busiest 2,000, perhaps only the
    latest."""
