"""TLS on real sockets: the command line with a certificate, and what clients see of it."""

from __future__ import annotations

import signal
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from e2e.process import PATIENCE, Connection, ServeProcess, connect

from h3trio import CloseReason, H3Event, Server, Settings, serve
from h3trio._server.sockets.tls import server_context

if TYPE_CHECKING:
    from pathlib import Path

    from h3trio._server.event import Handler

    TLSStream = trio.SSLStream[trio.SocketStream]


@pytest.fixture
def authority() -> trustme.CA:
    """Sign certificates."""
    return trustme.CA()


@pytest.fixture
def pem(authority: trustme.CA, tmp_path: Path) -> Path:
    """A PEM file with a key and its certificate."""
    path = tmp_path / "server.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        str(path)
    )
    return path


async def connect_tls(authority: trustme.CA, port: int, *, window: int = 0) -> TLSStream:
    """Connect over TLS; an end without `close_notify` is an error here."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    sock = trio.socket.socket()
    if window:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, window)
    await sock.connect(("127.0.0.1", port))
    stream = trio.SSLStream(trio.SocketStream(sock), context, server_hostname="localhost")
    await stream.do_handshake()
    return stream


async def test_the_command_line(
    nursery: trio.Nursery, authority: trustme.CA, tmp_path: Path
) -> None:
    """With a certificate the hub speaks TLS: ready line, publishing, streams, scanners, drain."""
    issued = authority.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    args = ("--tls-cert", str(tmp_path / "cert.pem"), "--drain-soft", "0.2")
    environ = {"H3TRIO_TLS_KEY": str(tmp_path / "key.pem")}
    served = await ServeProcess.start(nursery, *args, environ=environ)
    assert served.url == f"https://127.0.0.1:{served.port}"
    async with await connect(served.port) as plain:
        await plain.stream.send_all(b"GET / HTTP/1.1\r\n\r\n")
        assert await plain.stream.receive_some() == b""
    await served.wait_line("TLS handshake failed: plain HTTP where TLS is spoken")
    async with Connection(await connect_tls(authority, served.port)) as listening:
        await listening.ask(target="/events/news", headers={"Accept": "text/event-stream"})
        async with Connection(await connect_tls(authority, served.port)) as publishing:
            head = await publishing.ask("POST", "/events/news", body=b"over TLS")
            assert head.status_code == 200
        await listening.until(b"data: over TLS\n\n")
        served.send_signal(signal.SIGTERM)
        assert (await listening.rest())[1]
    assert await served.wait() == 0
    assert "Traceback" not in "".join(served.log)


async def test_a_page_over_tls_may_publish(
    nursery: trio.Nursery, authority: trustme.CA, pem: Path
) -> None:
    """A page that the hub served over TLS is of the same origin."""
    served = await ServeProcess.start(nursery, "--tls-cert", str(pem))
    host = f"localhost:{served.port}"
    async with Connection(await connect_tls(authority, served.port)) as connection:
        for origin, status in ((f"https://{host}", 200), (f"http://{host}", 403)):
            headers = {"Host": host, "Origin": origin}
            head = await connection.ask("POST", "/events/news", headers=headers, body=b"x")
            assert head.status_code == status
            await connection.rest()
    assert await served.stop() == 0


async def test_bad_certificates(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A certificate that can't be used is one line, before anything listens."""
    for args, said in (
        (("--tls-cert", str(tmp_path / "no.pem")), "can't read"),
        (("--tls-key", str(tmp_path / "no.pem")), "--tls-key needs --tls-cert"),
    ):
        served = await ServeProcess.launch(nursery, *args)
        assert await served.wait() == 2
        (line,) = served.log
        assert said in line


async def test_the_end_is_said(nursery: trio.Nursery, authority: trustme.CA, pem: Path) -> None:
    """A connection that the server ends is ended in TLS as well: nothing was cut off."""

    async def hello(event: H3Event) -> str:
        return event.scheme

    settings = Settings(linger_timeout=0.1)
    server = await start(nursery, pem, hello, settings)
    async with await connect_tls(authority, port_of(server)) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        data = b""
        with trio.fail_after(PATIENCE):
            while piece := await stream.receive_some():
                data += piece
    assert data.endswith(b"\r\n\r\nhttps")
    nursery.cancel_scope.cancel()


async def test_a_client_that_stops_reading(
    nursery: trio.Nursery, authority: trustme.CA, pem: Path
) -> None:
    """A client of zero window over TLS is closed as slow, while another gets its events."""

    async def either(event: H3Event) -> None:
        async with event.start_sse() as writer:
            while True:
                await writer.send("x" * 10_000 if event.path == "/chatty" else "tick")
                await trio.sleep(0 if event.path == "/chatty" else 0.05)

    settings = Settings(write_timeout=0.5, farewell_timeout=0.1)
    server = await start(nursery, pem, either, settings)
    async with (
        await connect_tls(authority, port_of(server), window=1) as stalled,
        Connection(await connect_tls(authority, port_of(server))) as lively,
    ):
        await stalled.send_all(b"GET /chatty HTTP/1.1\r\nHost: x\r\n\r\n")
        await lively.ask(target="/")
        with trio.fail_after(PATIENCE):
            while server.statistics().streams == 2 or not server.statistics().closings:
                await lively.until(b"data: tick\n\n")
        assert server.statistics().closings == {CloseReason.SLOW: 1}
    nursery.cancel_scope.cancel()


async def start(nursery: trio.Nursery, pem: Path, handler: Handler, settings: Settings) -> Server:
    """Serve over TLS on a free port."""
    serving = partial(serve, handler, port=0, ssl_context=server_context(pem), settings=settings)
    server: Server = await nursery.start(serving)
    return server


def port_of(server: Server) -> int:
    """Return the port of a server."""
    return int(server.addresses[0].rpartition(":")[2])
