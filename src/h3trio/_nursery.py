"""`OwnedNursery`: a nursery inside another context manager, such as `EventSource`.

When the block is left the tasks are cancelled, and an exception of the block leaves it bare: it
never enters the nursery, so no group is made of it. If one of the tasks failed, the nursery has
cancelled the block: then it gets the block's exception, and a group of one is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast, final

import trio

if TYPE_CHECKING:
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
