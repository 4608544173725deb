"""Who may write to a stream's transport, in which order, and what each learns of its end."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest
import trio
from fakes import FakeTransport, exchange_scope
from tables import table
from trio.testing import assert_checkpoints, wait_all_tasks_blocked

from h3trio import CloseReason, Settings
from h3trio._server.send_queue import HEARTBEAT, SendQueue
from h3trio._wire.batch import Batch, chunk

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from trio.testing import MockClock


class Stream:
    """A queue over a fake transport, with a scope that is cancelled when it breaks."""

    def __init__(
        self,
        nursery: trio.Nursery,
        *,
        room: int | None = None,
        chunked: bool = False,
        transport: FakeTransport | None = None,
        **limits: int,
    ) -> None:
        self.nursery = nursery
        self.transport = transport or FakeTransport(room=room)
        self.scope = trio.CancelScope()
        self.exchange = exchange_scope(self.scope)
        self.queue = SendQueue(
            self.transport,
            chunked=chunked,
            settings=dataclasses.replace(Settings(), **limits),
            nursery=nursery,
            scope=self.exchange,
        )

    async def sent(self) -> bytes:
        """Return all that was sent once nothing moves any more."""
        await wait_all_tasks_blocked()
        return bytes(self.transport.sent)


class Attempt:
    """Something that waits in a task of its own: how it ended, if it did."""

    def __init__(self, nursery: trio.Nursery, what: Awaitable[object]) -> None:
        self.scope = trio.CancelScope()
        self.outcome: str | None = None
        nursery.start_soon(self._run, what)

    async def _run(self, what: Awaitable[object]) -> None:
        try:
            with self.scope:
                await what
                self.outcome = "done"
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.outcome = type(error).__name__
        if self.scope.cancelled_caught:
            self.outcome = "cancelled"


async def attempt(nursery: trio.Nursery, what: Awaitable[object]) -> Attempt:
    """Start something, and return when it waits or has ended."""
    made = Attempt(nursery, what)
    await wait_all_tasks_blocked()
    return made


def state(stream: Stream) -> str:
    """Return who may write."""
    return stream.queue.state.value


def sizes(stream: Stream) -> tuple[int, int]:
    """Return events and bytes in the queue."""
    return stream.queue.queued_events, stream.queue.queued_bytes


# -- idle


async def test_an_idle_stream_is_written_to_at_once(nursery: trio.Nursery) -> None:
    """A send to an idle stream needs no other task, and is out when it returns."""
    stream = Stream(nursery)
    before = trio.lowlevel.current_statistics().tasks_living
    with assert_checkpoints():
        await stream.queue.send_frame(b"one")
    assert stream.queue.send_batch_nowait(Batch([b"two", b"three"]))
    stream.queue.heartbeat_nowait()
    assert bytes(stream.transport.sent) == b"onetwothree" + HEARTBEAT
    assert state(stream) == "idle"
    assert trio.lowlevel.current_statistics().tasks_living == before


async def test_chunks(nursery: trio.Nursery) -> None:
    """Over HTTP/1.1 each write is one chunk: an event, a batch, or what the writer task joined."""
    stream = Stream(nursery, chunked=True)
    stream.queue.open(b"HEAD\r\n\r\n")
    await stream.queue.send_frame(b"one")
    stream.queue.send_batch_nowait(Batch([b"two", b"three"]))
    stream.queue.heartbeat_nowait()
    stream.queue.send_frame_nowait(b"four")
    stream.queue.send_frame_nowait(b"five")
    await stream.queue.finish(b"bye")
    assert await stream.sent() == b"HEAD\r\n\r\n" + b"".join(
        chunk(payload)
        for payload in (b":\n", b"one", b"twothree", b":\n", b"fourfive", b"bye", b"")
    )


async def test_what_was_not_taken_follows(nursery: trio.Nursery) -> None:
    """What a partial write left is sent first when there is room; then the stream is idle."""
    stream = Stream(nursery, room=2)
    before = trio.lowlevel.current_statistics().tasks_living
    await stream.queue.send_frame(b"first")
    await stream.queue.send_frame(b"second")
    assert await stream.sent() == b"fi"
    assert state(stream) == "busy"
    stream.transport.change(room=None)
    assert await stream.sent() == b"firstsecond"
    assert state(stream) == "idle"
    assert trio.lowlevel.current_statistics().tasks_living == before


@pytest.mark.parametrize("room", [0, 1, 4])
async def test_a_batch_that_does_not_fit(nursery: trio.Nursery, room: int) -> None:
    """A batch is taken whole, but the stream is then not idle until `flush` returns."""
    stream = Stream(nursery, room=room)
    assert not stream.queue.send_batch_nowait(Batch([b"one", b"two"]))
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_batch_nowait(Batch([b"never"]))
    stream.queue.heartbeat_nowait()
    flush = await attempt(nursery, stream.queue.flush())
    assert flush.outcome is None
    stream.transport.change(room=None)
    await wait_all_tasks_blocked()
    assert flush.outcome == "done"
    assert stream.queue.send_batch_nowait(Batch([b"three"]))
    assert await stream.sent() == b"onetwothree"


async def test_a_batch_does_not_overtake_the_queue(nursery: trio.Nursery) -> None:
    """While events are queued, even before their first byte is out, the sweep keeps off."""
    stream = Stream(nursery)
    stream.queue.send_frame_nowait(b"queued")
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_batch_nowait(Batch([b"batch"]))
    stream.queue.heartbeat_nowait()
    assert await stream.sent() == b"queued"


async def test_a_burst_leaves_together(nursery: trio.Nursery) -> None:
    """Events queued in one go are one write, up to the event that reaches 64 KiB."""
    stream = Stream(nursery, chunked=True, queue_bytes=10**6)
    for _ in range(5):
        stream.queue.send_frame_nowait(b"x" * 20_000)
    sent = await stream.sent()
    assert [len(chunk) for chunk in sent.split(b"\r\n")[1::2]] == [80_000, 20_000]


# -- bounds


async def test_the_bound_in_events(nursery: trio.Nursery) -> None:
    """`queue_events` events may wait behind what is being sent; the next one must wait."""
    stream = Stream(nursery, room=0, queue_events=3)
    await stream.queue.send_frame(b"0")
    for name in (b"1", b"2", b"3"):
        with assert_checkpoints():
            await stream.queue.send_frame(name)
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_frame_nowait(b"4")
    waiting = await attempt(nursery, stream.queue.send_frame(b"4"))
    assert waiting.outcome is None
    assert sizes(stream) == (3, 3)
    stream.transport.change(room=None)
    assert await stream.sent() == b"01234"
    assert waiting.outcome == "done"


async def test_the_bound_in_bytes(nursery: trio.Nursery) -> None:
    """`queue_bytes` bytes may wait; one more must wait."""
    stream = Stream(nursery, room=0, queue_bytes=10)
    await stream.queue.send_frame(b"pending")
    stream.queue.send_frame_nowait(b"12345")
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_frame_nowait(b"123456")
    stream.queue.send_frame_nowait(b"67890")
    assert sizes(stream) == (2, 10)
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_frame_nowait(b"x")
    waiting = await attempt(nursery, stream.queue.send_frame(b"x"))
    assert waiting.outcome is None
    stream.transport.change(room=None)
    assert await stream.sent() == b"pending1234567890x"
    assert waiting.outcome == "done"


async def test_a_large_event_enters_an_empty_queue_only(nursery: trio.Nursery) -> None:
    """An event above `queue_bytes` waits until nothing else does, and then nothing may join it."""
    stream = Stream(nursery, room=0, queue_bytes=10)
    await stream.queue.send_frame(b"pending")
    stream.queue.send_frame_nowait(b"small")
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_frame_nowait(b"x" * 11)
    large = await attempt(nursery, stream.queue.send_frame(b"x" * 11))
    stream.transport.change(room=7)
    await wait_all_tasks_blocked()
    assert large.outcome == "done"
    assert sizes(stream) == (1, 11)
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_frame_nowait(b"y")
    stream.transport.change(room=None)
    assert await stream.sent() == b"pendingsmall" + b"x" * 11


async def test_ten_mebibytes_arrive_whole(nursery: trio.Nursery) -> None:
    """One event may be as large as it likes."""
    stream = Stream(nursery, room=1000)
    event = bytes(range(256)) * 40 * 1024
    sending = await attempt(nursery, stream.queue.send_frame(event))
    flush = await attempt(nursery, stream.queue.flush())
    while flush.outcome is None:
        stream.transport.change(room=1_000_000)
        await wait_all_tasks_blocked()
    assert sending.outcome == "done"
    assert await stream.sent() == event


# -- waiting for room


async def test_senders_wait_in_the_order_they_came(nursery: trio.Nursery) -> None:
    """Several tasks that wait for room are let in first come, first served."""
    stream = Stream(nursery, room=0, queue_events=1)
    sends = [await attempt(nursery, stream.queue.send_frame(b"%d" % n)) for n in range(6)]
    assert [send.outcome for send in sends] == ["done", "done", None, None, None, None]
    stream.transport.change(room=None)
    assert await stream.sent() == b"012345"
    assert {send.outcome for send in sends} == {"done"}


async def test_a_smaller_event_does_not_overtake(nursery: trio.Nursery) -> None:
    """An event that would fit waits behind one that doesn't, or isn't taken at all."""
    stream = Stream(nursery, room=0, queue_bytes=10)
    await stream.queue.send_frame(b"pending,")
    stream.queue.send_frame_nowait(b"123,")
    large = await attempt(nursery, stream.queue.send_frame(b"large!!!,"))
    small = await attempt(nursery, stream.queue.send_frame(b"s,"))
    assert (large.outcome, small.outcome) == (None, None)
    with pytest.raises(trio.WouldBlock):
        stream.queue.send_frame_nowait(b"n,")
    stream.transport.change(room=None)
    assert await stream.sent() == b"pending,123,large!!!,s,"


async def test_a_cancelled_send_was_not_accepted(nursery: trio.Nursery) -> None:
    """A sender that is cancelled while it waits leaves nothing; those behind it may fit now."""
    stream = Stream(nursery, room=0, queue_bytes=10)
    await stream.queue.send_frame(b"pending,")
    stream.queue.send_frame_nowait(b"123,")
    large = await attempt(nursery, stream.queue.send_frame(b"large!!!,"))
    small = await attempt(nursery, stream.queue.send_frame(b"s,"))
    large.scope.cancel()
    await wait_all_tasks_blocked()
    assert (large.outcome, small.outcome) == ("cancelled", "done")
    stream.transport.change(room=None)
    assert await stream.sent() == b"pending,123,s,"


@pytest.mark.parametrize("room", [None, 0])
async def test_a_send_that_was_cancelled_before(nursery: trio.Nursery, room: int | None) -> None:
    """A send in a cancelled scope does nothing; one that did something isn't cancelled."""
    stream = Stream(nursery, room=room)
    with trio.CancelScope() as scope:
        await stream.queue.send_frame(b"sent")
        scope.cancel()
        await stream.queue.send_frame(b"never")
    assert scope.cancelled_caught
    stream.transport.change(room=None)
    assert await stream.sent() == b"sent"


