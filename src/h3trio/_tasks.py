"""`run_again`: runs a task that a hub or a server owns, and runs it again after an error.

Such a task stands in one nursery with everything else: an error that left it would end every stream
there is, for a disk that was full for a second, or for a bug in somebody's matcher. So the error is
logged and counted, and the task runs again after a pause, which doubles from error to error.

`passing` says which errors are nobody's own, there and in the handlers of a server.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio

if TYPE_CHECKING:
    import logging
    from collections import Counter
    from collections.abc import Awaitable, Callable

_Group: TypeAlias = BaseExceptionGroup[BaseException]

FIRST_PAUSE: Final = 0.1
"""Seconds from the first error to the next attempt."""
MAX_PAUSE: Final = 30.0
"""The longest pause in seconds. A task that ran for longer begins anew with the first."""


async def run_again(
    run: Callable[[], Awaitable[object]],
    *,
    name: str,
    logger: logging.Logger,
    failures: Counter[str],
    expected: type[BaseException] | tuple[()] = (),
    after_error: Callable[[], object] | None = None,
) -> None:
    """Run a task until it returns or is cancelled, whatever it raises.

    Args:
        run: the task.
        name: what the log and the counts call it.
        logger: gets each error once: its repetitions are counted only.
        failures: where the errors are counted, under the name.
        expected: errors that say all there is; the others are logged with a traceback.
        after_error: puts right what an error in the middle may have left.
    """
    pause, logged = FIRST_PAUSE, ""
    while True:
        began = trio.current_time()
        try:
            await run()
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it ends nothing else
            error = own_error(exc)
        else:
            return
        if after_error is not None:
            after_error()
        failures[name] += 1
        if trio.current_time() - began > MAX_PAUSE:
            pause, logged = FIRST_PAUSE, ""
        if (said := repr(error)) != logged:
            message = "%s failed, and is tried again: %s"
            logger.error(
                message, name, error, exc_info=None if isinstance(error, expected) else error
            )
            logged = said
        await trio.sleep(pause)
        pause = min(2 * pause, MAX_PAUSE)


def own_error(error: BaseException) -> BaseException:
    """Return what of an error is its task's own, out of groups of one; raise what passes."""
    here = trio.lowlevel.current_task() if trio.lowlevel.in_trio_task() else None
    kinds = passing(here)
    if isinstance(error, kinds):
        raise error
    while isinstance(error, BaseExceptionGroup):
        group = cast("_Group", error)
        passes = group.subgroup(kinds)
        if passes is not None:
            raise passes
        if len(group.exceptions) != 1:
            return group
        error = group.exceptions[0]
    return error


def passing(task: trio.lowlevel.Task | None) -> tuple[type[BaseException], ...]:
    """Return the kinds of errors that are nobody's fault in a task, and only pass through.

    They are `KeyboardInterrupt`, which Python raises wherever the program happens to be; Trio's
    `Cancelled` where a cancellation is under way (one that was kept from another task, and raised
    again here, is a bug like any other); and `GeneratorExit` if it isn't the task that runs.
    """
    if not trio.lowlevel.in_trio_task() or trio.lowlevel.current_task() is not task:
        # A coroutine is closed by others only, such as the garbage collector behind the loop's end.
        return (trio.Cancelled, GeneratorExit, KeyboardInterrupt)
    if trio.current_effective_deadline() == -inf:
        return (trio.Cancelled, KeyboardInterrupt)
    return (KeyboardInterrupt,)
