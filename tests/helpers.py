"""An HTTP client in memory.

`connect` runs a real `Connection` and gives a `Client`: raw request bytes in; status, headers,
body and events out. h11 reads them: what it refuses is an error.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, final

import h11
import trio
from trio.testing import memory_stream_pair

from h3trio import CloseReason, HTTPError, Settings, SSEEvent, SSEParser
from h3trio._server.connection import Connection
from h3trio._server.peer import Peer
from h3trio._server.sockets.transport import StreamTransport
from h3trio._server.state import ServerState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator
    from types import FrameType

    from fakes import FakeTransport

    from h3trio._server.event import Handler
    from h3trio._server.sockets.transport import Transport

    Send = Callable[[bytes], Awaitable[None]]
    Receive = Callable[[], Awaitable[bytes | bytearray]]
    Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.HalfCloseableStream]]

STREAM_TYPE = "text/event-stream; charset=utf-8"


def request(path: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """Write the head of a request."""
    head = [f"{method} {path} HTTP/{version}", "Host: test", *lines, "", ""]
    return "\r\n".join(head).encode("latin-1")


def event_source(path: str = "/", *lines: str, version: str = "1.1") -> bytes:
    """Write the head of a request as browsers' EventSource sends it."""
    return request(path, "Accept: text/event-stream", *lines, version=version)


def post(body: bytes, path: str = "/", *lines: str) -> bytes:
    """Write a request with a body."""
    return request(path, f"Content-Length: {len(body)}", *lines, method="POST") + body


@final
class LargestStep(trio.abc.Instrument):
    """How far a number grows at most between two checkpoints of any task, inside a `with`."""

    def __init__(self, read: Callable[[], int]) -> None:
        self.most = 0
        """The largest growth."""
        self.steps = 0
        """Steps of tasks in which it grew."""
        self._read = read
        self._before = 0

    def __enter__(self) -> LargestStep:
        self._before = self._read()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - Trio's signature
        """Note where it stands."""
        self._before = self._read()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - as above
        """Look how far it came."""
        grown = self._read() - self._before
        self.most = max(self.most, grown)
        self.steps += grown > 0


def count_calls(run: Callable[[], object]) -> int:
    """Run a function; return how many calls are made by this package and `urllib`, of C's too."""
    count = 0

    def profile(frame: FrameType, _event: str, _argument: object) -> None:
        nonlocal count
        # Others, such as what hypothesis has the garbage collector call, come at any time.
        count += str(frame.f_globals.get("__name__")).startswith(("h3trio.", "urllib."))

    sys.setprofile(profile)
    try:
        run()
    finally:
        sys.setprofile(None)
    return count


class Head(NamedTuple):
    """The head of a response; names in lower case, the values of a repeated one joined."""

    status: int
    headers: dict[str, str]


class Client:
    """The client's end of one connection; EOFError for what is cut off while it is read."""

    stream: trio.abc.HalfCloseableStream  # there is one unless the transport is a fake

    def __init__(
        self, connection: Connection, state: ServerState, send: Send, receive: Receive
    ) -> None:
        self.connection = connection
        self.state = state
        self.send = send
        self.finished = trio.Event()  # the server's side has ended
        self._receive = receive
        self._http = self._next_response()
        self._last: h11.Event | None = None
        self._parser = SSEParser()
        self._events: list[SSEEvent] = []

    async def run(self) -> None:
        """Run the server's side."""
        await self.connection.run()
        self.finished.set()

    def end_stream(self, reason: CloseReason) -> None:
        """End the open stream, as a drain does and an application."""
        for queue in self.state.heartbeat.streams():
            queue.scope.cancel(reason)

    def drain(self) -> None:
        """Begin a drain, as a server does."""
        self.state.draining.set()
        self.state.end_idle()

    def _next_response(self) -> h11.Connection:
        """Have h11 read the next response, whichever request it thinks that it is to."""
        http = h11.Connection(h11.CLIENT)
        http.send(h11.Request(method="GET", target="/", headers=[("Host", "test")]))
        http.send(h11.EndOfMessage())
        return http

    async def _next(self) -> h11.Event:
        while (found := self._http.next_event()) is h11.NEED_DATA:
            if not (data := await self._receive()):
                raise EOFError(self._http.trailing_data[0])
            self._http.receive_data(bytes(data))
        assert isinstance(found, h11.Event), found
        self._last = found
        return found

    async def head(self) -> Head:
        """Return the head of the next response."""
        if self._http.their_state is not h11.SEND_RESPONSE:
            rest, self._http = self._http.trailing_data[0], self._next_response()
            if rest:  # b"" would be EOF
                self._http.receive_data(rest)
        found = await self._next()
        assert isinstance(found, h11.Response | h11.InformationalResponse)
        headers: dict[str, str] = {}
        for raw, value in found.headers:
            name, text = raw.decode("ascii"), value.decode("latin-1").lower()
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        return Head(found.status_code, headers)

    async def chunk(self) -> bytes:
        """Return the next chunk of a stream; the last one is empty."""
        payload = b""
        while isinstance(found := await self._next(), h11.Data):
            payload += found.data
            if found.chunk_end:
                return payload
        assert not payload
        return payload

    async def response(self) -> tuple[Head, bytes]:
        """Return the next response whole, by its length or its chunks."""
        head, body = await self.head(), b""
        while isinstance(found := await self._next(), h11.Data):
            body += found.data
        return head, body

    async def event(self) -> SSEEvent:
        """Return the next event of a stream."""
        while not self._events:
            self._events += self._parser.feed(await self.chunk())
        return self._events.pop(0)

    async def events(self) -> list[SSEEvent]:
        """Return the events that are left up to the stream's last chunk."""
        events, self._events = self._events, []
        while payload := await self.chunk():
            events += self._parser.feed(payload)
        return events

    async def rest(self) -> bytes:
        """Return all that comes until EOF, as it came."""
        rest = self._http.trailing_data[0]
        while data := await self._receive():
            rest += data
        # h11 takes the CRLF of a chunk with the next.
        in_chunks = isinstance(self._last, h11.Data) and self._last.chunk_end
        return rest.removeprefix(b"\r\n") if in_chunks else rest