async def test_an_accepted_send_is_not_cancelled(nursery: trio.Nursery) -> None:
    """A send that is cancelled just after it was accepted returns as if it weren't."""
    scope, returned = trio.CancelScope(), list[bytes]()

    class Cancelling(FakeTransport):
        def send_nowait(self, data: bytes | memoryview) -> int:
            scope.cancel()
            return super().send_nowait(data)

    stream = Stream(nursery, transport=Cancelling())
    with scope:
        await stream.queue.send_frame(b"x")
        returned.append(bytes(stream.transport.sent))
        await trio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert returned == [b"x"]


# -- the client goes, or takes nothing


async def test_a_write_finds_the_client_gone(nursery: trio.Nursery) -> None:
    """The writer's own scope is cancelled before it can hear of the loss by an error."""
    stream = Stream(nursery)
    stream.transport.change(broken=True)
    with stream.scope:
        await stream.queue.send_frame(b"x")
    assert stream.scope.cancelled_caught
    assert stream.exchange.reason is CloseReason.CONNECTION_LOST
    assert state(stream) == "broken"
    assert not stream.queue.is_open


async def test_others_hear_of_it_by_an_error(nursery: trio.Nursery) -> None:
    """Whoever isn't in the stream's scope gets BrokenResourceError, from each way to send."""
    stream = Stream(nursery)
    stream.transport.change(broken=True)
    for _ in range(2):
        with pytest.raises(trio.BrokenResourceError):
            await stream.queue.send_frame(b"x")
        with pytest.raises(trio.BrokenResourceError):
            stream.queue.send_batch_nowait(Batch([b"x"]))
        with pytest.raises(trio.BrokenResourceError):
            stream.queue.send_frame_nowait(b"x")
        with pytest.raises(trio.BrokenResourceError):
            await stream.queue.flush()
        with pytest.raises(trio.BrokenResourceError):
            await stream.queue.finish()
        stream.queue.heartbeat_nowait()
        stream.queue.abandon()
    assert stream.exchange.reason is CloseReason.CONNECTION_LOST
    assert state(stream) == "broken"


