"""`separate`: of what left a handler, its own errors, and what only passes through.

A handler is code of the application, and any bug in it is an answer of 500 and an entry in the log,
also one that raises what isn't an `Exception`: `SystemExit` out of a library that thinks it
is a program, `asyncio.CancelledError`. One request doesn't end the server.

What passes is not the handler's: Trio's `Cancelled`, `GeneratorExit` of a coroutine that is closed,
and `KeyboardInterrupt`, which Python raises wherever the program happens to be.
"""

from __future__ import annotations

import logging
from typing import Final, TypeAlias, cast

import trio

from .logs.redaction import printable

logger = logging.getLogger("h3trio.server")

_Group: TypeAlias = BaseExceptionGroup[BaseException]

_PASSING: Final = (trio.Cancelled, GeneratorExit, KeyboardInterrupt)


def separate(
    error: BaseException, event: object
) -> tuple[BaseException | None, BaseException | None]:
    """Return what of an error is the handler's own, and what is to be raised again."""
    own, passing = _parts(error)
    if passing is not None and _holds(passing, KeyboardInterrupt):
        logger.error("%s: KeyboardInterrupt, in task %s", event, task_name())
    return (None if own is None else _single(own)), passing


def task_name() -> str:
    """Name the current task, as a log may have it."""
    return f"'{printable(trio.lowlevel.current_task().name)}'"


def _parts(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    if isinstance(error, BaseExceptionGroup):
        passing, own = cast("_Group", error).split(_PASSING)
        return own, passing
    return (None, error) if isinstance(error, _PASSING) else (error, None)


def _holds(error: BaseException, kind: type[BaseException]) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return cast("_Group", error).subgroup(kind) is not None
    return isinstance(error, kind)


def _single(error: BaseException) -> BaseException:
    """Unwrap groups of one: a nursery around one error doesn't change what it is."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    group = cast("_Group", error)
    return _single(group.exceptions[0]) if len(group.exceptions) == 1 else group
