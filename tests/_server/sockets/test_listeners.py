"""Listening: addresses, names of clients, failed accepts and socket options, without a socket."""

from __future__ import annotations

import errno
import logging
import socket
import ssl
from typing import TYPE_CHECKING, cast

import pytest
import trio
import trio.testing
from tables import table

from h3trio import Settings
from h3trio._server.sockets.listeners import ListenerSource, SocketSource, set_stream_options
from h3trio._server.sockets.transport import SocketTransport, StreamTransport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio.testing import MockClock

SHORT = OSError(errno.EMFILE, "Too many open files")
DIED = OSError(errno.ECONNABORTED, "Software caused connection abort")
FAULT = OSError(errno.EINVAL, "Invalid argument")


class _FakeSocket:
    """As much of a socket as listening takes; `accept` gives the script's next step."""

    def __init__(
        self,
        name: object = ("127.0.0.1", 3000),
        *,
        family: int = socket.AF_INET,
        script: Iterable[object] = (),
        peer: object = ("192.0.2.1", 5),
    ) -> None:
        self.name = name
        self.family = family
        self.script = list(script)
        self.peer = peer
        self.options: dict[tuple[int, int], int] = {}
        self.is_open = True
        self.blocking = True

    def getsockname(self) -> object:
        return self.name

    def getpeername(self) -> object:
        if isinstance(self.peer, OSError):
            raise self.peer
        return self.peer

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options[level, option] = value

    def settimeout(self, timeout: float) -> None:
        self.blocking = timeout != 0

    def fileno(self) -> int:
        return 99 if self.is_open else -1

    def accept(self) -> tuple[object, object]:
        if not self.is_open:
            raise OSError(errno.EBADF, "Bad file descriptor")
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step, ("192.0.2.1", 5)


class _FakeStream(trio.abc.Stream):
    """A stream that may have a socket, and does nothing."""

    def __init__(self, sock: _FakeSocket | None = None) -> None:
        if sock is not None:
            self.socket = sock

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


