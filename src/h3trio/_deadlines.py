"""How long the reader of a connection waits, for what it waits for.

One value per connection works out the moment at which the reader's patience ends,
and remembers by whose limit, so that what follows can be named and counted. It owns
no timer: the reader sets its one deadline to what is returned here.

A body has two limits. `body_timeout` bounds each silence; a client that sends a byte
now and then would never meet it, so `min_body_rate` bounds the whole: each byte buys
`1 / min_body_rate` seconds beyond the first `body_timeout`. A client that stood still
may so catch up, which an average over a window wouldn't let it. While we don't read,
nobody is late; and a body that the handler takes as a stream has no end to be late for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import trio

if TYPE_CHECKING:
    from ._body import BodyStream
    from ._settings import Settings


@final
class Deadlines:
    """When the wait of one connection's reader began, and when it ends."""

    __slots__ = ("_body_since", "_settings", "head_since", "limit")

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._body_since: float | None = None
        self.head_since: float | None = trio.current_time()
        """When the head under way began, `None` between two requests."""
        self.limit: str = "head_timeout"
        """The setting by which the deadline given last was set."""

    def head_begins(self) -> None:
        """Count from now, unless a head is under way."""
        if self.head_since is None:
            self.head_since = trio.current_time()

    def head_ends(self) -> None:
        """A head is complete; its body, if there is one, is a new wait."""
        self.head_since = self._body_since = None

    def paused(self, since: float) -> None:
        """The reader rested from `since` until now: no time of the client's."""
        if self._body_since is not None:
            self._body_since += trio.current_time() - since

    def for_head(self) -> float:
        """Until when a head, or the next request, is waited for."""
        if self.head_since is None:
            self.limit = "keepalive_timeout"
            return trio.current_time() + self._settings.keepalive_timeout
        self.limit = "head_timeout"
        return self.head_since + self._settings.head_timeout

    def for_body(self, body: BodyStream) -> float:
        """Until when more of a body is waited for."""
        now, settings = trio.current_time(), self._settings
        if self._body_since is None:
            self._body_since = now
        self.limit = "body_timeout"
        silence = now + settings.body_timeout
        if settings.min_body_rate is None or body.is_streamed:
            return silence
        bought = body.received / settings.min_body_rate
        slowest = self._body_since + settings.body_timeout + bought
        if slowest < silence:
            self.limit = "min_body_rate"
        return min(silence, slowest)
