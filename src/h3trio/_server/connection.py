"""One connection: a nursery with a task that reads and a task that handles.

The reader feeds bytes to the framing and never stops while a stream runs, so the client's EOF or
reset is seen at once and cancels the exchange. The handler task serves the exchanges one after the
other, in order. `_advance` is the step both share: a synchronous pump from received bytes to
values. The reader calls it when bytes arrive, the handler task when the next exchange may begin, so
a request costs no task, and pipelined requests need no second wait.

One deadline bounds the reader, set for what it waits for: a head, a body, the next request, or
nothing at all while a handler works; see `_deadlines`.

EOF is interpreted here and not by the framing: it ends a stream and an incomplete request, and lets
a complete one have its answer. Bytes that can be no request any more (after a protocol error, a
timeout, the last response) are read and dropped, so that EOF is seen and our last bytes arrive.

Bounds: a head, and whatever a client sends ahead of its turn, is held up to `max_head_bytes`. Then
a plain response makes the reader pause, and a stream, which would make it pause for ever and never
see EOF, is closed. So it is with a body that fills its buffer; but what a stream's handler hasn't
asked for is thrown away up to `max_discard_bytes` first. One that has asked sets the pace.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, final

import trio

from h3trio._http.closing import CloseReason, lost
from h3trio._http.errors import HTTPError
from h3trio._http.http1 import Http1, RequestHead, Signal
from h3trio._http.strict import ProtocolError

from .body import BodyStream
from .deadlines import Deadlines
from .exchange import Exchange
from .parking import SingleWaiter
from .peer import Peer
from .rejection import TIMED_OUT, refuse

if TYPE_CHECKING:
    from .context import Context
    from .sockets.transport import Transport


@final
class Connection:
    """One transport, one framing state, and the exchange under way."""

    __slots__ = (
        "_closed_by_peer",
        "_cut",
        "_deadlines",
        "_deaf",
        "_exchange",
        "_handler_waits",
        "_lingering",
        "_no_more",
        "_nursery",
        "_peer",
        "_reader_waits",
        "_reading",
        "_refusal",
        "_requests",
        "context",
        "http",
        "transport",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        client: str,
        scheme: str = "http",
        context: Context,
        refusal: HTTPError | None = None,
        received: bytes = b"",
    ) -> None:
        self.transport: Transport = transport
        self.context: Context = context
        self.http: Http1 = Http1(context.settings)
        self._peer = Peer(client, scheme, context)
        self._exchange: Exchange | None = None
        self._refusal = refusal  # given from the start where there is no room: said, and closed
        self._no_more = self._deaf = refusal is not None
        self._reading = True
        self._closed_by_peer = False
        self._lingering = False
        self._cut = False
        self._requests = 0
        self._deadlines = Deadlines(context.settings)
        self._handler_waits = SingleWaiter()
        self._reader_waits = SingleWaiter()
        self._nursery: trio.Nursery | None = None
        if received:
            self._received(received)

    def __repr__(self) -> str:
        return f"<Connection: {self._peer.client}, {self._exchange!r}>"

    async def run(self) -> None:
        """Serve until either side closes; the transport is closed when this returns."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                nursery.start_soon(self._serve, name=f"h3trio handler for {self._peer.client}")
                await self._read()
        finally:
            if self._exchange is not None and not self._exchange.body.complete:
                self._exchange.body.fail(HTTPError(400, "the connection is closed"))
            self._exchange = None  # it knows us: no circle is left to the garbage collector
            await self.transport.aclose()

    def end_stream(self, reason: CloseReason) -> None:
        """End a running stream with a farewell; a connection without one stays."""
        if self._exchange is not None and self._exchange.is_streaming:
            self._exchange.end(reason)

    def drain(self) -> None:
        """Close once the response under way is sent, or now if no request has begun."""
        if self._exchange is None and not self.http.buffered:
            self._no_more = True
            self._wake()

    @property
    def is_streaming(self) -> bool:
        """Whether an event stream is open."""
        return self._exchange is not None and self._exchange.is_streaming

    @property
    def is_last(self) -> bool:
        """Whether no request is taken after the one under way."""
        allowed = self.context.settings.max_requests_per_connection
        return self._requests == allowed or self.context.draining.is_set()

    # -- the step both tasks share

    def _advance(self) -> None:
        """Parse what was received of the request under way, or the next one's head."""
        while not self._deaf and self._step():
            pass
        if self._closed_by_peer:
            self._at_eof()

    def _step(self) -> bool:
        """Take one value from the framing; `False` if it has none for now."""
        try:
            item = self.http.next()
        except ProtocolError as exc:
            if exc.limit is not None:
                self.context.met(exc.limit)
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
        self._deadlines.head_ends()
        self._requests += 1
        settings = self.context.settings
        if self._requests == settings.max_requests_per_connection:
            self.context.met("max_requests_per_connection")
        size, wake = settings.body_buffer_bytes, self._wake
        body = BodyStream(buffer_bytes=size, on_room=wake, send_continue=self._send_continue)
        try:
            self._exchange = Exchange(self, head, client=self._peer.client, body=body)
        except HTTPError as error:
            self._refuse(error)
            return
        self._peer.sign(self._exchange.event)

    def _refuse(self, error: HTTPError, *, counts: bool = True) -> None:
        """Take no more requests; the one under way hears it from its body."""
        self.context.counts.refusals[error.status] += counts
        self._no_more = self._deaf = True
        if self._exchange is None:
            # Its traceback, if it has one, would hold the frame that holds us.
            self._refusal = error.with_traceback(None)
        elif not self._exchange.body.complete:
            self._exchange.body.fail(error)

    # -- the reader

    async def _read(self) -> None:
        """Feed what arrives until EOF, loss of the connection, or the deadline."""
        self._set_deadline()
        try:
            while self._reading:
                with self._deadlines.scope:
                    # No helper for this loop: its frame is 200 bytes of each idle stream.
                    while not self._closed_by_peer:
                        if self._must_pause():
                            await self._pause()
                        self._received(await self.transport.receive_some())
                        self._set_deadline()
                    break
                if self._deadlines.is_over():
                    self._reading = self._timed_out()
                    self._wake()
        except trio.BrokenResourceError as exc:
            self._lost(lost(exc))
        self._reading = False
        self._wake()

    async def _pause(self) -> None:
        self._deadlines.wait_until(inf)
        since = trio.current_time()
        try:
            while self._must_pause():
                await self._reader_waits.park()
        finally:
            self._deadlines.paused(since)
            self._set_deadline()

    def _received(self, data: bytes) -> None:
        if not data:
            self._closed_by_peer = True
        elif not self._deaf:
            self.http.receive(data)
        self._advance()
        if self._exchange is None and self.http.buffered:  # an empty line begins no head
            self._deadlines.head_begins()
        self._wake()

    def _wake(self) -> None:
        """Let both tasks look again at what each of them waits for."""
        self._handler_waits.wake()
        self._reader_waits.wake()

    def _must_pause(self) -> bool:
        exchange, settings = self._exchange, self.context.settings
        if self._deaf or exchange is None:
            return False
        if not exchange.body.complete:
            if exchange.is_streaming and exchange.body.spill() > settings.max_discard_bytes:
                exchange.break_off("max_discard_bytes")
            return exchange.body.is_full
        if self.http.buffered <= settings.max_head_bytes:
            return False
        if exchange.is_streaming:
            exchange.break_off("max_head_bytes")
        return True

    def _set_deadline(self) -> None:
        exchange, due = self._exchange, inf
        if self._lingering:
            return
        if exchange is None:
            due = inf if self._deaf else self._deadlines.for_head()
        # A client that waits for our "continue" isn't the one that is late.
        elif not (self._deaf or exchange.body.complete or self.http.wants_continue):
            due = self._deadlines.for_body(exchange.body)
        self._deadlines.wait_until(due)

    def _at_eof(self) -> None:
        """The client sent all it will: what is complete may still be answered."""
        exchange = self._exchange
        if exchange is None:
            self._no_more = True
        elif exchange.body.complete:
            exchange.half_closed()
        else:
            self._refuse(HTTPError(400, "the request body ended early"), counts=False)
            exchange.end(CloseReason.CLIENT_CLOSED)

    def _lost(self, reason: CloseReason) -> None:
        self._no_more = True
        self._closed_by_peer = True
        if self._exchange is not None:
            self._refuse(HTTPError(400, "the connection was lost"), counts=False)
            self._exchange.end(reason)

    def _timed_out(self) -> bool:
        """Answer 408 where a request had begun, else close; `True` to read on until then."""
        if self._lingering:
            self.context.met("linger_timeout")
            return False
        limit = self._deadlines.limit
        self.context.met(limit)
        if self._exchange is not None or self.http.buffered:  # before a byte none is owed an answer
            self._refuse(HTTPError(408, TIMED_OUT[limit]))
        self._no_more = True
        return self._deaf

    # -- the handler task

    async def _serve(self) -> None:
        goes_on = True
        try:
            while goes_on:
                # One for each exchange would be 20 of the 230 µs of a small GET: as long as
                # nothing happens to it, it serves the next one too.
                with trio.CancelScope() as scope:
                    while goes_on and await self._next_exchange():
                        await self._current.handle(scope)
                        if scope.cancel_called or scope.deadline < inf:
                            break
                        goes_on = await self._finish()
                    else:
                        goes_on = False
                if goes_on:  # it was used, and may not cut the rest short
                    goes_on = await self._finish()
        finally:
            if self._exchange is not None:
                self._exchange.close()
        if self._refusal is not None and self.http.can_respond:
            await self._respond_refusal(self._refusal)
        await self._linger()
        assert self._nursery is not None, "runs inside it"
        self._nursery.cancel_scope.cancel(reason="the connection is done")

    async def _next_exchange(self) -> bool:
        while self._exchange is None and not self._no_more:
            await self._handler_waits.park()
        return self._exchange is not None

    async def _finish(self) -> bool:
        """End the answer, discard what is left of the request, make room for the next one."""
        exchange = self._current
        await exchange.finish()
        if not self.http.keeps_alive:
            return False
        allowed = self.context.settings.max_discard_bytes
        if not await exchange.body.wait_discarded(allowed):
            if exchange.body.discarded > allowed:
                self.context.met("max_discard_bytes")
            return False
        if not self.http.next_cycle():
            return False
        self._exchange = None
        self._no_more = self._no_more or (self.context.draining.is_set() and not self.http.buffered)
        if self.http.buffered:
            self._deadlines.head_begins()
            # A pipelining client gets its turn, not the whole loop.
            await trio.lowlevel.checkpoint()
        self._advance()
        self._set_deadline()
        self._wake()
        return True

    async def _respond_refusal(self, error: HTTPError) -> None:
        since, context = self._deadlines.head_since or trio.current_time(), self.context
        data = refuse(error, http=self.http, context=context, client=self._peer.client, since=since)
        try:
            await self.transport.send_all(data, stall_timeout=context.settings.write_timeout)
        except (trio.TooSlowError, trio.BrokenResourceError) as exc:
            self._cut = True
            if isinstance(exc, trio.TooSlowError):
                context.met("write_timeout")

    async def _linger(self) -> None:
        """Send FIN and read on for a while: closing now could reset what we sent."""
        timeout = self.context.settings.linger_timeout
        if self._closed_by_peer or self._cut or not timeout:
            return
        self._lingering = self._deaf = True
        self._deadlines.wait_until(trio.current_time() + timeout)
        self._wake()
        await self.transport.send_eof()
        while self._reading:
            await self._handler_waits.park()

    # -- for the exchange and its body

    async def _send_continue(self) -> None:
        if self.http.wants_continue:
            await self._current.send_continue()
            self._set_deadline()

    def cut(self) -> None:
        """A message was sent in part: nothing may follow it, not even an orderly end."""
        self._cut = True

    @property
    def nursery(self) -> trio.Nursery:
        """Where the tasks of this connection run."""
        assert self._nursery is not None, "runs inside it"
        return self._nursery

    def admit_stream(self) -> None:
        """A stream is about to open: count it, see `Peer.take_stream`."""
        self._peer.take_stream(self._current.event)
        self._wake()  # a paused reader must look again: a stream may not be left unwatched
        self._deadlines.settle()

    def leave_stream(self) -> None:
        """The exchange is over: count its stream no more, if it had one."""
        self._peer.leave_stream()
