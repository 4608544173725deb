"""Every limit of `Settings` in one table: met at the limit and one above, and counted by its name.

A row is a scenario over a real server in memory, played twice on a virtual clock: at the limit,
where nothing is counted, and above it, where the client gets what the row says and the counter of
the setting's name in `Server.statistics().limits` is one. A field of `Settings` that is in neither
table below fails the first test: whoever adds a limit adds its row.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, final

import trio
from helpers import event_source, post, request
from tables import table
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from h3trio import App, H3Event, Server, Settings, serve
from h3trio.hubserver import AnonymousAccess, create_app

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio._server.event import Handler


# Fields that refuse nothing and end nothing, and why there is no row for them.
NO_ROW: Final = {
    "backlog": "the kernel's: it drops what is above it, and tells nobody",
    "body_buffer_bytes": "back-pressure: the server stops reading (test_connection.py)",
    "max_connections_per_address": "streams in memory have no address (peers/test_addresses.py)",
    "max_streams_per_address": "streams in memory have no address (peers/test_addresses.py)",
    "tls_handshake_timeout": "streams in memory speak no TLS (tests/_server/sockets/test_tls.py)",
    "queue_events": "back-pressure: `send` waits (tests/_server/test_send_queue.py)",
    "queue_bytes": "back-pressure: `send` waits (tests/_server/test_send_queue.py)",
    "notsent_lowat": "back-pressure, in the kernel (tests/e2e)",
    "blocked_loop_warning": "not a client's: a handler is named (tests/e2e/test_watchdog.py)",
    "cancel_warning": "not a client's: a handler is named (tests/_server/test_watchdog.py)",
    "heartbeat_interval": "what we send, not what a client may do",
    "lease_jitter": "spreads `lease`",
    "reconnect_delay": "what clients are told",
}


class Play(Protocol):
    """What a row plays."""

    async def __call__(self, stage: Stage, *, above: bool) -> object:
        """Return what the client saw."""


@final
class Doorway(trio.abc.Listener[trio.abc.Stream]):
    """A listener in memory."""

    def __init__(self) -> None:
        self.send, self._receive = trio.open_memory_channel[trio.abc.Stream](100)

    async def accept(self) -> trio.abc.Stream:
        """Give the next connection."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """Give none any more."""
        self.send.close()
        await trio.lowlevel.checkpoint()


@final
class Stage:
    """A running server and its clients."""

    def __init__(self, nursery: trio.Nursery, listener: Doorway, server: Server, row: Row) -> None:
        self.nursery = nursery
        self.server = server
        self.clients: list[Client] = []
        self._listener = listener
        self._pair = lockstep_stream_pair if row.lockstep else memory_stream_pair

    async def connect(self, data: bytes = b"") -> Client:
        """Open a connection and send something."""
        theirs, ours = self._pair()
        self._listener.send.send_nowait(theirs)
        client = Client(ours)
        self.clients.append(client)
        if data:
            await client.send(data)
        return client


@final
class Client:
    """One connection's other end."""

    def __init__(self, stream: trio.abc.HalfCloseableStream) -> None:
        self.stream = stream
        self.send = stream.send_all

    async def piece(self) -> bytes:
        """Return what comes next, nothing at the end."""
        try:
            return bytes(await self.stream.receive_some())
        except trio.BrokenResourceError:
            return b""

    async def status(self) -> int | str:
        """Return the status of the answer that comes next, or that there is none."""
        piece = await self.piece()
        return int(piece.split()[1]) if piece.startswith(b"HTTP/1.") else "closed"

    async def rest(self) -> bytes:
        """Return all that comes until the end."""
        data = b""
        while piece := await self.piece():
            data += piece
        return data


async def app(event: H3Event) -> object:
    """Do what the path says."""
    if event.path == "/stream":
        async with event.start_sse() as writer:
            await writer.send("hello")
            if event.query.get("end"):
                event.end()
            await trio.sleep_forever()
    if event.path == "/sleep":
        await trio.sleep(float(event.query["seconds"]))
    if event.path == "/tell":
        async with event.start_sse():
            await trio.sleep(float(event.query["seconds"]))
        return None
    if event.path == "/unread":
        return "unread"
    return await event.body()


hub = create_app(anonymous=AnonymousAccess(allow_anonymous_publish=True))


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is set, what is played, and what the client sees above the limit."""

    settings: Settings
    play: Play
    at: object = 200
    above: object
    handler: Handler = app
    lockstep: bool = False


async def read_json(event: H3Event) -> str:
    """Read the body as JSON."""
    return type(await event.json()).__name__


def routed(handler: Handler) -> App:
    """Put a handler behind every path of an app, which refuses what comes too late."""
    made = App()
    made.all("/*")(handler)
    return made


# -- what is played


async def too_many_connections(stage: Stage, *, above: bool) -> object:
    """One connection is served, the second isn't."""
    first = await stage.connect()
    if above:
        return await (await stage.connect()).status()
    await first.send(request())
    return await first.status()


