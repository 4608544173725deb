"""`Source`: a listening socket, and the connections that come from it.

A `Source` has one of two forms. A `SocketSource` keeps the stdlib socket, so that a connection
can try a send without waiting; a `ListenerSource` takes streams from any other Trio listener.

Socket options are set once, on the listening socket: on Linux accepted sockets inherit them.

An accept fails because the connection is dead already (then the next one is taken), because no
descriptor or memory is left (then it waits), or because the listener was closed. Any other failure
is raised.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._server.peers.addresses import MEMORY, UNIX, UNKNOWN

from .transport import SocketTransport, StreamTransport, socket_below

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from h3trio._http.settings import Settings

    from .transport import Transport

    _Socket = socket.socket | trio.socket.SocketType

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

# Seconds between two tries without descriptors: the kernel doesn't tell when one is free again.
_PAUSE: Final = 0.1
# Seconds between two log entries on that.
_COMPLAINT_INTERVAL: Final = 10.0
# With port 0 the first address takes a free port, which may be taken on the others.
_PORT_ATTEMPTS: Final = 10


class Source(ABC):
    """A listener: connections come from it, each with the name of its client."""

    def __init__(self, scheme: str, address: str) -> None:
        self.scheme: Final = scheme
        """`http`, or `https` over TLS."""
        self.address: Final = address
        """`http://host:port`, or another name of the listener."""
        self.pauses: int = 0
        """How often accepting paused for want of descriptors or memory."""
        self._quiet_until = -math.inf

    async def accept(self) -> tuple[Transport, str]:
        """Wait for a connection; return its transport and the client's name.

        Raises:
            trio.ClosedResourceError: the source was closed.
        """
        while True:
            try:
                return await self._accept()
            except OSError as exc:
                await self._wait_out(exc)

    @abstractmethod
    async def _accept(self) -> tuple[Transport, str]: ...

    @abstractmethod
    async def aclose(self) -> None:
        """Stop listening."""

    async def _wait_out(self, exc: OSError) -> None:
        """Return when it is worth trying again; raise what can't be waited out."""
        if exc.errno in _DIED_BEFORE:
            await trio.lowlevel.checkpoint()
            return
        if exc.errno not in _OUT_OF_RESOURCES:
            raise exc
        self.pauses += 1
        now = trio.current_time()
        if now >= self._quiet_until:
            self._quiet_until = now + _COMPLAINT_INTERVAL
            logger.error("can't accept connections for now: %s", exc.strerror)
        await trio.sleep(_PAUSE)


@final
class SocketSource(Source):
    """A listening TCP or unix socket of our own."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        scheme: str = "http",
        address: str | None = None,
        on_close: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(scheme, address or _name(scheme, sock))
        self._sock = sock
        self._on_close = on_close

    async def _accept(self) -> tuple[Transport, str]:
        while True:
            try:
                sock, peer = self._sock.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._sock)
            except OSError:
                if self._sock.fileno() != -1:
                    raise
                raise trio.ClosedResourceError("this listener was closed") from None
            else:
                sock.settimeout(0)
                return SocketTransport(sock), _host(peer)

    def close(self) -> None:
        """Stop listening."""
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()
            if self._on_close is not None:
                self._on_close()

    async def aclose(self) -> None:
        self.close()


@final
class ListenerSource(Source):
    """Any Trio listener."""

    def __init__(
        self,
        listener: trio.abc.Listener[trio.abc.Stream],
        settings: Settings,
        *,
        scheme: str = "http",
    ) -> None:
        # A listener that has another below it is TLS.
        below = getattr(listener, "transport_listener", None)
        sock = getattr(below or listener, "socket", None)
        scheme = "https" if below else scheme
        super().__init__(scheme, _name(scheme, sock) if sock is not None else repr(listener))
        self._listener = listener
        if sock is not None:
            set_stream_options(sock, settings)

    async def _accept(self) -> tuple[Transport, str]:
        stream = await self._listener.accept()
        return StreamTransport(stream), _peer(stream)

    async def aclose(self) -> None:
        await self._listener.aclose()


def _name(scheme: str, sock: _Socket) -> str:
    name: tuple[object, ...] | str | bytes = sock.getsockname()
    if isinstance(name, tuple):
        host, port = str(name[0]), name[1]
        return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    if isinstance(name, bytes):  # an abstract name, which begins with NUL
        name = name.decode("utf-8", "backslashreplace").replace("\0", "@")
    return f"unix:{name}"


def _peer(stream: object) -> str:
    """Name the client: its IP address, `unix`, `memory`, or `unknown` where it isn't sure."""
    sock = socket_below(stream)
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
    # Not imported here, as that is slow: where nobody has imported it, no stream comes from it.
    testing = sys.modules.get("trio.testing")
    sender = getattr(stream, "send_stream", None)
    return testing is not None and isinstance(sender, testing.MemorySendStream)


def source_of(
    listener: trio.abc.Listener[trio.abc.Stream] | socket.socket, settings: Settings, *, scheme: str
) -> Source:
    """Make a source of a Trio listener or a listening socket that somebody else has made."""
    if not isinstance(listener, socket.socket):
        return ListenerSource(listener, settings, scheme=scheme)
    listener.settimeout(0)
    set_stream_options(listener, settings)
    return SocketSource(listener, scheme=scheme)


async def open_sources(
    host: str | None, port: int, settings: Settings, *, scheme: str = "http"
) -> list[SocketSource]:
    """Bind all addresses of a host name; port 0 takes one free port for all.

    An address of a family that this machine does without is left out, if there is another.

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
    with contextlib.ExitStack() as stack:
        for family, address in addresses:
            try:
                sock = _listen(family, (address[0], port, *address[2:]), settings)
            except OSError as exc:
                if exc.errno not in _NO_SUCH_ADDRESS:
                    raise
                missing = exc
                continue
            sources.append(SocketSource(sock, scheme=scheme))
            stack.callback(sources[-1].close)
            port = port or int(sock.getsockname()[1])
        stack.pop_all()
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


def set_stream_options(sock: _Socket, settings: Settings) -> None:
    """Set options for event streams on a TCP socket: send at once, hold little, notice the dead."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        patience = min(1000 * settings.write_timeout, _MAX_MILLISECONDS)
        sock.setsockopt(tcp, _TCP_NOTSENT_LOWAT, settings.notsent_lowat)
        sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, round(patience))
