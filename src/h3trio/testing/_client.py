"""`Client` and `connect`: a client in memory of the real connection code.

    test ──▶ Client ──▶ [pipe with room for so many bytes] ──▶ Connection ──▶ your handler

Strategy: the server's side is the code that serves sockets, over a byte stream in memory. The
client's side is one task that reads as a kernel does, whether the test looks or not, up to a bound;
`stall` stops it, and does to the server what a browser in a tunnel does. Nothing sleeps: with
Trio's `MockClock`, or pytest-trio's `autojump_clock`, an hour of a stream takes no time.
"""

from __future__ import annotations

import contextlib
import enum
from collections import deque
from typing import TYPE_CHECKING, Final, NamedTuple, Self, final

import trio

from h3trio import Settings, SSEEvent, SSEParser
from h3trio._http.http1 import ResponseReader
from h3trio._nursery import OwnedNursery, unwrapped
from h3trio._server.callables import HANDLER, require_async
from h3trio._server.connection import Connection
from h3trio._server.peer import Peer
from h3trio._server.serve import HasLifespan
from h3trio._server.sockets.transport import StreamTransport
from h3trio._server.state import ServerState

from ._pipe import pipe_pair

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from types import TracebackType

    from h3trio import Closing, H3Event
    from h3trio._server.event import Handler

BUFFER_BYTES: Final = 64 * 1024  # as in a kernel's socket buffer
_UNREAD: Final = 256 * 1024  # then the client stops reading: a handler that never rests must wait
_EVENT_COST: Final = 64
_COMMENTS: Final = 10_000
_RECEIVE: Final = 2 * 1024  # bytes at once: what they hold is taken without a checkpoint
_LEAVE_TIMEOUT: Final = 60.0
# Longer than the pauses of nearly all streams. Without an end a wait for what never comes would
# never be seen: with `autojump_clock` the heartbeats of an open stream keep the clock going.
_WITHIN: Final = 3600.0


@final
class FramingError(Exception):
    """The server sent bytes that are no HTTP/1.1 response: it comes out of the client's block."""


@final
class Ending(enum.StrEnum):
    """How a response ended, seen from the client."""

    COMPLETE = "complete"
    """It is whole: the server meant it to end there."""
    CUT = "cut"
    """The connection was closed in the middle of it."""
    RESET = "reset"
    """The connection broke."""
    LEFT = "left"
    """The client went away first."""


class _Plan(NamedTuple):
    """The arguments of `connect` that hold for each connection of its client."""

    handler: Handler
    line: str
    fields: dict[str, str]
    content: bytes
    settings: Settings
    room: int
    user: int | None

    def request(self, last_event_id: str) -> bytes:
        """Write the request; an empty id isn't sent."""
        resumed = {"last-event-id": last_event_id} if last_event_id else {}
        fields = (f"{name}: {value}" for name, value in (self.fields | resumed).items())
        return "\r\n".join([self.line, *fields, "", ""]).encode() + self.content


