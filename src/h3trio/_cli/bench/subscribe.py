"""`Swarm`: many streams in one process, with one thread, one epoll and one buffer.

The loop does as little as it can, for the server is to be measured and not the loop: no task and no
parser for each stream, one `recv_into` for each stream that is ready, and bytes that many streams
are sent are analysed once (see `count`). Connecting is measured too: from `connect()` to the end of
the head of a stream.

A stream that fails is counted by its reason, and the others go on.
"""

from __future__ import annotations

import errno
import os
import re
import select
import socket
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

from h3trio._http.http1 import ResponseReader
from h3trio._version import __version__
from h3trio.client._policy import is_event_stream

from .count import BadStreamError, BodyReader, Memo, analyse
from .histogram import delays
from .ids import Ids, Position
from .job import DRAIN, END, GO, Received

if TYPE_CHECKING:
    from .count import Found
    from .job import Pipe, SubscribeJob

BUFFER_BYTES: Final = 256 * 1024
MAX_HEAD_BYTES: Final = 16 * 1024
MAX_CONNECTING: Final = 256  # at once in one process: no server's backlog should overflow by us
QUIET: Final = 0.5  # seconds without an event that end a drain
MAX_DRAIN: Final = 5.0
PROGRESS: Final = 0.5  # seconds between two messages

_AGENT: Final = f"User-Agent: h3trio-bench/{__version__}"
_IN: Final = select.EPOLLIN if hasattr(select, "EPOLLIN") else 1
_OUT: Final = select.EPOLLOUT if hasattr(select, "EPOLLOUT") else 4


def subscribe(job: SubscribeJob, pipe: Pipe) -> None:
    """Do a job, as the commands say."""
    swarm, ready, drained, command = Swarm(job, pipe.fileno()), False, 0.0, ""
    told = time.perf_counter()
    while command != END and not (drained and swarm.is_quiet(drained)):
        if swarm.turn(PROGRESS):
            command = pipe.recv()
            if command == GO:
                swarm.go()
                pipe.send(("going", True))
            elif command == DRAIN:
                drained = time.perf_counter()
        if not ready and swarm.is_open:
            ready = True
            pipe.send(("ready", swarm.received.opened))
        if (now := time.perf_counter()) - told >= PROGRESS:
            told, found = now, swarm.received
            gone = found.ended + found.lost.total() + found.refused.total()
            pipe.send(
                (
                    "progress",
                    Counter(opened=found.opened, gone=gone, events=found.events, bytes=found.bytes),
                )
            )
    pipe.send(("result", swarm.result()))


# The id behind which a hub's stream begins: by it a loss of a stream's first event is seen.
_CURSOR: Final = re.compile(
    rb"^last-event-id:[ \t]*([!-~]+)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE
)


class RefusedError(Exception):
    """An answer that is no stream; the message is the reason it is counted under."""


def parse_head(head: bytes) -> bool:
    """Check the head of an answer, without its blank line; return whether its body is chunked.

    Raises:
        RefusedError: it is no event stream.
    """
    answer = ResponseReader()
    try:
        answer.feed(head + b"\r\n\r\n")
    except ValueError:
        raise RefusedError("the answer is not HTTP/1") from None
    if answer.status != 200:  # noqa: PLR2004 - OK
        raise RefusedError(f"status {answer.status}")
    if not is_event_stream(answer.headers.get("content-type", "")):
        raise RefusedError("no text/event-stream")
    return answer.headers.get("transfer-encoding", "").lower() == "chunked"


@final
@dataclass(slots=True, eq=False)
class SwarmStream:
    """One connection."""

    sock: socket.socket
    began: float
    head: bytes = b""
    reader: BodyReader | None = None  # none until the head is there
    position: Position = field(default_factory=Position)
    events: int = 0


