"""What comes before HTTP: PROXY headers from trusted peers, and what is made of them."""

from __future__ import annotations

import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from helpers import NamedPeers, request
from trio.testing import wait_all_tasks_blocked

from h3trio import H3Event, Server, Settings, TrustedProxies, serve
from h3trio._server.handshakes import handshake
from h3trio._server.peer import Peer
from h3trio._server.sockets.transport import SocketTransport
from h3trio._server.state import ServerState

if TYPE_CHECKING:
    from trio.testing import MockClock

PROXY = b"PROXY TCP4 192.0.2.1 10.0.0.9 1234 80\r\n"
LOCAL = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"


async def say(event: H3Event) -> str | None:
    """Say who asks and how; stream if asked to."""
    if event.path == "/events":
        async with event.start_sse():
            await trio.sleep_forever()
    return f"<{event.client} {event.scheme}>"


async def start(
    nursery: trio.Nursery,
    peers: NamedPeers,
    *allow: str,
    settings: Settings | None = None,
    proxy_protocol: bool = True,
) -> Server:
    """Serve behind proxies."""
    proxies = TrustedProxies(allow or ["10.0.0.1"], proxy_protocol=proxy_protocol)
    serving = partial(serve, say, listeners=[peers], proxies=proxies, settings=settings)
    server: Server = await nursery.start(serving)
    return server


async def ask(peers: NamedPeers, peer: str, *pieces: bytes) -> str:
    """Send pieces, each on its own; return what comes first."""
    stream = await peers.connect_from(peer)
    for piece in pieces:
        await stream.send_all(piece)
        await wait_all_tasks_blocked()
    return bytes(await stream.receive_some()).decode()


@pytest.mark.parametrize(
    ("header", "client"),
    [(PROXY, "192.0.2.1"), (LOCAL, "10.0.0.1"), (b"PROXY UNKNOWN\r\n", "unknown")],
)
async def test_a_header(nursery: trio.Nursery, header: bytes, client: str) -> None:
    """The client is whom the header names, however it is cut; what follows is the request."""
    peers = NamedPeers()
    await start(nursery, peers)
    whole = header + request()
    assert f"<{client} http>" in await ask(peers, "10.0.0.1", whole)
    assert f"<{client} http>" in await ask(peers, "10.0.0.1", header, request())
    bytewise = (whole[at : at + 1] for at in range(len(whole)))
    assert f"<{client} http>" in await ask(peers, "10.0.0.1", *bytewise)
    nursery.cancel_scope.cancel()


async def test_a_name_of_this_machine_is_nobodys(nursery: trio.Nursery) -> None:
    """A proxy here may stand behind a tunnel: whom it calls local gets no rights of ours."""
    peers = NamedPeers()
    await start(nursery, peers, "127.0.0.1")
    header = b"PROXY TCP4 127.0.0.1 127.0.0.1 1234 80\r\n"
    assert "<unknown http>" in await ask(peers, "127.0.0.1", header + request())
    nursery.cancel_scope.cancel()


async def test_only_of_trusted_peers(nursery: trio.Nursery) -> None:
    """Others speak HTTP at once; a header of theirs is a bad request."""
    peers = NamedPeers()
    await start(nursery, peers)
    assert "<192.0.2.7 http>" in await ask(peers, "192.0.2.7", request())
    assert "HTTP/1.1 400 " in await ask(peers, "192.0.2.7", PROXY + request())
    nursery.cancel_scope.cancel()


async def test_required_there(nursery: trio.Nursery, caplog: pytest.LogCaptureFixture) -> None:
    """A trusted peer without a header is closed, counted and said in one line."""
    caplog.set_level("INFO", "h3trio.server")
    peers = NamedPeers()
    server = await start(nursery, peers)
    assert await ask(peers, "10.0.0.1", request()) == ""
    assert caplog.messages == ["10.0.0.1: PROXY header failed: no PROXY header"]
    now = server.statistics()
    assert (now.failed_proxy_headers, now.connections) == (1, 0)
    stream = await peers.connect_from("10.0.0.1")
    await stream.send_all(PROXY[:9])
    await stream.aclose()
    await wait_all_tasks_blocked()
    assert server.statistics().failed_proxy_headers == 2
    nursery.cancel_scope.cancel()


