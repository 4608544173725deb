"""A place where one task waits."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from h3trio._server.parking import SingleWaiter


async def test_wake(nursery: trio.Nursery) -> None:
    """Who waits goes on when it is woken, once."""
    waiter, woken = SingleWaiter(), list[int]()

    async def wait() -> None:
        for turn in range(2):
            await waiter.park()
            woken.append(turn)

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert woken == []
    waiter.wake()
    waiter.wake()
    await wait_all_tasks_blocked()
    assert woken == [0]
    waiter.wake()
    await wait_all_tasks_blocked()
    assert woken == [0, 1]


async def test_wake_nobody() -> None:
    """A wake-up that finds nobody isn't kept for who comes later."""
    waiter = SingleWaiter()
    waiter.wake()
    with trio.move_on_after(0) as scope:
        await waiter.park()
    assert scope.cancelled_caught


async def test_cancelled(nursery: trio.Nursery) -> None:
    """Whoever was cancelled has left the waiter to the next."""
    waiter, scope = SingleWaiter(), trio.CancelScope()

    async def wait() -> None:
        with scope:
            await waiter.park()
        await waiter.park()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    scope.cancel()
    await wait_all_tasks_blocked()
    waiter.wake()


async def test_a_second_task(nursery: trio.Nursery) -> None:
    """There is no room for two."""
    waiter = SingleWaiter()

    async def wait() -> None:
        await waiter.park()

    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    with pytest.raises(AssertionError):
        await waiter.park()
    waiter.wake()
