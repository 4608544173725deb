"""The bytes below a connection: a socket that can try, and any stream that can only wait."""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING

import pytest
import trio
from tables import table
from trio.testing import (
    assert_checkpoints,
    assert_no_checkpoints,
    lockstep_stream_pair,
    memory_stream_pair,
    wait_all_tasks_blocked,
)

from h3trio._server.sockets.transport import RECEIVE_SIZE, SocketTransport, StreamTransport

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio.testing import MockClock


@pytest.fixture
def pair() -> Iterator[tuple[SocketTransport, socket.socket]]:
    """Give a transport over one end of a socket pair, and the other end."""
    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    theirs.settimeout(0)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 20_000)
    yield SocketTransport(ours), theirs
    ours.close()
    theirs.close()


Pair = tuple[SocketTransport, socket.socket]


def fill(transport: SocketTransport) -> int:
    """Send until nothing more is taken; return how much was."""
    total = 0
    while taken := transport.send_nowait(bytes(1000)):
        total += taken
    return total


def drain(sock: socket.socket) -> int:
    """Receive all that is there; return how much that was."""
    total = 0
    try:
        while data := sock.recv(100_000):
            total += len(data)
    except BlockingIOError:
        pass
    return total


# -- sockets


async def test_the_first_read_is_tried(pair: Pair) -> None:
    """What is there as a client comes is taken at once; from then on a read lets others run."""
    transport, theirs = pair
    theirs.send(b"a")
    with assert_no_checkpoints():
        assert await transport.receive_some() == b"a"
    theirs.send(b"b")
    with assert_checkpoints():
        assert await transport.receive_some() == b"b"


async def test_send_nowait(pair: Pair) -> None:
    """A try takes what fits, and nothing when full; nothing is lost."""
    transport, theirs = pair
    assert transport.send_nowait(b"abc") == 3
    assert transport.send_nowait(memoryview(b"xdefx")[1:4]) == 3
    assert theirs.recv(100) == b"abcdef"
    taken = fill(transport)
    assert transport.send_nowait(b"x") == 0
    assert drain(theirs) == taken
    assert transport.send_nowait(b"x") == 1


async def test_send_all(pair: Pair, nursery: trio.Nursery) -> None:
    """Everything is sent, as fast as the peer takes it."""
    transport, theirs = pair
    done = trio.Event()

    async def send() -> None:
        await transport.send_all(b"x" * 1_000_000, stall_timeout=10)
        done.set()

    nursery.start_soon(send)
    received = 0
    while not done.is_set():
        await wait_all_tasks_blocked()
        received += drain(theirs)
    assert received + drain(theirs) == 1_000_000


async def test_send_all_to_a_peer_that_takes_nothing(pair: Pair, autojump_clock: MockClock) -> None:
    """Without progress for the timeout a send is too slow."""
    transport, _theirs = pair
    with pytest.raises(trio.TooSlowError, match="10 s"):
        await transport.send_all(bytes(1_000_000), stall_timeout=10)
    assert autojump_clock.current_time() == pytest.approx(10)


