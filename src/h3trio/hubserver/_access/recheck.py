"""`Revalidator`: ends streams whose grant has ended, or has changed when it is asked for again.

The end that a grant names is the deadline of a cancel scope in the stream's own task, so Trio keeps
the time. One task asks for the grants again: once in each interval for all of them, one after
another over a fifth of it. An authenticator that waits for a database keeps no stream beyond its
end.

A grant's end is Unix time; it is waited for on Trio's clock, which doesn't jump.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast, final

import trio

from h3trio import CloseReason, HTTPError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from h3trio import H3Event

    from .grant import Authenticator, Grant

logger = logging.getLogger("h3trio.hub")

SPREAD: Final = 0.2
"""Share of the interval over which the streams are asked about."""

_MAX_CHECKS: Final = 16  # at once: fewer than the connections of a common database pool


@final
@dataclass(kw_only=True, eq=False)
class Revalidator:
    """The streams of one hub server that have a grant."""

    interval: float
    """Seconds between two times that grants are asked for, `inf` for never."""
    timeout: float
    """Seconds that asking may take."""
    counts: Counter[str]
    """Where streams are counted that ended, as `expired` or `revoked`, and requests for a grant
    that failed, as `recheck_failures`."""
    clock: Callable[[], float] = time.time
    """Unix time in seconds."""
    subjects: Counter[str] = field(default_factory=Counter[str])
    """The number of streams of each subject; `""` for those without one."""
    _streams: set[HeldStream] = field(default_factory=set["HeldStream"])
    _idle: trio.lowlevel.ParkingLot = field(default_factory=trio.lowlevel.ParkingLot)

    def end_of(self, grant: Grant) -> float:
        """Return when a grant ends, in seconds on Trio's clock."""
        if grant.expires is None:
            return math.inf
        return trio.current_time() + grant.expires - self.clock()

    def add(self, stream: HeldStream) -> None:
        """Count a stream that opens; its grant is asked for from now on."""
        self._streams.add(stream)
        self.subjects[stream.subject] += 1
        self._idle.unpark_all()

    def discard(self, stream: HeldStream) -> None:
        """Forget a stream that has ended, and count it if its grant was why."""
        self._streams.discard(stream)
        self.subjects[stream.subject] -= 1
        if not self.subjects[stream.subject]:
            del self.subjects[stream.subject]
        if stream.scope.cancelled_caught:
            self.counts["revoked" if stream.revoked else "expired"] += 1

    async def run(self, authenticator: Authenticator) -> None:
        """Ask for the grants of all streams again and again, until cancelled."""
        limiter = trio.CapacityLimiter(_MAX_CHECKS)
        while True:
            while not self._streams:
                await self._idle.park()
            await trio.sleep((1 - SPREAD) * self.interval)
            streams = list(self._streams)
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    if stream in self._streams:
                        nursery.start_soon(self._check, stream, authenticator, limiter)
                    await trio.sleep(SPREAD * self.interval / len(streams))

    async def _check(
        self, stream: HeldStream, authenticator: Authenticator, limiter: trio.CapacityLimiter
    ) -> None:
        """Ask for a stream's grant; take the new one, or end the stream."""
        try:
            async with limiter:
                grant = await self._ask(stream, authenticator)
            self._take(stream, grant)
        except BaseException as exc:
            if _passes(exc):
                raise
            # It must not end every stream: a database that restarts is no revocation.
            self.counts["recheck_failures"] += 1
            logger.exception("%s: asking for its rights again failed", stream.event)

    def _take(self, stream: HeldStream, grant: Grant | None) -> None:
        if grant is None or _rights(grant) != _rights(stream.grant):
            # The client comes back, and gets the rights it has now.
            stream.revoked = True
            stream.scope.cancel(reason="the grant was revoked")
        else:
            deadline = self.end_of(grant)
            stream.grant, stream.scope.deadline = grant, deadline

    async def _ask(self, stream: HeldStream, authenticator: Authenticator) -> Grant | None:
        """Return the grant there is now; the one of before if asking failed."""
        try:
            with trio.fail_after(self.timeout):
                return await authenticator(stream.event)
        except BaseException as error:
            refusal = None if _passes(error) else HTTPError.of(error)
            if refusal is None:
                raise
            if refusal.status < 500:  # noqa: PLR2004 - not the authenticator's own trouble
                return None
            logger.warning("%s: asking for its rights again: %s", stream.event, refusal)
        self.counts["recheck_failures"] += 1
        return stream.grant


def _passes(error: BaseException) -> bool:
    """Whether an error isn't the authenticator's own, or holds one that isn't.

    A `Cancelled` is its own where nothing is cancelled: it kept that of another task.
    """
    is_cancelled = trio.current_effective_deadline() == -math.inf
    kinds = (trio.Cancelled, KeyboardInterrupt) if is_cancelled else (KeyboardInterrupt,)
    if isinstance(error, BaseExceptionGroup):
        return cast("BaseExceptionGroup[BaseException]", error).subgroup(kinds) is not None
    return isinstance(error, kinds)


@final
class HeldStream:
    """A context manager around a stream, which ends it when its grant does.

    It is one object with a cancel scope, and no generator: each open stream with a token has one.
    """

    __slots__ = ("_revalidator", "event", "grant", "revoked", "scope", "subject")

    def __init__(self, revalidator: Revalidator, event: H3Event, grant: Grant) -> None:
        self._revalidator = revalidator
        self.event = event
        self.grant = grant
        self.subject = grant.subject
        self.scope = trio.CancelScope(deadline=revalidator.end_of(grant))
        self.revoked = False

    def __enter__(self) -> None:
        self._revalidator.add(self)
        self.scope.__enter__()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        caught = self.scope.__exit__(exc_type, exc, traceback)
        self._revalidator.discard(self)
        if self.scope.cancelled_caught:
            self.event.end(CloseReason.AUTH_EXPIRED)
        return caught


def _rights(grant: Grant) -> tuple[object, ...]:
    """Return what a stream may be open for."""
    return grant.subscribe, grant.operate, grant.relay