@final
class Client:
    """One client of a handler; `connect` makes it: `async with connect(app, "/events") as client`.

    Attributes:
        connections: how many connections it has made.
    """

    def __init__(self, plan: _Plan, *, last_event_id: str, lifespan: bool) -> None:
        self._plan = plan
        self._enters_lifespan = lifespan
        self._entered: contextlib.AsyncExitStack[bool | None] = contextlib.AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._link: _Link | None = None
        self._stalled = False
        self._receiving = trio.CancelScope()
        self._changed = trio.lowlevel.ParkingLot()
        self._parser = SSEParser(last_event_id=last_event_id)
        self._events: deque[SSEEvent] = deque()
        self._newest: SSEEvent | None = None
        self._unread = 0
        self._body = bytearray()
        self._comment = b""
        self._comments: deque[str] = deque(maxlen=_COMMENTS)
        self._new_comments: deque[str] = deque(maxlen=_COMMENTS)
        self.connections: int = 0

    # -- what has arrived

    @property
    def _now(self) -> _Link:
        if self._link is None:
            raise RuntimeError("enter the client first: async with connect(...)")
        return self._link

    @property
    def status(self) -> int:
        """The status of the response; 0 until its head is there."""
        return self._now.response.status

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers of the response: names in lower case, repeated ones joined with `", "`."""
        return self._now.response.headers

    @property
    def last_event_id(self) -> str:
        """The last event id of all that came; `reconnect` asks with it.

        Before there is one, the `Last-Event-ID` that the head of a hub's stream has.
        """
        return self._parser.last_event_id

    @property
    def retry(self) -> int | None:
        """The reconnection time in milliseconds that this stream has set, `None` if it hasn't."""
        return self._parser.retry

    @property
    def comments(self) -> tuple[str, ...]:
        """The comments that came, the newest 10,000; heartbeats, and a stream's first, are `""`."""
        return tuple(self._comments)

    @property
    def closed(self) -> bool:
        """Whether the response has ended: whole, or with its connection."""
        return self._now.ending is not None

    @property
    def ending(self) -> Ending | None:
        """How the response ended, `None` while it lasts."""
        return self._now.ending

    @property
    def closing(self) -> Closing | None:
        """How the response ended for the server, as `on_close` hooks get it; `None` until then."""
        return self._now.closing

    async def next_event(self, *, within: float = _WITHIN) -> SSEEvent:
        """Return the next event, as a browser would see it.

        Args:
            within: seconds of Trio's clock that it may take.

        Raises:
            trio.EndOfChannel: there are no more; `ending` and `closing` say why.
            trio.TooSlowError: none came in that time.
            RuntimeError: the client is stalled.
        """
        await self._until_some(self._events, "event", within)
        event = self._events.popleft()
        self._unread -= _cost(event)
        self._changed.unpark_all()
        return event

    async def next_comment(self, *, within: float = _WITHIN) -> str:
        """Return the next comment, such as the heartbeats' `""`.

        Raises:
            trio.EndOfChannel, trio.TooSlowError, RuntimeError: as for `next_event`.
        """
        await self._until_some(self._new_comments, "comment", within)
        return self._new_comments.popleft()

    async def body(self, *, within: float = _WITHIN) -> bytes:
        """Return the body of the response, once it is whole.

        Raises:
            trio.BrokenResourceError: it was cut off.
            trio.TooSlowError: it wasn't whole in that time, in seconds.
        """
        with self._fail_after(within, "end of the body"):
            while not self.closed:
                self._refuse_to_hang()
                await self._changed.park()
        await trio.lowlevel.checkpoint()
        if self.ending is not Ending.COMPLETE:
            raise trio.BrokenResourceError(f"the response ended: {self.ending}")
        return bytes(self._body)

    async def _until_some(
        self, items: deque[SSEEvent] | deque[str], what: str, within: float
    ) -> None:
        await trio.lowlevel.checkpoint()
        if items:
            return
        with self._fail_after(within, what):
            while not items:
                if self.closed:
                    reason = f"status {self.status}; the response ended: {self.ending}"
                    raise trio.EndOfChannel(reason)
                self._refuse_to_hang()
                await self._changed.park()

    @contextlib.contextmanager
    def _fail_after(self, seconds: float, what: str) -> Generator[None]:
        """Bound a wait, and say what is there when the time is over."""
        with trio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            seen = "a clock that jumps doesn't wait for threads, such as those of SQLiteHistory"
            if self.status:
                ended = f"the response {'has ended' if self.closed else 'is open'}"
                seen = f"status {self.status}; {ended}; the last event: {self._newest!r}"
            raise trio.TooSlowError(f"no {what} for {seconds:g} s; {seen}")

    def _refuse_to_hang(self) -> None:
        if self._stalled:
            raise RuntimeError("the client is stalled: nothing comes until resume()")

    # -- what a client does

    def stall(self) -> None:
        """Stop reading: the server's sends go well until the buffers are full, then they wait."""
        self._stalled = True
        self._receiving.cancel(reason="the client stalls")

    def resume(self) -> None:
        """Read again."""
        self._stalled = False
        self._changed.unpark_all()

    def vanish(self) -> None:
        """Break the connection, as a reset does."""
        self._now.ending = self._now.ending or Ending.LEFT
        self._now.stream.reset()
        self._changed.unpark_all()

    async def half_close(self) -> None:
        """Close the sending side, and read on."""
        await self._now.stream.send_eof()

    async def reconnect(self) -> None:
        """Close this connection and ask again, with the last event id.

        Events that came and weren't taken stay; comments and body begin anew. Returns, as entering
        does, when the head of the response is there.
        """
        await self.leave()
        self._stalled = False
        await self._open()

    async def leave(self) -> None:
        """Close the connection; returns when the handler has finished unwinding.

        Raises:
            trio.TooSlowError: after 60 s it hasn't.
        """
        self._now.leave()
        self._changed.unpark_all()
        with trio.fail_after(_LEAVE_TIMEOUT):
            await self._now.served.wait()

    async def wait_closed(self, *, within: float = _WITHIN) -> Closing:
        """Wait until the server is done with the response; return why, as it sees it.

        Raises:
            trio.EndOfChannel: no handler was called: the request was refused before.
            trio.TooSlowError: it wasn't done in that time, in seconds.
        """
        with self._fail_after(within, "end"):
            await self._now.answered.wait()
        if self._now.closing is None:
            raise trio.EndOfChannel(f"no handler was called; status {self.status}")
        return self._now.closing

    # -- its life

    async def __aenter__(self) -> Self:
        if self._nursery is not None:
            raise RuntimeError("a client is entered once")
        async with contextlib.AsyncExitStack() as stack:
            app: object = self._plan.handler
            if self._enters_lifespan and isinstance(app, HasLifespan):
                await stack.enter_async_context(unwrapped(app.lifespan()))
            self._nursery = await stack.enter_async_context(OwnedNursery())
            await self._open()
            self._entered = stack.pop_all()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if exc_type is None:
                await self.leave()
        finally:
            await self._entered.__aexit__(exc_type, exc, traceback)

    async def _open(self) -> None:
        assert self._nursery is not None, "entered before"
        self._link = _Link(self._plan, self._plan.request(self.last_event_id))
        self._parser = SSEParser(last_event_id=self.last_event_id)
        self._body.clear()
        self._comments.clear()
        self._new_comments.clear()
        self._comment = b""
        self.connections += 1
        self._nursery.start_soon(self._link.serve, name="h3trio test server")
        self._nursery.start_soon(self._link.send_request, name="h3trio test request")
        self._nursery.start_soon(self._read, self._link, name="h3trio test client")
        with self._fail_after(_WITHIN, "head of the response"):
            while not self.status:
                if self.closed:
                    raise trio.BrokenResourceError(f"no response: {self.ending}")
                await self._changed.park()

    # -- the reading task

    async def _read(self, link: _Link) -> None:
        try:
            while link.ending is None:
                if self._stalled or self._unread >= _UNREAD:
                    await self._changed.park()
                    continue
                with trio.CancelScope() as self._receiving:
                    self._received(link, await link.stream.receive_some(_RECEIVE))
        except trio.BrokenResourceError:
            link.ending = link.ending or Ending.RESET
        except trio.ClosedResourceError:
            link.ending = link.ending or Ending.LEFT
        self._changed.unpark_all()

    def _received(self, link: _Link, data: bytes) -> None:
        response = link.response
        has_head = bool(response.status)
        try:
            piece = response.feed(data)
        except ValueError as exc:
            raise FramingError(str(exc)) from exc
        if not has_head and not self.last_event_id:
            self._parser = SSEParser(last_event_id=response.headers.get("last-event-id", ""))
        if "text/event-stream" in response.headers.get("content-type", ""):
            self._take_comments(piece)
            for event in self._parser.feed(piece):
                self._events.append(event)
                self._newest = event
                self._unread += _cost(event)
        else:
            self._body += piece
        if response.is_done:
            link.ending = Ending.COMPLETE
        elif not data:
            link.ending = Ending.CUT
        self._changed.unpark_all()

    def _take_comments(self, piece: bytes) -> None:
        """Collect the comments: the parser, as the standard has it, passes over them."""
        *lines, rest = (self._comment + piece).split(b"\n")
        # Of any other line the first byte is enough: one that grows isn't copied for each piece.
        self._comment = rest if rest.startswith(b":") else rest[:1]
        for line in lines:
            if line.startswith(b":"):
                text = line[1:].decode("utf-8", "replace").removesuffix("\r").removeprefix(" ")
                self._comments.append(text)
                self._new_comments.append(text)


