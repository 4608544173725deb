"""Who may write to a stream's socket, and what waits when it is full.

An outbox is `IDLE`, `OWNED`, `BROKEN` or `ENDED`:

* `IDLE`: nothing waits. Whoever comes (the handler's `send`, a hub's sweep, the
  heartbeat) hands its bytes to the transport without waiting. What the
  transport didn't take becomes `pending`, and the state is `OWNED`.
* `OWNED`: one task, made for this and gone when all is sent, is the only one to
  wait for the socket. Others queue behind `pending`, within two bounds (events
  and bytes); the sweep and the heartbeat leave the stream alone.
* `BROKEN`: the peer is gone. The owner of the connection is told first.
* `ENDED`: closed on our side; the final chunk is out, or never will be.

So there is no lock, no task per idle stream, and bytes of two events can't mix:
only an `IDLE` outbox is written to from outside, and in one synchronous step.

Senders that find the queue full wait in the order they came: see `_waiters`.
"""

from __future__ import annotations

import enum
from collections import deque
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._http.closing import CloseReason, lost
from h3trio._wire.batch import LAST_CHUNK, chunk

from .waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio._http.settings import Settings
    from h3trio._wire.batch import Batch

    from .sockets.transport import Transport

# What one turn of the owner joins into one chunk and one send.
_JOIN_BYTES: Final = 64 * 1024
HEARTBEAT: Final = b":\n"


class State(enum.Enum):
    """Who may write; see the top of this file."""

    IDLE = "idle"
    OWNED = "owned"
    BROKEN = "broken"
    ENDED = "ended"


# A member of an enumeration is looked up by a descriptor, each time.
_IDLE: Final = State.IDLE


