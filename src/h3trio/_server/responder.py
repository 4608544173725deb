"""`Responder`: writes the answer to one request, a whole response or the head of a stream.

A `Draft` is what the handler has said of the answer so far. It outlives the responder, as whoever
holds the event may ask it. The responder holds the connection, and is let go with the exchange:
else an event that somebody keeps would keep a connection.

A handler enters `SSEStream` or `OtherStream` to have it open a stream.

A send that was cancelled or failed leaves a cut message behind. Then the framing is told to write
nothing else, and the exchange, by its scope, to end.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, Never, TypeVar, final

import trio

from h3trio._http.closing import CloseReason, lost
from h3trio._http.errors import HTTPError, ResponseStateError
from h3trio._http.headers import MutableHeaders
from h3trio._http.request import is_event_source

from .farewell import AT_ONCE, EVENT_STREAM, STREAM_HEADERS, comes_back
from .handler_errors import parts, reason_of_client
from .send_queue import SendQueue
from .writer import SSEWriter, StreamWriter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from types import TracebackType

    from h3trio._http.closing import Closing
    from h3trio._http.headers import Headers
    from h3trio._http.http1 import Http1
    from h3trio._http.response import Response

    from .body import BodyBuffer
    from .exchange_scope import ExchangeScope
    from .peer import Peer
    from .sockets.transport import Transport
    from .state import ServerState

    Fields = Sequence[tuple[bytes, bytes]]
    HeadHook = Callable[[MutableHeaders], object]
    CloseHook = Callable[[Closing], object]
    StreamCallback = Callable[[SSEWriter], Awaitable[object]]

_W = TypeVar("_W", SSEWriter, StreamWriter)

_ADDED: Final = frozenset({b"set-cookie", b"vary"})
"""Headers of which each setter's are sent; of others those of the first who set them."""


class ResponseState(enum.Enum):
    """How far the answer to a request has come."""

    NEW = "new"
    STREAM_STARTED = "stream started"
    """`start_sse` or `start_stream` was called, and the stream isn't entered yet."""
    STREAMING = "streaming"
    RESPONDED = "responded"
    CLOSED = "closed"


@final
@dataclass(slots=True, eq=False, repr=False)
class Draft:
    """Status, headers, hooks and stream of an answer, as far as the handler has said."""

    state: ResponseState = ResponseState.NEW
    status: int = 200
    head_hooks: tuple[HeadHook, ...] = ()
    close_hooks: tuple[CloseHook, ...] = ()
    stream_callback: StreamCallback | None = None
    content_type: str | None = None
    """That of a stream by `start_stream`; `None` for an event stream."""
    finishes: bool = False
    """Whether the stream may go on while the server drains."""
    _headers: MutableHeaders | None = None

    @property
    def head_sent(self) -> bool:
        """Whether status and headers are out."""
        return self.state not in (ResponseState.NEW, ResponseState.STREAM_STARTED)

    @property
    def headers(self) -> MutableHeaders:
        """Headers to add to the response; frozen once the head is sent."""
        if self._headers is None:
            self._headers = MutableHeaders()
            if self.head_sent:
                self._headers.freeze()
        return self._headers

    def drop_stream(self) -> None:
        """Let another answer take the place of a stream whose head isn't sent.

        An error came in between, and whoever catches it may answer.
        """
        if self.state is ResponseState.STREAM_STARTED:
            self.state = ResponseState.NEW
            self.stream_callback = self.content_type = None

    def take_fields(self) -> Fields:
        """Call the hooks, freeze the headers, and return them as fields."""
        hooks, self.head_hooks = self.head_hooks, ()
        for hook in hooks:
            hook(self.headers)
        if self._headers is None:
            return ()
        self._headers.freeze()
        return self._headers.raw


def media_type(content_type: str) -> str:
    """Return the type of a `Content-Type` without its parameters, in lower case."""
    return content_type.partition(";")[0].strip().lower()


