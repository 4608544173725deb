"""One subscription inside the hub: a cursor, a sink, and the task that waits.

A subscriber is *ready* (it stands in a feed, and the sweep writes to its sink)
or it is not: then its own task, parked in `Hub.subscribe`, is awake and brings
it forward at its client's pace. `feed` says which.
"""

from __future__ import annotations

import enum
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from h3trio._wire.batch import FrameSink
    from h3trio.hub._history.selection import Selection

Policy = Literal["resync", "disconnect"]
"""What becomes of a subscriber that fell out of the history: it is told by
`reset` and goes on, or its subscription ends."""


@final
class EndReason(enum.StrEnum):
    """Why a subscription ended, as `Hub.subscribe` returns it."""

    KICKED = "kicked"
    """`Hub.kick` chose it."""
    LAGGED = "lagged"
    """It fell out of the history, under the policy `disconnect`."""
    CLOSED = "closed"
    """The hub was closed."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Subscription:
    """A snapshot of one subscription."""

    topics: Selection
    """What it asked for."""
    allow: Selection
    """The topics whose private updates it may see."""
    info: Mapping[str, object]
    """What the subscriber's handler said of it."""
    cursor: str
    """The id up to which it was given everything."""
    ready: bool
    """Whether it is fed live; otherwise it is catching up."""
    since: float
    """Unix time in seconds at which it began."""
    behind: int
    """Events published since its cursor, whatever their topics; 0 while the id that its client
    came with is looked up."""


class Place(Protocol):
    """Where a ready subscriber stands: a feed."""

    def remove(self, subscriber: Subscriber, /) -> None:
        """Take it out."""


@final
class Subscriber:
    """The hub's side of one subscription."""

    __slots__ = (
        "_scope",
        "_task",
        "allow",
        "end_reason",
        "feed",
        "info",
        "is_placed",
        "position",
        "selection",
        "send",
        "since",
        "sink",
        "told",
    )

    def __init__(
        self,
        sink: FrameSink,
        *,
        selection: Selection,
        allow: Selection,
        info: Mapping[str, object],
    ) -> None:
        self.sink = sink
        # Bound once: the sweep calls it for each batch.
        self.send = sink.send_batch_nowait
        self.selection = selection
        self.allow = allow
        self.info = info
        self.position = 0
        self.is_placed = False
        """Whether its position is known: a history may have to look its client's id up."""
        self.told = 0
        """The newest trimmed position that its client knows of."""
        self.feed: Place | None = None
        self.end_reason: EndReason | None = None
        self._scope: trio.CancelScope | None = None
        self.since = time.time()
        self._task: trio.lowlevel.Task | None = None

    def __repr__(self) -> str:
        state = "ready" if self.feed else "catching up"
        return f"<Subscriber to {self.selection!r}: at {self.position}, {state}>"

    def end(self, reason: EndReason) -> None:
        """End the subscription, whatever its task waits for; the first reason counts."""
        if self.end_reason is None:
            self.end_reason = reason
            if self._scope is not None:
                self._scope.cancel(reason=reason.value)
            self.leave_feed()

    def interrupt_by(self, scope: trio.CancelScope | None) -> None:
        """Let `end` cut short what runs in a scope, entered just now; `None` once that is left.

        There is none while parked: thousands are, for hours.
        """
        self._scope = scope
        if scope is not None and self.end_reason is not None:
            scope.cancel(reason=self.end_reason.value)

    def leave_feed(self) -> None:
        """Be ready no more; the parked task takes over."""
        if self.feed is not None:
            self.feed.remove(self)
            self.feed = None
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def park(self) -> Awaitable[object]:
        """Wait, as the subscription's own task, while the sweep does the work.

        A plain function that returns Trio's coroutine, with a method to abort: an `async`
        one with a closure is 400 bytes more for each idle subscriber.
        """
        self._task = trio.lowlevel.current_task()
        return trio.lowlevel.wait_task_rescheduled(self._unparked_by_cancel)  # noqa: ASYNC105 - the caller awaits it

    def _unparked_by_cancel(self, _raise_cancel: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED
