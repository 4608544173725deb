"""`Connection`: one nursery with a task that reads and a task that handles.

    reader --request--> exchange --frames--> send queue --bytes--> transport

The connection's own task is the reader's: it feeds h11, and reads on while a stream runs. The
handler task serves the exchanges one after the other, in order, so a request costs no task. A
stream that its socket holds up gets a writer task. Data goes down this line only; up goes nothing
but `scope.cancel(reason)`. When one of them ends the connection, the nursery ends the others.

All that a connection can be in is said by four values:

| value             | says                                       | its states                  |
|-------------------|--------------------------------------------|-----------------------------|
| `Http1.reading`   | how far the request was read               | HEAD BODY COMPLETE CLOSED   |
| `Http1.answer`    | how far the answer was written             | DUE BEGUN COMPLETE LAST CUT |
| `SendQueue.state` | who may write to a stream                  | IDLE BUSY BROKEN ENDED      |
| `Reader`          | whether the peer can send, and we read it  | `peer_closed`, `has_ended`  |

h11's own states are behind the first two. The server's state adds whether it drains.

Each exchange starts from the context that its connection began with (`contextvars`): what one
request's handler sets, the next one, which may be another user's behind a proxy, doesn't see. The
`decimal` module keeps an object in there that copies of a context share, and that
`getcontext().prec = 3` changes: each exchange has a copy of that too.
"""

from __future__ import annotations

import decimal
import logging
from math import inf
from typing import TYPE_CHECKING, final

import trio

from h3trio._http.closing import CloseReason, Closing
from h3trio._http.http1 import Answer, Http1
from h3trio._http.response import error_response

from .exchange import Exchange
from .logs.redaction import printable
from .reader import Reader

if TYPE_CHECKING:
    import contextvars

    from h3trio._http.errors import HTTPError

    from .event import Handler
    from .peer import Peer
    from .sockets.transport import Transport
    from .state import ServerState

logger = logging.getLogger("h3trio.connection")


@final
class Connection:
    """One transport, and the requests that come by it.

    Args:
        transport: open, and closed when `run` returns.
        handler: what answers the requests.
        peer: who is at the other end.
        state: of the server.
        rejection: given where there is no room: it is said, and the connection closed.
        received: what the peer has sent already.
    """

    __slots__ = ("_handler", "_http", "_peer", "_reader", "_rejection", "_state", "_transport")

    def __init__(
        self,
        transport: Transport,
        handler: Handler,
        *,
        peer: Peer,
        state: ServerState,
        rejection: HTTPError | None = None,
        received: bytes = b"",
    ) -> None:
        self._transport = transport
        self._handler = handler
        self._peer = peer
        self._state = state
        self._rejection = rejection
        self._http = Http1(state.settings)
        self._reader = Reader(transport, self._http, state)
        if rejection is not None:
            self._http.stop_reading()
        elif received:
            self._http.receive(received)

    def __repr__(self) -> str:
        reading, answer = self._http.reading.name, self._http.answer.name
        return f"<Connection: {self._peer.client}, reading {reading}, answer {answer}>"

    async def run(self) -> None:
        """Serve until either side closes; the transport is closed when this returns."""
        try:
            async with trio.open_nursery() as nursery:
                name = f"h3trio handler for {self._peer.client}"
                nursery.start_soon(self._serve, nursery, name=name)
                await self._reader.run()
        finally:
            self._reader.close()
            await self._transport.aclose()

    async def _serve(self, nursery: trio.Nursery) -> None:
        """Serve one exchange after the other, and end the connection: the handler task."""
        task = trio.lowlevel.current_task()
        initial = task.context.copy()
        task.context = context_of_exchange(initial)
        exchange: Exchange | None = None
        goes_on = True
        try:
            while goes_on:
                # One for each exchange would be a tenth of a small request's time: as long as
                # nothing happens to it, it serves the next one too.
                with trio.CancelScope() as scope:
                    while exchange := await self._next_exchange(nursery):
                        await exchange.handle(scope)
                        if scope.cancel_called or scope.deadline < inf:
                            break
                        goes_on = await self._finish(exchange, initial)
                        exchange = None  # not kept while the next one is waited for
                        if not goes_on:
                            break
                    else:
                        goes_on = False
                if exchange is not None:  # the rest isn't to be cut short
                    goes_on = await self._finish(exchange, initial, expired=scope.cancelled_caught)
                    exchange = None
        finally:
            if exchange is not None:
                exchange.close()
        rejection = self._rejection or self._reader.rejection
        if rejection is not None and self._http.can_respond:
            await self._reject(rejection)
        await self._linger()
        nursery.cancel_scope.cancel(reason="the connection is done")

    async def _next_exchange(self, nursery: trio.Nursery) -> Exchange | None:
        request = await self._reader.next_request()
        if request is None:
            return None
        return Exchange(
            request,
            self._handler,
            http=self._http,
            transport=self._transport,
            nursery=nursery,
            peer=self._peer,
            state=self._state,
        )

    async def _finish(
        self, exchange: Exchange, initial: contextvars.Context, *, expired: bool = False
    ) -> bool:
        """End the answer and make room for the next request; `False` if there is to be none."""
        await exchange.finish(expired=expired)
        # It counts from the next checkpoint on, and one comes before the next request begins: none
        # is handed out without one. A task for each exchange would cost more.
        trio.lowlevel.current_task().context = context_of_exchange(initial)
        return await self._reader.next_cycle()

    async def _reject(self, error: HTTPError) -> None:
        """Answer what is no request, can't be parsed, is beyond a limit or comes too late."""
        state, client = self._state, printable(self._peer.client)
        since = self._reader.head_since or trio.current_time()
        response = error_response(error)
        fields = [(b"Date", state.date()), *response.headers.raw]
        data = self._http.response(response.status, fields, response.body)
        logger.info("%s: refused with %s", client, printable(str(error)))
        # A connection there was no room for is no request; the server counts it.
        if self._rejection is None:
            state.counts.add(
                Closing(
                    reason=CloseReason.PROTOCOL_ERROR,
                    status=error.status,
                    duration=trio.current_time() - since,
                    events=0,
                    bytes_sent=len(data),
                )
            )
        stall = state.settings.write_timeout
        try:
            await self._transport.send_all(data, stall_timeout=stall)
        except (trio.TooSlowError, trio.BrokenResourceError) as exc:
            self._http.abandon()
            if isinstance(exc, trio.TooSlowError):
                state.count_limit("write_timeout")

    async def _linger(self) -> None:
        """Send FIN and read on for a while: closing now could reset what we sent."""
        timeout = self._state.settings.linger_timeout
        if self._reader.peer_closed or self._http.answer is Answer.CUT or not timeout:
            return
        self._reader.begin_linger(timeout)
        await self._transport.send_eof()
        await self._reader.wait_ended()


def context_of_exchange(initial: contextvars.Context) -> contextvars.Context:
    """A context that shares nothing with the other exchanges that begin with this one."""
    context = initial.copy()
    for variable, value in initial.items():
        if isinstance(value, decimal.Context):
            context.run(variable.set, value.copy())
    return context
