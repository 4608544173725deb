"""`SendQueue`: the sending side of one stream. The socket first, then a memory channel.

A send queue is in one of four states, which say who may write to the socket:

| state  | meaning                        | who writes                    | left by              |
|--------|--------------------------------|-------------------------------|----------------------|
| IDLE   | nothing waits                  | whoever comes, without a wait | a send taken in part |
| BUSY   | something waits for the socket | the writer task, nobody else  | nothing left to send |
| BROKEN | the client is gone             | nobody                        |                      |
| ENDED  | closed on our side             | nobody                        |                      |

While it is `IDLE`, whoever comes (the handler's `send`, a hub's sweep, the heartbeat) hands its
bytes to the transport in one synchronous step. What the transport didn't take becomes `_pending`,
and the writer task is started. It sends that, then what the memory channel holds, joined, and ends
when nothing is left. Senders put their events into the channel meanwhile; sweep and heartbeat leave
the stream alone. So there is no task and no channel for an idle stream, and bytes of two events
can't mix.

The channel bounds the number of events that wait; a count in front of it bounds their bytes. A
sender that finds no room waits for its turn at a fair lock, so that a small event can't overtake a
large one that came before. The channel gives the rest: a cancelled `send` was not accepted, and
senders that wait are told whether the stream was closed or broke.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._http.closing import CloseReason, lost
from h3trio._wire.batch import LAST_CHUNK, chunk

from .parking import SingleWaiter

if TYPE_CHECKING:
    from h3trio._http.settings import Settings
    from h3trio._wire.batch import Batch

    from .exchange_scope import ExchangeScope
    from .sockets.transport import Sender, Transport

# What the writer task joins into one chunk and one send.
_JOIN_BYTES: Final = 64 * 1024
HEARTBEAT: Final = b":\n"


class State(enum.Enum):
    """The state of a send queue: it says who may write. See the top of this file."""

    IDLE = "idle"
    BUSY = "busy"
    BROKEN = "broken"
    ENDED = "ended"


# A member of an enumeration is looked up by a descriptor, each time.
_IDLE: Final = State.IDLE


@final
@dataclass(slots=True, eq=False, repr=False)
class SendQueue:
    """The sending side of one stream, of events or of other bytes."""

    transport: Transport
    chunked: bool
    settings: Settings
    nursery: trio.Nursery
    scope: ExchangeScope
    """That of the exchange: cancelled where the client is gone."""
    comes_back: bool = False
    """Whether its client opens it again by itself: see `farewell.comes_back`."""
    has_comments: bool = True
    """Whether comments may go out, as in an event stream, and nowhere else."""
    finishes: bool = False
    """Whether a drain lets it go on, for `Settings.drain_finish`."""
    state: State = State.IDLE
    finished: bool = False
    """Whether the transport has the last chunk."""
    events_sent: int = 0
    """Events whose sending has begun."""
    bytes_sent: int = 0
    """Bytes that the transport took, head and framing included."""
    last_write: float = field(default_factory=trio.current_time)
    _pending: bytes | memoryview | None = None
    # All of these are made when first needed: an idle stream has none.
    _send: trio.MemorySendChannel[bytes] | None = None
    _receive: trio.MemoryReceiveChannel[bytes] | None = None
    _turn: trio.Lock | None = None
    _room: SingleWaiter | None = None
    _drained: trio.Event | None = None
    _queued_bytes: int = 0
    _closing: bool = False
    _tail_written: bool = False
    # Both are shared, and asked for at each send: here, no detour.
    _sender: Sender = field(init=False)
    _clock: trio.abc.Clock = field(default_factory=trio.lowlevel.current_clock)

    def __post_init__(self) -> None:
        self._sender = self.transport.sender

    def __repr__(self) -> str:
        return f"<SendQueue: {self.state.value}, {self.queued_events} queued>"

    @property
    def is_open(self) -> bool:
        """Whether an event would be accepted, now or after a wait."""
        return not self._closing and self.state in (State.IDLE, State.BUSY)

    @property
    def is_closing(self) -> bool:
        """Whether the handler has said all: only what waits, and the last chunk, are left."""
        return self._closing

    @property
    def queued_events(self) -> int:
        """Events that wait; those being sent aren't among them."""
        return 0 if self._receive is None else self._receive.statistics().current_buffer_used

    @property
    def queued_bytes(self) -> int:
        """Their encoded size, framing not counted."""
        return max(0, self._queued_bytes)

    # -- writing while idle

    def open(self, head: bytes) -> None:
        """Send the response head and, if it may, a first comment, so that `onopen` fires."""
        if not self.chunked:
            # RFC 9112 section 6.3: a body without length or chunks ends where the connection is
            # closed, so an orderly close makes it look whole. Until it is whole there is to be
            # none, not even where this process is killed.
            self.transport.reset_at_close(on=True)
        first = HEARTBEAT if self.has_comments else b""
        self._write(head + (chunk(first) if first and self.chunked else first))

    def heartbeat_nowait(self) -> None:
        """Send a comment line if nothing else is under way and the stream may have one."""
        if self.has_comments and self.state is State.IDLE and not self._closing:
            self._write(chunk(HEARTBEAT) if self.chunked else HEARTBEAT)

    def send_batch_nowait(self, batch: Batch) -> bool:
        """See `FrameSink.send_batch_nowait`."""
        # Nothing is done as often: so this is one function, where `_write` would do; see `Feed`.
        if self.state is not _IDLE or self._closing:
            self._raise_if_closed()
            raise trio.WouldBlock
        data = batch.chunked if self.chunked else batch.payload
        self.events_sent += batch.count
        self.last_write = self._clock.current_time()
        try:
            taken = self._sender.send(data)
        except OSError as exc:
            taken = self._not_sent(exc)
            self._raise_if_closed()
        self.bytes_sent += taken
        if taken == len(data):
            return True
        # A view: the bytes may be shared by a thousand stalled streams.
        self._start_writer(memoryview(data)[taken:] if taken else data)
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
        self.bytes_sent += taken
        if taken < len(data):
            self._start_writer(memoryview(data)[taken:] if taken else data)
        return True

    def _not_sent(self, exc: OSError) -> int:
        """Nothing was taken: there is no room, or the peer is gone."""
        if not isinstance(exc, BlockingIOError):
            self._break(lost(exc))
        return 0

    # -- into the channel

    async def send_frame(self, frame: bytes) -> None:
        """Accept one encoded event, waiting for room. A checkpoint.

        Raises:
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: closed on our side.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        if (
            self.state is _IDLE
            and not self._closing
            and (self._turn is None or not self._turn.locked())
        ):
            self.events_sent += 1
            if not self._write(chunk(frame) if self.chunked else frame):
                # The handler's scope was cancelled just now: it hears that first.
                await trio.lowlevel.checkpoint()
                self._raise_if_closed()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        self._raise_if_closed()
        if self._queue_nowait(frame):
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._queue(frame)

    def send_frame_nowait(self, frame: bytes) -> None:
        """Queue one encoded event; a burst of them becomes few sends.

        Raises:
            trio.WouldBlock: the queue is full.
            trio.BrokenResourceError: the peer is gone.
            trio.ClosedResourceError: closed on our side.
        """
        self._raise_if_closed()
        if not self._queue_nowait(frame):
            raise trio.WouldBlock

    def _has_room(self, frame: bytes) -> bool:
        """Whether the bytes fit; one event above the bound fits where nothing waits."""
        queued = self._queued_bytes
        return not queued or queued + len(frame) <= self.settings.queue_bytes

    def _queue_nowait(self, frame: bytes) -> bool:
        """Put an event into the channel, `False` if there is no room or others wait for it."""
        if self._turn is not None and self._turn.locked():
            return False
        return self._has_room(frame) and self._put(frame)

    def _put(self, frame: bytes) -> bool:
        try:
            self._channel().send_nowait(frame)
        except trio.WouldBlock:
            return False
        self._queued_bytes += len(frame)
        if self.state is _IDLE:
            self._start_writer(None)
        return True

    def _channel(self) -> trio.MemorySendChannel[bytes]:
        if self._send is None:
            queue_events = self.settings.queue_events
            self._send, self._receive = trio.open_memory_channel[bytes](queue_events)
        return self._send

    async def _queue(self, frame: bytes) -> None:
        """Put an event into the channel, behind all senders that came before."""
        if self._turn is None:
            self._turn = trio.Lock()
        turn = self._turn
        try:
            turn.acquire_nowait()
        except trio.WouldBlock:
            await turn.acquire()
        try:
            await self._queue_in_turn(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self._raise_if_closed()
            raise
        finally:
            turn.release()

    async def _queue_in_turn(self, frame: bytes) -> None:
        self._raise_if_closed()
        while not self._has_room(frame):
            if self._room is None:
                self._room = SingleWaiter()
            await self._room.park()
            self._raise_if_closed()
        if not self._put(frame):
            await self._channel().send(frame)
            # The writer task may have taken it by now, and counted it off.
            self._queued_bytes += len(frame)

    # -- the writer task

    def _start_writer(self, pending: bytes | memoryview | None) -> None:
        self._pending = pending
        self.state = State.BUSY
        self.nursery.start_soon(self._write_out, name="h3trio writer")

    async def _write_out(self) -> None:
        """Send what waits, then end: the writer task, the only one that waits for the socket."""
        stall = self.settings.write_timeout
        try:
            while (data := self._next()) is not None:
                await self.transport.send_all(data, stall_timeout=stall)
                self.bytes_sent += len(data)
                self._pending = None
        except trio.TooSlowError:
            self._break(CloseReason.SLOW)
        except trio.BrokenResourceError as exc:
            self._break(lost(exc))

    def _next(self) -> bytes | memoryview | None:
        if self._pending is None and self._receive is not None:
            self._pending = self._join(self._receive)
        if self._pending is None and self.state is State.BUSY:
            self.state = State.IDLE
            # A queue that was used once would keep 2 KiB of each stream.
            self._send = self._receive = None
            if self._tail_written:
                self._end()
            self._wake_waiters()
        self.last_write = trio.current_time()
        return self._pending

    def _join(self, receive: trio.MemoryReceiveChannel[bytes]) -> bytes | None:
        """Take what waits, up to one event beyond the bound; `None` if nothing does."""
        frames: list[bytes] = []
        size = 0
        try:
            while size < _JOIN_BYTES:
                frames.append(receive.receive_nowait())
                size += len(frames[-1])
        except (trio.WouldBlock, trio.EndOfChannel):
            if not frames:
                return None
        self._queued_bytes -= size
        self.events_sent += len(frames)
        if self._room is not None:
            self._room.wake()
        payload = frames[0] if len(frames) == 1 else b"".join(frames)
        return chunk(payload) if self.chunked else payload

    # -- waiting and ending

    async def flush(self) -> None:
        """Wait until the transport has all that was accepted. A checkpoint.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as `send_frame`.
        """
        await self._wait_not_busy()
        if self.state in (State.BROKEN, State.ENDED):
            self._raise_if_closed()

    async def _wait_not_busy(self) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self.state is State.BUSY:
            if self._drained is None:
                self._drained = trio.Event()
            await self._drained.wait()
        else:
            await trio.lowlevel.cancel_shielded_checkpoint()

    async def finish(self, farewell: bytes = b"") -> None:
        """Take no more, send what was accepted, then the farewell and the last chunk.

        Raises:
            trio.BrokenResourceError, trio.ClosedResourceError: as `send_frame`.
        """
        if self.state in (State.BROKEN, State.ENDED):
            self._raise_if_closed()
        self._close()
        await self._wait_not_busy()
        if self.state is State.IDLE and not self._tail_written:
            self._tail_written = True
            if tail := self._tail(farewell):
                self._write(tail)
            if self.state is State.IDLE:
                self._end()
        if self.state is State.BUSY:
            await self._wait_not_busy()
        if not self.finished:
            self._raise_if_closed()

    def _close(self) -> None:
        """Refuse what comes, and those that wait for room; what was accepted is still sent."""
        self._closing = True
        if self._send is not None:
            self._send.close()
        if self._room is not None:
            self._room.wake()

    def _end(self) -> None:
        """The transport has the last chunk: an EOF from now on is the client's answer to it."""
        self.finished = True
        if not self.chunked:
            self.transport.reset_at_close(on=False)
        self.scope.is_complete = True
        self.state = State.ENDED

    def _tail(self, farewell: bytes) -> bytes:
        if not self.chunked:
            return farewell
        return chunk(farewell) + LAST_CHUNK if farewell else LAST_CHUNK

    def abandon(self) -> None:
        """End without a last chunk; what waits is dropped, who waits is told.

        If it was `BUSY`, a frame may be cut in half: the connection can't be used again.
        """
        if self.state is not State.BROKEN:
            self.state = State.ENDED
        self._close()
        self._drop()

    def _break(self, reason: CloseReason) -> None:
        if self.state is State.ENDED:
            return
        self.state = State.BROKEN
        self.scope.cancel(reason)
        self._drop()

    def _drop(self) -> None:
        self._pending = None
        if self._receive is not None:
            self._receive.close()
        self._send = self._receive = None
        self._queued_bytes = 0
        self._wake_waiters()

    def _wake_waiters(self) -> None:
        if self._room is not None:
            self._room.wake()
        if self._drained is not None:
            self._drained.set()
            self._drained = None

    def _raise_if_closed(self) -> None:
        if self.state is State.BROKEN:
            raise trio.BrokenResourceError("the client is gone")
        if self._closing or self.state is State.ENDED:
            raise trio.ClosedResourceError("this stream was closed")