class _FakeListener(trio.abc.Listener[trio.abc.Stream]):
    """A listener that gives what it was told to."""

    def __init__(
        self, *script: trio.abc.Stream | Exception, sock: _FakeSocket | None = None
    ) -> None:
        self.script = list(script)
        self.closed = False
        if sock is not None:
            self.socket = sock

    def __repr__(self) -> str:
        return "<FakeListener>"

    async def accept(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step

    async def aclose(self) -> None:
        self.closed = True
        await trio.lowlevel.checkpoint()


def source_of(
    *script: trio.abc.Stream | Exception, sock: _FakeSocket | None = None
) -> ListenerSource:
    """Make a source of a foreign listener."""
    return ListenerSource(_FakeListener(*script, sock=sock), Settings())


def own_source(*script: object) -> SocketSource:
    """Make a source of our own kind."""
    return SocketSource(cast("socket.socket", _FakeSocket(script=script)))


# -- addresses


@pytest.mark.parametrize(
    ("name", "address"),
    [
        (("127.0.0.1", 3000), "http://127.0.0.1:3000"),
        (("::1", 3000, 0, 0), "http://[::1]:3000"),
    ],
)
def test_own_address(name: object, address: str) -> None:
    """A socket of ours is named as the URL it answers at."""
    assert SocketSource(cast("socket.socket", _FakeSocket(name))).address == address


@table(
    "name, family, address",
    [
        (("127.0.0.1", 3000), socket.AF_INET, "http://127.0.0.1:3000"),
        (("::1", 3000, 0, 0), socket.AF_INET6, "http://[::1]:3000"),
        ("/run/h3trio.sock", socket.AF_UNIX, "unix:/run/h3trio.sock"),
        (b"\0h3trio", socket.AF_UNIX, "unix:@h3trio"),
    ],
)
def test_foreign_address(name: object, family: int, address: str) -> None:
    """A foreign listener is named after its socket, whatever its family."""
    assert source_of(sock=_FakeSocket(name, family=family)).address == address


def test_tls_address() -> None:
    """A listener under TLS is an https one."""
    inner = _FakeListener(sock=_FakeSocket())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    source = ListenerSource(trio.SSLListener(inner, context), Settings())
    assert source.address == "https://127.0.0.1:3000"


def test_an_address_without_a_socket_is_the_listeners_repr() -> None:
    """What has no socket is named by its own words."""
    assert source_of().address == "<FakeListener>"


# -- clients


async def client_of(stream: trio.abc.Stream) -> str:
    """Accept one stream; return the client's name."""
    transport, client = await source_of(stream).accept()
    assert isinstance(transport, StreamTransport)
    return client


@table(
    "peer, client",
    [
        (("192.0.2.1", 5), "192.0.2.1"),
        (("2001:db8::1", 5, 0, 0), "2001:db8::1"),
        ("", "unix"),
        (b"\0name", "unix"),
        (OSError(errno.ENOTCONN, "not connected"), "unknown"),
    ],
)
async def test_a_client_is_named_after_its_socket(peer: object, client: str) -> None:
    """A client is its address; one that was reset before we asked is unknown, not an error."""
    assert await client_of(_FakeStream(_FakeSocket(peer=peer))) == client


async def test_a_client_under_tls_is_named_after_its_socket() -> None:
    """TLS doesn't hide who is there."""
    stream = _FakeStream(_FakeSocket(peer=("192.0.2.1", 5)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert await client_of(trio.SSLStream(stream, context, server_side=True)) == "192.0.2.1"


async def test_only_a_memory_stream_is_memory() -> None:
    """A stream without a socket may come from anywhere: only Trio's own memory is trusted."""
    assert await client_of(trio.testing.memory_stream_pair()[0]) == "memory"
    assert await client_of(_FakeStream()) == "unknown"


# -- accepting


async def test_an_accepted_socket_does_not_block() -> None:
    """Our own sockets are taken as they are, made non-blocking."""
    sock = _FakeSocket()
    transport, client = await own_source(sock).accept()
    assert isinstance(transport, SocketTransport)
    assert (sock.blocking, client) == (False, "192.0.2.1")


async def test_connections_that_died_are_passed_over() -> None:
    """A connection that was gone before it was taken costs nothing but a look."""
    stream = _FakeStream(_FakeSocket())
    names = ("ECONNABORTED", "ECONNRESET", "EPERM", "EPROTO", "ENETUNREACH", "EHOSTUNREACH")
    died = [OSError(getattr(errno, name), name) for name in names]
    await source_of(*died, stream).accept()
    await own_source(*died, _FakeSocket()).accept()


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS])
async def test_a_shortage_is_waited_out(
    code: int, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Without descriptors or memory it pauses, says so once, and goes on when there are some."""
    shortage = [OSError(code, "no more")] * 50
    for source in (source_of(*shortage, _FakeStream()), own_source(*shortage, _FakeSocket())):
        caplog.clear()
        start = autojump_clock.current_time()
        await source.accept()
        assert autojump_clock.current_time() - start == pytest.approx(5)
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.getMessage() == "can't accept connections for now: no more"
        assert source.pauses == 50


async def test_a_long_shortage_is_said_again(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A shortage that lasts is logged every ten seconds, not at every try."""
    await source_of(*[SHORT] * 250, _FakeStream()).accept()
    assert autojump_clock.current_time() == pytest.approx(25)
    assert len(caplog.records) == 3


async def test_other_errors_are_raised() -> None:
    """An error that is our own fault isn't waited out."""
    for source in (source_of(DIED, FAULT), own_source(DIED, FAULT)):
        with pytest.raises(OSError, match="Invalid argument") as caught:
            await source.accept()
        assert caught.value is FAULT


async def test_closed_in_the_middle_of_a_shortage(autojump_clock: MockClock) -> None:
    """A socket that is closed while its acceptor pauses ends it like any other."""
    sock = _FakeSocket(script=[SHORT, _FakeSocket()])
    source = SocketSource(cast("socket.socket", sock))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(close_later, sock)
        with pytest.raises(trio.ClosedResourceError):
            await source.accept()
    assert autojump_clock.current_time() < 1


async def close_later(sock: _FakeSocket) -> None:
    """Close a socket while its acceptor waits."""
    await trio.testing.wait_all_tasks_blocked()
    sock.is_open = False


async def test_closing_closes_the_foreign_listener() -> None:
    """A foreign listener is closed with its source."""
    listener = _FakeListener()
    await ListenerSource(listener, Settings()).aclose()
    assert listener.closed


# -- options


def options(settings: Settings) -> dict[tuple[int, int], int]:
    """Return the options that a listening socket gets."""
    sock = _FakeSocket()
    set_stream_options(cast("socket.socket", sock), settings)
    return sock.options


def test_stream_options() -> None:
    """Events leave at once, little waits in the kernel, and dead peers are noticed."""
    tcp = socket.IPPROTO_TCP
    given = options(Settings(write_timeout=1.5, notsent_lowat=7))
    assert given[tcp, socket.TCP_NODELAY] == 1
    assert given[socket.SOL_SOCKET, socket.SO_KEEPALIVE] == 1
    assert given[tcp, socket.TCP_USER_TIMEOUT] == 1500
    assert 7 in given.values()


def test_an_endless_write_timeout_fits_in_the_kernel() -> None:
    """A timeout beyond what the kernel can count is the longest that it can."""
    given = options(Settings(write_timeout=1e9))
    assert given[socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT] == 2**31 - 1


@pytest.mark.parametrize(
    ("family", "expected"),
    [(socket.AF_INET, True), (socket.AF_INET6, True), (socket.AF_UNIX, False)],
)
def test_foreign_tcp_listeners_get_them_too(family: int, *, expected: bool) -> None:
    """A foreign TCP listener gets the same options, also under TLS; a unix socket none."""
    sock, below = _FakeSocket(family=family), _FakeSocket(family=family)
    source_of(sock=sock)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ListenerSource(trio.SSLListener(_FakeListener(sock=below), context), Settings())
    assert bool(sock.options) is bool(below.options) is expected
