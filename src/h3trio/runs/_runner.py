"""`Runner`: the runs of this process, each a task, and how they end.

The task of a run publishes the terminal event once its function has unwound. Who ends the run from
outside, as it was stopped or the process ends, publishes first and cancels then: viewers are told
at once, however long the function takes to unwind. Whoever comes second is refused by the store,
and takes the end that is there.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, final

import trio

from h3trio import HTTPError
from h3trio._tasks import own_error
from h3trio.hub import HistoryError, OverloadedError

from ._local import Local
from ._retention import Pins
from ._run import RunFailedError
from ._state import RunState, RunStatus

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from contextlib import ExitStack

    from h3trio.hub import Hub

    from ._ledger import About, Ledger
    from ._retention import Retention
    from ._run import Run
    from ._settings import RunsSettings

_T = TypeVar("_T")

logger = logging.getLogger("h3trio.runs")

_RETRY: Final = (0.1, 5.0)
"""Seconds to the first and the last new attempt to publish how a run ended."""

_AT_ONCE: Final = 100
"""Runs that are looked at, or ended, in one go: they share a commit of the store."""


@final
class Runner:
    """Runs the functions of runs.

    Args:
        hub: where their events go.
        ledger: writes how they end.
        retention: is told of those that have ended.
        settings: their limits.
        limits: where the limits that are met are counted, by their names.
        cancel_unwatched_after: seconds without a viewer after which one is stopped.
    """

    def __init__(
        self,
        hub: Hub,
        ledger: Ledger,
        retention: Retention,
        *,
        settings: RunsSettings,
        limits: Counter[str],
        cancel_unwatched_after: float | None,
    ) -> None:
        self.running: Final[dict[str, Local]] = {}
        """Those under way, by id."""
        self.limits: Final = limits
        self.ended: Final = Counter[str]()
        """Those that ended, by how."""
        self.pins: Final = Pins(hub, ledger, seconds=settings.pin_after_end)
        """Keeps their events from the limits of the history."""
        self.started: int = 0
        """Those that were started in total."""
        self.joined: int = 0
        """Starts with the key of a run that was there."""
        self._hub = hub
        self._ledger = ledger
        self._retention = retention
        self._settings = settings
        self._unwatched_after = cancel_unwatched_after
        self._starting = 0
        self._owners = Counter[str]()

    # -- beginning

    @contextmanager
    def place(self, owner: str) -> Generator[None]:
        """Hold a place for a run while its start is published.

        Raises:
            HTTPError: 429, 503, there are too many.
        """
        settings = self._settings
        if len(self.running) + self._starting >= settings.max_runs:
            self.limits["max_runs"] += 1
            raise HTTPError(503, f"{settings.max_runs} runs are under way, and no more may be")
        if owner and self._owners[owner] >= settings.max_owner_runs:
            self.limits["max_owner_runs"] += 1
            most = settings.max_owner_runs
            raise HTTPError(429, f"{most} of your runs are under way, and no more may be")
        self._starting += 1
        self._count_owner(owner, 1)
        try:
            yield
        finally:
            self._starting -= 1
            self._count_owner(owner, -1)

    def _count_owner(self, owner: str, change: int) -> None:
        if owner:
            self._owners[owner] += change
            if not self._owners[owner]:
                del self._owners[owner]

    def add(self, about: About) -> Local:
        """Count a run as under way, whose function is started next."""
        local = Local(
            self._hub,
            about,
            self._ledger.topic(about.id),
            settings=self._settings,
            limits=self.limits,
            release=self.pins.release,
            cancel_unwatched_after=self._unwatched_after,
        )
        self.running[about.id] = local
        self._count_owner(about.owner, 1)
        self.started += 1
        return local

    # -- the task of a run

    async def run(
        self,
        run: Run,
        local: Local,
        function: Callable[[Run], Awaitable[object]],
        pins: ExitStack,
    ) -> None:
        """Run a function to its end, and publish how that was: the task of a run."""
        about = local.about
        with pins:
            try:
                await self._run_to_its_end(run, local, function)
            finally:
                del self.running[about.id]
                self._count_owner(about.owner, -1)
                local.done.set()
                if local.ended is not None:
                    self.ended[local.ended.state.value] += 1
                    self._retention.add(about)
            self.pins.keep(pins.pop_all())

    async def _run_to_its_end(
        self, run: Run, local: Local, function: Callable[[Run], Awaitable[object]]
    ) -> None:
        about = local.about
        try:
            state, detail = await self._outcome(run, local, function)
            if local.ended is None:
                local.end(await self.publish_end(about, state, detail))
        except trio.Cancelled:
            # All tasks are. The hub may take it yet; if not, it is found at the next start.
            if local.ended is None:
                with suppress(trio.WouldBlock, trio.ClosedResourceError, ValueError, HistoryError):
                    self._ledger.end_nowait(about, RunState.INTERRUPTED, "")
                    local.end(about.status(RunState.INTERRUPTED, ended=self._ledger.clock()))
            raise

    async def _outcome(
        self, run: Run, local: Local, function: Callable[[Run], Awaitable[object]]
    ) -> tuple[RunState, str]:
        """Run the function; return how the run is to end."""
        error = None
        try:
            with local.scope:
                await function(run)
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it fails this run alone
            error = own_error(exc)
        if local.is_cut_short():
            if error is not None:
                logger.debug("the run %s raised as it was ended", run.id, exc_info=error)
        elif error is not None:
            return RunState.FAILED, _message_of(error, local.about)
        return local.verdict or (RunState.DONE, "")

    async def publish_end(
        self, about: About, state: RunState, detail: str, *, tried: trio.Event | None = None
    ) -> RunStatus:
        """Publish how a run ended until the store has taken it; return how it did.

        The event, if given, is set when the store hasn't taken it at first.
        """
        key, (pause, longest) = f"end-{secrets.token_hex(8)}", _RETRY
        logged = False
        while True:
            try:
                return await self._ledger.end(about, state, detail, key=key)
            except Exception as exc:
                # Whatever it is, it ends no other run.
                if not logged:
                    told = None if isinstance(exc, (HistoryError, OverloadedError)) else exc
                    message = "the end of run %s isn't stored yet: %s"
                    logger.error(message, about.id, exc, exc_info=told)  # noqa: TRY400 - the store's errors say all there is
                logged = True
                if tried is not None:
                    tried.set()
            await trio.sleep(pause)
            pause = min(2 * pause, longest)

    # -- ending runs of this process

    async def end_local(self, local: Local, state: RunState, detail: str) -> None:
        """Publish how a run ends, and cancel it; if that can't be, its own task goes on trying."""
        try:
            status = await self._ledger.end(
                local.about, state, detail, key=f"end-{secrets.token_hex(8)}"
            )
        except Exception:  # noqa: BLE001 - its own task tells of it
            local.cancel(state, detail)
        else:
            local.end(status)

    async def interrupt_all(self) -> None:
        """Interrupt what still runs, and wait for it to unwind."""
        while self.running:
            running = list(self.running.values())
            interrupt = partial(self.end_local, state=RunState.INTERRUPTED, detail="")
            await for_each(interrupt, [local for local in running if local.ended is None])
            for local in running:
                await local.done.wait()


async def for_each(work: Callable[[_T], Awaitable[object]], items: Sequence[_T]) -> None:
    """Do something for each item, some at a time."""
    for start in range(0, len(items), _AT_ONCE):
        async with trio.open_nursery() as nursery:
            for item in items[start : start + _AT_ONCE]:
                nursery.start_soon(work, item)


def _message_of(error: BaseException, about: About) -> str:
    """Return what viewers are told of an error; log what isn't made for them."""
    if isinstance(error, RunFailedError):
        return str(error)
    if isinstance(error, HTTPError):
        return error.detail
    logger.error("the run %s, %s, failed", about.id, about.function, exc_info=error)
    return "the run failed"
