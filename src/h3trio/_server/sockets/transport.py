"""`Transport`: the byte stream below a connection.

`SocketTransport` holds a non-blocking stdlib socket. It can *try* a send without waiting, so one
task can send to many. `StreamTransport` wraps any `trio.abc.Stream` (a memory stream, a foreign
listener's). It can't try: its `send_nowait` takes nothing, and the writer task waits.

An `OSError`, or an error of a foreign stream, is a `trio.BrokenResourceError` from here on; so is
a stream that somebody else closed. A send that was cancelled may have sent a part: only `aclose`
may follow it.
"""

from __future__ import annotations

import contextlib
import fcntl
import struct
import termios
from socket import SHUT_WR, SO_LINGER, SOL_SOCKET
from typing import TYPE_CHECKING, Final, Protocol, final

import trio

if TYPE_CHECKING:
    import socket
    from collections.abc import Generator

    from h3trio._server.peers.users import PeerSocket

RECEIVE_SIZE: Final = 64 * 1024
# One slice of a long send over a foreign stream: each that is taken is progress.
_SLICE: Final = 64 * 1024
_GONE: Final = (trio.BrokenResourceError, trio.ClosedResourceError, OSError)


class Sender(Protocol):
    """An object that tries to send, as a non-blocking socket does; mostly that socket."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Hand over what fits without waiting; return how many bytes that was, maybe none.

        Raises:
            BlockingIOError: none was.
            OSError: the connection is gone.
        """
        raise NotImplementedError


@final
class _TakesNothing:
    """The sender of a transport that can't try: the task that owns the stream waits."""

    __slots__ = ()

    def send(self, _data: bytes | memoryview, /) -> int:
        return 0


_TAKES_NOTHING: Final = _TakesNothing()


class Transport(Protocol):
    """The bytes below a connection."""

    __slots__ = ()

    @property
    def sender(self) -> Sender:
        """The way round `send_nowait` for a caller that sends often."""
        return _TAKES_NOTHING

    @property
    def raw_socket(self) -> PeerSocket | None:
        """The socket of the connection, `None` if it has none."""
        return None

    def send_nowait(self, data: bytes | memoryview) -> int:
        """Hand over what fits without waiting; return how many bytes that was.

        Raises:
            trio.BrokenResourceError: the connection is gone.
        """
        return self.sender.send(data)

    async def send_all(self, data: bytes | memoryview, *, stall_timeout: float) -> None:
        """Send everything, however long that takes while there is progress.

        Raises:
            trio.BrokenResourceError: the connection is gone.
            trio.TooSlowError: nothing was taken for `stall_timeout` seconds.
        """

    async def receive_some(self) -> bytes:
        """Return what has arrived, at least one byte, or `b""` at EOF; a checkpoint if it waits.

        Raises:
            trio.BrokenResourceError: the connection is gone.
        """
        raise NotImplementedError

    async def send_eof(self) -> None:
        """Close the sending side if the transport can, else do nothing."""

    def reset_at_close(self, *, on: bool) -> None:
        """Let the close be a reset, by whatever it comes, so that the peer sees no orderly end.

        What the kernel hasn't sent by then is dropped. A unix socket knows no reset.
        """

    async def aclose(self) -> None:
        """Close at once; never waits for the peer."""


