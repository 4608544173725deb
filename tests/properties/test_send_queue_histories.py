"""Whatever happens to a stream, its bytes are the accepted frames, whole and in their order.

A history is a list of steps on one queue over a transport that takes what it is told to. Senders
run in tasks of their own, so some wait while the next steps are taken. At the end either all that
was accepted is out, or the stream broke and what is out is a beginning of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import trio
from fakes import FakeTransport, exchange_scope
from hypothesis import event, example, given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from h3trio import Settings
from h3trio._http.http1 import ResponseReader
from h3trio._server.send_queue import SendQueue
from h3trio._wire.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


Step: TypeAlias = tuple[str, int]

LIMITS = Settings(queue_events=3, queue_bytes=40)
GONE = (trio.BrokenResourceError, trio.ClosedResourceError)


class History:
    """One queue, the frames it accepted, and the senders that still wait."""

    def __init__(self, nursery: trio.Nursery, *, chunked: bool, room: int) -> None:
        self.nursery = nursery
        self.chunked = chunked
        self.transport = FakeTransport(room=room)
        self.exchange = exchange_scope()
        self.queue = SendQueue(
            self.transport,
            chunked=chunked,
            settings=LIMITS,
            nursery=nursery,
            scope=self.exchange,
        )
        self.calls: list[bytes] = []
        self.refused: set[bytes] = set()
        self.waiting: dict[bytes, trio.CancelScope] = {}

    def _frame(self, size: int) -> bytes:
        # Each its own, so that none is lost or doubled unseen.
        self.calls.append(b"<%d%s>" % (len(self.calls), b"." * size))
        return self.calls[-1]

    async def send(self, size: int) -> None:
        """Start a sender; let it be accepted, refused, or wait."""
        self.nursery.start_soon(self._send, self._frame(size))
        await wait_all_tasks_blocked()

    async def _send(self, frame: bytes) -> None:
        # Until it returns: whoever is cancelled or gets an error was not accepted.
        self.refused.add(frame)
        with trio.CancelScope() as self.waiting[frame]:
            try:
                await self.queue.send_frame(frame)
                self.refused.remove(frame)
            except GONE:
                assert not self.queue.is_open
        del self.waiting[frame]

    async def nowait(self, size: int) -> None:
        """Try to queue a frame."""
        frame = self._frame(size)
        try:
            self.queue.send_frame_nowait(frame)
        except (trio.WouldBlock, *GONE):
            self.refused.add(frame)

    async def batch(self, size: int) -> None:
        """Try to write some frames in one go."""
        frames = [self._frame(size % 7) for _ in range(1 + size % 3)]
        try:
            self.queue.send_batch_nowait(Batch(frames))
        except trio.BrokenResourceError:
            # Counted as sent or not: nobody will know.
            return
        except (trio.WouldBlock, trio.ClosedResourceError):
            self.refused.update(frames)

    async def cancel(self, which: int) -> None:
        """Cancel one of the senders that wait."""
        if self.waiting:
            list(self.waiting.values())[which % len(self.waiting)].cancel()
        await wait_all_tasks_blocked()

    async def heartbeat(self, _: int) -> None:
        """Beat, if that is possible."""
        self.queue.heartbeat_nowait()

    async def room(self, size: int) -> None:
        """Take some bytes, but don't let the writer task run yet."""
        self.transport.change(room=(self.transport.room or 0) + size)

    async def settle(self, _: int) -> None:
        """Let everybody run."""
        await wait_all_tasks_blocked()

    async def flush(self, _: int) -> None:
        """Start to wait for everything."""
        self.nursery.start_soon(self._quietly, self.queue.flush)

    async def finish(self, _: int) -> None:
        """Start the end."""
        self.nursery.start_soon(self._quietly, self.queue.finish)

    async def abandon(self, _: int) -> None:
        """Give up."""
        self.queue.abandon()

    async def reset(self, _: int) -> None:
        """Lose the client."""
        self.transport.change(broken=True)

    async def _quietly(self, step: Callable[[], Awaitable[None]]) -> None:
        try:
            await step()
        except GONE:
            assert not self.queue.is_open

    async def end(self) -> None:
        """Take everything, and end the stream if nothing has yet."""
        self.transport.change(room=None)
        await self._quietly(self.queue.finish)
        await wait_all_tasks_blocked()
        assert not self.waiting
        assert self.queue.queued_events == self.queue.queued_bytes == 0

    def check(self) -> None:
        """Hold what was sent against what was accepted."""
        accepted = b"".join(call for call in self.calls if call not in self.refused)
        sent, complete = bytes(self.transport.sent), True
        if self.chunked:
            sent, complete = dechunked(sent)
        sent = sent.replace(b":\n", b"").removesuffix(b":")
        event(self.queue.state.value)
        if self.queue.finished:
            assert sent == accepted
            assert complete
        else:
            assert accepted.startswith(sent)
            assert not (self.chunked and complete)


def dechunked(sent: bytes) -> tuple[bytes, bool]:
    """Return the payloads, the last of which may be cut off, and whether the last chunk came."""
    reader = ResponseReader()
    payload = reader.feed(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + sent)
    return payload, reader.is_done


def steps(*names: str) -> st.SearchStrategy[Step]:
    """Return one of these steps with some number."""
    return st.tuples(st.sampled_from(names), st.integers(0, 60))


USUAL = st.lists(
    steps("send", "send", "nowait", "nowait", "batch", "heartbeat", "room", "room", "settle")
    | steps("cancel", "flush"),
    max_size=25,
)
ENDINGS = st.lists(steps("finish", "abandon", "reset"), max_size=2)


@given(before=USUAL, ending=ENDINGS, after=USUAL, chunked=st.booleans(), room=st.integers(0, 50))
@example(
    before=[("send", 50)] * 5, ending=[("finish", 0)], after=[("room", 9)], chunked=True, room=0
)
@example(
    before=[("send", 50)] * 5, ending=[("reset", 0)], after=[("room", 9)], chunked=True, room=9
)
def test_history(
    before: list[Step], ending: list[Step], after: list[Step], *, chunked: bool, room: int
) -> None:
    """The bytes sent are those accepted, in order; all of them, unless the stream broke."""

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            history = History(nursery, chunked=chunked, room=room)
            for name, number in [*before, *ending, *after]:
                await getattr(history, name)(number)
            await history.end()
            history.check()

    trio.run(main)
