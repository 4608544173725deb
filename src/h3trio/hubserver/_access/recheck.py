"""Ends streams whose rights are over: at the time a grant names, or found gone when asked again.

One task has a heap of what is due next, so a stream costs an entry and no task,
scope or timer of its own. Asking again runs beside it, some at a time: an
authenticator that waits for a database keeps no stream beyond its end.

A grant's end is Unix time; it is waited for on Trio's clock, which doesn't jump.
"""

from __future__ import annotations

import heapq
import logging
import math
import random
import time
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio import CloseReason, HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio import H3Event

    from .grant import Authenticator, Grant

logger = logging.getLogger("h3trio.hub")

RECHECK_JITTER: Final = 0.2
"""Share by which the times between two checks differ, so that streams that began together
don't ask together."""

_MAX_CHECKS: Final = 16  # at once: fewer than the connections of a common database pool
_FEW: Final = 64  # entries that may be stale before the heap is made anew


@final
@dataclass(eq=False, slots=True)
class Watched:
    """A stream, and until when it may last as far as its grant goes."""

    event: H3Event
    grant: Grant
    ends: float
    """On Trio's clock."""
    queued: bool = False
    """Whether it stands in the heap."""
    gone: bool = False


@final
class Watch:
    """The streams of one hub server that have a grant.

    Args:
        authenticator: asked again, with the request that began the stream.
        interval: seconds between two times, `inf` for never.
        timeout: seconds that one may take.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        *,
        interval: float,
        timeout: float,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._authenticator = authenticator
        self._interval = interval
        self._timeout = timeout
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self._numbers = count()
        # The number decides between two of the same time: streams can't be compared.
        self._heap: list[tuple[float, int, Watched]] = []
        self._stale = 0
        self._changed = trio.Event()
        self.expired = 0
        self.revoked = 0
        self.failures = 0

    # -- for the streams

    def add(self, event: H3Event, grant: Grant) -> Watched:
        """Watch a stream from now on."""
        watched = Watched(event, grant, self._end_of(grant))
        self._push(watched)
        return watched

    def discard(self, watched: Watched) -> None:
        """Watch it no more: it ended. Called once."""
        watched.gone = True
        if not watched.queued:
            return
        self._stale += 1
        if self._stale > _FEW + len(self._heap) // 2:
            self._heap = [entry for entry in self._heap if not entry[2].gone]
            heapq.heapify(self._heap)
            self._stale = 0

    def _end_of(self, grant: Grant) -> float:
        if grant.expires is None:
            return math.inf
        return trio.current_time() + grant.expires - self._clock()

    def _push(self, watched: Watched) -> None:
        share = self._random.uniform(1 - RECHECK_JITTER, 1 + RECHECK_JITTER)
        due = min(watched.ends, trio.current_time() + self._interval * share)
        heapq.heappush(self._heap, (due, next(self._numbers), watched))
        watched.queued = True
        if self._heap[0][2] is watched:
            self._changed.set()

    # -- the task

    async def run(self) -> None:
        """End streams until cancelled."""
        limiter = trio.CapacityLimiter(_MAX_CHECKS)
        async with trio.open_nursery() as nursery:
            while True:
                self._changed = trio.Event()
                with trio.move_on_at(self._heap[0][0] if self._heap else math.inf):
                    await self._changed.wait()
                for watched in self._due():
                    if watched.ends <= trio.current_time():
                        self._expire(watched)
                    else:
                        nursery.start_soon(self._check, watched, limiter)

    def _expire(self, watched: Watched) -> None:
        self.expired += 1
        watched.event.end(CloseReason.AUTH_EXPIRED)

    def _due(self) -> list[Watched]:
        """Take what is due out of the heap."""
        found: list[Watched] = []
        now = trio.current_time()
        while self._heap and self._heap[0][0] <= now:
            watched = heapq.heappop(self._heap)[2]
            watched.queued = False
            if watched.gone:
                self._stale -= 1
            else:
                found.append(watched)
        return found

    async def _check(self, watched: Watched, limiter: trio.CapacityLimiter) -> None:
        """Ask again; then watch on, or end the stream."""
        grant = None
        with trio.move_on_at(watched.ends) as until_end:
            async with limiter:
                grant = await self._ask(watched)
        if watched.gone:
            return
        if until_end.cancelled_caught:
            self._expire(watched)
        elif grant is None or _rights(grant) != _rights(watched.grant):
            # Whoever has other rights than before comes back and gets those.
            self.revoked += 1
            watched.event.end(CloseReason.AUTH_EXPIRED)
        else:
            watched.grant, watched.ends = grant, self._end_of(grant)
            self._push(watched)

    async def _ask(self, watched: Watched) -> Grant | None:
        """Return the grant there is now; that of before if it can't be told."""
        try:
            with trio.fail_after(self._timeout):
                return await self._authenticator(watched.event)
        except HTTPError as exc:
            if exc.status < 500:  # noqa: PLR2004 - not the authenticator's own trouble
                return None
            logger.warning("%s: asking for its rights again: %s", watched.event, exc)
        except Exception:
            # Not the end of every stream: a database that restarts is no revocation.
            logger.exception("%s: asking for its rights again failed", watched.event)
        self.failures += 1
        return watched.grant


def _rights(grant: Grant) -> tuple[object, ...]:
    """What a stream may be open for."""
    return grant.subscribe, grant.operate
