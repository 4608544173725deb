"""Nurseries inside other context managers, without their groups: `OwnedNursery`, `unwrapped`.

`OwnedNursery` is for a context manager of ours, such as `EventSource`. When its block is left the
tasks are cancelled, and an exception of the block leaves it bare: it never enters the nursery, so
no group is made of it. If one of the tasks failed, the nursery has cancelled the block: then it
gets the block's exception, and a group of one is opened. `unwrapped` is for one of somebody else.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, cast, final

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType


@final
class OwnedNursery:
    """Enter it for the nursery; leaving it cancels the nursery's tasks, and waits for them."""

    def __init__(self) -> None:
        self._manager = trio.open_nursery()
        self._nursery: trio.Nursery | None = None

    async def __aenter__(self) -> trio.Nursery:
        self._nursery = await self._manager.__aenter__()
        return self._nursery

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._nursery is not None, "entered before"
        scope = self._nursery.cancel_scope
        failed = scope.cancel_called
        scope.cancel(reason="its block was left")
        inside = (exc_type, exc, traceback) if failed else (None, None, None)
        try:
            await self._manager.__aexit__(*inside)
        except BaseExceptionGroup as group:
            error = bare(group)
        else:
            return
        raise error


@asynccontextmanager
async def unwrapped(manager: AbstractAsyncContextManager[object]) -> AsyncGenerator[None]:
    """Enter a context manager; an error of the block comes out without the groups around it.

    An app's lifespan is such a manager: its nurseries put into a group whatever leaves their block.
    An error of the manager's own, and a group that holds another error besides, stay as they are;
    so does a group of the block's, of which nurseries make copies.
    """
    error: BaseException | None = None
    try:
        async with manager:
            try:
                yield
            except BaseException as exc:
                error = exc
                raise
    except BaseExceptionGroup as group:
        inner: BaseException = group
        while inner is not error and len(found := members(inner)) == 1:
            inner = found[0]
        if error is None or inner is not error:
            raise
    else:
        return
    raise error


def members(error: BaseException) -> tuple[BaseException, ...]:
    """Return the errors of a group, none for any other error."""
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).exceptions
    return ()


def bare(error: BaseException) -> BaseException:
    """Take an error out of groups that hold nothing else."""
    while len(inner := members(error)) == 1:
        error = inner[0]
    return error