@final
class SocketTransport(Transport):
    """A connected, non-blocking TCP or unix socket."""

    __slots__ = ("_is_new", "_sock")

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._is_new = True

    def __repr__(self) -> str:
        return f"<SocketTransport: fd {self._sock.fileno()}>"

    @property
    def sender(self) -> Sender:
        return self._sock

    @property
    def raw_socket(self) -> PeerSocket | None:
        return self._sock

    def send_nowait(self, data: bytes | memoryview) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    async def send_all(self, data: bytes | memoryview, *, stall_timeout: float) -> None:
        rest = memoryview(data)
        while True:
            rest = rest[self.send_nowait(rest) :]
            if not rest:
                await trio.lowlevel.checkpoint()
                return
            await self._wait_progress(stall_timeout)

    async def _wait_progress(self, stall_timeout: float) -> None:
        """Wait until writable; `TooSlowError` if the kernel's queue stood still."""
        while True:
            before = self._unacknowledged()
            with trio.move_on_after(stall_timeout):
                with _translated():
                    await trio.lowlevel.wait_writable(self._sock)
                return
            # The socket counts as writable only after a large part of the queue has gone, so a
            # slow reader shows here first.
            if self._unacknowledged() >= before:
                raise trio.TooSlowError(f"the peer took nothing for {stall_timeout} s")

    def _unacknowledged(self) -> int:
        """Bytes in the kernel's send queue (`SIOCOUTQ`)."""
        with _translated():
            answer = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, b"\0\0\0\0")
        size: int = struct.unpack("i", answer)[0]
        return size

    async def receive_some(self) -> bytes:
        if self._is_new:
            # Mostly the first request is here by now: that spares a wait.
            self._is_new = False
            with _translated(), contextlib.suppress(BlockingIOError):
                return self._sock.recv(RECEIVE_SIZE)
        # Later there is nothing to read yet: waiting first is one system call less.
        # No helper around the wait: its frame is 200 bytes of each idle connection.
        while True:
            try:
                await trio.lowlevel.wait_readable(self._sock)
                return self._sock.recv(RECEIVE_SIZE)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise trio.BrokenResourceError(str(exc)) from exc

    async def send_eof(self) -> None:
        with contextlib.suppress(OSError):
            self._sock.shutdown(SHUT_WR)

    def reset_at_close(self, *, on: bool) -> None:
        with contextlib.suppress(OSError):
            self._sock.setsockopt(SOL_SOCKET, SO_LINGER, _linger(on=on))

    async def aclose(self) -> None:
        if self._sock.fileno() != -1:
            trio.lowlevel.notify_closing(self._sock)
            self._sock.close()


@final
class StreamTransport(Transport):
    """Any Trio stream."""

    __slots__ = ("_stream",)

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream

    def __repr__(self) -> str:
        return f"<StreamTransport: {self._stream!r}>"

    @property
    def raw_socket(self) -> PeerSocket | None:
        return socket_below(self._stream)

    async def send_all(self, data: bytes | memoryview, *, stall_timeout: float) -> None:
        rest = memoryview(data)
        while rest:
            with trio.fail_after(stall_timeout), _translated():
                await self._stream.send_all(rest[:_SLICE])
            rest = rest[_SLICE:]

    async def receive_some(self) -> bytes:
        with _translated():
            return bytes(await self._stream.receive_some(RECEIVE_SIZE))

    async def send_eof(self) -> None:
        if isinstance(self._stream, trio.abc.HalfCloseableStream):
            with contextlib.suppress(*_GONE):
                await self._stream.send_eof()

    def reset_at_close(self, *, on: bool) -> None:
        # TLS is closed by force, so without `close_notify`.
        below: object = self._stream
        while (inner := getattr(below, "transport_stream", None)) is not None:
            below = inner
        if isinstance(below, trio.SocketStream):
            with contextlib.suppress(OSError, trio.ClosedResourceError):
                below.setsockopt(SOL_SOCKET, SO_LINGER, _linger(on=on))

    async def aclose(self) -> None:
        with contextlib.suppress(*_GONE):
            await trio.aclose_forcefully(self._stream)


def socket_below(stream: object) -> PeerSocket | None:
    """Return the socket below a stream, also below TLS; `None` if there is none."""
    while (below := getattr(stream, "transport_stream", None)) is not None:
        stream = below
    sock: PeerSocket | None = getattr(stream, "socket", None)
    return sock


def _linger(*, on: bool) -> bytes:
    """Write the `struct linger` of a close that throws away and resets, or of the usual one."""
    return struct.pack("ii", on, 0)


@contextlib.contextmanager
def _translated() -> Generator[None]:
    """Turn what a stream may raise into `trio.BrokenResourceError`, once."""
    try:
        yield
    except (OSError, trio.ClosedResourceError) as exc:
        raise trio.BrokenResourceError(str(exc)) from exc
