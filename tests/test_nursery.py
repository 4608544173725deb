"""The nursery behind a context manager: it ends with the block, and adds no group."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing
from tables import table

from h3trio._nursery import OwnedNursery, unwrapped

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


async def fail(error: Exception) -> None:
    """Raise, a step later."""
    await trio.lowlevel.checkpoint()
    raise error


async def use(*, task: Exception | None = None, block: BaseException | None = None) -> list[str]:
    """Run a task that fails or stays, and a block that fails, waits for it, or ends."""
    ended = []

    async def stay() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("stayed")

    async with OwnedNursery() as nursery:
        nursery.start_soon(stay)
        await trio.testing.wait_all_tasks_blocked()
        if task is not None:
            nursery.start_soon(fail, task)
            await trio.sleep_forever()
        if block is not None:
            raise block
    return ended


async def test_its_tasks_end_with_the_block() -> None:
    """Leaving the block cancels the tasks, and waits for them."""
    assert await use() == ["stayed"]


@pytest.mark.parametrize("error", [ValueError("x"), ExceptionGroup("x", [ValueError("y")])])
async def test_the_blocks_exception_comes_out_bare(error: Exception) -> None:
    """An exception of the block comes out as it is, a group of its own too."""
    with pytest.raises(type(error)) as caught:
        await use(block=error)
    assert caught.value is error


async def test_a_tasks_exception_comes_out_bare() -> None:
    """A task that fails cancels the block, and its exception is all that comes out."""
    error = ValueError("x")
    with pytest.raises(ValueError, match="x") as caught:
        await use(task=error)
    assert caught.value is error


async def test_cancellation_from_outside_passes() -> None:
    """A scope around it is left as if there were no nursery."""
    with trio.move_on_after(0) as scope:
        async with OwnedNursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
    assert scope.cancelled_caught


async def test_two_failures_are_a_group() -> None:
    """If a task and the block fail, nothing is hidden."""

    async def both() -> None:
        async with OwnedNursery() as nursery:
            nursery.start_soon(fail, ValueError("task"))
            try:
                await trio.sleep_forever()
            finally:
                raise KeyError("block")

    with pytest.RaisesGroup(ValueError, KeyError):
        await both()


async def fail_at_once(error: Exception) -> None:
    """Raise without a checkpoint, at which a nursery that is cancelled would end the task."""
    raise error


@asynccontextmanager
async def two_nurseries(task_error: Exception | None) -> AsyncGenerator[None]:
    """Be a context manager of somebody else, with a task that may fail as the block is left."""
    async with trio.open_nursery(), trio.open_nursery() as nursery:
        try:
            yield
        finally:
            if task_error is not None:
                nursery.start_soon(fail_at_once, task_error)


@table("error", [KeyError("mine"), SystemExit()])
async def test_an_error_of_the_block_comes_out_of_the_nurseries_around_it(
    error: BaseException,
) -> None:
    """It is the same error, and no group."""
    with pytest.raises(type(error)) as caught:
        async with unwrapped(two_nurseries(None)):
            raise error
    assert caught.value is error


async def test_an_error_of_the_manager_stays_in_its_group() -> None:
    """It isn't the block's, so it comes as the manager raises it: alone, or beside the block's."""
    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError)):
        async with unwrapped(two_nurseries(KeyError())):
            pass
    with pytest.RaisesGroup(pytest.RaisesGroup(KeyError, ValueError)):
        async with unwrapped(two_nurseries(KeyError())):
            raise ValueError
