"""`Exchange`: one request on its way through a handler. Run it, end its answer, account for it.

`handle` runs the handler inside the exchange's scope, `finish` ends the answer. Whoever wants this
request to stop cancels the scope with a reason, and the first reason decides how the answer ends
and what the log says.

Where the handler's failure goes: before the head it is a response with a true status; after it, the
stream ends without its final chunk.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, final

import trio

from h3trio._http.closing import ENDED_BY_SERVER, LIMIT_OF, CloseReason, Closing
from h3trio._http.errors import HTTPError, ResponseStateError
from h3trio._http.headers import Headers
from h3trio._http.response import error_response

from .access_log import log_exchange
from .event import H3Event, let_go, response_from
from .farewell import comes_back, ended_stream, say_last
from .handler_errors import log_raised, reason_of_client, separate, task_name
from .logs.redaction import printable
from .responder import Responder, ResponseState
from .send_queue import State

if TYPE_CHECKING:
    from h3trio._http.http1 import Http1
    from h3trio._http.response import Response

    from .event import Handler
    from .peer import Peer
    from .reader import Request
    from .responder import Fields
    from .send_queue import SendQueue
    from .sockets.transport import Transport
    from .state import ServerState

logger = logging.getLogger("h3trio.server")


@final
class Exchange:
    """One request and its answer."""

    __slots__ = (
        "_error",
        "_handler",
        "_http",
        "_peer",
        "_responder",
        "_scope",
        "_started",
        "_state",
        "event",
    )

    def __init__(
        self,
        request: Request,
        handler: Handler,
        *,
        http: Http1,
        transport: Transport,
        nursery: trio.Nursery,
        peer: Peer,
        state: ServerState,
    ) -> None:
        head, headers = request.head, Headers(request.head.headers)
        self._handler = handler
        self._http = http
        self._peer = peer
        self._state = state
        self._scope = request.scope
        self._error: BaseException | None = None
        self._started: float | None = None
        self._responder = Responder(
            method=head.method,
            headers=headers,
            is_last=request.is_last,
            body=request.body,
            scope=request.scope,
            http=http,
            transport=transport,
            nursery=nursery,
            peer=peer,
            server=state,
        )
        client, scheme = peer.identify(headers)
        self.event = H3Event(
            method=head.method,
            target=request.target,
            headers=headers,
            http_version=head.http_version,
            client=client,
            scheme=scheme,
            body=request.body,
            draft=self._responder.draft,
            responder=self._responder,
            server=state,
        )

    def __repr__(self) -> str:
        return f"<Exchange: {self.event!r}>"

    async def handle(self, scope: trio.CancelScope) -> None:
        """Run the handler and send what it returns; `finish` follows, whatever happens.

        `scope` is entered already, and is the handler's from now on.
        """
        self._started = trio.current_time()
        self._scope.handler_begins(scope, self.event)
        try:
            # No helper for this: its frame would be held as long as a stream lasts.
            await self._answer(await self._handler(self.event))
        except BaseException as error:  # noqa: BLE001 - what isn't the handler's passes on
            self._error, passing = separate(error, self.event, self._scope.task)
            try:
                if passing is not None:
                    raise passing
            finally:
                del passing  # its traceback leads here: a cycle for each stream
        finally:
            self._scope.handler_ended()

    async def finish(self, *, expired: bool = False) -> None:
        """Turn the way the handler ended into the end of the answer; count and log it.

        `expired` if the handler's scope was cancelled. Runs outside that scope, unless nothing has
        happened to it.
        """
        try:
            await self._settle(expired=expired)
        finally:
            self.close()

    async def _answer(self, result: object) -> None:
        draft = self._responder.draft
        if (response := response_from(self.event, result)) is not None:
            await self._responder.respond(response, draft.take_fields())
        elif result is not None:
            raise ResponseStateError(
                f"a handler that started a stream returned {type(result).__name__}, not None"
            )
        elif draft.state is ResponseState.STREAM_STARTED:
            await self._run_callback()

    async def _run_callback(self) -> None:
        draft = self._responder.draft
        callback, draft.stream_callback = draft.stream_callback, None
        if callback is None:
            raise ResponseStateError(
                "a stream was started, but it was neither entered nor given a callback"
            )
        writer = await self._responder.open_stream(self.event.client)
        await callback(writer)
        await writer.aclose()

    # -- after the handler

    async def _settle(self, *, expired: bool) -> None:
        """Turn the way the handler ended into the end of the answer."""
        scope, queue = self._scope, self._responder.queue
        self._count_limit()
        if self._error is not None:
            await self._settle_error(self._error)
        elif expired and scope.reason is None:
            # Nobody cancelled it: its deadline passed.
            scope.note(CloseReason.CLIENT_CLOSED if queue is None else CloseReason.LEASE)
            self._count_limit()
        if queue is not None:
            await self._end_stream(queue)
        elif not self._responder.draft.head_sent and scope.reason in ENDED_BY_SERVER:
            await self._respond_error(HTTPError(503))
        scope.note(CloseReason.COMPLETED)

    def _count_limit(self) -> None:
        """Count the limit that the reason stands for."""
        if (limit := LIMIT_OF.get(self._scope.reason)) is not None:
            self._state.count_limit(limit)

    async def _settle_error(self, error: BaseException) -> None:
        scope, head_sent = self._scope, self._responder.draft.head_sent
        answer = HTTPError.of(error)
        if answer is None or head_sent:
            reason = reason_of_client(error, scope.reason)
            if reason is None:
                message = "%s: the handler raised, in task %s"
                logger.error(message, self.event, task_name(), exc_info=error)
            else:
                logger.info("%s: %s: %s", self.event, reason.value, printable(str(answer or error)))
            scope.note(reason or CloseReason.HANDLER_ERROR)
        if not head_sent:
            await self._respond_error(answer or HTTPError(500))

    async def _respond_error(self, error: HTTPError) -> None:
        responder = self._responder
        if not await responder.can_respond():
            return
        response, fields = self._error_answer(error)
        try:
            await responder.respond(response, fields)
        except ValueError:
            logger.exception("%s: the headers of the error can't be sent", self.event)
            await responder.respond(error_response(HTTPError(500)), ())

    def _error_answer(self, error: HTTPError) -> tuple[Response, Fields]:
        """Make the response of an error, and the fields that the application adds to it."""
        responder = self._responder
        try:
            response, fields = error_response(error), responder.draft.take_fields()
        except BaseException as raised:  # noqa: BLE001 - headers and hooks are the application's
            log_raised(raised, self.event, "the headers of the error can't be sent")
            self._scope.note(CloseReason.HANDLER_ERROR)
            response, fields = error_response(HTTPError(500)), ()
        # While the server drains, and not for want of room: see `ended_stream`.
        drains = response.status == 503 and self._state.draining.is_set()  # noqa: PLR2004 - Service Unavailable
        if drains and comes_back(responder.method, responder.headers):
            self._scope.note(CloseReason.DRAINING)
            response = ended_stream(self._state)
        return response, fields

    def _say_unavailable(self) -> None:
        """Answer a request that the drain has no time for any more, as far as goes at once.

        Its task is cancelled, so nothing may wait; what the socket doesn't take is left unsaid.
        """
        try:
            self._responder.respond_nowait(*self._error_answer(HTTPError(503)))
        except (ValueError, trio.BrokenResourceError) as exc:
            logger.info("%s: no answer before the end: %s", self.event, printable(str(exc)))

    async def _end_stream(self, queue: SendQueue) -> None:
        await say_last(queue, self._scope.reason, self._state)
        if queue.finished:
            self._http.stream_ended()
        else:
            # Without the final chunk, and without another byte if a frame may be cut.
            is_cut = queue.state is not State.IDLE
            self._scope.note(CloseReason.SLOW)
            queue.abandon()
            self._http.abandon(orderly=queue.chunked and not is_cut)

    def close(self) -> None:
        """Tell how it ended, once and if it began; never waits."""
        if self._started is None:
            return
        started, self._started = self._started, None
        responder, event, state = self._responder, self.event, self._state
        queue = responder.queue
        if queue is not None:
            state.heartbeat.discard(queue)
            queue.abandon()
        if self._scope.reason is None:
            # It was cancelled from outside.
            drains = state.draining.is_set()
            self._scope.note(CloseReason.DRAINING if drains else CloseReason.CANCELLED)
            if drains and responder.can_respond_nowait:
                self._say_unavailable()
        responder.draft.state = ResponseState.CLOSED
        assert self._scope.reason is not None, "noted just now"
        closing = Closing(
            reason=self._scope.reason,
            status=responder.status,
            duration=trio.current_time() - started,
            events=0 if queue is None else queue.events_sent,
            bytes_sent=responder.bytes_sent + (0 if queue is None else queue.bytes_sent),
            is_stream=queue is not None,
        )
        self._error = None
        self._peer.leave_stream()
        self._account(event, closing)

    def _account(self, event: H3Event, closing: Closing) -> None:
        """Count and log a finished exchange, call its hooks, and let the event go."""
        state = self._state
        state.counts.add(closing)
        try:
            log_exchange(event, closing)
        except BaseException as raised:  # noqa: BLE001 - a filter of the application's may do that
            log_raised(raised, event, "the access log raised")
        for hook in self._responder.draft.close_hooks:
            try:
                hook(closing)
            except BaseException as raised:  # noqa: BLE001 - it is the application's
                log_raised(raised, event, "an on_close hook raised")
        # With its responder an event would hold a connection, for as long as anybody holds it.
        let_go(event)
