"""One connection: a nursery with a task that reads and a task that handles.

The reader feeds bytes to the framing and never stops while a stream runs, so
the client's EOF or reset is seen at once and cancels the exchange. The handler
task serves the exchanges one after the other, in order. `_advance` is the step
both share: a synchronous pump from received bytes to values. The reader calls
it when bytes arrive, the handler task when the next exchange may begin, so a
request costs no task, and pipelined requests need no second wait.

One deadline bounds the reader, set for what it waits for: a head, a body, the
next request, or nothing at all while a handler works.

EOF is interpreted here and not by the framing: it ends a stream and an incomplete
request, and lets a complete one have its answer. Bytes that can't be a request any
more (after a protocol error, a timeout, the last response) are read and dropped, so
that EOF is still seen, and our last bytes aren't lost to a reset.

Bounds: a head, and whatever a client sends ahead of its turn, is held up to
`max_head_bytes`. Then a plain response makes the reader pause, and a stream,
which would make it pause for ever and never see EOF, is closed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

import trio

from ._body import BodyStream
from ._close import CloseReason, Closing, lost
from ._errors import HTTPError
from ._exchange import Exchange
from ._headers import Headers
from ._http import error_response, split_target
from ._http1 import Http1, ProtocolError, RequestHead, Signal
from ._redaction import printable

if TYPE_CHECKING:
    from ._context import Context
    from ._outbox import Outbox
    from ._transport import Transport

logger = logging.getLogger("h3trio.connection")


@final
class Connection:
    """One transport, one framing state, and the exchange under way."""

    __slots__ = (
        "_changed",
        "_client",
        "_closed_by_peer",
        "_cut",
        "_deaf",
        "_exchange",
        "_head_since",
        "_lingering",
        "_no_more",
        "_nursery",
        "_read_scope",
        "_reading",
        "_refusal",
        "context",
        "http",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        client: str,
        context: Context,
        refusal: HTTPError | None = None,
    ) -> None:
        self.transport = transport
        self.context = context
        self.http = Http1(max_head_bytes=context.settings.max_head_bytes)
        self._client = client
        self._exchange: Exchange | None = None
        # Given from the start where the server has no room: said, and closed.
        self._refusal = refusal
        self._no_more = self._deaf = refusal is not None
        self._reading = True
        self._closed_by_peer = False
        self._lingering = False
        self._cut = False
        self._head_since: float | None = trio.current_time()
        # Both tasks wait here, each for a condition of its own that it looks at again: one
        # lot for two is 400 bytes less for each idle stream.
        self._changed = trio.lowlevel.ParkingLot()
        self._read_scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Connection: {self._client}, {self._exchange!r}>"

    async def run(self) -> None:
        """Serve until either side closes; the transport is closed when this returns."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._serve, name=f"h3trio handler for {self._client}")
                await self._read()
        finally:
            if self._exchange is not None and not self._exchange.body.complete:
                self._exchange.body.fail(HTTPError(400, "the connection is closed"))
            await self.transport.aclose()

    def end_stream(self, reason: CloseReason) -> None:
        """End a running stream with a farewell; a connection without one stays."""
        if self._exchange is not None and self._exchange.is_streaming:
            self._exchange.end(reason)

    def drain(self) -> None:
        """Close once the response under way is sent, or now if no request has begun."""
        if self._exchange is None and not self.http.buffered:
            self._no_more = True
            self._changed.unpark_all()

    @property
    def is_streaming(self) -> bool:
        """Whether an event stream is open."""
        return self._exchange is not None and self._exchange.is_streaming

    # -- the step both tasks share

    def _advance(self) -> None:
        """Parse all that was received of the request under way, or the next one's head."""
        while not self._deaf and self._step():
            pass
        if self._closed_by_peer:
            self._at_eof()

    def _step(self) -> bool:
        """Take one value from the framing; `False` if it has none for now."""
        try:
            item = self.http.next()
        except ProtocolError as exc:
            self._refuse(HTTPError(exc.status, exc.detail))
            return False
        if isinstance(item, RequestHead):
            self._begin(item)
        elif isinstance(item, bytes):
            self._current.body.feed(item)
        elif item is Signal.END_OF_REQUEST:
            self._current.body.feed_eof()
        else:
            return False
        return True

    @property
    def _current(self) -> Exchange:
        assert self._exchange is not None, "h11 gives body only after a head"
        return self._exchange

    def _begin(self, head: RequestHead) -> None:
        self._head_since = None
        try:
            target = split_target(head.target)
        except HTTPError as error:
            self._refuse(error)
            return
        body = BodyStream(
            buffer_bytes=self.context.settings.body_buffer_bytes,
            on_room=self._changed.unpark_all,
            send_continue=self._send_continue,
        )
        self._exchange = Exchange(
            self,
            method=head.method,
            target=target,
            headers=Headers(head.headers),
            http_version=head.http_version,
            client=self._client,
            body=body,
        )
        self._exchange.event.is_secure = self.transport.is_secure

    def _refuse(self, error: HTTPError) -> None:
        """Take no more requests; the one under way hears it from its body."""
        self._no_more = True
        self._deaf = True
        if self._exchange is None:
            self._refusal = error
        elif not self._exchange.body.complete:
            self._exchange.body.fail(error)

    # -- the reader

    async def _read(self) -> None:
        """Feed what arrives until EOF, loss of the connection, or the deadline."""
        try:
            while self._reading:
                with self._read_scope:
                    await self._read_until_eof()
                    break
                self._reading = self._timed_out()
                self._read_scope = trio.CancelScope()
                self._changed.unpark_all()
        except trio.BrokenResourceError as exc:
            self._lost(lost(exc))
        self._reading = False
        self._changed.unpark_all()

    async def _read_until_eof(self) -> None:
        while not self._closed_by_peer:
            while self._must_pause():
                self._read_scope.deadline = float("inf")
                await self._changed.park()
            self._set_deadline()
            self._received(await self.transport.receive_some())

    def _received(self, data: bytes) -> None:
        if not data:
            self._closed_by_peer = True
        elif self._deaf:
            return
        else:
            if self._exchange is None and self._head_since is None:
                self._head_since = trio.current_time()
            self.http.receive(data)
        self._advance()
        self._changed.unpark_all()

    def _must_pause(self) -> bool:
        if self._deaf or self._exchange is None:
            return False
        if not self._exchange.body.complete:
            return self._exchange.body.is_full
        if self.http.buffered <= self.context.settings.max_head_bytes:
            return False
        if self._exchange.is_streaming:
            self._exchange.end(CloseReason.PROTOCOL_ERROR)
        return True

    def _set_deadline(self) -> None:
        settings, now = self.context.settings, trio.current_time()
        if self._lingering:
            return
        if self._deaf:
            deadline = float("inf")
        elif self._exchange is not None:
            # A client that waits for our "continue" isn't the one that is late.
            waiting = not self._exchange.body.complete and not self.http.wants_continue
            deadline = now + settings.body_timeout if waiting else float("inf")
        elif self._head_since is not None:
            deadline = self._head_since + settings.head_timeout
        else:
            deadline = now + settings.keepalive_timeout
        self._read_scope.deadline = deadline

    def _at_eof(self) -> None:
        """The client sent all it will: what is complete may still be answered."""
        exchange = self._exchange
        if exchange is None:
            self._no_more = True
        elif exchange.body.complete:
            exchange.half_closed()
        else:
            self._refuse(HTTPError(400, "the request body ended early"))
            exchange.end(CloseReason.CLIENT_CLOSED)

    def _lost(self, reason: CloseReason) -> None:
        self._no_more = True
        self._closed_by_peer = True
        if self._exchange is not None:
            self._refuse(HTTPError(400, "the connection was lost"))
            self._exchange.end(reason)

    def _timed_out(self) -> bool:
        """Answer 408 where a request had begun, else close; `True` to read on until then."""
        if self._lingering:
            return False
        if self._exchange is not None:
            self._refuse(HTTPError(408, "the request body stalled"))
        elif self._head_since is not None and self.http.buffered:
            self._refuse(HTTPError(408, "the request head took too long"))
        self._no_more = True
        return self._deaf

    # -- the handler task

    async def _serve(self) -> None:
        while (exchange := await self._next_exchange()) is not None:
            await exchange.run()
            if not await self._next_cycle(exchange):
                break
        if self._refusal is not None and self.http.can_respond:
            await self._respond_refusal(self._refusal)
        await self._linger()
        assert self._nursery is not None, "runs inside it"
        self._nursery.cancel_scope.cancel(reason="the connection is done")

    async def _next_exchange(self) -> Exchange | None:
        while self._exchange is None and not self._no_more:
            await self._changed.park()
        return self._exchange

    async def _next_cycle(self, exchange: Exchange) -> bool:
        """Discard what is left of the request; make room for the next one."""
        if not self.http.keeps_alive:
            return False
        if not await exchange.body.wait_discarded(self.context.settings.max_discard_bytes):
            return False
        if not self.http.next_cycle():
            return False
        self._exchange = None
        self._no_more = self._no_more or (self.context.draining.is_set() and not self.http.buffered)
        if self.http.buffered:
            self._head_since = trio.current_time()
            # A pipelining client gets its turn, not the whole loop.
            await trio.lowlevel.checkpoint()
        self._advance()
        self._set_deadline()
        self._changed.unpark_all()
        return True

    async def _respond_refusal(self, error: HTTPError) -> None:
        response = error_response(error)
        headers = [
            (b"Date", self.context.date()),
            *response.headers.raw,
            (b"Connection", b"close"),
        ]
        data = self.http.response(response.status, headers, response.body)
        logger.info("%s: refused with %s", printable(self._client), printable(str(error)))
        if error.status != 503:  # noqa: PLR2004 - no room, which the server counts itself
            self._count_refusal(error, len(data))
        try:
            await self.transport.send_all(data, stall_timeout=self.context.settings.write_timeout)
        except (trio.BrokenResourceError, trio.TooSlowError):
            self._cut = True

    def _count_refusal(self, error: HTTPError, size: int) -> None:
        reason, now = CloseReason.PROTOCOL_ERROR, trio.current_time()
        since = now if self._head_since is None else self._head_since
        closing = Closing(
            reason=reason, status=error.status, duration=now - since, events=0, bytes_sent=size
        )
        self.context.counts.add(closing)

    async def _linger(self) -> None:
        """Send FIN and read on for a while: closing now could reset what we sent."""
        timeout = self.context.settings.linger_timeout
        if self._closed_by_peer or self._cut or not timeout:
            return
        self._lingering = self._deaf = True
        self._read_scope.deadline = trio.current_time() + timeout
        self._changed.unpark_all()
        await self.transport.send_eof()
        while self._reading:
            await self._changed.park()

    # -- for the exchange and its body

    async def _send_continue(self) -> None:
        if self.http.wants_continue:
            await self._current.send_continue()
            self._set_deadline()

    def cut(self) -> None:
        """A message was sent in part: nothing may follow it, not even an orderly end."""
        self._cut = True

    def start_owner(self, outbox: Outbox) -> None:
        """Run the task that waits for the socket on this outbox's behalf."""
        assert self._nursery is not None, "runs inside it"
        self._nursery.start_soon(outbox.run_owner, name=f"h3trio writer for {self._client}")

    def stream_opened(self) -> None:
        """A paused reader must look again: a stream may not be left unwatched."""
        self._changed.unpark_all()
