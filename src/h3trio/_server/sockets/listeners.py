"""Listening sockets and the connections that come from them.

Our own listeners keep the stdlib socket, so that a connection can try a send
without waiting. Any other `trio.abc.Listener` gives streams. Both become one
kind of source here: `accept()` returns a transport and the peer's name.

Socket options are set once on the listening socket; on Linux accepted sockets
inherit them, which saves four system calls per connection.

Three kinds of failed accept: the connection died before we took it (take the
next one), no descriptor or memory is left (wait, others will return some), the
listener was closed. Anything else is a fault of ours and is raised.
"""

from __future__ import annotations

import errno
import logging
import math
import socket
import sys
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

from h3trio._server.peers.addresses import MEMORY, UNIX, UNKNOWN

from .transport import SocketTransport, StreamTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from h3trio._http.settings import Settings

    from .transport import Transport

logger = logging.getLogger("h3trio.server")

# linux/tcp.h; Python names it only where it was compiled with it.
_TCP_NOTSENT_LOWAT: Final = getattr(socket, "TCP_NOTSENT_LOWAT", 25)
_MAX_MILLISECONDS: Final = 2**31 - 1

_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
# accept(2): "Linux accept() passes already-pending network errors on the new socket as an error
# code from accept()"; EPERM is a firewall's doing.
_DIED_BEFORE: Final = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "ECONNRESET", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH"),
        *("ENONET", "ENOPROTOOPT", "EOPNOTSUPP", "EPERM", "EPROTO", "ETIMEDOUT"),
    )
    if hasattr(errno, name)  # ENONET is Linux's
)
# A name may have addresses of a family that this machine does without.
_NO_SUCH_ADDRESS: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})

# Between two tries without descriptors. The kernel doesn't tell when one is free again.
_PAUSE: Final = 0.1
# A shortage can last; it is logged once in so many seconds.
_COMPLAINT_INTERVAL: Final = 10.0
# With port 0 the first address takes a free port, which may be taken on the others.
_PORT_ATTEMPTS: Final = 10


class Source(Protocol):
    """Where connections come from."""

    @property
    def address(self) -> str:
        """`http://host:port`, or another name of the listener."""
        ...

    @property
    def scheme(self) -> str:
        """`http`, or `https` over TLS."""
        ...

    @property
    def pauses(self) -> int:
        """How often accepting paused for want of descriptors or memory."""
        ...

    async def accept(self) -> tuple[Transport, str]:
        """Wait for a connection; return its transport and the client's name.

        Raises:
            trio.ClosedResourceError: the source was closed.
        """
        ...

    async def aclose(self) -> None:
        """Stop listening."""
        ...


