"""TLS over memory streams: handshakes that succeed, fail and stall; streams, slow clients, EOF."""

from __future__ import annotations

import ssl
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
import trustme
from cryptography.hazmat.primitives import serialization
from fakes import FakeTransport
from helpers import MemoryListener, request
from trio.testing import lockstep_stream_pair, memory_stream_pair, wait_all_tasks_blocked

from h3trio import CloseReason, H3Event, Server, Settings, serve
from h3trio._server.sockets.tls import TLSTransport, explain, server_context

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from trio.testing import MockClock

    from h3trio._server.event import Handler

    Pair = Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]

AUTHORITY: Final = trustme.CA()


@pytest.fixture(scope="module", name="pem")
def _pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A PEM file with a key and its certificate."""
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    AUTHORITY.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


def client_context() -> ssl.SSLContext:
    """Trust the authority, and nobody else: to load the machine's takes longer than a test."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


class Running:
    """A TLS server over memory streams."""

    def __init__(self, nursery: trio.Nursery, pem: Path, pair: Pair = memory_stream_pair) -> None:
        self.listener = MemoryListener(pair)
        self._nursery = nursery
        self._context = server_context(pem)
        self.server: Server

    async def start(self, handler: Handler, settings: Settings | None = None) -> None:
        """Serve."""
        serving = partial(
            serve,
            handler,
            listeners=[self.listener],
            ssl_context=self._context,
            settings=settings,
        )
        self.server = await self._nursery.start(serving)

    async def connect(
        self, context: ssl.SSLContext | None = None
    ) -> trio.SSLStream[trio.abc.Stream]:
        """Connect, without a handshake yet."""
        raw = await self.listener.connect()
        return trio.SSLStream(
            raw,
            context or client_context(),
            server_hostname="localhost",
            https_compatible=True,
        )


async def scheme(event: H3Event) -> str:
    """Say how the client came."""
    return event.scheme


async def endless(event: H3Event) -> None:
    """Stream until ended."""
    async with event.start_sse():
        await trio.sleep_forever()


async def chatty(event: H3Event) -> None:
    """Stream more than anybody takes."""
    async with event.start_sse() as writer:
        while True:
            await writer.send("x" * 10_000)


async def until(stream: trio.abc.Stream, text: bytes) -> bytes:
    """Read up to a text."""
    data = b""
    while text not in data:
        piece = await stream.receive_some()
        assert piece, data
        data += piece
    return data


# -- serving


async def test_a_request(nursery: trio.Nursery, pem: Path) -> None:
    """A request over TLS is answered, and knows that it came by https."""
    running = Running(nursery, pem)
    await running.start(scheme)
    stream = await running.connect()
    await stream.send_all(request())
    assert (await until(stream, b"\r\n\r\nhttps")).startswith(b"HTTP/1.1 200 ")
    assert running.server.statistics().failed_handshakes == 0
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("offer", "chosen"),
    [(["h2", "http/1.1"], "http/1.1"), (["http/1.1"], "http/1.1"), ([], None)],
)
async def test_alpn(nursery: trio.Nursery, pem: Path, offer: list[str], chosen: str | None) -> None:
    """Whatever a client would rather speak, it is told HTTP/1.1."""
    running = Running(nursery, pem)
    await running.start(scheme)
    context = client_context()
    if offer:
        context.set_alpn_protocols(offer)
    stream = await running.connect(context)
    await stream.do_handshake()
    assert stream.selected_alpn_protocol() == chosen
    nursery.cancel_scope.cancel()


def test_no_old_tls(pem: Path) -> None:
    """TLS 1.2 is the oldest that is spoken."""
    assert server_context(pem).minimum_version == ssl.TLSVersion.TLSv1_2


async def test_heartbeats(nursery: trio.Nursery, pem: Path, autojump_clock: MockClock) -> None:
    """A silent stream over TLS gets its comments."""
    running = Running(nursery, pem)
    await running.start(endless)
    stream = await running.connect()
    await stream.send_all(request())
    await until(stream, b":\n")
    await until(stream, b":\n")
    assert 10 <= autojump_clock.current_time() <= 15
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("polite", [True, False])
async def test_eof(nursery: trio.Nursery, pem: Path, *, polite: bool) -> None:
    """A client that leaves is noticed, with `close_notify` or without, as browsers do."""
    running = Running(nursery, pem)
    await running.start(endless)
    stream = await running.connect()
    await stream.send_all(request())
    await until(stream, b":\n")
    await (stream if polite else stream.transport_stream).aclose()
    await wait_all_tasks_blocked()
    assert running.server.statistics().closings == {CloseReason.CLIENT_CLOSED: 1}
    nursery.cancel_scope.cancel()


async def test_the_end_comes_before_the_lingering(
    nursery: trio.Nursery, pem: Path, autojump_clock: MockClock
) -> None:
    """A client that waits for the end of its answer has it at once, as without TLS."""
    running = Running(nursery, pem)
    await running.start(scheme)
    stream = await running.connect()
    await stream.send_all(request("/", "Connection: close"))
    data = b""
    while piece := await stream.receive_some():
        data += piece
    assert data.endswith(b"https")
    assert autojump_clock.current_time() == 0
    await stream.aclose()
    await wait_all_tasks_blocked()
    now = running.server.statistics()
    assert (now.connections, now.limits) == (0, {})
    nursery.cancel_scope.cancel()


