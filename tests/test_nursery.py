"""The nursery behind a context manager: it ends with the block, and adds no group."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from h3trio._nursery import OwnedNursery


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
