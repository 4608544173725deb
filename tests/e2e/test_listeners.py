"""Real listening sockets: addresses and families, port 0, foreign listeners, TLS, exhaustion."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, cast, final

import pytest
import trio
import trustme
from e2e.process import Connection, ServeProcess, connect, fetch

from h3trio import H3Event, Server, Settings, serve
from h3trio._server.sockets.listeners import open_sources

if TYPE_CHECKING:
    from pathlib import Path

    from h3trio._server.sockets.transport import SocketTransport


async def hello(event: H3Event) -> str:
    """Say who asks."""
    return event.client


def has_ipv6() -> bool:
    """Tell whether this machine can listen at `::1`."""
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


async def test_every_interface(nursery: trio.Nursery) -> None:
    """Without a host it listens on every interface, both families, with one port."""
    server: Server = await nursery.start(partial(serve, hello, host=None, port=0))
    ports = {address.rpartition(":")[2] for address in server.addresses}
    assert len(ports) == 1
    assert len(server.addresses) == 1 + has_ipv6()
    port = int(ports.pop())
    for host in ["127.0.0.1", *["::1"] * has_ipv6()]:
        assert (await fetch(port, host=host)).body == host.encode()
    await server.drain()


async def test_a_port_is_free_again(nursery: trio.Nursery) -> None:
    """A port can be listened on again as soon as its server is gone, connections or not."""
    impatient = Settings(linger_timeout=0)
    first: Server = await nursery.start(partial(serve, hello, port=0, settings=impatient))
    port = int(first.addresses[0].rpartition(":")[2])
    async with await connect(port) as connection:
        await connection.ask()
        await first.drain()
    second: Server = await nursery.start(partial(serve, hello, port=port))
    assert (await fetch(port)).status == 200
    await second.drain()


async def test_a_busy_port_leaves_nothing_open() -> None:
    """If one address can't be bound, those before it are closed, and the error names it."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(OSError, match=rf"can't listen on 127\.0\.0\.1 port {port}: "):
            await serve(hello, port=port)


@final
class _Resolver(trio.abc.HostnameResolver):
    """Gives every name the same addresses."""

    def __init__(self, *hosts: str) -> None:
        self._hosts = hosts

    async def getaddrinfo(  # noqa: PLR0917 - Trio's signature
        self,
        host: bytes | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,  # noqa: A002 - Trio's name for it
        proto: int = 0,
        flags: int = 0,
    ) -> list[Any]:
        assert (host, family, proto) == (b"name.test", 0, 0)
        assert isinstance(port, int)
        await trio.lowlevel.checkpoint()
        kind = socket.SocketKind(type)
        return [(socket.AF_INET, kind, flags, "", (host, port)) for host in self._hosts]

    async def getnameinfo(
        self, sockaddr: tuple[str, int] | tuple[str, int, int, int], flags: int
    ) -> tuple[str, str]:
        raise NotImplementedError


async def addresses_of(*hosts: str) -> list[str]:
    """Listen on a name with these addresses; return where it does."""
    trio.socket.set_custom_hostname_resolver(_Resolver(*hosts))
    sources = await open_sources("name.test", 0, Settings())
    for source in sources:
        await source.aclose()
    return [source.address for source in sources]


async def test_a_name_with_several_addresses(caplog: pytest.LogCaptureFixture) -> None:
    """All addresses of a name are listened on, with one port; those that can't be are left out."""
    first, second = await addresses_of("127.0.0.1", "127.0.0.2", "127.0.0.1")
    assert second == first.replace("127.0.0.1", "127.0.0.2")
    (only,) = await addresses_of("192.0.2.77", "127.0.0.1")
    assert only.startswith("http://127.0.0.1:")
    assert caplog.messages == ["can't listen on 192.0.2.77 port 0: Cannot assign requested address"]
    with pytest.raises(OSError, match=r"can't listen on 192\.0\.2\.77 port 0: "):
        await addresses_of("192.0.2.77")