@final
class _Link:
    """One connection of a client: its two ends, and how each saw it end."""

    def __init__(self, plan: _Plan, request: bytes) -> None:
        self._handler = plan.handler
        self._request = request
        ours, self.stream = pipe_pair(plan.room)
        self.state = state = ServerState(plan.settings)
        state.connections = 1
        self._connection = Connection(
            StreamTransport(ours),
            self._watched,
            peer=Peer("memory", "http", state, told_user=plan.user),
            state=state,
        )
        self.response = ResponseReader(is_head=request.startswith(b"HEAD "))
        self.ending: Ending | None = None
        self.closing: Closing | None = None
        self.answered = trio.Event()
        self.served = trio.Event()

    async def _watched(self, event: H3Event) -> object:
        event.on_close(self._closed)
        return await self._handler(event)

    def _closed(self, closing: Closing) -> None:
        self.closing = closing
        self.answered.set()

    async def serve(self) -> None:
        """Run the server's side."""
        async with OwnedNursery() as nursery:
            nursery.start_soon(self.state.heartbeat.run)
            await self._connection.run()
        self.answered.set()
        self.served.set()

    async def send_request(self) -> None:
        """Send the request; a server that doesn't want all of it has answered."""
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self.stream.send_all(self._request)

    def leave(self) -> None:
        """Close the client's end."""
        self.ending = self.ending or Ending.LEFT
        self.stream.close()


