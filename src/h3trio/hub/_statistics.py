"""What a hub tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from ._history import HistoryStatistics


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class HubStatistics:
    """A snapshot of one hub; totals count since it was made."""

    published: int
    """Updates stored in total."""
    subscribers: int
    """Subscriptions now."""
    ready: int
    """Those fed live; the others are catching up."""
    feeds: int
    """Distinct selections with somebody ready."""
    waiting: int
    """Updates that wait for the history."""
    resets: int
    """Gaps told in total."""
    kicked: int
    """Subscriptions ended by `kick` in total."""
    failure: str | None
    """What the history said when it last failed to store, `None` once it stored again."""
    history: HistoryStatistics
    """The same of what it keeps its log in."""
