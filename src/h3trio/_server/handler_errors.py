"""`separate`: of what left a handler, its own errors, and what only passes through.

A handler is code of the application, and any bug in it is an answer of 500 and an entry in the log,
also one that raises what isn't an `Exception`: `SystemExit` out of a library that thinks it
is a program, `asyncio.CancelledError`, `GeneratorExit`. One request doesn't end the server.

What passes, as `_tasks.passing` says, is not the handler's.

Nor is an error the handler's that the server put into it: that the client left, stalled, or sent
what isn't HTTP is raised where its body is read, and where it is sent to. `reason_of_client` tells.

Errors come in groups, as nurseries raise them. A group is judged by the errors in it.
"""

from __future__ import annotations

import logging
import traceback
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import trio

from h3trio._http.closing import CloseReason
from h3trio._http.errors import HTTPError
from h3trio._nursery import bare
from h3trio._tasks import passing as passing_kinds

from .logs.redaction import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

logger = logging.getLogger("h3trio.server")

_Group: TypeAlias = BaseExceptionGroup[BaseException]
_Parts: TypeAlias = tuple[BaseException | None, BaseException | None]

_OUR_ROOMS: Final = ("h3trio._http.", "h3trio._server.")
_TIMED_OUT: Final = 408
_SERVER_ERROR: Final = 500


def separate(error: BaseException, event: object, task: trio.lowlevel.Task | None) -> _Parts:
    """Return what of an error is the handler's own, and what is to be raised again.

    `task` is the one that ran the handler.
    """
    own, passing = parts(error, task)
    if passing is not None and _holds(passing, KeyboardInterrupt):
        logger.error("%s: KeyboardInterrupt, in task %s", event, task_name())
    return (None if own is None else bare(own)), passing


def parts(error: BaseException, task: trio.lowlevel.Task | None) -> _Parts:
    """As `separate`, in silence."""
    kinds = passing_kinds(task)
    if isinstance(error, BaseExceptionGroup):
        passing, own = cast("_Group", error).split(kinds)
        return own, passing
    return (None, error) if isinstance(error, kinds) else (error, None)


def log_raised(error: BaseException, event: object, what: str) -> None:
    """Log what a function raised that the application gave us, and that can't wait.

    It is called where an error would hit others. Only `KeyboardInterrupt` is raised again: neither
    a cancellation nor the closing of a coroutine reaches a function that doesn't wait.
    """
    if _holds(error, KeyboardInterrupt):
        raise error
    logger.error("%s: %s", event, what, exc_info=error)


def task_name() -> str:
    """Name the current task, as a log may have it."""
    return f"'{printable(trio.lowlevel.current_task().name)}'"


def reason_of_client(error: BaseException, reason: CloseReason | None) -> CloseReason | None:
    """Return why an exchange ended by an error that the server put into its handler.

    `reason` is that of the exchange so far. `None` if any of the error is the handler's own.
    """
    found = set[CloseReason]()
    for leaf in _leaves(error):
        if isinstance(leaf, trio.BrokenResourceError) and reason is not None:
            # A shielded handler met its lost client.
            found.add(reason)
        elif isinstance(leaf, HTTPError) and leaf.status < _SERVER_ERROR and _is_ours(leaf):
            is_late = leaf.status == _TIMED_OUT
            found.add(CloseReason.TIMEOUT if is_late else CloseReason.PROTOCOL_ERROR)
        else:
            return None
    return reason or max(found)


def _is_ours(error: HTTPError) -> bool:
    """Whether a method of the request raised it, and not the application.

    The place tells that: a mark would be needed at each `raise` of ours.
    """
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and str(frames[-1].f_globals.get("__name__")).startswith(_OUR_ROOMS)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Give the errors of a group and of the groups in it; any other error itself."""
    waiting = [error]
    while waiting:
        error = waiting.pop()
        if isinstance(error, BaseExceptionGroup):
            waiting += cast("_Group", error).exceptions
        else:
            yield error


def _holds(error: BaseException, kind: type[BaseException]) -> bool:
    return any(isinstance(leaf, kind) for leaf in _leaves(error))
