"""`Runs`: starts runs, each a task in a nursery of its own, and answers for all there are.

    start ─▶ the record of the start ─▶ a task: function ─▶ Hub.publish ─▶ the run's topic
                                                                                ▲
    watch ─▶ a subscription to the topic, from its beginning or an id ──────────┘

A run ends by the record that closes its topic. Whoever publishes that first decides how it ended:
the task of the run, somebody who stops it, or another node that finds its node gone. So there is
exactly one, in the store's own order, and nothing of the run stands behind it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Final, Self, TypeVarTuple, Unpack, final

import trio

from h3trio import HTTPError
from h3trio._limits import check_limit
from h3trio._nursery import OwnedNursery
from h3trio._server.callables import Shape, require_async
from h3trio._tasks import run_again
from h3trio.hub import HistoryError

from ._draining import Draining
from ._ledger import Ledger, hashed, new_id, owner_hash
from ._nodes import Nodes
from ._recovery import Recovery
from ._retention import Retention
from ._runner import Runner
from ._settings import RunsSettings
from ._starter import Starter, Wanted
from ._state import RunsStatistics, RunState, RunStatus, join_texts
from ._viewing import Viewing, store_errors

if TYPE_CHECKING:
    from collections.abc import (
        AsyncGenerator,
        Awaitable,
        Callable,
        Sequence,
    )
    from types import TracebackType

    from h3trio import H3Event, SSEEvent
    from h3trio.hub import Hub

    from ._ledger import About
    from ._run import Run

_ADVICE: Final = "what stands behind it in `runs.start` comes behind the run"
_Args = TypeVarTuple("_Args")

logger = logging.getLogger("h3trio.runs")

_PREFIX: Final = "runs/"


@final
class Runs:
    """Runs on a hub: answers and jobs that go on when their clients are gone.

    An async context manager, to be entered in the app's lifespan, inside the hub::

        runs = Runs(Hub())
        app = App(lifespan=runs.lifespan)

        @app.post("/answers")
        async def start(event):
            prompt = await event.text()
            key = event.headers.get("idempotency-key")
            run = await runs.start(answer, prompt, owner=event.subject, key=key, fingerprint=prompt)
            return run.reply(event)

        @app.get("/answers/:id")
        async def watch(event):
            await runs.watch(event, event.params["id"])

        @app.delete("/answers/:id")
        async def stop(event):
            await runs.stop(event.params["id"], by=event.subject)

        async def answer(run, prompt):
            async for token in model(prompt):
                await run.send(token)

    A run is a task with a topic. Its viewers see its events from the first on, or from where they
    were, and then exactly one terminal event: `done`, `failed`, `stopped` or `interrupted`. That
    closes the topic, and a viewer's stream ends behind it.

    Where a handler is told an `HTTPError`, the client gets its status. 503 also stands for a store
    that has no room or doesn't answer.

    Args:
        hub: where the events go, and all that is stored of a run. Who else may publish to topics
            that begin with `prefix` can forge runs: give nobody the right to.
        retain: seconds for which a run is kept behind its end; then it is 404. The limits of the
            history hold too: a run is pinned while it goes on, and for `pin_after_end` seconds.
        cancel_unwatched_after: seconds after which a run is stopped that nobody watches, on no
            node; also the time that its first viewer has to come. Off by default. Where hubs share
            a history, it is no less than the `lease`.
        prefix: what all topics of these runs begin with. Two `Runs` on one history at the same
            time, in one process, need two; nodes that share a history need the same.
        settings: the other limits; `RunsSettings()` if not given.
        clock: gives Unix time in seconds, as the history's.

    Raises:
        ValueError, TypeError: a time isn't a positive number.
    """

    def __init__(
        self,
        hub: Hub,
        *,
        retain: float = 3600.0,
        cancel_unwatched_after: float | None = None,
        prefix: str = _PREFIX,
        settings: RunsSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        check_limit("retain", retain, whole=False)
        if cancel_unwatched_after is not None:
            check_limit("cancel_unwatched_after", cancel_unwatched_after, whole=False)
        hub.check_topics([f"{prefix}x"])
        self._hub = hub
        self._settings = settings or RunsSettings()
        if cancel_unwatched_after is not None and hub.history.is_shared:
            # Other nodes tell of their viewers by their beats.
            cancel_unwatched_after = max(cancel_unwatched_after, self._settings.lease)
        self._unwatched_after = cancel_unwatched_after
        self._ledger = Ledger(hub, prefix=prefix, clock=clock)
        self._limits = limits = Counter[str]()
        most = self._settings.max_ended_runs
        self._retention = Retention(self._ledger, seconds=retain, most=most, limits=limits)
        self._runner = Runner(
            hub,
            self._ledger,
            self._retention,
            settings=self._settings,
            limits=limits,
            cancel_unwatched_after=cancel_unwatched_after,
        )
        self._running = self._runner.running
        self._failures = Counter[str]()
        self._stack = AsyncExitStack()
        self._nursery: trio.Nursery | None = None
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Forget what was of an earlier time: a lifespan may be entered again."""
        self._node = secrets.token_hex(8)
        self._draining = Draining()
        self._viewing = Viewing(
            self._hub,
            self._ledger,
            running=self._running,
            draining=self._draining,
            limits=self._limits,
        )
        self._starter = Starter(self._ledger, self._runner, self._viewing, self._draining)
        self._retention.clear()
        self._nodes: Nodes | None = None

    def __repr__(self) -> str:
        return f"<Runs: {len(self._running)} under way>"

    @property
    def hub(self) -> Hub:
        """The hub that has their topics."""
        return self._hub

    @property
    def prefix(self) -> str:
        """The beginning of the names of all their topics."""
        return self._ledger.prefix

    # -- running

    @asynccontextmanager
    async def lifespan(self) -> AsyncGenerator[None]:
        """Run the hub, and these runs on it: `App(lifespan=runs.lifespan)`.

        Raises the errors of entering both.
        """
        async with self._hub, self:
            yield

    async def __aenter__(self) -> Self:
        """Begin; runs of an earlier process that didn't end are told as interrupted.

        Raises:
            HistoryError: the history can't be read or written.
            trio.ClosedResourceError: the hub isn't running.
        """
        await self._stack.enter_async_context(self._run_all())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.__aexit__(exc_type, exc, traceback)

    @asynccontextmanager
    async def _run_all(self) -> AsyncGenerator[None]:
        if self._nursery is not None:
            raise trio.BusyResourceError("these runs are entered already")
        self._begin_anew()
        if self._hub.history.is_shared:
            is_wanted = self._unwatched_after is not None
            self._nodes = Nodes(
                self._hub,
                topic=self._ledger.nodes,
                name=self._node,
                lease=self._settings.lease,
                watched=self._viewing.watched_elsewhere if is_wanted else tuple,
            )
        recovery = Recovery(
            self._ledger, self._runner, self._retention, node=self._node, nodes=self._nodes
        )
        await self._hub.locate([self._ledger.nodes])  # raises if the hub isn't running
        async with OwnedNursery() as nursery:
            # Without other nodes, whoever ran these is gone: the history has one owner.
            await recovery.look_over(node=None, gone=self._nodes is None)
            self._nursery = nursery
            self._draining.open(nursery)
            self._start_tasks(nursery, recovery)
            try:
                yield
            finally:
                self._draining.begun = True
                try:
                    with trio.move_on_after(self._settings.close_timeout):
                        await self._runner.interrupt_all()
                finally:
                    self._runner.pins.release()
                    self._nursery = None

    def _start_tasks(self, nursery: trio.Nursery, recovery: Recovery) -> None:
        nursery.start_soon(self._end_by_drain, name="h3trio runs: drain")
        remove = partial(self._retention.run, self._viewing, self._nodes)
        tasks: dict[str, Callable[[], Awaitable[object]]] = {
            "retention": remove,
            "pins": self._runner.pins.run,
        }
        if self._nodes is not None:
            tasks["nodes"] = self._nodes.listen
            tasks["beat"] = self._nodes.beat
            tasks["news of nodes"] = partial(recovery.hear_of, self._nodes, self._viewing)
        for name, run in tasks.items():
            task = partial(
                run_again,
                run,
                name=name,
                logger=logger,
                failures=self._failures,
                expected=HistoryError,
            )
            nursery.start_soon(task, name=f"h3trio runs: {name}")

    def _open_nursery(self) -> trio.Nursery:
        if self._nursery is None:
            raise trio.ClosedResourceError(
                "the runs aren't entered: `async with hub, runs` in the app's lifespan"
            )
        return self._nursery

    # -- starting

    async def start(
        self,
        function: Callable[[Run, Unpack[_Args]], Awaitable[object]],
        *args: *_Args,
        owner: str = "",
        key: str | None = None,
        fingerprint: str | bytes | None = None,
        public: bool = False,
    ) -> Run:
        """Start a run: `await function(run, *args)` in a task of these runs.

        What the function returns is dropped. What it raises fails the run; see `RunFailedError`.

        Args:
            function: what runs. It publishes by `Run.send`.
            args: its arguments behind the run.
            owner: who may watch and stop it, such as `H3Event.subject`. Empty: whoever has the id.
            key: starts with the same owner and key are one run, such as the client's
                `Idempotency-Key`: the first decides, and the others join it, for as long as it is
                kept. Where the owner is empty, a key that can be guessed gives the run away.
            fingerprint: stands for the payload, most simply the body of the request: another one
                under the same key is refused.
            public: whether whoever has the id may watch and stop it, though it has an owner.

        Raises:
            HTTPError: 400, the key is empty; 422, its key came with another fingerprint or another
                function; 429, `max_owner_runs`; 503, `max_runs`, the server drains, or the store
                has no room or doesn't answer.
            TypeError: the function isn't async, or can't be called with the run and `args`.
            trio.ClosedResourceError: these runs, or the hub, aren't running.
        """
        nursery = self._open_nursery()
        names = ("run", *(f"arg{n}" for n in range(1, 1 + len(args))))
        require_async(function, Shape("a run's function", names, _ADVICE, "run"))
        if key == "":
            raise HTTPError(400, "the idempotency key is empty")
        wanted = Wanted(
            id=new_id() if key is None else hashed("key", owner, key),
            function=lambda run: function(run, *args),
            name=_name_of(function),
            owner=owner_hash(owner),
            public=public,
            payload="" if fingerprint is None else hashed("fingerprint", fingerprint),
            has_key=key is not None,
            node=self._node,
        )
        with store_errors(self._limits):
            return await self._starter.start(nursery, wanted)

    async def _end_by_drain(self) -> None:
        await self._draining.over.wait()
        await self._runner.interrupt_all()

    # -- for handlers

    def watch(
        self,
        event: H3Event,
        id: str,
        *,
        by: str | None = None,
        reduce: Callable[[Sequence[SSEEvent]], str] = join_texts,
    ) -> Awaitable[None]:
        """Answer a request with a run, up to its end: `await runs.watch(event, id)`.

        A stream begins behind the id that the client comes back with, else with the first event. If
        a part is gone, `reset` tells so. The stream ends behind the terminal event; who has that
        already gets 204, so that a browser doesn't come back. With `?from=snapshot`, and no id, it
        begins with one event of type `snapshot` instead, which has all texts so far, and the id to
        go on behind. A drain of the server lets it finish.

        With `Accept: application/json` the answer is the run's status, as JSON.

        Args:
            event: the request.
            id: the run's.
            by: who watches; `H3Event.subject` if not given.
            reduce: makes one text of events, for a snapshot. If not given, the data of those
                without a type of their own is joined.

        Raises:
            HTTPError: 404, there is no such run, or it is somebody else's; 400, another `from`;
                503, the store doesn't answer.
        """
        self._open_nursery()
        # Not `async`: its frame would last as long as the stream.
        return self._viewing.watch(
            event,
            id,
            by=event.subject if by is None else by,
            reduce=reduce,
        )

    async def get(self, id: str, *, by: str = "") -> Run:
        """Return a run, whether it goes on here, on another node, or has ended.

        Args:
            id: the run's.
            by: who asks.

        Raises:
            HTTPError: 404, there is no such run, or it is somebody else's; 503, the store doesn't
                answer.
        """
        self._open_nursery()
        with store_errors(self._limits):
            return await self._starter.handle(await self._viewing.require(id, by))

    async def list(self, *, owner: str, limit: int = 100) -> list[RunStatus]:
        """Return the runs of an owner that go on or are still kept, the newest first.

        The empty owner has none: whoever had the list would have everybody's ids.

        Args:
            owner: as of `start`.
            limit: how many at most.

        Raises:
            HTTPError: 503, the store doesn't answer.
        """
        check_limit("limit", limit)
        self._open_nursery()
        if not owner:
            await trio.lowlevel.checkpoint()
            return []
        with store_errors(self._limits):
            found = await self._ledger.of_owner(owner_hash(owner), limit=limit)
            return [await self._viewing.status(about) for about in found]

    async def stop(self, id: str, *, by: str = "", reason: str = "") -> RunStatus:
        """Stop a run, on whatever node it is; return how it ended.

        Its viewers are told at once, by `stopped`, and its function is cancelled. To stop what has
        ended is no error: the status says how it did. While the store doesn't take the end it is
        tried again, and the status says that the run goes on.

        Args:
            id: the run's.
            by: who stops it.
            reason: for its viewers. Behind 1,000 characters it is cut.

        Raises:
            HTTPError: 404, there is no such run, or it is somebody else's; 503, the store doesn't
                answer.
        """
        nursery = self._open_nursery()
        with store_errors(self._limits):
            about = await self._viewing.require(id, by)
            local = self._running.get(id)
            status = await self._viewing.status(about)
            if status.state is not RunState.RUNNING:
                return status
            # In a task of its own: the function is to be cancelled even if who asked leaves.
            tried = trio.Event()

            async def stop() -> None:
                nonlocal status
                try:
                    if local is None:
                        status = await self._stop_elsewhere(about, reason, tried)
                    else:
                        await self._runner.end_local(local, RunState.STOPPED, reason)
                        status = local.ended or status
                finally:
                    tried.set()

            nursery.start_soon(stop, name=f"h3trio runs: stop of {id}")
            await tried.wait()
            return status

    async def _stop_elsewhere(self, about: About, reason: str, tried: trio.Event) -> RunStatus:
        status = await self._runner.publish_end(about, RunState.STOPPED, reason, tried=tried)
        if self._nodes is not None:
            await self._nodes.tell("ended", about.id)
        else:
            self._retention.add(about)
        return status

    def statistics(self) -> RunsStatistics:
        """Return a snapshot; its cost grows with the runs under way on this node."""
        watched = sum(local.viewers > 0 for local in self._running.values())
        return RunsStatistics(
            running=len(self._running),
            watched=watched,
            unwatched=len(self._running) - watched,
            viewers=self._viewing.viewers,
            started=self._runner.started,
            joined=self._runner.joined,
            ended=dict(self._runner.ended),
            limits=dict(self._limits),
            task_failures=dict(self._failures),
        )


def _name_of(function: object) -> str:
    inner = function.func if isinstance(function, partial) else function
    name: object = getattr(inner, "__qualname__", type(inner).__qualname__)
    return str(name)