async def test_a_sweep_finds_the_client_gone(nursery: trio.Nursery) -> None:
    """A batch for a lost client raises BrokenResourceError, after the scope was cancelled."""
    stream = Stream(nursery)
    stream.transport.change(broken=True)
    with pytest.raises(trio.BrokenResourceError):
        stream.queue.send_batch_nowait(Batch([b"x"]))
    assert stream.scope.cancel_called


async def test_a_heartbeat_finds_the_client_gone(nursery: trio.Nursery) -> None:
    """A heartbeat to a lost client cancels the scope, and raises nothing."""
    stream = Stream(nursery)
    stream.transport.change(broken=True)
    stream.queue.heartbeat_nowait()
    assert stream.exchange.reason is CloseReason.CONNECTION_LOST


async def test_a_loss_wakes_all_who_wait(nursery: trio.Nursery) -> None:
    """When the client goes, waiting senders and flushers hear of it, and nothing is kept."""
    stream = Stream(nursery, room=0, queue_events=1)
    sends = [await attempt(nursery, stream.queue.send_frame(b"x")) for _ in range(5)]
    flush = await attempt(nursery, stream.queue.flush())
    stream.transport.change(broken=True)
    await wait_all_tasks_blocked()
    assert [send.outcome for send in sends] == ["done"] * 2 + ["BrokenResourceError"] * 3
    assert flush.outcome == "BrokenResourceError"
    assert sizes(stream) == (0, 0)


