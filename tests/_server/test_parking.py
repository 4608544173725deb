"""A place where one task waits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from h3trio._server.parking import Seat


async def test_wake(nursery: trio.Nursery) -> None:
    """Who waits goes on when it is woken, once."""
    seat, woken = Seat(), list[int]()

    async def wait() -> None:
        for turn in range(2):
            await seat.park()
            woken.append(turn)

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert woken == []
    seat.wake()
    seat.wake()
    await wait_all_tasks_blocked()
    assert woken == [0]
    seat.wake()
    await wait_all_tasks_blocked()
    assert woken == [0, 1]


async def test_wake_nobody() -> None:
    """A wake-up that finds nobody isn't kept for who comes later."""
    seat = Seat()
    seat.wake()
    with trio.move_on_after(0) as scope:
        await seat.park()
    assert scope.cancelled_caught


async def test_cancelled(nursery: trio.Nursery) -> None:
    """Whoever was cancelled has left the seat to the next."""
    seat, scope = Seat(), trio.CancelScope()

    async def wait() -> None:
        with scope:
            await seat.park()
        await seat.park()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    seat.wake()


async def test_a_second_task(nursery: trio.Nursery) -> None:
    """There is no room for two."""
    seat = Seat()

    async def wait() -> None:
        await seat.park()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    with pytest.raises(AssertionError):
        await seat.park()
    seat.wake()