def connection_of(
    transport: Transport,
    handler: Handler,
    state: ServerState,
    *,
    client: str = "memory",
    scheme: str = "http",
    user: int | None = None,
    rejection: HTTPError | None = None,
) -> Connection:
    """Make the server's side of a connection; `user` if its peer isn't our own user's program."""
    peer = Peer(client, scheme, state, told_user=user)
    return Connection(transport, handler, peer=peer, state=state, rejection=rejection)


def connect(
    nursery: trio.Nursery,
    handler: Handler,
    *,
    settings: Settings | None = None,
    transport: FakeTransport | None = None,
    pair: Pair = memory_stream_pair,
    scheme: str = "http",
    name: str = "memory",
    user: int | None = None,
) -> Client:
    """Connect a client to a handler, over memory streams or a fake transport.

    It is called `name`, and a program of our own user unless said otherwise.
    """
    state = ServerState(settings or Settings())
    if transport is not None:
        connection = connection_of(transport, handler, state, scheme=scheme)
        client = Client(connection, state, transport.client_sends, transport.client_receives)
    else:
        ours, theirs = pair()
        made = StreamTransport(ours)
        connection = connection_of(made, handler, state, client=name, scheme=scheme, user=user)
        client = Client(connection, state, theirs.send_all, theirs.receive_some)
        client.stream = theirs
    nursery.start_soon(state.heartbeat.run)
    nursery.start_soon(client.run)
    return client


@final
class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener in memory; `connect` gives the client's end of a new connection."""

    def __init__(
        self, make: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = memory_stream_pair
    ) -> None:
        self._make = make
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](0)

    def __repr__(self) -> str:
        return "<MemoryListener>"

    async def connect(self, theirs: trio.abc.Stream | None = None) -> trio.abc.Stream:
        """Return the client's end of a new connection; `theirs` takes the server's place."""
        ours, made = self._make()
        await self._send.send(theirs or made)
        return ours

    async def accept(self) -> trio.abc.Stream:
        """Return the server's end of the next one."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """Refuse whoever comes later."""
        await self._receive.aclose()


@final
class NamedPeers(trio.abc.Listener[trio.abc.Stream]):
    """A listener in memory whose clients come from addresses."""

    def __init__(self) -> None:
        self._host = ""
        self._listener = MemoryListener(self._pair)

    def _pair(self) -> tuple[trio.abc.Stream, trio.abc.Stream]:
        ours, theirs = memory_stream_pair()
        theirs.socket = _Peer(self._host)  # type: ignore[attr-defined]  # as a socket's stream has
        return ours, theirs

    async def connect_from(self, host: str) -> trio.abc.Stream:
        """Connect from an address."""
        self._host = host
        return await self._listener.connect()

    async def accept(self) -> trio.abc.Stream:
        """Return the server's end of the next one."""
        return await self._listener.accept()

    async def aclose(self) -> None:
        """Refuse whoever comes later."""
        await self._listener.aclose()


@final
class _Peer:
    """A socket as far as its peer's name goes."""

    def __init__(self, host: str) -> None:
        self._host = host

    def getpeername(self) -> tuple[str, int] | str:
        return "" if self._host == "unix" else (self._host, 5)


@contextmanager
def nothing_cancelled() -> Generator[None]:
    """Fail if a `Cancelled` comes out that nobody asked for: a runner would take it for the end."""
    try:
        yield
    except* trio.Cancelled as group:
        raise AssertionError("a Cancelled of another task") from group


async def kept_cancelled() -> trio.Cancelled:
    """A `Cancelled` that was kept where it meant something: raised elsewhere it is a bug."""
    kept: list[trio.Cancelled] = []
    with trio.CancelScope() as scope:
        scope.cancel()
        try:
            await trio.lowlevel.checkpoint()
        except trio.Cancelled as exc:
            kept.append(exc)
            raise
    return kept[0]
