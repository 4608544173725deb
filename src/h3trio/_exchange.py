"""One request and its answer, in one cancel scope.

`Exchange.run` is the handler task's part: it runs the handler inside the scope,
turns what comes out into a response, and ends a stream the way its reason asks
for. Everything that wants this request to stop (the reader that saw EOF, the
outbox that lost its client, the lease, the drain, the application) calls
`end(reason)`: the first reason wins and is carried by the cancellation.

Where the handler's failure goes: before the head it is a response with a true
status; after it, the stream ends without its final chunk.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Protocol, final

import trio

from ._access_log import log_exchange
from ._close import ENDED_BY_SERVER, CloseReason, Closing
from ._errors import HTTPError, ResponseStateError
from ._event import H3Event, ResponseState
from ._http import error_response
from ._outbox import Outbox
from ._sse import SSEEvent
from ._writer import SSEWriter

if TYPE_CHECKING:
    from ._body import BodyStream
    from ._context import Context
    from ._headers import Headers
    from ._http import Response, Target
    from ._http1 import Http1
    from ._transport import Transport

logger = logging.getLogger("h3trio.server")

_STREAM_HEADERS = (
    (b"Content-Type", b"text/event-stream"),
    (b"Cache-Control", b"no-cache, no-transform"),
    (b"X-Accel-Buffering", b"no"),
)


class ConnectionPort(Protocol):
    """What an exchange needs of its connection."""

    @property
    def context(self) -> Context: ...
    @property
    def http(self) -> Http1: ...
    @property
    def transport(self) -> Transport: ...
    def start_owner(self, outbox: Outbox) -> None: ...
    def stream_opened(self) -> None: ...


@final
class Exchange:
    """A request on its way through a handler."""

    __slots__ = (
        "_bytes_sent",
        "_connection",
        "_error",
        "_half_closed",
        "_outbox",
        "_reason",
        "_scope",
        "_started",
        "_status",
        "body",
        "event",
    )

    def __init__(  # noqa: PLR0913 - the parts of a request, made in one place
        self,
        connection: ConnectionPort,
        *,
        method: str,
        target: Target,
        headers: Headers,
        http_version: str,
        client: str,
        body: BodyStream,
    ) -> None:
        self._connection = connection
        self._scope = trio.CancelScope()
        self._outbox: Outbox | None = None
        self._reason: CloseReason | None = None
        self._error: BaseException | None = None
        self._half_closed = False
        self._started = trio.current_time()
        self._status = 0
        self._bytes_sent = 0
        self.body = body
        self.event = H3Event(
            method=method,
            target=target,
            headers=headers,
            http_version=http_version,
            client=client,
            body=body,
            port=self,
        )

    def __repr__(self) -> str:
        return f"<Exchange: {self.event!r}>"

    # -- ResponsePort, for the event

    @property
    def draining(self) -> trio.Event:
        return self._connection.context.draining

    @property
    def max_body_bytes(self) -> int:
        return self._connection.context.settings.max_body_bytes

    def end(self, reason: CloseReason) -> None:
        """Cancel the handler; the first reason counts."""
        if self._reason is None:
            self._reason = reason
            self._scope.cancel(reason=reason.value)

    async def open_stream(self) -> SSEWriter:
        """Send the head and a first comment; give the writer."""
        event, context = self.event, self._connection.context
        if event.head_sent:
            msg = "can't stream: the response was sent"
            raise ResponseStateError(msg)
        event.state = ResponseState.STREAMING
        self._status = event.status
        head = self._connection.http.stream_head(self._status, self._stream_headers())
        if event.method == "HEAD":
            await self._end_head_request(head)
        self._outbox = Outbox(
            self._connection.transport,
            chunked=self._connection.http.chunks_streams,
            settings=context.settings,
            start_owner=self._connection.start_owner,
            on_broken=self.end,
        )
        self._scope.deadline = trio.current_time() + context.lease()
        context.heartbeat.add(self._outbox)
        self._connection.stream_opened()
        self._outbox.open(head)
        if self._half_closed:
            self.end(CloseReason.CLIENT_CLOSED)
        elif context.draining.is_set():
            self.end(CloseReason.DRAINING)
        await trio.lowlevel.checkpoint()
        return SSEWriter(self._outbox)

    def _stream_headers(self) -> list[tuple[bytes, bytes]]:
        own = self.event.take_response_headers()
        names = {name.lower() for name, _ in own}
        defaults = [field for field in _STREAM_HEADERS if field[0].lower() not in names]
        return [(b"Date", self._connection.context.date()), *defaults, *own]

    async def _end_head_request(self, head: bytes) -> None:
        """Answer HEAD with the head alone, and unwind the handler: nothing streams."""
        self._connection.http.stream_ended()
        await self._send(head)
        self.end(CloseReason.COMPLETED)
        await trio.lowlevel.checkpoint()

    # -- for the connection

    @property
    def is_streaming(self) -> bool:
        """Whether a stream is open."""
        return self._outbox is not None

    def half_closed(self) -> None:
        """The client sent EOF after its request.

        It may still read: a plain response is finished, within the write
        timeout. A stream has no end to wait for.
        """
        self._half_closed = True
        if self._outbox is not None:
            self.end(CloseReason.CLIENT_CLOSED)
        else:
            timeout = self._connection.context.settings.write_timeout
            self._scope.deadline = trio.current_time() + timeout

    async def run(self) -> None:
        """Handle the request and send its answer, whatever happens."""
        try:
            with self._scope:
                try:
                    await self._handle()
                except* Exception as group:
                    self._error = _single(group)
            await self._settle()
        finally:
            self._close()

    async def _handle(self) -> None:
        event = self.event
        result = await self._connection.context.handler(event)
        if (response := event.response_from(result)) is not None:
            await self._respond(response)
        elif event.state is ResponseState.STREAM_STARTED:
            await self._run_callback()
        elif result is not None:
            msg = f"a handler that streamed returned {type(result).__name__}, not None"
            raise ResponseStateError(msg)

    async def _run_callback(self) -> None:
        callback = self.event.stream_callback
        if callback is None:
            msg = "start_sse() was called, but the stream was neither entered nor given a callback"
            raise ResponseStateError(msg)
        writer = await self.open_stream()
        await callback(writer)
        await writer.aclose()

    async def _respond(self, response: Response) -> None:
        """Send a whole response."""
        event, context = self.event, self._connection.context
        fields = response.headers.raw
        names = {name.lower() for name, _ in fields}
        extra = [field for field in event.take_response_headers() if field[0].lower() not in names]
        headers = [(b"Date", context.date()), *fields, *extra]
        if response.status not in (204, 304) and b"content-length" not in names:
            headers.append((b"Content-Length", b"%d" % len(response.body)))
        # A client that was never told to continue may or may not send its body:
        # nothing behind it can be trusted to be a request.
        if context.draining.is_set() or self._connection.http.wants_continue:
            headers.append((b"Connection", b"close"))
        event.state = ResponseState.RESPONDED
        self._status = response.status
        await self._send(self._connection.http.response(response.status, headers, response.body))

    async def _send(self, data: bytes) -> None:
        transport = self._connection.transport
        taken = 0
        try:
            taken = transport.send_nowait(data)
            if taken < len(data):
                stall = self._connection.context.settings.write_timeout
                await transport.send_all(memoryview(data)[taken:], stall_timeout=stall)
                taken = len(data)
        except trio.TooSlowError:
            self._fail_send(CloseReason.SLOW)
        except trio.BrokenResourceError:
            self._fail_send(CloseReason.CONNECTION_LOST)
        except trio.Cancelled:
            self._connection.http.abandoned()
            raise
        finally:
            self._bytes_sent += taken

    def _fail_send(self, reason: CloseReason) -> None:
        self._connection.http.abandoned()
        self.end(reason)

    # -- after the handler

    async def _settle(self) -> None:
        """Turn the way the handler ended into the end of the answer."""
        if self._error is not None:
            await self._settle_error(self._error)
        elif self._scope.cancelled_caught and self._reason is None:
            # Nobody called `end`: the scope's deadline passed.
            self._reason = CloseReason.LEASE if self._outbox else CloseReason.CLIENT_CLOSED
        if self._outbox is not None:
            await self._end_stream(self._outbox)
        elif not self.event.head_sent and self._reason in ENDED_BY_SERVER:
            await self._respond_error(HTTPError(503))
        self._reason = self._reason or CloseReason.COMPLETED

    async def _settle_error(self, error: BaseException) -> None:
        known = isinstance(error, HTTPError)
        if self.event.head_sent or not known:
            logger.error("%s: the handler raised", self.event, exc_info=error)
        if self._reason is None and not (known and not self.event.head_sent):
            self._reason = CloseReason.HANDLER_ERROR
        if not self.event.head_sent and self._connection.http.can_respond:
            await self._respond_error(error if isinstance(error, HTTPError) else HTTPError(500))

    async def _respond_error(self, error: HTTPError) -> None:
        try:
            response = error_response(error)
        except ValueError:
            logger.exception("%s: the error's headers can't be sent", self.event)
            response = error_response(HTTPError(500))
        if error.status == 503:  # noqa: PLR2004 - Service Unavailable
            retry_after = str(self._connection.context.retry_after())
            response.headers.setdefault("Retry-After", retry_after)
        await self._respond(response)

    async def _end_stream(self, outbox: Outbox) -> None:
        context = self._connection.context
        if self._reason in ENDED_BY_SERVER:
            farewell = SSEEvent(retry=context.reconnect_milliseconds()).encode()
            await self._finish(outbox, farewell)
        elif self._reason is CloseReason.HANDLER_ERROR:
            await self._flush(outbox)
        if outbox.finished:
            self._connection.http.stream_ended()
        else:
            outbox.abandon()
            self._connection.http.abandoned()

    async def _finish(self, outbox: Outbox, farewell: bytes) -> None:
        with trio.move_on_after(self._connection.context.settings.farewell_timeout):
            try:
                await outbox.finish(farewell)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    async def _flush(self, outbox: Outbox) -> None:
        """Let the client have what was accepted before the handler failed."""
        with trio.move_on_after(self._connection.context.settings.farewell_timeout):
            try:
                await outbox.flush()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                return

    def _close(self) -> None:
        """Count, log and tell; runs however the exchange ended, and never waits."""
        context = self._connection.context
        events = 0
        if self._outbox is not None:
            context.heartbeat.discard(self._outbox)
            self._outbox.abandon()
            events = self._outbox.events_sent
            self._bytes_sent += self._outbox.bytes_sent
        closing = Closing(
            reason=self._reason or CloseReason.CANCELLED,
            status=self._status,
            duration=trio.current_time() - self._started,
            events=events,
            bytes_sent=self._bytes_sent,
        )
        context.counts.add(closing)
        log_exchange(self.event, closing)
        for hook in self.event.close_hooks or ():
            try:
                hook(closing)
            except Exception:
                logger.exception("%s: an on_close hook raised", self.event)


def _single(error: BaseException) -> BaseException:
    """Unwrap groups of one: a nursery around one error doesn't change what it is."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