@final
class Outbox:
    """The sending side of one event stream."""

    __slots__ = (
        "_bytes_sent",
        "_chunked",
        "_clock",
        "_closing",
        "_events_sent",
        "_flushers",
        "_on_broken",
        "_pending",
        "_queue",
        "_queued_bytes",
        "_sender",
        "_settings",
        "_start_owner",
        "_tail_written",
        "_transport",
        "_waiting",
        "finished",
        "last_write",
        "state",
    )

    def __init__(
        self,
        transport: Transport,
        *,
        chunked: bool,
        settings: Settings,
        start_owner: Callable[[Outbox], None],
        on_broken: Callable[[CloseReason], None],
    ) -> None:
        self._transport = transport
        # Both are shared, and asked for at each send: here, no detour.
        self._sender = transport.sender
        self._clock = trio.lowlevel.current_clock()
        self._chunked = chunked
        self._settings = settings
        self._start_owner = start_owner
        self._on_broken = on_broken
        self._pending: bytes | memoryview | None = None
        # Made when first needed: an idle stream has neither queue nor waiters.
        self._queue: deque[bytes] | None = None
        self._queued_bytes = 0
        self._waiting: Waiters | None = None
        self._flushers: trio.lowlevel.ParkingLot | None = None
        self._closing = False
        self._tail_written = False
        self._events_sent = 0
        self._bytes_sent = 0
        self.finished: bool = False
        self.last_write: float = trio.current_time()
        self.state: State = State.IDLE

    def __repr__(self) -> str:
        return f"<Outbox: {self.state.value}, {self.queued_events} queued>"

    @property
    def is_open(self) -> bool:
        """Whether an event would be accepted, now or after a wait."""
        return not self._closing and self.state in (State.IDLE, State.OWNED)

    @property
    def queued_events(self) -> int:
        """Events that wait; those being sent aren't among them."""
        return len(self._queue) if self._queue else 0

    @property
    def queued_bytes(self) -> int:
        """Their encoded size, framing not counted."""
        return self._queued_bytes

    @property
    def events_sent(self) -> int:
        """Events whose sending has begun."""
        return self._events_sent

    @property
    def bytes_sent(self) -> int:
        """Bytes that the transport took, head and framing included."""
        return self._bytes_sent

    # -- writing while idle

    def open(self, head: bytes) -> None:
        """Send the response head and a first comment, so that `onopen` fires."""
        first = chunk(HEARTBEAT) if self._chunked else HEARTBEAT
        self._write(head + first)

    def heartbeat_nowait(self) -> None:
        """Send a comment line if nothing else is under way."""
        if self.state is State.IDLE and not self._closing:
            self._write(chunk(HEARTBEAT) if self._chunked else HEARTBEAT)

    def send_batch_nowait(self, batch: Batch) -> bool:
        """See `FrameSink.send_batch_nowait`."""
        # Nothing is done as often: so this is one function, where `_write` would do; see `Feed`.
        if self.state is not _IDLE or self._closing:
            self._raise_if_closed()
            raise trio.WouldBlock
        data = batch.chunked if self._chunked else batch.payload
        self._events_sent += batch.count
        self.last_write = self._clock.current_time()
        try:
            taken = self._sender.send(data)
        except OSError as exc:
            taken = self._not_sent(exc)
            self._raise_if_closed()
        self._bytes_sent += taken
        if taken == len(data):
            return True
        # A view: the bytes may be shared by a thousand stalled streams.
        self._own(memoryview(data)[taken:] if taken else data)
        return False

    def _write(self, data: bytes) -> bool:
        """Hand bytes to the transport, `False` if it broke; only ever called while idle."""
        self.last_write = self._clock.current_time()
        try:
            taken = self._sender.send(data)
        except OSError as exc:
            taken = self._not_sent(exc)
            if self.state is not _IDLE:
                return False
        self._bytes_sent += taken
        if taken < len(data):
            self._own(memoryview(data)[taken:] if taken else data)
        return True

    def _not_sent(self, exc: OSError) -> int:
        """Nothing was taken: there is no room, or the peer is gone."""
        if not isinstance(exc, BlockingIOError):
            self._break(lost(exc))
        return 0

    # -- the queue

    async def send_frame(self, frame: bytes) -> None:
        """Accept one encoded event, waiting for room. A checkpoint.

        Raises:
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: closed on our side.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.state is _IDLE and not self._closing:
            self._events_sent += 1
            if not self._write(chunk(frame) if self._chunked else frame):
                # The handler's scope was cancelled just now: it hears that first.
                await trio.lowlevel.checkpoint()
                self._raise_if_closed()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._raise_if_closed()
        if self._waiting or not self._has_room(frame):
            await self._wait_for_room(frame)
            return
        self._push(frame)
        await trio.lowlevel.cancel_shielded_checkpoint()

    def send_frame_nowait(self, frame: bytes) -> None:
        """Queue one encoded event; a burst of them becomes few sends.

        Raises:
            trio.WouldBlock: the queue is full.
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: closed on our side.
        """
        self._raise_if_closed()
        if self._waiting or not self._has_room(frame):
            raise trio.WouldBlock
        self._push(frame)

    def _has_room(self, frame: bytes) -> bool:
        if not self._queue:
            return True
        return (
            len(self._queue) < self._settings.queue_events
            and self._queued_bytes + len(frame) <= self._settings.queue_bytes
        )

    def _push(self, frame: bytes) -> None:
        if self._queue is None:
            self._queue = deque()
        self._queue.append(frame)
        self._queued_bytes += len(frame)
        if self.state is State.IDLE:
            self._own(None)

    async def _wait_for_room(self, frame: bytes) -> None:
        if self._waiting is None:
            self._waiting = Waiters()
        # If it is cancelled, those behind may fit where this one didn't.
        if not await self._waiting.wait(frame, on_cancel=self._admit):
            self._raise_if_closed()

    def _admit(self) -> None:
        # Not into a stream that just broke, while its waiting senders are cancelled.
        while self._waiting and self.state is State.OWNED and self._has_room(self._waiting.first):
            self._push(self._waiting.accept())

    # -- the owner task

    def _own(self, pending: bytes | memoryview | None) -> None:
        self._pending = pending
        self.state = State.OWNED
        self._start_owner(self)

    async def run_owner(self) -> None:
        """Send what waits, then end; the only code that waits for the socket."""
        stall = self._settings.write_timeout
        try:
            while (data := self._next()) is not None:
                await self._transport.send_all(data, stall_timeout=stall)
                self._bytes_sent += len(data)
                self._pending = None
        except trio.TooSlowError:
            self._break(CloseReason.SLOW)
        except trio.BrokenResourceError as exc:
            self._break(lost(exc))

    def _next(self) -> bytes | memoryview | None:
        if self._pending is None and self._queue:
            self._pending = self._join()
            self._admit()
        if self._pending is None and self.state is State.OWNED:
            self.state = State.IDLE
            self._queue = None
            if self._tail_written:
                self._end()
            self._wake_flushers()
        self.last_write = trio.current_time()
        return self._pending

    def _join(self) -> bytes:
        queue = self._queue
        assert queue, "only called with frames waiting"
        frames = [queue.popleft()]
        size = len(frames[0])
        while queue and size + len(queue[0]) <= _JOIN_BYTES:
            frames.append(queue.popleft())
            size += len(frames[-1])
        self._queued_bytes -= size
        self._events_sent += len(frames)
        payload = frames[0] if len(frames) == 1 else b"".join(frames)
        return chunk(payload) if self._chunked else payload

    # -- waiting and ending

    async def flush(self) -> None:
        """Wait until the transport has all that was accepted. A checkpoint.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as `send_frame`.
        """
        await self._wait_not_owned()
        if self.state in (State.BROKEN, State.ENDED):
            self._raise_if_closed()

    async def _wait_not_owned(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.state is State.OWNED:
            if self._flushers is None:
                self._flushers = trio.lowlevel.ParkingLot()
            await self._flushers.park()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def finish(self, farewell: bytes = b"") -> None:
        """Take no more, send what was accepted, then the farewell and the last chunk.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as `send_frame`.
        """
        if self.state in (State.BROKEN, State.ENDED):
            self._raise_if_closed()
        if not self._closing:
            self._closing = True
            self._refuse_waiting()
        await self._wait_not_owned()
        if self.state is State.IDLE and not self._tail_written:
            self._tail_written = True
            if tail := self._tail(farewell):
                self._write(tail)
            if self.state is State.IDLE:
                self._end()
        if self.state is State.OWNED:
            await self._wait_not_owned()
        if not self.finished:
            self._raise_if_closed()

    def _end(self) -> None:
        """The transport has the last chunk: an EOF from now on is the client's answer to it."""
        self.finished = True
        self.state = State.ENDED

    def _tail(self, farewell: bytes) -> bytes:
        if not self._chunked:
            return farewell
        return chunk(farewell) + LAST_CHUNK if farewell else LAST_CHUNK

    def abandon(self) -> None:
        """End without a last chunk; what waits is dropped, who waits is told.

        If it was `OWNED`, a frame may be cut in half: the connection can't be used again.
        """
        if self.state is not State.BROKEN:
            self.state = State.ENDED
        self._closing = True
        self._drop()

    def _break(self, reason: CloseReason) -> None:
        if self.state is State.ENDED:
            return
        self.state = State.BROKEN
        self._on_broken(reason)
        self._drop()

    def _drop(self) -> None:
        self._pending = None
        self._queue = None
        self._queued_bytes = 0
        self._refuse_waiting()
        self._wake_flushers()

    def _refuse_waiting(self) -> None:
        if self._waiting:
            self._waiting.refuse()

    def _wake_flushers(self) -> None:
        if self._flushers:
            self._flushers.unpark_all()

    def _raise_if_closed(self) -> None:
        if self.state is State.BROKEN:
            raise trio.BrokenResourceError("the client is gone")
        if self._closing or self.state is State.ENDED:
            raise trio.ClosedResourceError("this event stream was closed")