async def too_many_requests(stage: Stage, *, above: bool) -> object:
    """The second of two is the last: it is told so, and what comes behind it isn't served."""
    client = await stage.connect(request())
    answer = await client.piece()
    if above:
        await client.send(request() * 2)
        answer = await client.rest()
    return answer.count(b"HTTP/1.1 200 OK"), b"Connection: close" in answer


async def long_head(stage: Stage, *, above: bool) -> object:
    """A head of 200 bytes, or 201."""
    size = 200 + above
    head = request("/", f"X: {'x' * (size - len(request('/', 'X: ')))}")
    assert len(head) == size
    return await (await stage.connect(head)).status()


async def long_target(stage: Stage, *, above: bool) -> object:
    """A target of 100 bytes, or 101."""
    return await (await stage.connect(request("/" + "x" * (99 + above)))).status()


async def many_headers(stage: Stage, *, above: bool) -> object:
    """Ten header lines, `Host` among them, or eleven."""
    lines = [f"X-{number}: y" for number in range(9 + above)]
    return await (await stage.connect(request("/", *lines))).status()


async def long_body(stage: Stage, *, above: bool) -> object:
    """A body of 100 bytes, or 101."""
    return await (await stage.connect(post(b"x" * (100 + above)))).status()


async def many_values(stage: Stage, *, above: bool) -> object:
    """An array with 9 values, itself the tenth, or one more."""
    body = b"[" + b",".join([b"1"] * (9 + above)) + b"]"
    return await (await stage.connect(post(body))).status()


async def long_event(stage: Stage, *, above: bool) -> object:
    """An event of 100 bytes, or 101."""
    return await (await stage.connect(post(b"x" * (100 + above), "/events/t"))).status()


async def long_unread_body(stage: Stage, *, above: bool) -> object:
    """All but the last byte of the body comes, then the rest and another request."""
    size = 101 + above
    head = request("/unread", f"Content-Length: {size}", method="POST")
    client = await stage.connect(head + b"x" * (size - 1))
    assert await client.status() == 200
    await wait_all_tasks_blocked()
    await client.send(b"x" + request())
    return await client.status()


async def slow_head(stage: Stage, *, above: bool) -> object:
    """A head that is complete after 9.9 s, or not after 10.1 s."""
    client = await stage.connect(request()[:-2])
    await trio.sleep(10.1 if above else 9.9)
    if not above:
        await client.send(b"\r\n")
    return await client.status()


async def silent_body(stage: Stage, *, above: bool) -> object:
    """A body after 29.9 s of silence, or none after 30.1 s."""
    client = await stage.connect(request("/", "Content-Length: 1", method="POST"))
    await trio.sleep(30.1 if above else 29.9)
    if not above:
        await client.send(b"x")
    return await client.status()


async def slow_body(stage: Stage, *, above: bool) -> object:
    """A silence of 25 s, and then 110 or 10 bytes a second where 100 are asked for."""
    client = await stage.connect(request("/", "Content-Length: 11000", method="POST"))
    await trio.sleep(25)
    for _ in range(100):
        if stage.server.statistics().limits:
            break
        await client.send(b"x" * (10 if above else 110))
        await trio.sleep(1)
    return await client.status()


async def idle_connection(stage: Stage, *, above: bool) -> object:
    """A second request after 74.9 s, or a wait of 75.1 s."""
    client = await stage.connect(request())
    await client.piece()
    await trio.sleep(75.1 if above else 74.9)
    if not above:
        await client.send(request())
    return await client.status()


async def stalled_reader(stage: Stage, *, above: bool) -> object:
    """A client that takes its stream after 29.9 s, or 30.1 s."""
    client = await stage.connect(request("/stream"))
    await trio.sleep(30.1 if above else 29.9)
    return b"hello" in await client.piece() + await client.piece()


async def long_linger(stage: Stage, *, above: bool) -> object:
    """A client that closes 1.9 s after the server, or 2.1 s."""
    client = await stage.connect(request("/", "Connection: close"))
    answer = await client.rest()
    await trio.sleep(2.1 if above else 1.9)
    await client.stream.aclose()
    await wait_all_tasks_blocked()
    return int(answer.split()[1])


async def long_stream(stage: Stage, *, above: bool) -> object:
    """A stream looked at after 59.9 s, or 60.1 s."""
    client = await stage.connect(event_source("/stream"))
    await client.piece()
    await trio.sleep(60.1 if above else 59.9)
    if stage.server.statistics().streams:
        return "open"
    return (await client.piece()).endswith(b"0\r\n\r\n")


async def slow_farewell(stage: Stage, *, above: bool) -> object:
    """A client that takes an ended stream after 0.9 s, or 1.1 s."""
    client = await stage.connect(event_source("/stream?end=1"))
    await trio.sleep(1.1 if above else 0.9)
    data = b"".join([await client.piece() for _ in range(3)])
    return data.endswith(b"0\r\n\r\n")