@final
@dataclass(slots=True, eq=False, repr=False, kw_only=True)
class Responder:
    """Writes one answer to one connection."""

    method: str
    headers: Headers
    is_last: bool
    """Whether the connection takes no request after this one."""
    body: BodyBuffer
    scope: ExchangeScope
    http: Http1
    transport: Transport
    nursery: trio.Nursery
    """Where a stream's writer task runs."""
    peer: Peer
    server: ServerState
    draft: Draft = field(default_factory=Draft)
    queue: SendQueue | None = None
    """The sending side of the stream, if there is one."""
    status: int = 0
    """The status sent, 0 before that."""
    bytes_sent: int = 0
    """Bytes that the transport took, those of a stream not counted."""
    _continuing: trio.Event | None = None  # while `100 Continue` is on its way

    # -- for the event

    def end(self, reason: CloseReason) -> None:
        """Cancel the handler and end its stream: `farewell` says how."""
        self.scope.cancel(reason)

    def fail_stream(self, error: BaseException) -> None:
        """Let the stream end without its final chunk, if an error left its block.

        After a cancellation the exchange decides: it alone knows whose doing that was.
        """
        own, _ = parts(error, self.scope.task)
        if own is not None and not self.scope.is_complete:
            reason = reason_of_client(own, self.scope.reason)
            self.scope.note(reason or CloseReason.HANDLER_ERROR)

    async def open_stream(self, client: str) -> SSEWriter:
        """Send the head of an event stream and a first comment; give the writer. As `_open`."""
        as_browser = is_event_source(self.method, self.headers)
        return SSEWriter(await self._open(client), is_event_source=as_browser)

    async def open_other_stream(self, client: str) -> StreamWriter:
        """Send the head of a stream of another type; give the writer. As `_open`."""
        return StreamWriter(await self._open(client))

    async def _open(self, client: str) -> SendQueue:
        """Send the head of a stream, and what begins it.

        Raises:
            HTTPError: 429, the client's address holds all the streams it may; 503, the server
                drains, and the client isn't one that would come back after an orderly end.
            ResponseStateError: there can be no stream any more.
            ValueError: its headers contradict its framing, or the type of the stream.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._require_writable()
        self._require_streamable()
        draft, server, scope = self.draft, self.server, self.scope
        is_sse = draft.content_type is None
        returns = is_sse and comes_back(self.method, self.headers)
        try:
            if not returns:
                self._require_staying()
            self.peer.take_stream(client)
            head = self.http.stream_head(draft.status, self._stream_fields(draft))
        except Exception:
            draft.drop_stream()
            raise
        draft.state = ResponseState.STREAMING
        self.status = draft.status
        if self.method == "HEAD":
            await self._end_with_the_head(head)
        self.queue = queue = SendQueue(
            self.transport,
            chunked=self.http.chunks_streams,
            settings=server.settings,
            nursery=self.nursery,
            scope=scope,
            comes_back=returns,
            has_comments=is_sse,
            finishes=draft.finishes,
        )
        scope.is_streaming = True
        # A reader that pauses must look again: a stream may not be left unwatched.
        self.body.wake_reader()
        scope.expire_after(server.lease())
        server.heartbeat.add(queue)
        queue.open(head)
        if scope.is_half_closed:
            scope.cancel(CloseReason.CLIENT_CLOSED)
        elif server.draining.is_set():
            scope.cancel(CloseReason.DRAINING)
        self.headers.pack()
        await trio.lowlevel.checkpoint()
        return queue

    def _stream_fields(self, draft: Draft) -> Fields:
        """Join the headers of a stream; what the handler set may say more of its type."""
        own, ours = draft.take_fields(), STREAM_HEADERS
        if draft.content_type is not None:
            ours = ((b"Content-Type", draft.content_type.encode("latin-1")), *AT_ONCE)
        wanted = media_type(draft.content_type or EVENT_STREAM)
        for name, value in own:
            if name.lower() == b"content-type" and media_type(value.decode("latin-1")) != wanted:
                # A client reads what the head says: as something else these bytes are damage.
                raise ValueError(
                    f"this stream is {wanted}, and its Content-Type {value.decode('latin-1')!r}: "
                    "start_stream is for other types than text/event-stream"
                )
        return self._join(own, ours)

    def _require_staying(self) -> None:
        if self.server.draining.is_set() and self.method != "HEAD":
            raise HTTPError(503, "the server is going away")

    def _require_streamable(self) -> None:
        draft = self.draft
        if draft.head_sent:
            raise ResponseStateError(f"can't stream: {draft.state.value} already")
        if draft.stream_callback is not None:
            raise ResponseStateError("a stream that has a callback can't be entered as well")

    async def _require_writable(self) -> None:
        if not self.draft.head_sent and not await self.can_respond():
            raise ResponseStateError("can't respond: an earlier send here was cancelled")

    async def _end_with_the_head(self, head: bytes) -> Never:
        """Answer HEAD with the head alone, and unwind the handler: nothing streams."""
        self.http.stream_ended()
        await self._send(head)
        self.scope.cancel(CloseReason.COMPLETED)
        await trio.lowlevel.checkpoint()
        raise ResponseStateError(
            "HEAD is answered with the head alone, and a shield kept the handler from ending"
        )

    # -- for the body

    async def send_continue(self) -> None:
        """Tell the client to send its body, if it waits for that (RFC 9110 section 10.1.1)."""
        if self.http.wants_continue and self.http.can_respond:
            self._continuing = done = trio.Event()
            try:
                await self._send(self.http.continue_head())
            finally:
                self.body.continued_at = trio.current_time()
                self._continuing = None
                done.set()

    async def can_respond(self) -> bool:
        """Tell whether a response can still be started.

        Lets `100 Continue` go out first, if another task is sending it: two sends would mix.
        """
        if self._continuing is not None:
            await self._continuing.wait()
        return self.http.can_respond

    # -- for the exchange

    async def respond(self, response: Response, fields: Fields) -> None:
        """Send a whole response, with these fields added.

        Raises:
            ValueError: its headers contradict its framing.
        """
        await self._require_writable()
        await self._send(self._whole(response, fields))

    def respond_nowait(self, response: Response, fields: Fields) -> None:
        """Send a whole response as far as the transport takes it at once, with these fields added.

        Raises:
            ValueError: its headers contradict its framing.
            trio.BrokenResourceError: the connection is gone.
        """
        data = self._whole(response, fields)
        self.status = 0
        if taken := self.transport.send_nowait(data):
            self.status = response.status
            self.bytes_sent += taken

    @property
    def can_respond_nowait(self) -> bool:
        """Whether a response can be started without waiting: no head is out, nor on its way."""
        return not self.draft.head_sent and self._continuing is None and self.http.can_respond

    def _whole(self, response: Response, fields: Fields) -> bytes:
        """Write a whole response; the answer counts as given from here on."""
        later = self.server.come_later(response.status)
        joined = self._join(response.headers.raw, fields, later)
        data = self.http.response(response.status, joined, response.body)
        self.draft.state = ResponseState.RESPONDED
        self.status = response.status
        return data

    def _join(self, own: Fields, *others: Fields) -> list[tuple[bytes, bytes]]:
        """Join headers, the first to name one wins, with those that every response has."""
        headers = [*own]
        names = {name.lower() for name, _ in headers}
        for fields in others:
            if fields:
                taken = names - _ADDED
                headers += [field for field in fields if field[0].lower() not in taken]
                names.update([name.lower() for name, _ in fields])
        if b"date" not in names:
            # RFC 9110 section 6.6.1: an origin server with a clock "MUST generate a Date".
            headers.insert(0, (b"Date", self.server.date()))
        # RFC 9110 section 15.5.9: with 408 a server "SHOULD send a close connection option"; the
        # framing does that, as nothing is read any more.
        if self.is_last or self.server.draining.is_set():
            headers.append((b"Connection", b"close"))
        return headers

    async def _send(self, data: bytes) -> None:
        taken = 0
        try:
            taken = self.transport.send_nowait(data)
            if taken < len(data):
                stall = self.server.settings.write_timeout
                await self.transport.send_all(memoryview(data)[taken:], stall_timeout=stall)
                taken = len(data)
        except trio.TooSlowError:
            self._cut(CloseReason.SLOW)
        except trio.BrokenResourceError as exc:
            self._cut(lost(exc))
        except trio.Cancelled:
            self.http.abandon()
            raise
        finally:
            self.bytes_sent += taken

    def _cut(self, reason: CloseReason) -> None:
        self.http.abandon()
        self.scope.cancel(reason)


class _Stream(Generic[_W]):
    """An async context manager around a stream, which gives its writer.

    Leaving the block normally sends what was accepted and the final chunk. An
    error that leaves it ends the stream without the final chunk, so that the client
    knows, also where the handler catches it outside.
    """

    __slots__ = ("_client", "_responder", "_writer")

    def __init__(self, responder: Responder | None, client: str) -> None:
        self._responder = responder
        self._client = client
        self._writer: _W | None = None

    async def __aenter__(self) -> _W:
        if self._writer is not None:
            raise ResponseStateError("this stream was entered before")
        if self._responder is None:
            raise ResponseStateError("can't stream: closed already")
        self._writer = await self._open(self._responder)
        return self._writer

    def _open(self, responder: Responder) -> Awaitable[_W]:
        raise NotImplementedError

    if not TYPE_CHECKING:  # type checkers know by themselves

        def __getattr__(self, name: str) -> Never:
            raise AttributeError(
                f"a stream has no {name!r} before it is entered: "
                "`async with event.start_sse() as writer` gives the writer"
            )

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None:
            if self._writer is not None:
                await self._writer.aclose()
        elif self._responder is not None and exc is not None:
            self._responder.fail_stream(exc)


@final
class SSEStream(_Stream[SSEWriter]):
    """The context manager of `async with event.start_sse() as writer`."""

    __slots__ = ()

    def _open(self, responder: Responder) -> Awaitable[SSEWriter]:
        return responder.open_stream(self._client)


@final
class OtherStream(_Stream[StreamWriter]):
    """The context manager of `async with event.start_stream(…) as writer`."""

    __slots__ = ()

    def _open(self, responder: Responder) -> Awaitable[StreamWriter]:
        return responder.open_other_stream(self._client)