@final
class Swarm:
    """All streams of this process; `turn` is one round of the loop."""

    def __init__(self, job: SubscribeJob, watched: int) -> None:
        """Make it; `turn` returns when the watched descriptor can be read."""
        self._job = job
        self._request = (
            job.target.head("GET", _AGENT, "Accept: text/event-stream", "Cache-Control: no-store")
            + b"\r\n"
        )
        self._poll = select.epoll()
        self._poll.register(watched, _IN)
        self._streams: dict[int, SwarmStream] = {}
        self._connecting: dict[int, SwarmStream] = {}  # the oldest first
        self._buffer = memoryview(bytearray(BUFFER_BYTES))
        self._memo = Memo()
        self._ids = Ids()
        self._all: list[SwarmStream] = []
        self._started = 0
        self._begun = self._last_open = time.perf_counter()
        self._count_from = self._last_event = 0.0
        self._cpu = 0.0
        self.received = Received(asked=job.connections)

    @property
    def is_open(self) -> bool:
        """Whether each stream has been opened, or refused."""
        return self._started == self._job.connections and not self._connecting

    def go(self) -> None:
        """Begin to count; what came so far is forgotten, but for ids and connects."""
        found, self._ids = self.received, Ids()
        found.events = found.timed = found.bytes = found.reads = found.early = found.resets = 0
        found.latencies = delays()
        for stream in self._all:
            stream.events = 0
        self._count_from = self._last_event = time.perf_counter()
        self._cpu = time.process_time()

    def turn(self, timeout: float) -> bool:
        """Serve what is ready, after waiting so many seconds; return whether the watched is."""
        wait = self._start_due(time.perf_counter())
        is_told = False
        for fd, mask in self._poll.poll(min(timeout, wait), 1024):
            stream = self._streams.get(fd)
            if stream is None:
                is_told = True
            elif mask & _OUT:
                self._connected(stream)
            else:
                self._read(stream)
        return is_told

    def is_quiet(self, since: float) -> bool:
        """Whether a drain that was asked for at `since` is over."""
        now = time.perf_counter()
        return now - max(since, self._last_event) > QUIET or now - since > MAX_DRAIN

    # -- opening

    def _start_due(self, now: float) -> float:
        """Open what is due, and give up what takes too long; return seconds to the next."""
        job, passed = self._job, now - self._begun
        due = (
            job.connections if passed >= job.ramp else int(job.connections * passed / job.ramp) + 1
        )
        while self._started < due and len(self._connecting) < MAX_CONNECTING:
            self._start(time.perf_counter())
        for fd in list(self._connecting):
            if now - self._connecting[fd].began < job.timeout:
                break
            self._refuse(self._streams[fd], "timed out")
        return 0.01 if self._started < job.connections else 0.25 if self._connecting else 60.0

    def _start(self, now: float) -> None:
        self._started += 1
        target = self._job.target
        try:
            sock = socket.socket(target.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as exc:
            self.received.refused[_reason(exc.errno)] += 1
            return
        stream = SwarmStream(sock, now)
        self._streams[sock.fileno()] = self._connecting[sock.fileno()] = stream
        self._poll.register(sock, _OUT)
        code = sock.connect_ex((target.address, target.port))
        if code not in (0, errno.EINPROGRESS):
            self._refuse(stream, _reason(code))

    def _connected(self, stream: SwarmStream) -> None:
        code = stream.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            self._refuse(stream, _reason(code))
            return
        try:
            # The first bytes on a connection: the kernel has room for all of them.
            stream.sock.send(self._request)
        except OSError as exc:
            self._refuse(stream, _reason(exc.errno))
            return
        self._poll.modify(stream.sock, _IN)

    def _refuse(self, stream: SwarmStream, why: str) -> None:
        del self._connecting[stream.sock.fileno()]
        self.received.refused[why] += 1
        self._close(stream)

    def _close(self, stream: SwarmStream) -> None:
        del self._streams[stream.sock.fileno()]
        stream.sock.close()  # which takes it out of the epoll

    # -- reading

    def _read(self, stream: SwarmStream) -> None:
        try:
            size = stream.sock.recv_into(self._buffer)
        except BlockingIOError:
            return
        except OSError as exc:
            self._over(stream, _reason(exc.errno))
            return
        if not size:
            self._over(stream, "")
            return
        try:
            self._take(stream, bytes(self._buffer[:size]))
        except BadStreamError:
            self._over(stream, "broken framing")
        except RefusedError as exc:
            self._refuse(stream, str(exc))

    def _take(self, stream: SwarmStream, data: bytes) -> None:
        if stream.reader is None:
            data = self._take_head(stream, data)
        if data and stream.reader is not None:
            self.received.bytes += len(data)
            self.received.reads += 1
            self._count(stream, self._memo.read(stream.reader, data))
            if stream.reader.ended:
                self._over(stream, "")

    def _take_head(self, stream: SwarmStream, data: bytes) -> bytes:
        """Take bytes of the head; return what is behind it."""
        head, blank, rest = (stream.head + data).partition(b"\r\n\r\n")
        if not blank:
            stream.head = head
            if len(head) > MAX_HEAD_BYTES:
                raise RefusedError("the head is too long")
            return b""
        stream.reader = BodyReader(chunked=parse_head(head))
        stream.head = b""
        if cursor := _CURSOR.search(head):
            self._ids.take(stream.position, analyse(b"id: %b\n\n" % cursor[1]))
        now = time.perf_counter()
        self._last_open = now
        self.received.connects.add(now - stream.began)
        self.received.opened += 1
        self._all.append(stream)
        del self._connecting[stream.sock.fileno()]
        return rest

    def _count(self, stream: SwarmStream, found: Found) -> None:
        received, events = self.received, found.events
        received.resets += found.resets
        self._ids.take(stream.position, found)
        if not events:
            return
        received.events += events
        stream.events += events
        self._last_event = time.perf_counter()
        if found.timed:
            received.timed += found.timed
            now = time.time()
            received.latencies.add(now - found.first, (events + 1) // 2)
            if events > 1:
                received.latencies.add(now - found.last, events // 2)
            received.early += found.last > now

    def _over(self, stream: SwarmStream, why: str) -> None:
        if stream.reader is None:
            self._refuse(stream, why or "closed without an answer")
            return
        # Without a length, the end of the connection is the end of the body (RFC 9112, 6.3).
        if stream.reader.ended or (not why and stream.reader.chunks is None):
            self.received.ended += 1
        else:
            self.received.lost[why or "closed amid the stream"] += 1
        self._close(stream)

    # -- the outcome

    def result(self) -> Received:
        """Close all and return what came."""
        now = time.perf_counter()
        for stream in list(self._streams.values()):
            self._close(stream)
        self._poll.close()
        found, ids = self.received, self._ids
        found.connect_seconds = self._last_open - self._begun
        counts = [stream.events for stream in self._all]
        found.least, found.most = (min(counts), max(counts)) if counts else (0, 0)
        found.judged, found.unnumbered, found.repeated = ids.judged, ids.unnumbered, ids.repeated
        found.missing, found.bounded = ids.missing(), ids.is_bounded
        found.seconds = self._last_event - self._count_from
        wall = now - self._count_from
        found.busy = (time.process_time() - self._cpu) / wall if wall > 0 else 0.0
        return found


def _reason(code: int | None) -> str:
    return os.strerror(code) if code else "failed"
