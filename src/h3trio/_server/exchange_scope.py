"""`ExchangeScope`: the end of one exchange, asked for from below or outside, with its reason.

It is the one thing that goes up. Data goes down, from the reader over the exchange and its send
queue to the transport; whoever down there learns that the exchange is to end (the reader at EOF,
the send queue whose client is gone), and whoever outside wants that (the drain, the application),
calls `cancel(reason)`. The first reason counts, and the accounts are made up by it.

The cancel scope that the handler runs in is given when the handler begins, as one may serve several
exchanges. What happened to the exchange before that is done to the scope then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

import trio

from h3trio._http.closing import CloseReason

if TYPE_CHECKING:
    from .watchdog import CancelWatch


@final
@dataclass(slots=True, eq=False, repr=False)
class ExchangeScope:
    """A cancel scope with a reason."""

    cancels: CancelWatch
    """It is told of handlers that were cancelled."""
    grace: float
    """Seconds for the answer to a client that has sent EOF."""
    reason: CloseReason | None = None
    """Why the exchange ended or is to end; `None` as long as nothing has happened to it."""
    is_streaming: bool = False
    """Whether a stream was opened."""
    is_complete: bool = False
    """Whether all of the stream is sent, with its end: what ends it now cuts nothing short."""
    is_half_closed: bool = False
    """Whether the client has sent EOF behind its request."""
    task: trio.lowlevel.Task | None = None
    """It runs the handler; `None` when no handler runs."""
    _key: object = None
    _scope: trio.CancelScope | None = None  # while the handler runs

    def note(self, reason: CloseReason) -> None:
        """Remember a reason, without cancelling anything."""
        if self.reason is None:
            self.reason = reason

    def cancel(self, reason: CloseReason) -> None:
        """Let the handler end."""
        self.note(CloseReason.COMPLETED if self.is_complete else reason)
        self._cancel_handler()

    def _cancel_handler(self) -> None:
        if self._scope is not None and self.task is not None and self.reason is not None:
            self._scope.cancel(reason=self.reason.value)
            self.cancels.cancelled(self._key, self.task)

    def half_close(self) -> None:
        """The client sent EOF after its request, and may still read.

        So a plain response is finished, within the grace. A stream has no end to wait for.
        """
        if self.is_streaming:
            self.cancel(CloseReason.CLIENT_CLOSED)
        elif not self.is_half_closed:
            self.is_half_closed = True
            self.expire_after(self.grace)

    def expire_after(self, seconds: float) -> None:
        """Cancel the handler after this time, for no reason that is known here."""
        if self._scope is not None:
            self._scope.deadline = trio.current_time() + seconds

    def handler_begins(self, scope: trio.CancelScope, key: object) -> None:
        """A handler runs in this task and scope from now on; the log calls it by the key."""
        self._scope, self._key, self.task = scope, key, trio.lowlevel.current_task()
        if self.reason is not None:
            self._cancel_handler()
        elif self.is_half_closed:
            self.expire_after(self.grace)

    def handler_ended(self) -> None:
        """It has unwound: a later `cancel` only notes its reason."""
        if self.reason is not None:
            self.cancels.ended(self._key)
        self._scope = self._key = self.task = None