async def test_send_all_to_a_peer_that_takes_little(
    pair: Pair, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """What the peer takes is progress, though it doesn't make the socket writable yet."""
    transport, theirs = pair
    taken = fill(transport)
    failed_at: list[float] = []

    async def send() -> None:
        with pytest.raises(trio.TooSlowError):
            await transport.send_all(bytes(1000), stall_timeout=10)
        failed_at.append(autojump_clock.current_time())

    nursery.start_soon(send)
    for _ in range(3):
        await trio.sleep(8)
        assert len(theirs.recv(1000)) == 1000
    assert taken > 4000
    await trio.sleep(100)
    # The last byte was taken at 24, seen as progress at 30, and missed at 40.
    assert failed_at == [pytest.approx(40)]


async def test_send_to_nobody(pair: Pair) -> None:
    """Sending to a peer that closed is a BrokenResourceError."""
    transport, theirs = pair
    theirs.close()
    with pytest.raises(trio.BrokenResourceError):
        transport.send_nowait(b"x")
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_all(b"x", stall_timeout=10)


async def test_the_peer_closes_during_a_send(pair: Pair, nursery: trio.Nursery) -> None:
    """A send that waits hears that its peer closed."""
    transport, theirs = pair
    nursery.start_soon(close_later, theirs)
    with pytest.raises(trio.BrokenResourceError):
        await transport.send_all(bytes(1_000_000), stall_timeout=10)


async def close_later(sock: socket.socket) -> None:
    """Close once everybody waits."""
    await wait_all_tasks_blocked()
    sock.close()


async def test_receive_some(pair: Pair, nursery: trio.Nursery) -> None:
    """Receiving waits for bytes, gives what is there, and nothing at EOF."""
    transport, theirs = pair
    received: list[bytes] = []

    async def receive() -> None:
        received.append(await transport.receive_some())

    nursery.start_soon(receive)
    await wait_all_tasks_blocked()
    assert received == []
    theirs.send(b"abc")
    await wait_all_tasks_blocked()
    assert received == [b"abc"]
    theirs.shutdown(socket.SHUT_WR)
    assert await transport.receive_some() == b""


async def test_receive_from_a_peer_that_reset(pair: Pair) -> None:
    """A reset is a BrokenResourceError."""
    transport, theirs = pair
    transport.send_nowait(b"never read")
    theirs.close()
    with pytest.raises(trio.BrokenResourceError):
        await transport.receive_some()


async def test_send_eof(pair: Pair) -> None:
    """After EOF the peer can still send; where there is no peer, nothing happens."""
    transport, theirs = pair
    await transport.send_eof()
    assert theirs.recv(10) == b""
    theirs.send(b"abc")
    assert await transport.receive_some() == b"abc"
    await transport.aclose()
    await transport.send_eof()


async def test_aclose(pair: Pair) -> None:
    """Closing is at once, shown to the peer, and may be done twice."""
    transport, theirs = pair
    assert repr(transport).startswith("<SocketTransport: fd ")
    await transport.aclose()
    await transport.aclose()
    assert theirs.recv(10) == b""
    assert repr(transport) == "<SocketTransport: fd -1>"
    with pytest.raises(trio.BrokenResourceError):
        transport.send_nowait(b"x")


# -- streams


async def test_stream_cannot_try() -> None:
    """A stream takes nothing without a wait."""
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(ours)
    assert transport.send_nowait(b"abc") == 0
    await transport.send_all(b"def", stall_timeout=10)
    assert await theirs.receive_some() == b"def"
    assert "StapledStream" in repr(transport)


async def test_stream_receive_some() -> None:
    """Receiving gives bytes, up to a bound, and nothing at EOF."""
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(ours)
    await theirs.send_all(bytes(RECEIVE_SIZE + 1))
    received = await transport.receive_some()
    assert type(received) is bytes
    assert len(received) == RECEIVE_SIZE
    assert len(await transport.receive_some()) == 1
    await theirs.send_eof()
    assert await transport.receive_some() == b""


async def test_stream_that_is_slow(autojump_clock: MockClock) -> None:
    """Without progress for the timeout a send over a stream is too slow."""
    ours, _theirs = lockstep_stream_pair()
    with pytest.raises(trio.TooSlowError):
        await StreamTransport(ours).send_all(b"abc", stall_timeout=10)
    assert autojump_clock.current_time() == pytest.approx(10)


async def test_stream_that_makes_progress(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A long send over a stream may last, as long as it goes on."""
    ours, theirs = lockstep_stream_pair()
    done = trio.Event()

    async def send() -> None:
        await StreamTransport(ours).send_all(bytes(1_000_000), stall_timeout=10)
        done.set()

    nursery.start_soon(send)
    received = 0
    while received < 1_000_000:
        await trio.sleep(9)
        received += len(await theirs.receive_some(64 * 1024))
    await done.wait()
    assert autojump_clock.current_time() == pytest.approx(16 * 9)


class Failing(trio.abc.Stream):
    """A stream on which everything fails with one error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def send_all(self, data: object) -> None:
        """Fail."""
        del data
        await trio.lowlevel.checkpoint()
        raise self.error

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Fail."""
        del max_bytes
        await trio.lowlevel.checkpoint()
        raise self.error

    async def wait_send_all_might_not_block(self) -> None:
        """Fail."""
        raise self.error

    async def aclose(self) -> None:
        """Fail."""
        raise self.error


ERRORS = [
    OSError("gone"),
    ConnectionResetError("gone"),
    ssl.SSLError("gone"),
    trio.BrokenResourceError("gone"),
    trio.ClosedResourceError("gone"),
]


@table("error", ERRORS)
async def test_errors_of_streams(error: Exception) -> None:
    """Whatever a foreign stream raises is a BrokenResourceError, and none at its end."""
    transport = StreamTransport(Failing(error))
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await transport.send_all(b"x", stall_timeout=10)
    with pytest.raises(trio.BrokenResourceError, match="gone"):
        await transport.receive_some()
    await transport.send_eof()
    await transport.aclose()


async def test_stream_send_eof() -> None:
    """EOF is sent where the stream can; after the peer left it isn't an error."""
    ours, theirs = memory_stream_pair()
    transport = StreamTransport(ours)
    await transport.send_eof()
    assert await theirs.receive_some() == b""
    await theirs.aclose()
    await transport.send_eof()
    await transport.aclose()
    await transport.send_eof()


async def test_stream_aclose_does_not_wait() -> None:
    """Closing doesn't wait for the peer, not even in a scope that is cancelled."""
    ours, theirs = lockstep_stream_pair()
    with trio.CancelScope() as scope:
        scope.cancel()
        await StreamTransport(ours).aclose()
    assert await theirs.receive_some() == b""
