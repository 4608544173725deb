"""`Reader`: from a transport, through h11, to requests and their bodies.

The reader's task feeds what arrives to the framing and never stops while a stream runs, so the
client's EOF or reset is seen at once and cancels the exchange. It hands each request down by
`next_request`, its body by the `BodyBuffer` in it; up goes only `request.scope.cancel(reason)`.

What becomes of bytes is up to how far the framing has read (`Http1.reading`):

| reading  | bytes that arrive               | patience              | EOF                        |
|----------|---------------------------------|-----------------------|----------------------------|
| HEAD     | become a head                   | for a head, or idle   | no more requests           |
| BODY     | become the body, or are refused | for a body            | 400, and the exchange ends |
| COMPLETE | are held to `max_head_bytes`    | none: it's our turn   | the answer may be finished |
| CLOSED   | are dropped                     | `linger_timeout`      | the end                    |

EOF is interpreted here and not by the framing: it ends a stream and an incomplete request, and lets
a complete one have its answer. Bytes that can be no request any more (after a protocol error, a
timeout, the last response) are read and dropped, so that EOF is seen and our last bytes arrive.

Bounds: what a client sends ahead of its turn is held up to `max_head_bytes`. Then a plain response
makes the reader pause, and a stream, which would make it pause for ever and never see EOF, is
broken off. So it is with a body that fills its buffer; but what a stream's handler hasn't asked for
is thrown away up to `max_discard_bytes` first. One that has asked sets the pace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, NamedTuple, final

import trio

from h3trio._http.closing import CloseReason, lost
from h3trio._http.errors import HTTPError
from h3trio._http.http1 import Reading, RequestHead, Signal
from h3trio._http.request import split_target
from h3trio._http.strict import ProtocolError

from .body import BodyBuffer
from .deadlines import TIMED_OUT, Deadlines
from .exchange_scope import ExchangeScope
from .parking import SingleWaiter

if TYPE_CHECKING:
    from h3trio._http.http1 import Http1
    from h3trio._http.request import Target

    from .sockets.transport import Transport
    from .state import ServerState


@final
class Request(NamedTuple):
    """A request whose head has arrived."""

    head: RequestHead
    target: Target
    body: BodyBuffer
    scope: ExchangeScope
    is_last: bool
    """Whether the connection takes no request after it."""


@final
@dataclass(slots=True, eq=False, repr=False)
class Reader:
    """The reading side of one connection."""

    transport: Transport
    http: Http1
    state: ServerState
    peer_closed: bool = False
    """Whether nothing more can come: the client sent EOF, or is lost."""
    has_ended: bool = False
    """Whether the reader's task is over."""
    rejection: HTTPError | None = None
    """What is to be answered to what is no request."""
    _deadlines: Deadlines = field(init=False)
    _request: Request | None = None  # until it is taken
    # Those of the request under way; its head isn't held for as long as a stream lasts.
    _body: BodyBuffer | None = None
    _scope: ExchangeScope | None = None
    _requests: int = 0
    _waiter: SingleWaiter = field(default_factory=SingleWaiter)  # the task that takes the requests
    _is_lingering: bool = False

    def __post_init__(self) -> None:
        self._deadlines = Deadlines(self.state.settings)

    @property
    def head_since(self) -> float | None:
        """When the head that is under way began."""
        return self._deadlines.head_since

    # -- its own task

    async def run(self) -> None:
        """Read until EOF, the loss of the connection, or the end of the patience."""
        try:
            while self._advance():
                await trio.lowlevel.checkpoint()
            self._set_deadline()
            while not self.has_ended:
                with self._deadlines.scope:
                    # No helper for this loop: its frame is 200 bytes of each idle stream.
                    while self._advance():  # the end of a scope may have cut a turn short
                        await trio.lowlevel.checkpoint()
                    while not self.peer_closed:
                        if self._must_pause():
                            await self._pause()
                        self._received(await self.transport.receive_some())
                        while self._advance():
                            await trio.lowlevel.checkpoint()
                        self._set_deadline()
                    break
                self._ran_out()
        except trio.BrokenResourceError as exc:
            self._lost(lost(exc))
        self.has_ended = True
        self.state.idle.discard(self._deadlines)
        self._waiter.wake()

    def _received(self, data: bytes) -> None:
        if data:
            self.http.receive(data)
        else:
            self.peer_closed = True
            self._at_eof()

    def _advance(self) -> bool:
        """Parse what was received; `True` if more is to be parsed after a checkpoint."""
        while self._step():
            if self.http.has_more:
                return True
        if self._body is None and self.http.buffered:  # an empty line begins no head
            self._deadlines.head_begins()
        return False

    def _step(self) -> bool:
        """Take one value from the framing; `False` if there is to be none for now."""
        try:
            item = self.http.next()
        except ProtocolError as exc:
            if exc.limit is not None:
                self.state.count_limit(exc.limit)
            self._reject(HTTPError(exc.status, exc.detail))
            return False
        if isinstance(item, RequestHead):
            self._begin(item)
            return True
        if isinstance(item, bytes) and self._body is not None:
            self._body.feed(item)
            return True
        if item is Signal.END_OF_REQUEST and self._body is not None:
            self._body.feed_eof()
        return False  # what comes behind a request waits for its turn

    def _begin(self, head: RequestHead) -> None:
        settings = self.state.settings
        self._deadlines.head_ends()
        self._requests += 1
        is_last = self._requests == settings.max_requests_per_connection
        if is_last:
            self.state.count_limit("max_requests_per_connection")
        try:
            target = split_target(head.target)
        except HTTPError as error:
            self._reject(error)
            return
        self._body = body = BodyBuffer(settings.body_buffer_bytes)
        self._scope = scope = ExchangeScope(self.state.cancels, settings.write_timeout)
        self._request = Request(head, target, body, scope, is_last)
        self._waiter.wake()

    def _reject(self, error: HTTPError, *, counts: bool = True) -> None:
        """Take no more requests; the one under way hears it from its body."""
        self.state.counts.refusals[error.status] += counts
        self.http.stop_reading()
        if self._body is None:
            # Its traceback, if it has one, would hold the frame that holds us.
            self.rejection = error.with_traceback(None)
            self._waiter.wake()
        elif not self._body.complete:
            self._body.fail(error)

    # -- waiting

    def _must_pause(self) -> bool:
        body, scope, settings = self._body, self._scope, self.state.settings
        if body is None or scope is None or self.http.reading is Reading.CLOSED:
            return False
        if not body.complete:
            if scope.is_streaming and body.spill() > settings.max_discard_bytes:
                self._break_off(scope, "max_discard_bytes")
            return body.is_full
        if self.http.buffered <= settings.max_head_bytes:
            return False
        if scope.is_streaming:
            self._break_off(scope, "max_head_bytes")
        return True

    def _break_off(self, scope: ExchangeScope, limit: str) -> None:
        """End a stream whose client sends more behind its request than it may."""
        if scope.reason is None:
            self.state.count_limit(limit)
        scope.cancel(CloseReason.PROTOCOL_ERROR)

    async def _pause(self) -> None:
        self._deadlines.wait_until(inf)
        since = trio.current_time()
        try:
            while self._must_pause() and self._body is not None:
                await self._body.room()
        finally:
            self._deadlines.paused(since)
            self._set_deadline()

    def _set_deadline(self) -> None:
        if self._is_lingering:
            return
        http, due = self.http, inf
        reading = http.reading
        if reading is Reading.HEAD:
            due = self._deadlines.for_head()
        elif reading is Reading.BODY and self._body is not None:
            if http.wants_continue:
                # It isn't the one that is late: see `_has_time`.
                due = trio.current_time() + self.state.settings.body_timeout
            else:
                due = self._until_more(self._body)
        if reading is Reading.HEAD and not http.buffered:
            self.state.idle.add(self._deadlines)
        else:
            self.state.idle.discard(self._deadlines)
        self._deadlines.wait_until(due)
        if reading is Reading.COMPLETE and self._requests == 1:
            self._deadlines.settle()

    def _until_more(self, body: BodyBuffer) -> float:
        return self._deadlines.for_body(
            received=body.received, is_streamed=body.is_streamed, continued_at=body.continued_at
        )

    def _has_time(self) -> bool:
        """Whether the client waits for `100 Continue`, or was told so only a while ago."""
        body = self._body
        if body is None or self.http.reading is not Reading.BODY:
            return False
        if self.http.wants_continue:
            return True
        if body.received or body.continued_at is None:
            return False
        return self._until_more(body) > trio.current_time()

    def _ran_out(self) -> None:
        """Find out why the wait was ended: somebody is late, the server drains, or too early."""
        if self._deadlines.is_over():
            if self._has_time():
                self._set_deadline()
            elif self._is_lingering:
                self.state.count_limit("linger_timeout")
                self.has_ended = True
            else:
                self._timed_out()
        elif self._deadlines in self.state.idle and self.state.draining.is_set():
            self.http.stop_reading()
        self._waiter.wake()

    def _timed_out(self) -> None:
        """Answer 408 where a request had begun, else close."""
        limit = self._deadlines.limit
        self.state.count_limit(limit)
        if self._body is not None or self.http.buffered:
            self._reject(HTTPError(408, TIMED_OUT[limit]))
        else:  # before a byte none is owed an answer
            self.http.stop_reading()
            self.has_ended = True

    # -- the end

    def _at_eof(self) -> None:
        """The client sent all it will: what is complete may still be answered."""
        if self._body is None or self._scope is None:
            return
        if self._body.complete:
            self._scope.half_close()
        else:
            self._reject(HTTPError(400, "the request body ended early"), counts=False)
            self._scope.cancel(CloseReason.CLIENT_CLOSED)

    def _lost(self, reason: CloseReason) -> None:
        self.peer_closed = True
        if self._scope is not None:
            self._reject(HTTPError(400, "the connection was lost"), counts=False)
            self._scope.cancel(reason)

    # -- for the task that takes the requests

    async def next_request(self) -> Request | None:
        """Wait for the next request; `None` if there will be none. A checkpoint if it waits."""
        while self._request is None and not self._is_over:
            await self._waiter.park()
        request, self._request = self._request, None
        return request

    @property
    def _is_over(self) -> bool:
        return self.has_ended or self.peer_closed or self.http.reading is Reading.CLOSED

    async def next_cycle(self) -> bool:
        """Discard what is left of the request, and read on; `False` if the connection must close.

        A checkpoint, if a further request has arrived by now.
        """
        body, limit = self._body, self.state.settings.max_discard_bytes
        assert body is not None, "of the request that was taken"
        if not self.http.keeps_alive:
            return False
        if not await body.wait_discarded(limit):
            if body.discarded > limit:
                self.state.count_limit("max_discard_bytes")
            return False
        if not self.http.next_cycle():
            return False
        self._body = self._scope = None
        body.wake_reader()
        if self.http.buffered:
            self._deadlines.head_begins()
            # A pipelining client gets its turn, not the whole loop.
            await trio.lowlevel.checkpoint()
            while self._advance():
                await trio.lowlevel.checkpoint()
        elif self.state.draining.is_set():
            self.http.stop_reading()
        if self.peer_closed:
            self._at_eof()
        self._set_deadline()
        return True

    def begin_linger(self, seconds: float) -> None:
        """Drop what comes from now on, and end after so many seconds at the latest."""
        self._is_lingering = True
        self.http.stop_reading()
        self._deadlines.wait_until(trio.current_time() + seconds)
        if self._body is not None:
            self._body.wake_reader()

    async def wait_ended(self) -> None:
        """Wait until the reader's task is over. A checkpoint if it waits."""
        while not self.has_ended:
            await self._waiter.park()

    def close(self) -> None:
        """Tell whoever still waits for a body that it will not come; keep nothing of it."""
        if self._body is not None and not self._body.complete:
            self._body.fail(HTTPError(400, "the connection is closed"))
        self._request = self._body = self._scope = None