def connect(
    app: Handler,
    target: str = "/",
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    content: bytes | str = b"",
    last_event_id: str | None = None,
    settings: Settings | None = None,
    buffer_bytes: int = BUFFER_BYTES,
    lifespan: bool = True,
    user: int | None = None,
) -> Client:
    """Make a client of an app, in memory.

    Use it so: `async with connect(app, "/events") as client`. Entering sends the request, and
    returns when the head of the response is there; an app's lifespan is entered around that.
    Leaving closes the connection, and returns when the handler has finished unwinding; an exception
    of the block comes out bare.

    Args:
        app: `async def handler(event)`, such as an `App`.
        target: path and query, percent-encoded.
        method: of the request.
        headers: in place of ours, `Host: localhost` and `Accept: text/event-stream`.
        content: body of the request.
        last_event_id: the id of the event to go on behind.
        settings: limits and times of the server.
        buffer_bytes: room between the two; a server that has so many bytes under way waits.
        lifespan: whether to enter the app's lifespan; not where the test, or another client, has.
        user: the user id that the client's program runs as, our own if not given; see
            `H3Event.peer_user`.

    Raises:
        TypeError: the app can't be called with an event, or isn't async.
        ValueError: the request can't be put on the wire.
        trio.BrokenResourceError: on entering: the server closed the connection without a response.
        trio.TooSlowError: on entering: there was no head of a response for an hour.
    """
    require_async(app, HANDLER)
    if buffer_bytes < 1:
        raise ValueError(f"buffer_bytes must be at least 1, not {buffer_bytes}")
    body = content.encode() if isinstance(content, str) else content
    fields = {"host": "localhost", "accept": "text/event-stream"}
    if body or method not in ("GET", "HEAD", "DELETE"):
        fields["content-length"] = str(len(body))
    fields.update((name.lower(), value) for name, value in (headers or {}).items())
    line = f"{method} {target} HTTP/1.1"
    _check_request(line, fields)
    plan = _Plan(app, line, fields, body, settings or Settings(), buffer_bytes, user)
    return Client(plan, last_event_id=last_event_id or "", lifespan=lifespan)


def _cost(event: SSEEvent) -> int:
    return _EVENT_COST + len(event.data or "")


def _check_request(line: str, fields: Mapping[str, str]) -> None:
    """Refuse what isn't sent as it is written: the test would be of another request."""
    if len(line.split(" ")) != 3:  # noqa: PLR2004 - method, target, version
        raise ValueError(f"method and target must be without spaces: {line!r}")
    for text in (line, *fields, *fields.values()):
        if not text.isprintable():
            raise ValueError(f"{text!r} holds a control character")