async def test_its_deadline(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A header may take as long as a request's head."""
    peers = NamedPeers()
    server = await start(nursery, peers, settings=Settings(head_timeout=4))
    stream = await peers.connect_from("10.0.0.1")
    await stream.send_all(PROXY[:9])
    assert await stream.receive_some() == b""
    assert autojump_clock.current_time() == pytest.approx(4)
    assert server.statistics().failed_proxy_headers == 1
    nursery.cancel_scope.cancel()


async def test_limits_are_of_the_real_address(nursery: trio.Nursery) -> None:
    """Connections count under whom the header names, and a proxy's own have no limit."""
    peers = NamedPeers()
    settings = Settings(max_connections_per_address=1)
    server = await start(nursery, peers, "*", settings=settings)
    assert "<192.0.2.1 " in await ask(peers, "10.0.0.1", PROXY + request())
    assert "HTTP/1.1 429 " in await ask(peers, "10.0.0.1", PROXY + request())
    other = PROXY.replace(b"192.0.2.1", b"192.0.2.2")
    assert "<192.0.2.2 " in await ask(peers, "10.0.0.1", other + request())
    for _ in range(2):
        assert "<10.0.0.1 " in await ask(peers, "10.0.0.1", LOCAL + request())
    assert server.statistics().refused_by_address == 1
    nursery.cancel_scope.cancel()


async def test_forwarded_headers(nursery: trio.Nursery) -> None:
    """Headers of a trusted peer are believed request by request; of another they are noise."""
    peers = NamedPeers()
    await start(nursery, peers, proxy_protocol=False)
    told = request("/", "X-Forwarded-For: 9.9.9.9, 192.0.2.1", "X-Forwarded-Proto: https")
    assert "<192.0.2.1 https>" in await ask(peers, "10.0.0.1", told)
    assert "<10.0.0.1 http>" in await ask(peers, "10.0.0.1", request())
    assert "<192.0.2.7 http>" in await ask(peers, "192.0.2.7", told)
    nursery.cancel_scope.cancel()


async def test_streams_are_counted_by_whom_a_proxy_names(nursery: trio.Nursery) -> None:
    """Behind a proxy each client has its own limit of streams; the proxy itself has none."""
    peers = NamedPeers()
    settings = Settings(max_streams_per_address=1, max_connections_per_address=1)
    server = await start(nursery, peers, proxy_protocol=False, settings=settings)
    first = request("/events", "Forwarded: for=192.0.2.1")
    assert "HTTP/1.1 200 " in await ask(peers, "10.0.0.1", first)
    assert "HTTP/1.1 429 " in await ask(peers, "10.0.0.1", first)
    second = request("/events", "Forwarded: for=192.0.2.2")
    assert "HTTP/1.1 200 " in await ask(peers, "10.0.0.1", second)
    for _ in range(2):
        assert "HTTP/1.1 200 " in await ask(peers, "10.0.0.1", request("/events"))
    assert server.statistics().refused_streams == 1
    nursery.cancel_scope.cancel()


async def test_a_handshake_counts_already(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """Who hasn't shaken hands holds a place of its address, and gives it back if it never does."""
    peers = NamedPeers()
    settings = Settings(max_connections_per_address=1, tls_handshake_timeout=3)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    proxies = TrustedProxies("10.0.0.1", proxy_protocol=True)
    serving = partial(
        serve, say, listeners=[peers], ssl_context=context, proxies=proxies, settings=settings
    )
    server: Server = await nursery.start(serving)
    books = server._state.addresses  # noqa: SLF001 - nothing public leads there
    direct, second = [await peers.connect_from("192.0.2.1") for _ in range(2)]
    told = await peers.connect_from("10.0.0.1")
    await told.send_all(PROXY.replace(b"192.0.2.1", b"192.0.2.2"))
    await wait_all_tasks_blocked()
    assert books.loads == {"192.0.2.1": (1, 0), "192.0.2.2": (1, 0)}
    now = server.statistics()
    assert (now.connections, now.refused_by_address) == (2, 1)
    for stream in (direct, second, told):
        assert await stream.receive_some() == b""
    assert not books.loads
    assert autojump_clock.current_time() == pytest.approx(3)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("step", range(10))
async def test_books_are_empty_after_a_cancellation(nursery: trio.Nursery, step: int) -> None:
    """However far an entrance has come when the server is cancelled, the books are empty."""
    peers = NamedPeers()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    proxies = TrustedProxies("10.0.0.1", proxy_protocol=True)
    inner = trio.CancelScope()

    async def run(*, task_status: trio.TaskStatus[Server]) -> None:
        with inner:
            await serve(
                say,
                listeners=[peers],
                ssl_context=context,
                proxies=proxies,
                settings=Settings(max_connections_per_address=2),
                task_status=task_status,
            )

    server: Server = await nursery.start(run)
    for _ in range(4):
        await (await peers.connect_from("10.0.0.1")).send_all(PROXY)
    for _ in range(step):
        await trio.lowlevel.checkpoint()
    inner.cancel()
    await server.drain()
    assert not server._state.addresses.loads  # noqa: SLF001 - nothing public leads there


async def test_a_drain_before_the_first_step() -> None:
    """It stops also a connection whose PROXY header is there already."""
    proxies = TrustedProxies(["10.0.0.1"], proxy_protocol=True)
    state = ServerState(Settings(), proxies=proxies)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0)
        theirs.sendall(PROXY)
        peer = Peer("10.0.0.1", "http", state)
        transport = SocketTransport(ours)
        ready: list[object] = []

        async def shake() -> None:
            ready.append(await handshake(transport, peer, state=state, ssl_context=None))

        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                state.handshakes.add(scope)
                state.end_idle()
                await shake()
            nursery.cancel_scope.cancel()
    assert ready == []