async def late_request(stage: Stage, *, above: bool) -> object:
    """A request that comes 3.9 s into a drain with a soft phase of 4 s, or 4.1 s."""
    busy = await stage.connect(request("/sleep?seconds=9"))
    late = await stage.connect(request()[:-2])
    await wait_all_tasks_blocked()
    stage.nursery.start_soon(stage.server.drain)
    await trio.sleep(4.1 if above else 3.9)
    await late.send(b"\r\n")
    answer = await late.piece()
    await late.stream.aclose()
    assert b"Connection: close" in answer
    assert (b"Retry-After: " in answer) == above
    assert await busy.status() == 200
    return int(answer.split()[1])


async def long_request(stage: Stage, *, above: bool) -> object:
    """A request that takes 13.9 s of a drain of 14 s, or 14.1 s."""
    client = await stage.connect(request("/sleep?seconds=" + ("14.1" if above else "13.9")))
    await wait_all_tasks_blocked()
    stage.nursery.start_soon(stage.server.drain)
    return await client.status()


async def long_answer(stage: Stage, *, above: bool) -> object:
    """A stream in answer to a POST that takes 24.9 s of a drain, or 25.1 s."""
    client = await stage.connect(post(b"", "/tell?seconds=" + ("25.1" if above else "24.9")))
    await client.piece()
    stage.nursery.start_soon(stage.server.drain)
    return (await client.rest()).endswith(b"0\r\n\r\n")


ROWS: Final = {
    "max_connections": Row(
        settings=Settings(max_connections=1), play=too_many_connections, above=503
    ),
    "max_requests_per_connection": Row(
        settings=Settings(max_requests_per_connection=2),
        play=too_many_requests,
        at=(1, False),
        above=(1, True),
    ),
    "max_head_bytes": Row(settings=Settings(max_head_bytes=200), play=long_head, above=431),
    "max_target_bytes": Row(settings=Settings(max_target_bytes=100), play=long_target, above=414),
    "max_header_count": Row(settings=Settings(max_header_count=10), play=many_headers, above=431),
    "max_body_bytes": Row(settings=Settings(max_body_bytes=100), play=long_body, above=413),
    "max_json_values": Row(
        settings=Settings(max_json_values=10), play=many_values, above=413, handler=read_json
    ),
    "max_event_bytes": Row(
        settings=Settings(max_event_bytes=100), play=long_event, above=413, handler=hub
    ),
    "max_discard_bytes": Row(
        settings=Settings(max_discard_bytes=100), play=long_unread_body, above="closed"
    ),
    "head_timeout": Row(settings=Settings(head_timeout=10), play=slow_head, above=408),
    "body_timeout": Row(settings=Settings(body_timeout=30), play=silent_body, above=408),
    "min_body_rate": Row(settings=Settings(min_body_rate=100), play=slow_body, above=408),
    "keepalive_timeout": Row(
        settings=Settings(keepalive_timeout=75), play=idle_connection, above="closed"
    ),
    "write_timeout": Row(
        settings=Settings(write_timeout=30),
        play=stalled_reader,
        at=True,
        above=False,
        lockstep=True,
    ),
    "linger_timeout": Row(settings=Settings(linger_timeout=2), play=long_linger, above=200),
    "lease": Row(
        settings=Settings(lease=60, lease_jitter=0),
        play=long_stream,
        at="open",
        above=True,
    ),
    "farewell_timeout": Row(
        settings=Settings(farewell_timeout=1),
        play=slow_farewell,
        at=True,
        above=False,
        lockstep=True,
    ),
    "drain_soft": Row(
        settings=Settings(drain_soft=4, drain_hard=10),
        play=late_request,
        above=503,
        handler=routed(app),
    ),
    "drain_hard": Row(
        settings=Settings(drain_soft=4, drain_hard=10), play=long_request, above="closed"
    ),
    "drain_finish": Row(settings=Settings(drain_finish=25), play=long_answer, at=True, above=False),
}


def test_every_setting_has_its_row() -> None:
    """Each field of `Settings` has a row, or a reason to have none."""
    names = {field.name for field in fields(Settings)}
    assert ROWS.keys() | NO_ROW.keys() == names
    assert not ROWS.keys() & NO_ROW.keys()


@table("above", [False, True])
@table("limit", ROWS)
async def test_limit(
    nursery: trio.Nursery, autojump_clock: MockClock, limit: str, *, above: bool
) -> None:
    """At a limit all goes well; above it the client is told, and the limit's own count is one."""
    del autojump_clock
    row, listener = ROWS[limit], Doorway()
    serving = partial(serve, row.handler, listeners=[listener], settings=row.settings)
    server: Server = await nursery.start(serving)
    stage = Stage(nursery, listener, server, row)
    assert await row.play(stage, above=above) == (row.above if above else row.at)
    for client in stage.clients:
        await client.stream.aclose()
    await wait_all_tasks_blocked()
    assert server.statistics().limits == ({limit: 1} if above else {})
    nursery.cancel_scope.cancel()
