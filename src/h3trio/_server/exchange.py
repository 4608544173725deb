"""One request and its answer, in one cancel scope.

`Exchange.handle` runs the handler inside the scope and sends what it returns; `finish`
ends the answer the way its reason asks for. Everything that wants this request to stop
(the reader that saw EOF, the queue that lost its client, the lease, the drain, the
application) calls `end(reason)`: the first reason wins and is carried by the cancellation.

Where the handler's failure goes: before the head it is a response with a true
status; after it, the stream ends without its final chunk.

A send that was cancelled or failed leaves a cut message behind: then the
connection is told to close, and nothing else is sent on it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Never, final

import trio

from h3trio._http.closing import ENDED_BY_SERVER, LIMIT_OF, CloseReason, Closing, lost
from h3trio._http.errors import HTTPError, ResponseStateError
from h3trio._http.headers import Headers
from h3trio._http.request import split_target
from h3trio._http.response import error_response

from .event import H3Event
from .farewell import STREAM_HEADERS, comes_back, ended_stream, say_last
from .handler_errors import split, task_name
from .responder import ResponseState
from .response_head import join_fields
from .send_queue import SendQueue, State
from .writer import SSEWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from h3trio._http.http1 import RequestHead
    from h3trio._http.response import Response

    from .body import BodyStream
    from .connection_port import ConnectionPort
    from .context import Context

    Fields = Sequence[tuple[bytes, bytes]]

logger = logging.getLogger("h3trio.server")


@final
class Exchange:
    """A request on its way through a handler.

    Raises:
        HTTPError: 400 for a target that isn't one.
    """

    __slots__ = (
        "_bytes_sent",
        "_connection",
        "_continuing",
        "_error",
        "_half_closed",
        "_queue",
        "_reason",
        "_scope",
        "_started",
        "_status",
        "body",
        "event",
        "server",
    )

    def __init__(
        self,
        connection: ConnectionPort,
        head: RequestHead,
        *,
        client: str,
        body: BodyStream,
    ) -> None:
        self._connection = connection
        self.server: Context = connection.context
        self._scope: trio.CancelScope | None = None  # while the handler runs
        self._queue: SendQueue | None = None
        self._reason: CloseReason | None = None
        self._error: BaseException | None = None
        self._half_closed = False
        self._continuing: trio.Event | None = None  # while `100 Continue` is on its way
        self._started: float | None = None
        self._status = 0
        self._bytes_sent = 0
        self.body = body
        self.event = H3Event(
            method=head.method,
            target=split_target(head.target),
            headers=Headers(head.headers),
            http_version=head.http_version,
            client=client,
            body=body,
            port=self,
        )

    def __repr__(self) -> str:
        return f"<Exchange: {self.event!r}>"

    # -- ResponsePort, for the event

    def end(self, reason: CloseReason) -> None:
        """Cancel the handler; the first reason counts, and that of a complete stream is its own."""
        if self._reason is None:
            self._reason = CloseReason.COMPLETED if self._is_complete else reason
            if (limit := LIMIT_OF.get(self._reason)) is not None:
                self.server.met(limit)
        self._bound()

    def _bound(self) -> None:
        """Let the handler end, if it runs, for what has happened by now."""
        if self._scope is None:
            return
        if self._reason is not None:
            watch, why = self.server.cancels, self._reason.value
            watch.cancel(self._scope, why, key=self.event, owner=self._connection)
        elif self._half_closed:
            self._scope.deadline = trio.current_time() + self.server.settings.write_timeout

    @property
    def _is_complete(self) -> bool:
        return self._queue is not None and self._queue.finished

    def fail_stream(self) -> None:
        """An error left the stream's block: it is to end without its final chunk."""
        if self._reason is None and not self._is_complete:
            self._reason = CloseReason.HANDLER_ERROR

    async def open_stream(self) -> SSEWriter:
        """Send the head and a first comment; give the writer."""
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._continued()
        scope = self._require_streamable()
        self._connection.admit_stream()
        event, context = self.event, self.server
        headers = self._headers(event.take_response_headers(), STREAM_HEADERS)
        head = self._connection.http.stream_head(event.status, headers)
        event.state = ResponseState.STREAMING
        self._status = event.status
        if event.method == "HEAD":
            await self._end_head_request(head)
        self._queue = SendQueue(
            self._connection.transport,
            chunked=self._connection.http.chunks_streams,
            settings=context.settings,
            nursery=self._connection.nursery,
            on_broken=self.end,
        )
        scope.deadline = trio.current_time() + context.lease()
        context.heartbeat.add(self._queue)
        self._queue.open(head)
        if self._half_closed:
            self.end(CloseReason.CLIENT_CLOSED)
        elif context.draining.is_set():
            self.end(CloseReason.DRAINING)
        event.headers.pack()
        await trio.lowlevel.checkpoint()
        return SSEWriter(self._queue)

    def _require_streamable(self) -> trio.CancelScope:
        event = self.event
        if event.head_sent:
            raise ResponseStateError(f"can't stream: {event.state.value} already")
        if self._scope is None:
            raise ResponseStateError("can't stream: the handler has returned")
        if event.stream_callback is not None:
            raise ResponseStateError("a stream that has a callback can't be entered as well")
        self._require_writable()
        return self._scope

    def _require_writable(self) -> None:
        if not self._connection.http.can_respond:
            raise ResponseStateError("can't respond: an earlier send here was cancelled")

    def _headers(self, own: Fields, *others: Fields) -> list[tuple[bytes, bytes]]:
        # RFC 9110 section 15.5.9: with 408 a server "SHOULD send a close connection option".
        closes = self._connection.is_last or self.body.failed
        return join_fields(own, *others, date=self.server.date(), closes=closes)

    async def _end_head_request(self, head: bytes) -> Never:
        """Answer HEAD with the head alone, and unwind the handler: nothing streams."""
        self._connection.http.stream_ended()
        await self._send(head)
        self.end(CloseReason.COMPLETED)
        await trio.lowlevel.checkpoint()
        raise ResponseStateError(
            "HEAD is answered with the head alone, and a shield kept the handler from ending"
        )

    # -- for the connection

    @property
    def is_streaming(self) -> bool:
        """Whether a stream is open."""
        return self._queue is not None

    def break_off(self, limit: str) -> None:
        """End a stream whose client sends more behind its request than it may."""
        if self._reason is None and not self._is_complete:
            self.server.met(limit)
        self.end(CloseReason.PROTOCOL_ERROR)

    def half_closed(self) -> None:
        """The client sent EOF after its request, and may still read.

        So a plain response is finished, within the write timeout. A stream has no end to wait for.
        """
        if self._queue is not None:
            self.end(CloseReason.CLIENT_CLOSED)
        elif not self._half_closed:
            self._half_closed = True
            self._bound()

    async def handle(self, scope: trio.CancelScope) -> None:
        """Run the handler and send what it returns; `finish` follows, whatever happens.

        `end` cancels `scope` from now on, which is entered already.
        """
        self._scope, self._started = scope, trio.current_time()
        if self._reason is not None or self._half_closed:
            self._bound()
        event, context = self.event, self.server
        try:
            if context.closing:
                raise context.too_late(event)  # noqa: TRY301 - answered as the handler's own are
            await self._answer(await context.handler(event))
        except BaseException as error:  # noqa: BLE001 - what isn't the handler's passes on
            self._error, passing = split(error, event)
            try:
                if passing is not None:
                    raise passing
            finally:
                del passing  # its traceback leads here: a cycle for each stream

    async def _answer(self, result: object) -> None:
        event = self.event
        if (response := event.response_from(result)) is not None:
            await self._respond(response, event.take_response_headers())
        elif result is not None:
            raise ResponseStateError(
                f"a handler that started a stream returned {type(result).__name__}, not None"
            )
        elif event.state is ResponseState.STREAM_STARTED:
            await self._run_callback()

    async def finish(self) -> None:
        """Turn the way the handler ended into the end of the answer.

        Outside the scope of `handle`, unless nothing has happened to that.
        """
        was_cancelled = self._scope is not None and self._scope.cancelled_caught
        self._scope = None
        try:
            self.server.cancels.ended(self.event)
            await self._settle(was_cancelled=was_cancelled)
        finally:
            self.close()

    async def _run_callback(self) -> None:
        callback, self.event.stream_callback = self.event.stream_callback, None
        if callback is None:
            raise ResponseStateError(
                "start_sse() was called, but the stream was neither entered nor given a callback"
            )
        writer = await self.open_stream()
        await callback(writer)
        await writer.aclose()

    async def _respond(self, response: Response, extra: Fields) -> None:
        """Send a whole response; ValueError if its headers contradict its framing."""
        await self._continued()
        self._require_writable()
        later = self.server.come_later(response.status)
        headers = self._headers(response.headers.raw, extra, later)
        data = self._connection.http.response(response.status, headers, response.body)
        self.event.state = ResponseState.RESPONDED
        self._status = response.status
        await self._send(data)

    async def send_continue(self) -> None:
        """Tell the client to send its body, if it waits for that."""
        http = self._connection.http
        if http.wants_continue and http.can_respond:
            self._continuing = done = trio.Event()
            try:
                await self._send(http.continue_head())
            finally:
                self._continuing = None
                done.set()

    async def _continued(self) -> None:
        """Let `100 Continue` go out first, if another task is sending it: two sends would mix."""
        if self._continuing is not None:
            await self._continuing.wait()

    async def _send(self, data: bytes) -> None:
        transport = self._connection.transport
        taken = 0
        try:
            taken = transport.send_nowait(data)
            if taken < len(data):
                stall = self.server.settings.write_timeout
                await transport.send_all(memoryview(data)[taken:], stall_timeout=stall)
                taken = len(data)
        except trio.TooSlowError:
            self._cut(CloseReason.SLOW)
        except trio.BrokenResourceError as exc:
            self._cut(lost(exc))
        except trio.Cancelled:
            self._cut(None)
            raise
        finally:
            self._bytes_sent += taken

    def _cut(self, reason: CloseReason | None) -> None:
        self._connection.http.abandon()
        self._connection.cut()
        if reason is not None:
            self.end(reason)

    # -- after the handler

    async def _settle(self, *, was_cancelled: bool) -> None:
        if self._error is not None:
            await self._settle_error(self._error)
        elif was_cancelled:
            # If nobody called `end`, the scope's deadline passed.
            self.end(CloseReason.LEASE if self._queue else CloseReason.CLIENT_CLOSED)
        if self._queue is not None:
            await self._end_stream(self._queue)
        elif not self.event.head_sent and self._reason in ENDED_BY_SERVER:
            await self._respond_error(HTTPError(503))
        self._reason = self._reason or CloseReason.COMPLETED

    async def _settle_error(self, error: BaseException) -> None:
        answer = isinstance(error, HTTPError) and not self.event.head_sent
        # A shielded handler may meet its lost client; the reason says it all.
        expected = isinstance(error, trio.BrokenResourceError) and self._reason is not None
        if not answer and not expected:
            message = "%s: the handler raised, in task %s"
            logger.error(message, self.event, task_name(), exc_info=error)
        if self._reason is None and not answer:
            self._reason = CloseReason.HANDLER_ERROR
        if not self.event.head_sent:
            await self._respond_error(error if isinstance(error, HTTPError) else HTTPError(500))

    async def _respond_error(self, error: HTTPError) -> None:
        await self._continued()
        if not self._connection.http.can_respond:
            return
        try:
            response = error_response(error)
            if comes_back(self.event, error.status):
                self._reason = self._reason or CloseReason.DRAINING
                response = ended_stream(self.server)
            await self._respond(response, self.event.take_response_headers())
        except ValueError:
            logger.exception("%s: the headers of the error can't be sent", self.event)
            await self._respond(error_response(HTTPError(500)), ())

    async def _end_stream(self, queue: SendQueue) -> None:
        await say_last(queue, self._reason, self.server)
        if queue.finished:
            self._connection.http.stream_ended()
        else:
            self._abandon(queue)

    def _abandon(self, queue: SendQueue) -> None:
        """End without the final chunk, and without another byte if a frame may be cut."""
        if queue.state is not State.IDLE:
            self._connection.cut()
        self._reason = self._reason or CloseReason.SLOW
        queue.abandon()
        self._connection.http.abandon()

    def close(self) -> None:
        """Tell how it ended, once and if it began; never waits."""
        if self._started is None:
            return
        self.event.state = ResponseState.CLOSED
        if (queue := self._queue) is not None:
            self.server.heartbeat.discard(queue)
            queue.abandon()
            self._bytes_sent += queue.bytes_sent
        closing = Closing(
            reason=self._reason or self.server.cancel_reason,
            status=self._status,
            duration=trio.current_time() - self._started,
            events=0 if queue is None else queue.events_sent,
            bytes_sent=self._bytes_sent,
            is_stream=queue is not None,
        )
        self._started = self._queue = self._error = self._scope = None  # no circle is left
        self._connection.leave_stream()
        self.server.closed(self.event, closing)
