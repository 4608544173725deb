"""`publish`: posts at a fixed rate, whether earlier requests are answered or not.

Event i is due at start + i / rate and bears that time, so a server that stalls can't hide it by
slowing its publisher. Each of some keep-alive connections has a task, which takes the next event,
waits until it is due, posts it and waits for the answer. What is due while all of them wait for
answers is sent late; what is still due at the end counts as unsent.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._http.http1 import ResponseReader
from h3trio._version import __version__
from h3trio.client._errors import reason_of

from .job import END, GO, Published

if TYPE_CHECKING:
    from .job import Endpoint, Pipe, PublishJob

RECEIVE_BYTES: Final = 2048  # of an answer at once: more is read behind a checkpoint
PATIENCE: Final = 5.0  # seconds for the answers that are out at the end
CONNECT_TIMEOUT: Final = 5.0


def publish(job: PublishJob, pipe: Pipe) -> None:
    """Do a job, from `GO` to the next command."""
    if pipe.recv() == GO:
        publisher = PacedPublisher(job)
        trio.run(publisher.run, pipe)
        pipe.send(("result", publisher.published))


def event_data(due: float, number: int, size: int) -> bytes:
    """Return the data of one event, at least as long as its time and number are."""
    return f"{due:.6f} n={number} ".encode().ljust(size, b"x")


@final
class PacedPublisher:
    """Posts events, and counts the answers."""

    def __init__(self, job: PublishJob) -> None:
        self._job = job
        agent = f"User-Agent: h3trio-bench/{__version__}"
        self._head = job.target.head("POST", agent, "Content-Type: text/plain; charset=utf-8")
        self._begun = self._wall_offset = 0.0
        self._taken = 0
        self._stopped = trio.Event()
        self.published = Published()

    async def run(self, pipe: Pipe) -> None:
        """Post until there is a command, and wait for the answers that are out then."""
        self._begun, cpu = trio.current_time(), time.process_time()
        self._wall_offset = time.time() - self._begun
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._obey, pipe, nursery.cancel_scope)
            async with trio.open_nursery() as posting:
                for _ in range(self._job.connections):
                    posting.start_soon(self._post_all)
            nursery.cancel_scope.cancel(reason="all answers have come")
        wall = trio.current_time() - self._begun
        self.published.busy = (time.process_time() - cpu) / wall

    async def _obey(self, pipe: Pipe, scope: trio.CancelScope) -> None:
        """Stop at any command; give the answers up at `END`, or when they take too long."""
        command = await _command(pipe)
        found = self.published
        found.seconds = trio.current_time() - self._begun
        found.unsent = max(0, int(found.seconds * self._job.rate) - found.sent)
        self._stopped.set()
        with trio.move_on_after(PATIENCE):
            while command != END:
                command = await _command(pipe)
        scope.cancel(reason="there was time enough for answers")

    async def _post_all(self) -> None:
        """Post one event after the other over one connection, made anew where that failed."""
        with contextlib.closing(_Connection(self._job.target)) as connection:
            while True:
                number, self._taken = self._taken, self._taken + 1
                due = self._begun + number / self._job.rate
                with trio.move_on_at(due):
                    await self._stopped.wait()
                if self._stopped.is_set():
                    return
                self.published.sent += 1
                data = event_data(due + self._wall_offset, number, self._job.size)
                why = "no answer"  # if this is cancelled
                try:
                    why = await self._post(connection, data)
                except (OSError, trio.BrokenResourceError) as exc:
                    why = reason_of(exc)
                    connection.close()
                finally:
                    if why:
                        self.published.failed[why] += 1
                if not why:
                    self.published.acked += 1
                    self.published.latencies.add(trio.current_time() - due)

    async def _post(self, connection: _Connection, data: bytes) -> str:
        """Post an event; return why it was refused, `""` if it wasn't.

        Raises:
            OSError, trio.BrokenResourceError: there is no answer.
        """
        stream = await connection.open()
        await stream.send_all(self._head + b"Content-Length: %d\r\n\r\n" % len(data) + data)
        answer = ResponseReader()
        while not answer.is_done:
            received = await stream.receive_some(RECEIVE_BYTES)
            try:
                answer.feed(received)
            except ValueError:
                raise ConnectionError("the answer is not HTTP/1") from None
            if not (received or answer.is_done):
                raise ConnectionError("no answer")
        if answer.headers.get("connection", "").lower() == "close":
            connection.close()
        return "" if 200 <= answer.status < 300 else f"status {answer.status}"  # noqa: PLR2004 - successful


@final
class _Connection:
    """A connection that is kept for the next request."""

    def __init__(self, target: Endpoint) -> None:
        self._target = target
        self._stream: trio.SocketStream | None = None

    async def open(self) -> trio.SocketStream:
        """Return the connection, a new one if the server has closed it meanwhile."""
        if self._stream is not None and self._stream.socket.is_readable():
            self.close()
        if self._stream is None:
            host, port = self._target.address, self._target.port
            with trio.move_on_after(CONNECT_TIMEOUT):
                self._stream = await trio.open_tcp_stream(host, port)
                return self._stream
            raise TimeoutError("timed out")
        return self._stream

    def close(self) -> None:
        """Close it."""
        if self._stream is not None:
            self._stream.socket.close()
            self._stream = None


async def _command(pipe: Pipe) -> str:
    """Wait for the next command; the end of the pipe is one too."""
    await trio.lowlevel.wait_readable(pipe.fileno())
    try:
        return str(pipe.recv())
    except EOFError:
        return END
