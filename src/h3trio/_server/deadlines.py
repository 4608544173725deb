"""`Deadlines`: how long the reader of one connection waits, for what it waits for.

They work out the moment at which the reader's patience ends, and remember by which limit, so that
what follows can be named and counted.

The reader waits inside `scope`. Trio is told of a deadline only where it is earlier than the one it
knows: a reader that was woken too early finds that `is_over` isn't true, and waits on in a new
scope. That is once in `keepalive_timeout`, instead of twice for each request. Behind the first
request of a connection Trio is told of a later one too: an idle stream isn't to be woken for less.

A body has two limits. `body_timeout` bounds each silence; a client that sends a byte
now and then would never meet it, so `min_body_rate` bounds the whole: each byte buys
`1 / min_body_rate` seconds beyond the first `body_timeout`. A client that stood still
may so catch up, which an average over a window wouldn't let it. While we don't read,
nobody is late; and a body that the handler takes as a stream has no end to be late for.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from h3trio._http.settings import Settings


TIMED_OUT: Final = {
    "head_timeout": "the request head took too long",
    "body_timeout": "the request body stalled",
    "min_body_rate": "the request body comes too slowly",
}
"""What a 408 says, by the limit that was met."""


@final
class Deadlines:
    """When the wait of one connection's reader began, and when it ends."""

    __slots__ = ("_body_since", "_due", "_settings", "head_since", "limit", "scope")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._body_since: float | None = None
        self.head_since: float | None = trio.current_time()
        """When the head under way began, `None` between two requests."""
        self.limit: str = "head_timeout"
        """The setting by which the deadline given last was set."""
        self._due = inf
        self.scope: trio.CancelScope = trio.CancelScope()
        """What the reader waits in; may be cancelled too early, see `is_over`."""

    def wait_until(self, due: float) -> None:
        """Let the reader's patience end at this time; `inf` for never."""
        self._due = due
        if due < self.scope.deadline:  # noqa: PLR1730 - to set what is there is what it spares
            self.scope.deadline = due

    def settle(self) -> None:
        """Tell Trio what is due now, if only later."""
        self.scope.deadline = self._due

    def is_over(self) -> bool:
        """Whether the reader's patience has ended; if not, wait on in a new `scope`."""
        if is_over := trio.current_time() >= self._due:
            self._due = inf
        self.scope = trio.CancelScope(deadline=self._due)
        return is_over

    def head_begins(self) -> None:
        """Count from now, unless a head is under way."""
        if self.head_since is None:
            self.head_since = trio.current_time()

    def head_ends(self) -> None:
        """A head is complete; its body, if there is one, is a new wait."""
        self.head_since = self._body_since = None

    def paused(self, since: float) -> None:
        """The reader rested from `since` until now: no time of the client's.

        A body that began meanwhile, as the reader rested for the request before, gets what is
        its own of the rest: all of it would put off `min_body_rate` for as long.
        """
        if self._body_since is not None:
            self._body_since += trio.current_time() - max(since, self._body_since)

    def for_head(self) -> float:
        """Until when a head, or the next request, is waited for."""
        if self.head_since is None:
            self.limit = "keepalive_timeout"
            return trio.current_time() + self._settings.keepalive_timeout
        self.limit = "head_timeout"
        return self.head_since + self._settings.head_timeout

    def for_body(
        self, *, received: int, is_streamed: bool, continued_at: float | None = None
    ) -> float:
        """Until when more of a body is waited for, of which so many bytes have come.

        A client that waited for `100 Continue` has its time from then on.
        """
        now, settings = trio.current_time(), self._settings
        silent_since = now if received or continued_at is None else continued_at
        if self._body_since is None:
            self._body_since = silent_since
        self.limit = "body_timeout"
        silence = silent_since + settings.body_timeout
        if settings.min_body_rate is None or is_streamed:
            return silence
        bought = received / settings.min_body_rate
        slowest = self._body_since + settings.body_timeout + bought
        if slowest < silence:
            self.limit = "min_body_rate"
        return min(silence, slowest)
