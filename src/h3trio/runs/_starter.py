"""`Starter`: starts runs, and joins those that were started with the same key.

The record of a start is published by a task of its own. Whoever asked may leave before the store
has answered: then the run goes on all the same, as it does without viewers. And the store may leave
the answer open: then the record is published again, under the same key, until it is known whether
it is there, so that no record is left of a run which nobody runs.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio import HTTPError
from h3trio._tasks import own_error
from h3trio.hub import OutcomeUnknownError, PinnedFullError

from ._run import Run
from ._state import RunState

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import ExitStack

    from ._draining import Draining
    from ._ledger import About, Ledger
    from ._runner import Runner
    from ._viewing import Viewing

_RETRY: Final = (0.1, 5.0)
"""Seconds to the first and the last new attempt to publish a record of which the outcome is open.
"""


@final
@dataclass(slots=True, eq=False, kw_only=True)
class Wanted:
    """A start that is asked for, and its outcome."""

    id: str
    function: Callable[[Run], Awaitable[object]]
    name: str
    """The name of the function."""
    owner: str
    """The hash of the owner, `""` for none."""
    public: bool
    payload: str
    """The hash of the payload, `""` for none."""
    has_key: bool
    node: str
    """The name of this node."""
    done: trio.Event = field(default_factory=trio.Event)
    """Set when the outcome is known, or that it isn't for now."""
    run: Run | None = None
    """The run that was started; `None` without an error: there is one of this key."""
    error: BaseException | None = None
    """Why there is none."""


@final
class Starter:
    """Starts the runs of one node.

    Args:
        ledger: has the records of starts.
        runner: runs what is started.
        viewing: answers requests for it.
        draining: tells when nothing new is begun.
    """

    def __init__(
        self, ledger: Ledger, runner: Runner, viewing: Viewing, draining: Draining
    ) -> None:
        self._ledger = ledger
        self._runner = runner
        self._viewing = viewing
        self._draining = draining
        self._pending: dict[str, Wanted] = {}
        """Starts whose record isn't stored yet, by id: another with the same key waits for it."""

    async def start(self, nursery: trio.Nursery, wanted: Wanted) -> Run:
        """Start a run, or join the one of its key; the errors are those of `Runs.start`."""
        known = await self._viewing.find(wanted.id) if wanted.has_key else None
        if known is None:
            if self._draining.begun:
                raise HTTPError(503, "the server is going away")
            first = self._pending.setdefault(wanted.id, wanted)
            if first is wanted:
                name = f"h3trio runs: start of {wanted.id}"
                nursery.start_soon(self._launch, nursery, wanted, name=name)
            await first.done.wait()
            if first.error is not None:
                raise first.error
            if wanted.run is not None:
                return wanted.run
            known = await self._viewing.find(wanted.id)
        if known is None:
            raise HTTPError(503, "the run of this key can't be found")
        if (known.function, known.fingerprint) != (wanted.name, wanted.payload):
            raise HTTPError(422, "the idempotency key was used for something else")
        self._runner.joined += 1
        return await self.handle(known)

    async def handle(self, about: About) -> Run:
        """Make the `Run` of one that is there."""
        local = self._runner.running.get(about.id)
        status = await self._viewing.status(about)
        return Run(self._ledger, self._viewing, about, local=local, status=status)

    async def _launch(self, nursery: trio.Nursery, wanted: Wanted) -> None:
        try:
            with self._runner.place(wanted.owner), self._runner.pins.pin(wanted.id) as pins:
                try:
                    about = await self._publish(wanted)
                except PinnedFullError:
                    if not self._runner.pins.release():
                        raise
                    about = await self._publish(wanted)
                while about is not None and wanted.has_key and await self._has_rest(about):
                    about = await self._publish(wanted)
                if about is not None:
                    wanted.run = self._begin(nursery, about, wanted, pins.pop_all())
        except BaseException as exc:  # noqa: BLE001 - whatever it is, it is raised to who asked
            wanted.error = own_error(exc)
        finally:
            del self._pending[wanted.id]
            wanted.done.set()

    async def _has_rest(self, about: About) -> bool:
        """Whether an earlier run of a key had left events; then these are gone, and the start is.

        Only who has the record of the start may remove events: anybody else's may be those of the
        run that goes on. And the record has to stand behind the removal, or viewers would be told
        of a gap.
        """
        if not await self._ledger.purge_events(about.id):
            return False
        await self._ledger.hide(about.id, about.cursor)
        return True

    async def _publish(self, wanted: Wanted) -> About | None:
        """Publish the record until the store says whether it has it; `None` if it is another's."""
        nonce, started, (pause, longest) = secrets.token_hex(8), self._ledger.clock(), _RETRY
        while True:
            try:
                about = await self._ledger.start(
                    wanted.id,
                    function=wanted.name,
                    owner=wanted.owner,
                    public=wanted.public,
                    fingerprint=wanted.payload,
                    node=wanted.node,
                    nonce=nonce,
                    started=started,
                )
                break
            except OutcomeUnknownError as exc:
                # Who asked is told, and may ask again: it is the same run if it has a key.
                wanted.error = exc
                wanted.done.set()
            await trio.sleep(pause)
            pause = min(2 * pause, longest)
        if about is not None and wanted.error is not None and not wanted.has_key:
            await self._ledger.hide(about.id, about.cursor)  # nobody has its id
            return None
        return about

    def _begin(self, nursery: trio.Nursery, about: About, wanted: Wanted, pins: ExitStack) -> Run:
        local = self._runner.add(about)
        status = about.status(RunState.RUNNING)
        run = Run(self._ledger, self._viewing, about, local=local, status=status)
        name = f"h3trio run {about.id}"
        nursery.start_soon(self._runner.run, run, local, wanted.function, pins, name=name)
        return run