async def test_a_loss_accepts_nothing_more(nursery: trio.Nursery) -> None:
    """A sender that would fit once those before it are cancelled by a loss isn't let in."""
    stream = Stream(nursery, room=0, queue_bytes=10)
    await stream.queue.send_frame(b"pending")
    stream.queue.send_frame_nowait(b"queued")
    large = await attempt(nursery, stream.queue.send_frame(b"too large"))
    small = await attempt(nursery, stream.queue.send_frame(b"ok"))
    stream.exchange.handler_begins(large.scope, "another test")
    stream.transport.change(broken=True)
    await wait_all_tasks_blocked()
    assert (large.outcome, small.outcome) == ("cancelled", "BrokenResourceError")
    assert sizes(stream) == (0, 0)


async def test_a_client_that_takes_nothing(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """A write without progress for `write_timeout` breaks the stream, reason slow."""
    stream = Stream(nursery, room=1, write_timeout=10)
    await stream.queue.send_frame(b"first")
    with stream.scope:
        await trio.sleep_forever()
    assert autojump_clock.current_time() == pytest.approx(10)
    assert stream.exchange.reason is CloseReason.SLOW


@pytest.mark.parametrize("room", [None, 0])
async def test_a_client_that_the_kernel_gave_up(nursery: trio.Nursery, room: int | None) -> None:
    """The kernel's own timeout is the same as ours, whoever meets it."""
    stream = Stream(nursery, room=room)
    stream.transport.cause = TimeoutError()
    if room == 0:
        await stream.queue.send_frame(b"x")
    stream.transport.change(broken=True)
    if room is None:
        stream.queue.heartbeat_nowait()
    await wait_all_tasks_blocked()
    assert stream.exchange.reason is CloseReason.SLOW


async def test_progress_is_not_slow(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """A byte now and then is progress, and so is a pause with nothing to send."""
    stream = Stream(nursery, room=0, write_timeout=10)
    await stream.queue.send_frame(b"slowly")
    for _ in range(6):
        await trio.sleep(9)
        stream.transport.change(room=1)
    await trio.sleep(100)
    assert stream.exchange.reason is None
    assert await stream.sent() == b"slowly"
    assert autojump_clock.current_time() == pytest.approx(154)


# -- flush


async def test_flush_when_idle(nursery: trio.Nursery) -> None:
    """With nothing to wait for, `flush` is a checkpoint."""
    stream = Stream(nursery)
    with assert_checkpoints():
        await stream.queue.flush()


async def test_flush_waits_for_everything(nursery: trio.Nursery) -> None:
    """`flush` returns when the transport has all, the queue included."""
    stream = Stream(nursery, room=0)
    await stream.queue.send_frame(b"first")
    await stream.queue.send_frame(b"second")
    flushes = [await attempt(nursery, stream.queue.flush()) for _ in range(2)]
    stream.transport.change(room=10)
    await wait_all_tasks_blocked()
    assert [flush.outcome for flush in flushes] == [None, None]
    stream.transport.change(room=1)
    await wait_all_tasks_blocked()
    assert [flush.outcome for flush in flushes] == ["done", "done"]


async def test_a_cancelled_flush_drops_nothing(nursery: trio.Nursery) -> None:
    """Whoever gives up waiting changes nothing for the stream."""
    stream = Stream(nursery, room=0)
    await stream.queue.send_frame(b"all")
    flush = await attempt(nursery, stream.queue.flush())
    flush.scope.cancel()
    await wait_all_tasks_blocked()
    stream.transport.change(room=None)
    assert await stream.sent() == b"all"


# -- the end


@table(
    "chunked, farewell, tail",
    [
        (True, b"", b"0\r\n\r\n"),
        (True, b"bye", b"3\r\nbye\r\n0\r\n\r\n"),
        (False, b"", b""),
        (False, b"bye", b"bye"),
    ],
)
async def test_finish(
    nursery: trio.Nursery, *, chunked: bool, farewell: bytes, tail: bytes
) -> None:
    """Finishing sends the farewell and the last chunk; afterwards all is closed."""
    stream = Stream(nursery, chunked=chunked)
    with assert_checkpoints():
        await stream.queue.finish(farewell)
    assert await stream.sent() == tail
    assert stream.queue.finished
    assert not stream.queue.is_open
    with pytest.raises(trio.ClosedResourceError):
        await stream.queue.send_frame(b"x")
    with pytest.raises(trio.ClosedResourceError):
        stream.queue.send_frame_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        stream.queue.send_batch_nowait(Batch([b"x"]))
    with pytest.raises(trio.ClosedResourceError):
        await stream.queue.flush()
    with pytest.raises(trio.ClosedResourceError):
        await stream.queue.finish()
    stream.queue.heartbeat_nowait()
    stream.queue.abandon()
    assert await stream.sent() == tail
    assert stream.exchange.reason is None


async def test_finish_drains(nursery: trio.Nursery) -> None:
    """What was accepted is sent before the end; who still waits for room is refused."""
    stream = Stream(nursery, room=0, queue_events=2)
    sends = [await attempt(nursery, stream.queue.send_frame(b"%d" % n)) for n in range(5)]
    finish = await attempt(nursery, stream.queue.finish(b"bye"))
    assert [send.outcome for send in sends] == ["done"] * 3 + ["ClosedResourceError"] * 2
    with pytest.raises(trio.ClosedResourceError):
        await stream.queue.send_frame(b"x")
    for room in (1, 3):
        assert finish.outcome is None
        stream.transport.change(room=room)
        stream.queue.heartbeat_nowait()
        await wait_all_tasks_blocked()
    assert finish.outcome is None
    stream.transport.change(room=None)
    assert await stream.sent() == b"012bye"
    assert finish.outcome == "done"


async def test_finish_twice_at_once(nursery: trio.Nursery) -> None:
    """Several tasks may finish a stream; its end is sent once, with the first farewell."""
    stream = Stream(nursery, room=0, chunked=True)
    await stream.queue.send_frame(b"x")
    finishes = [await attempt(nursery, stream.queue.finish(b"bye")) for _ in range(3)]
    for _ in range(20):
        stream.transport.change(room=1)
        await wait_all_tasks_blocked()
    assert await stream.sent() == b"1\r\nx\r\n3\r\nbye\r\n0\r\n\r\n"[:20]
    stream.transport.change(room=None)
    assert await stream.sent() == b"1\r\nx\r\n3\r\nbye\r\n0\r\n\r\n"
    assert [finish.outcome for finish in finishes] == ["done"] * 3


@pytest.mark.parametrize("room", [1, 8])
async def test_finish_again_after_a_cancellation(nursery: trio.Nursery, room: int) -> None:
    """A cancelled finish can be taken up again, before its tail is out and after."""
    stream = Stream(nursery, room=room, chunked=True)
    await stream.queue.send_frame(b"x")
    finish = await attempt(nursery, stream.queue.finish())
    finish.scope.cancel()
    await wait_all_tasks_blocked()
    assert finish.outcome == "cancelled"
    again = await attempt(nursery, stream.queue.finish(b"bye"))
    stream.transport.change(room=None)
    tail = b"3\r\nbye\r\n0\r\n\r\n" if room == 1 else b"0\r\n\r\n"
    assert await stream.sent() == b"1\r\nx\r\n" + tail
    assert again.outcome == "done"


async def test_abandon(nursery: trio.Nursery) -> None:
    """An abandoned stream drops what waits, and tells who waits that it was closed."""
    stream = Stream(nursery, room=1, queue_events=1, chunked=True)
    sends = [await attempt(nursery, stream.queue.send_frame(b"x")) for _ in range(3)]
    flush = await attempt(nursery, stream.queue.flush())
    stream.queue.abandon()
    await wait_all_tasks_blocked()
    assert [send.outcome for send in sends] == ["done", "done", "ClosedResourceError"]
    assert flush.outcome == "ClosedResourceError"
    assert sizes(stream) == (0, 0)
    assert state(stream) == "ended"
    assert not stream.queue.finished


async def test_a_loss_after_the_end_is_no_loss(nursery: trio.Nursery) -> None:
    """A writer task that fails once the stream was abandoned doesn't report it as broken."""
    stream = Stream(nursery, room=1)
    await stream.queue.send_frame(b"xx")
    await wait_all_tasks_blocked()
    stream.queue.abandon()
    stream.transport.change(broken=True)
    await wait_all_tasks_blocked()
    assert stream.exchange.reason is None
    assert state(stream) == "ended"


# -- what it counts


async def test_counts(nursery: trio.Nursery) -> None:
    """It counts events whose sending has begun, bytes that were taken, and what waits."""
    stream = Stream(nursery, room=6)
    box = stream.queue
    box.open(b"HEAD")
    assert (box.events_sent, box.bytes_sent) == (0, 6)
    await box.send_frame(b"one")
    await box.send_frame(b"two")
    await box.send_frame(b"three")
    assert (box.events_sent, box.bytes_sent, *sizes(stream)) == (1, 6, 2, 8)
    assert repr(box) == "<SendQueue: busy, 2 queued>"
    stream.transport.change(room=None)
    await wait_all_tasks_blocked()
    box.send_batch_nowait(Batch([b"4", b"5"]))
    box.heartbeat_nowait()
    assert (box.events_sent, box.bytes_sent, *sizes(stream)) == (5, 21, 0, 0)
    assert len(await stream.sent()) == 21
    assert repr(box) == "<SendQueue: idle, 0 queued>"


async def test_last_write(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    """It knows when it last wrote, or had something to write."""
    stream = Stream(nursery, room=1)
    await trio.sleep(1)
    await stream.queue.send_frame(b"12")
    assert stream.queue.last_write == 1
    await trio.sleep(1)
    stream.transport.change(room=None)
    await trio.sleep(1)
    assert stream.queue.last_write == 2
    assert autojump_clock.current_time() == 3