async def test_a_slow_client(nursery: trio.Nursery, pem: Path, autojump_clock: MockClock) -> None:
    """A client over TLS that takes nothing for the write timeout is closed as slow."""
    running = Running(nursery, pem, lockstep_stream_pair)
    await running.start(chatty, Settings(write_timeout=7))
    stream = await running.connect()
    await stream.send_all(request())
    await until(stream, b":\n")
    await trio.sleep(6.5)
    assert running.server.statistics().connections == 1
    await trio.sleep(2)
    assert running.server.statistics().closings == {CloseReason.SLOW: 1}
    assert autojump_clock.current_time() == pytest.approx(8.5)
    nursery.cancel_scope.cancel()


async def test_no_room_is_said_over_tls(nursery: trio.Nursery, pem: Path) -> None:
    """A refused connection gets its handshake, so that the client can read the 503."""
    running = Running(nursery, pem)
    await running.start(endless, Settings(max_connections=1))
    first = await running.connect()
    await first.send_all(request())
    await until(first, b":\n")
    second = await running.connect()
    assert (await until(second, b"too many")).startswith(b"HTTP/1.1 503 ")
    nursery.cancel_scope.cancel()


# -- handshakes that fail


async def test_plain_http(
    nursery: trio.Nursery, pem: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Plain HTTP is closed, counted and said in one line; the next client is served."""
    caplog.set_level("INFO", "h3trio.server")
    running = Running(nursery, pem)
    await running.start(scheme)
    raw = await running.listener.connect()
    await raw.send_all(request())
    assert await raw.receive_some() == b""
    assert caplog.messages == ["memory: TLS handshake failed: plain HTTP where TLS is spoken"]
    assert caplog.records[0].exc_info is None
    stream = await running.connect()
    await stream.send_all(request())
    await until(stream, b"https")
    now = running.server.statistics()
    assert (now.failed_handshakes, now.connections, now.accepted) == (1, 1, 2)
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02", b"\0" * 20, b"SSH-2.0-x\r\n"])
async def test_junk_and_leaving(
    nursery: trio.Nursery, pem: Path, caplog: pytest.LogCaptureFixture, sent: bytes
) -> None:
    """A client that leaves in its handshake, or sends what is none, harms nobody."""
    caplog.set_level("INFO", "h3trio.server")
    running = Running(nursery, pem)
    await running.start(scheme)
    raw = await running.listener.connect()
    await raw.send_all(sent)
    await raw.aclose()
    await wait_all_tasks_blocked()
    now = running.server.statistics()
    assert (now.failed_handshakes, now.connections) == (1, 0)
    (line,) = caplog.messages
    assert line.startswith("memory: TLS handshake failed: ")
    nursery.cancel_scope.cancel()


async def test_a_handshake_that_stalls(
    nursery: trio.Nursery, pem: Path, autojump_clock: MockClock
) -> None:
    """A handshake has a deadline, whatever trickles in."""
    running = Running(nursery, pem)
    await running.start(scheme, Settings(tls_handshake_timeout=3))
    raw = await running.listener.connect()
    await raw.send_all(b"\x16\x03\x01\x02\x00")
    assert await raw.receive_some() == b""
    assert autojump_clock.current_time() == pytest.approx(3)
    now = running.server.statistics()
    assert (now.failed_handshakes, now.limits) == (1, {"tls_handshake_timeout": 1})
    nursery.cancel_scope.cancel()


async def test_a_drain_ends_handshakes(
    nursery: trio.Nursery, pem: Path, autojump_clock: MockClock
) -> None:
    """A drain doesn't wait for those who haven't asked anything yet."""
    running = Running(nursery, pem)
    await running.start(scheme)
    raw = await running.listener.connect()
    await wait_all_tasks_blocked()
    assert running.server.statistics().connections == 1
    await running.server.drain()
    assert await raw.receive_some() == b""
    assert autojump_clock.current_time() == 0
    assert running.server.statistics().failed_handshakes == 0


def test_explanations() -> None:
    """A failure without a reason of TLS's is a lost connection."""
    assert explain(trio.BrokenResourceError()) == "the connection was lost"


async def test_closing_never_waits() -> None:
    """Closing over a transport that takes nothing returns at once."""
    below = FakeTransport(room=0)
    transport = TLSTransport(below, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))
    assert transport.send_nowait(b"x") == 0
    await transport.send_eof()
    await transport.aclose()
    assert below.closed
    assert "TLSTransport" in repr(transport)


# -- certificates


def test_certificate_and_key_apart(tmp_path: Path) -> None:
    """Certificate and key may be two files."""
    issued = AUTHORITY.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    server_context(tmp_path / "cert.pem", tmp_path / "key.pem")
    with pytest.raises(
        ValueError, match=r"cert\.pem has no private key: give its file \(--tls-key\)"
    ):
        server_context(tmp_path / "cert.pem")


def test_a_missing_file(tmp_path: Path, pem: Path) -> None:
    """A file that isn't there is named."""
    with pytest.raises(ValueError, match=r"can't read .*nowhere\.pem: No such file"):
        server_context(tmp_path / "nowhere.pem")
    with pytest.raises(ValueError, match=r"can't read .* or .*nowhere\.pem: No such file"):
        server_context(pem, tmp_path / "nowhere.pem")


def test_no_certificate(tmp_path: Path) -> None:
    """A file of something else is told apart."""
    (tmp_path / "x.pem").write_text("hello")
    with pytest.raises(ValueError, match=r"x\.pem: not a certificate and its key"):
        server_context(tmp_path / "x.pem")


def test_an_encrypted_key(tmp_path: Path) -> None:
    """A key with a passphrase is refused: nobody is there to type it."""
    issued = AUTHORITY.issue_cert("localhost")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    (tmp_path / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    issued.cert_chain_pems[0].write_to_path(str(tmp_path / "cert.pem"))
    with pytest.raises(ValueError, match="without a passphrase"):
        server_context(tmp_path / "cert.pem", tmp_path / "key.pem")
