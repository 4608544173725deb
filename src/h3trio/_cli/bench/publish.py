"""`PacedPublisher`: posts at a fixed rate, whether earlier requests are answered or not.

Event i is due at start + i / rate and bears that time, so a server that stalls can't hide it by
slowing its publisher. Some keep-alive connections have one request each on the way; what is due and
finds none free waits, and if it still waits at the end it counts as unsent.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections import deque
from typing import TYPE_CHECKING, Final, final

from h3trio._version import __version__

from .job import Published

if TYPE_CHECKING:
    from .job import PublishJob

MAX_ANSWER_BYTES: Final = 64 * 1024
PATIENCE: Final = 5.0  # seconds for the answers that are out at the end
CONNECT_TIMEOUT: Final = 5.0


def event_data(due: float, number: int, size: int) -> bytes:
    """Return the data of one event, at least as long as its time and number are."""
    return f"{due:.6f} n={number} ".encode().ljust(size, b"x")


def is_whole(answer: bytes) -> bool:
    """Tell whether an answer has all of its body; nothing is pipelined, so it is all there is."""
    head, blank, body = answer.partition(b"\r\n\r\n")
    if not blank:
        return False
    lines = [line.partition(b":") for line in head.lower().split(b"\r\n")[1:]]
    fields = {name: value.strip() for name, _, value in lines}
    if (length := fields.get(b"content-length", b"")).isdigit():
        return len(body) >= int(length)
    return b"transfer-encoding" not in fields or body.endswith(b"0\r\n\r\n")


@final
class _KeptConnection:
    __slots__ = ("due", "is_busy", "received", "sock")

    def __init__(self) -> None:
        self.sock: socket.socket | None = None
        self.due = 0.0
        self.received = b""
        self.is_busy = False


@final
class PacedPublisher:
    """Posts events; `turn` is one round of its loop."""

    def __init__(self, job: PublishJob) -> None:
        self._job = job
        agent = f"User-Agent: h3trio-bench/{__version__}"
        self._head = job.target.head("POST", agent, "Content-Type: text/plain; charset=utf-8")
        self._poll = select.epoll()
        self._by_fd: dict[int, _KeptConnection] = {}
        self._free = deque(_KeptConnection() for _ in range(job.connections))
        self._begun = self._cpu = 0.0
        self._wall_offset = 0.0
        self.published = Published()

    def watch(self, fd: int) -> None:
        """Let `turn` return when this descriptor can be read."""
        self._poll.register(fd, select.EPOLLIN)

    def go(self) -> None:
        """Begin."""
        self._begun = time.perf_counter()
        self._wall_offset = time.time() - self._begun
        self._cpu = time.process_time()

    @property
    def is_idle(self) -> bool:
        """Whether all answers have come."""
        return len(self._free) == self._job.connections

    def turn(self, timeout: float, *, publishes: bool) -> set[int]:
        """Send what is due and read answers; return the watched descriptors that are ready."""
        wait = self._issue() if publishes else timeout
        others: set[int] = set()
        for fd, _mask in self._poll.poll(min(wait, timeout), 256):
            connection = self._by_fd.get(fd)
            if connection is None:
                others.add(fd)
            else:
                self._receive(connection)
        return others

    def _issue(self) -> float:
        """Send what is due; return seconds to the next."""
        while self._free:
            due = self._begun + self.published.sent / self._job.rate
            if (wait := due - time.perf_counter()) > 0:
                return wait
            self._send(self._free.popleft(), due)
        return 60.0  # an answer comes first

    def _send(self, connection: _KeptConnection, due: float) -> None:
        data = event_data(due + self._wall_offset, self.published.sent, self._job.size)
        self.published.sent += 1
        connection.due, connection.is_busy = due, True
        request = self._head + b"Content-Length: %d\r\n\r\n" % len(data) + data
        try:
            self._open(connection).sendall(request)
        except OSError as exc:
            self._fail(connection, exc.strerror or "failed")

    def _open(self, connection: _KeptConnection) -> socket.socket:
        if connection.sock is None:
            target = self._job.target
            sock = socket.socket(target.family, socket.SOCK_STREAM)
            connection.sock = sock
            sock.settimeout(CONNECT_TIMEOUT)
            sock.connect((target.address, target.port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._by_fd[sock.fileno()] = connection
            self._poll.register(sock, select.EPOLLIN)
        return connection.sock

    def _receive(self, connection: _KeptConnection) -> None:
        assert connection.sock is not None, "it is polled"
        try:
            data = connection.sock.recv(MAX_ANSWER_BYTES)
        except OSError as exc:
            self._fail(connection, os.strerror(exc.errno or 0))
            return
        connection.received += data
        if not data or len(connection.received) > MAX_ANSWER_BYTES:
            self._fail(connection, "no answer")
        elif is_whole(connection.received):
            self._answered(connection)

    def _answered(self, connection: _KeptConnection) -> None:
        head = connection.received.partition(b"\r\n\r\n")[0].lower()
        status = head[9:12].decode("latin-1")
        connection.received = b""
        if status.startswith("2"):
            self.published.acked += 1
            self.published.latencies.add(time.perf_counter() - connection.due)
        else:
            self.published.failed[f"status {status}"] += 1
        if b"connection: close" in head:
            self._drop(connection)
        self._release(connection)

    def _fail(self, connection: _KeptConnection, why: str) -> None:
        # An idle connection may be closed: the next request opens another.
        if connection.is_busy:
            self.published.failed[why] += 1
        self._drop(connection)
        self._release(connection)

    def _release(self, connection: _KeptConnection) -> None:
        if connection.is_busy:
            connection.is_busy = False
            self._free.append(connection)

    def _drop(self, connection: _KeptConnection) -> None:
        if connection.sock is not None:
            self._by_fd.pop(connection.sock.fileno(), None)
            connection.sock.close()
        connection.sock, connection.received = None, b""

    def result(self, stopped: float) -> Published:
        """Close all; return the counts of the time up to `stopped`."""
        for connection in list(self._by_fd.values()):
            self._drop(connection)
        self._poll.close()
        found = self.published
        found.seconds = stopped - self._begun
        found.unsent = max(0, int(found.seconds * self._job.rate) - found.sent)
        unanswered = self._job.connections - len(self._free)
        if unanswered:
            found.failed["no answer"] += unanswered
        wall = time.perf_counter() - self._begun
        found.busy = (time.process_time() - self._cpu) / wall if wall > 0 else 0.0
        return found