@final
class SocketSource:
    """A listening TCP or unix socket of our own."""

    __slots__ = ("_failures", "_on_close", "_sock", "address", "scheme")

    def __init__(
        self,
        sock: socket.socket,
        *,
        scheme: str = "http",
        address: str | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        self._sock = sock
        self._failures = _Failures()
        self._on_close = on_close
        self.scheme = scheme
        self.address = address or _name(sock, scheme, sock)

    @property
    def pauses(self) -> int:
        return self._failures.pauses

    async def accept(self) -> tuple[Transport, str]:
        while True:
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError as exc:
                if self._sock.fileno() == -1:
                    raise trio.ClosedResourceError("this listener was closed") from None
                await self._failures.wait_out(exc)
            else:
                sock.settimeout(0)
                return SocketTransport(sock), _host(peer)

    def close(self) -> None:
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            if self._on_close is not None:
                self._on_close()

    async def aclose(self) -> None:
        self.close()


@final
class ListenerSource:
    """Any Trio listener."""

    __slots__ = ("_failures", "_listener", "address", "scheme")

    def __init__(
        self,
        listener: trio.abc.Listener[trio.abc.Stream],
        settings: Settings,
        *,
        scheme: str = "http",
    ) -> None:
        self._listener = listener
        self._failures = _Failures()
        # What has another listener below it is TLS.
        below = getattr(listener, "transport_listener", None)
        sock = getattr(below or listener, "socket", None)
        self.scheme = "https" if below else scheme
        self.address = _name(listener, self.scheme, sock)
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            set_stream_options(sock, settings)

    @property
    def pauses(self) -> int:
        return self._failures.pauses

    async def accept(self) -> tuple[Transport, str]:
        while True:
            try:
                stream = await self._listener.accept()
            except OSError as exc:
                await self._failures.wait_out(exc)
            else:
                return StreamTransport(stream), _peer(stream)

    async def aclose(self) -> None:
        await self._listener.aclose()


@final
class _Failures:
    """What one source does about failed accepts."""

    __slots__ = ("_quiet_until", "pauses")

    def __init__(self) -> None:
        self.pauses = 0
        self._quiet_until = -math.inf

    async def wait_out(self, exc: OSError) -> None:
        """Return when it is worth trying again; raise what can't be waited out."""
        if exc.errno in _OUT_OF_RESOURCES:
            self.pauses += 1
            self._complain(exc)
            await trio.sleep(_PAUSE)
        elif exc.errno in _DIED_BEFORE:
            await trio.lowlevel.checkpoint()
        else:
            raise exc

    def _complain(self, exc: OSError) -> None:
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + _COMPLAINT_INTERVAL
            logger.error("can't accept connections for now: %s", exc.strerror)


def _name(listener: object, scheme: str, sock: _Named | None) -> str:
    if sock is None:
        return repr(listener)
    name = sock.getsockname()
    return f"{scheme}://{_host_port(name)}" if isinstance(name, tuple) else f"unix:{_text(name)}"


def _host_port(name: tuple[object, ...]) -> str:
    host, port = str(name[0]), name[1]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _text(name: str | bytes) -> str:
    """The path of a unix socket; an abstract one (bytes that begin with NUL) as `@name`."""
    if isinstance(name, bytes):
        return name.decode("utf-8", "backslashreplace").replace("\0", "@")
    return name


def _peer(stream: object) -> str:
    """Name the client: its IP address, `unix`, `memory`, or `unknown` where it isn't sure."""
    while (below := getattr(stream, "transport_stream", None)) is not None:  # TLS
        stream = below
    sock: _Named | None = getattr(stream, "socket", None)
    if sock is None:
        return MEMORY if _is_memory(stream) else UNKNOWN
    try:
        name = sock.getpeername()
    except OSError:  # reset before we asked
        return UNKNOWN
    return _host(name)


def _host(name: tuple[object, ...] | str | bytes) -> str:
    return str(name[0]) if isinstance(name, tuple) else UNIX


def _is_memory(stream: object) -> bool:
    # Not imported here, as that takes as long as all of Trio: where nobody has imported it, no
    # stream can come from it.
    testing = sys.modules.get("trio.testing")
    sender = getattr(stream, "send_stream", None)
    return testing is not None and isinstance(sender, testing.MemorySendStream)


class _Named(Protocol):
    """A socket, Python's or Trio's, as far as its names go."""

    def getsockname(self) -> tuple[object, ...] | str | bytes: ...
    def getpeername(self) -> tuple[object, ...] | str | bytes: ...


def source_of(
    listener: trio.abc.Listener[trio.abc.Stream] | socket.socket, settings: Settings, *, scheme: str
) -> Source:
    """Take connections from what somebody else has made: a Trio listener or a listening socket."""
    if not isinstance(listener, socket.socket):
        return ListenerSource(listener, settings, scheme=scheme)
    listener.settimeout(0)
    if listener.family in (socket.AF_INET, socket.AF_INET6):
        set_stream_options(listener, settings)
    return SocketSource(listener, scheme=scheme)


async def open_sources(
    host: str | None, port: int, settings: Settings, *, scheme: str = "http"
) -> list[SocketSource]:
    """Bind all addresses of a host name; port 0 takes one free port for all.

    An address of a family that this machine does without is left out, as long as
    another is there.

    Raises:
        OSError: the name doesn't resolve, or an address can't be bound.
    """
    try:
        found = await trio.socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except socket.gaierror as exc:
        raise socket.gaierror(exc.errno, f"can't find host {host!r}: {exc.strerror}") from exc
    addresses = dict.fromkeys((family, address) for family, _, _, _, address in found)
    for _ in range(_PORT_ATTEMPTS - 1 if not port else 0):
        try:
            return _bind_all(addresses, port, settings, scheme)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
    return _bind_all(addresses, port, settings, scheme)


def _bind_all(
    addresses: Iterable[tuple[int, tuple[object, ...]]], port: int, settings: Settings, scheme: str
) -> list[SocketSource]:
    sources: list[SocketSource] = []
    missing: OSError | None = None
    try:
        for family, address in addresses:
            try:
                sock = _listen(family, (address[0], port, *address[2:]), settings)
            except OSError as exc:
                if exc.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = exc
                continue
            sources.append(SocketSource(sock, scheme=scheme))
            port = port or int(sock.getsockname()[1])
    except BaseException:
        for source in sources:
            source.close()
        raise
    if missing is not None:
        if not sources:
            raise missing
        logger.warning("%s", missing.strerror)
    return sources


def _listen(family: int, address: tuple[object, ...], settings: Settings) -> socket.socket:
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            set_stream_options(sock, settings)
            sock.bind(address)
            sock.listen(settings.backlog)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        where = f"{address[0]} port {address[1]}"
        raise OSError(exc.errno, f"can't listen on {where}: {exc.strerror}") from exc
    return sock


class _Settable(Protocol):
    """A socket, Python's or Trio's, as far as its options go."""

    def setsockopt(self, level: int, option: int, value: int, /) -> None: ...


def set_stream_options(sock: _Settable, settings: Settings) -> None:
    """Options for event streams: send at once, hold little, notice the dead."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        patience = min(1000 * settings.write_timeout, _MAX_MILLISECONDS)
        sock.setsockopt(tcp, _TCP_NOTSENT_LOWAT, settings.notsent_lowat)
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, round(patience))
