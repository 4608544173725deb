"""Cancellations that go unheard, under a clock that jumps; the thread is tried in tests/e2e."""

from __future__ import annotations

import contextlib
import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import trio
from helpers import request
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from h3trio import H3Event, Server, Settings, serve
from h3trio._server.watchdog import CancelWatch, Pacer, Watchdog

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock

QUIET = Settings(blocked_loop_warning=None, linger_timeout=0)


class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Hands over the streams that it is given."""

    def __init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def accept(self) -> trio.abc.Stream:
        """Wait for a stream."""
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        """Give no more."""
        await self._send.aclose()

    async def ask(self, path: str = "/") -> trio.abc.Stream:
        """Connect, and send a request."""
        ours, theirs = memory_stream_pair()
        self._send.send_nowait(theirs)
        await ours.send_all(request(path))
        return ours


async def stubborn(event: H3Event) -> None:
    """Go on for twenty seconds, whatever happens."""
    async with event.start_sse():
        await deaf(trio.current_time() + 20)


async def deaf(deadline: float) -> None:
    """Swallow every cancellation."""
    while trio.current_time() < deadline:
        with contextlib.suppress(trio.Cancelled):
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            await trio.lowlevel.checkpoint()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings so far."""
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


async def start(nursery: trio.Nursery, settings: Settings) -> tuple[Server, MemoryListener]:
    """Serve the stubborn handler."""
    listener = MemoryListener()
    serving = partial(serve, stubborn, listeners=[listener], settings=settings)
    return await nursery.start(serving), listener


async def test_a_handler_that_goes_on_is_named(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After the patience, and once only, the log has the task's name and where it stands."""
    del autojump_clock
    server, listener = await start(nursery, QUIET)
    client = await listener.ask("/x;token=s3cr3t")
    await wait_all_tasks_blocked()
    await client.aclose()
    await trio.sleep(4.9)
    assert (warnings(caplog), server.statistics().overdue_cancels) == ([], 0)
    await trio.sleep(0.2)
    (warning,) = warnings(caplog)
    assert "<H3Event: GET '/x;token=[redacted]' from memory, streaming>" in warning
    assert "cancelled 5 s ago" in warning
    assert "h3trio handler for memory at" in warning
    assert "test_watchdog.py" in warning
    assert warning.endswith("in deaf")
    await trio.sleep(10)
    assert (len(warnings(caplog)), server.statistics().overdue_cancels) == (1, 1)
    nursery.cancel_scope.cancel()


async def test_many_are_one_warning(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What fails all at once is told of once, and counted each."""
    del autojump_clock
    server, listener = await start(nursery, QUIET)
    clients = [await listener.ask() for _ in range(5)]
    await wait_all_tasks_blocked()
    for client in clients:
        await client.aclose()
    await trio.sleep(6)
    assert (len(warnings(caplog)), server.statistics().overdue_cancels) == (1, 5)
    nursery.cancel_scope.cancel()


async def test_a_handler_in_time_is_not_named(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who unwinds within the patience is nobody's business, and forgotten."""
    del autojump_clock
    settings = Settings(blocked_loop_warning=None, linger_timeout=0, cancel_warning=21)
    server, listener = await start(nursery, settings)
    client = await listener.ask()
    await wait_all_tasks_blocked()
    await client.aclose()
    await trio.sleep(60)
    assert (warnings(caplog), server.statistics().overdue_cancels) == ([], 0)
    nursery.cancel_scope.cancel()


async def test_the_oldest_is_first(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Each is reported at its own time, those that ended never; off, nothing is kept."""
    del autojump_clock
    watch, task = CancelWatch(5), trio.lowlevel.current_task()
    nursery.start_soon(watch.run)
    for key in ("a", "b", "c"):
        watch.cancelled(key, task)
        watch.cancelled(key, task)
        await trio.sleep(4)
        watch.ended("b")
        assert watch.overdue == {"a": 0, "b": 1, "c": 1}[key]
        await trio.sleep(8)
        assert watch.overdue == {"a": 1, "b": 1, "c": 2}[key]
    assert [message[:2] for message in warnings(caplog)] == ["a:", "c:"]
    watch.cancelled("d", task)
    watch.ended("d")
    await trio.sleep(60)
    assert watch.overdue == 2
    off = CancelWatch(None)
    off.cancelled("x", task)
    assert len(off) == 0
    nursery.cancel_scope.cancel()


def test_warnings_are_paced() -> None:
    """One in so many seconds; the next says how many there were between."""
    pacer = Pacer(10)
    assert [pacer.take(now) for now in (0, 1, 9.9)] == ["", None, None]
    assert pacer.take(10) == " (2 more such warnings were held back)"
    assert [pacer.take(now) for now in (19.9, 30)] == [
        None,
        " (1 more such warnings were held back)",
    ]


async def test_off_there_is_no_thread() -> None:
    """Without patience nothing is started, and nothing to stop."""
    watchdog = Watchdog(None)
    watchdog.start()
    assert watchdog._thread is None  # noqa: SLF001 - that it isn't there is the point
    watchdog.stop()