async def test_addresses_that_exclude_each_other() -> None:
    """With port 0 another port is tried if one is taken on the second address, but not for ever."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - only their number matters
    with pytest.raises(OSError, match=r"can't listen on 127\.0\.0\.1 port [1-9]\d*: ") as caught:
        await addresses_of("0.0.0.0", "127.0.0.1")
    assert caught.value.errno == errno.EADDRINUSE
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - as above


async def test_options_reach_accepted_sockets() -> None:
    """What is set on the listening socket holds for its connections."""
    settings = Settings(write_timeout=2, notsent_lowat=4096)
    (source,) = await open_sources("127.0.0.1", 0, settings)
    port = int(source.address.rpartition(":")[2])
    async with await connect(port):
        transport, client = await source.accept()
        sock = cast("SocketTransport", transport)._sock  # noqa: SLF001 - no door leads to its options
        tcp = socket.IPPROTO_TCP
        assert client == "127.0.0.1"
        assert sock.getsockopt(tcp, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(tcp, socket.TCP_USER_TIMEOUT) == 2000
        assert sock.getsockopt(tcp, 25) == 4096  # TCP_NOTSENT_LOWAT
        assert sock.gettimeout() == 0
        await transport.aclose()
    await source.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await source.accept()


async def test_trios_own_listeners(nursery: trio.Nursery) -> None:
    """Listeners made by Trio are served like our own."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    server: Server = await nursery.start(partial(serve, hello, listeners=listeners))
    port = int(re.fullmatch(r"http://127\.0\.0\.1:(\d+)", server.addresses[0])[1])  # type: ignore[index]  # it matches
    assert (await fetch(port)).body == b"127.0.0.1"
    await server.drain()


async def test_tls(nursery: trio.Nursery) -> None:
    """TLS is a listener around another; the client is still known by its address."""
    authority = trustme.CA()
    ours = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(ours)
    theirs = ssl.create_default_context()
    authority.configure_trust(theirs)
    listeners = await trio.open_ssl_over_tcp_listeners(0, ours, host="127.0.0.1")
    server: Server = await nursery.start(partial(serve, hello, listeners=listeners))
    assert server.addresses[0].startswith("https://127.0.0.1:")
    port = int(server.addresses[0].rpartition(":")[2])
    raw = await trio.open_tcp_stream("127.0.0.1", port)
    async with trio.SSLStream(raw, theirs, server_hostname="localhost") as stream:
        connection = Connection(stream)
        assert (await connection.ask()).status_code == 200
        assert await connection.piece() == b"127.0.0.1"
    await server.drain()


async def test_a_unix_socket(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A listener on a unix socket is served, and its clients are called `unix`."""
    sock = trio.socket.socket(socket.AF_UNIX)
    await sock.bind(str(tmp_path / "sock"))
    sock.listen()
    listener = trio.SocketListener(sock)
    server: Server = await nursery.start(partial(serve, hello, listeners=[listener]))
    assert server.addresses == (f"unix:{tmp_path / 'sock'}",)
    async with await trio.open_unix_socket(tmp_path / "sock") as stream:
        connection = Connection(stream)
        await connection.ask()
        assert await connection.piece() == b"unix"
    await server.drain()


async def test_no_descriptors_left(nursery: trio.Nursery) -> None:
    """Out of descriptors it serves whom it has, says so, and takes others when there are some."""
    served = await ServeProcess.start(nursery, "--no-access-log")
    _soft, hard = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
    async with await connect(served.port) as first:
        await first.ask()
        await first.until(b"</script>")
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (3, hard))
        async with await connect(served.port) as waiting:
            await served.wait_line("can't accept connections for now: Too many open files")
            assert (await first.ask("POST", "/events/news", body=b"hi")).status_code == 200
            resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (hard, hard))
            assert (await waiting.ask()).status_code == 200
    assert await served.stop() == 0
    assert len([line for line in served.log if "can't accept" in line]) == 1
