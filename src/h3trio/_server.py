"""`serve`: listeners, connections and the end of both, in one nursery.

Everything a server runs is a child of the nursery in `serve`, so when `serve`
returns no task is left. Shutdown is a sequence of deadlines, never a wait:

1. soft: `draining` is set, running streams are told to go, spread over the
   phase, and what is new is still answered, with "come back elsewhere".
2. the listeners close; what is left may finish until the hard deadline.
3. the nursery is cancelled.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol, final, runtime_checkable

import trio

from ._close import CloseReason
from ._connection import Connection
from ._context import Context
from ._errors import HTTPError
from ._listeners import ListenerSource, open_sources
from ._settings import Settings
from ._watchdog import Watchdog

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from ._context import Handler
    from ._listeners import Source
    from ._transport import Transport

logger = logging.getLogger("h3trio.server")

# Connections over the limit that are being told so; beyond it they are just closed.
_REFUSALS: Final = 100
# Connections taken in one go before other tasks have their turn.
_ACCEPT_BATCH: Final = 16
# Share of the soft phase before the first stream is ended: handlers that watch
# `H3Event.draining` end theirs in their own way.
_HEAD_START: Final = 0.1
# A cancelled connection that is still there after so many seconds is reported.
_OVERDUE: Final = 1.0
# Descriptors a server needs beside its connections.
_OTHER_FILES: Final = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """A snapshot of one server; totals count since its start."""

    connections: int
    """Open connections."""
    streams: int
    """Open event streams."""
    accepted: int
    """Connections accepted in total."""
    refused: int
    """Connections refused for want of room in total."""
    requests: int
    """Exchanges finished in total."""
    events: int
    """Events sent on streams that have ended."""
    bytes_sent: int
    """Bytes sent by exchanges that have ended."""
    closings: Mapping[CloseReason, int]
    """Exchanges finished, by reason."""
    blocked_loops: int
    """Times the event loop was blocked for `Settings.blocked_loop_warning`."""
    overdue_cancels: int
    """Handlers that went on for `Settings.cancel_warning` after they were cancelled."""
    draining: bool
    """Whether the server is going away."""


@runtime_checkable
class HasLifespan(Protocol):
    """A handler that needs something around it while it is served, as `App` does."""

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Entered before the server listens, left after its last task is gone."""
        ...


@final
class Server:
    """A running server, as `serve` gives it by `nursery.start`."""

    def __init__(self, context: Context, sources: Sequence[Source]) -> None:
        self._context = context
        self._sources = sources
        self._connections: dict[Connection, trio.lowlevel.Task | None] = {}
        self._refusing = 0
        self._empty = trio.lowlevel.ParkingLot()
        self._ended = trio.Event()
        self._watchdog = Watchdog(context.settings.blocked_loop_warning)

    def __repr__(self) -> str:
        return f"<Server: {' '.join(self.addresses)}, {len(self._connections)} connections>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it listens: `http://127.0.0.1:3000`, with the true port."""
        return tuple(source.address for source in self._sources)

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called: not ready for new work."""
        return self._context.draining.is_set()

    def statistics(self) -> ServerStatistics:
        """A snapshot; its cost doesn't grow with the connections."""
        counts = self._context.counts
        return ServerStatistics(
            connections=len(self._connections),
            streams=len(self._context.heartbeat),
            accepted=counts.connections,
            refused=counts.refused,
            requests=counts.requests,
            events=counts.events,
            bytes_sent=counts.bytes_sent,
            closings=MappingProxyType(dict(counts.closings)),
            blocked_loops=self._watchdog.blocked,
            overdue_cancels=self._context.cancels.overdue,
            draining=self.is_draining,
        )

    async def drain(self) -> None:
        """Shut down: returns once no connection is left, by the hard deadline.

        A second call waits for the same end. Cancelling the call ends the wait,
        not the drain.
        """
        self._context.draining.set()
        await self._ended.wait()

    async def run(self, task_status: trio.TaskStatus[Server]) -> None:
        """Serve until drained or cancelled; `serve` calls this, once."""
        self._watchdog.start()
        try:
            async with trio.open_nursery() as around:
                async with trio.open_nursery() as nursery:
                    # Outside the nursery that it cancels, so that it can tell what stays.
                    around.start_soon(self._drain, nursery.cancel_scope, name="h3trio drain")
                    nursery.start_soon(self._context.heartbeat.run, name="h3trio heartbeat")
                    nursery.start_soon(
                        self._context.cancels.run, self._where, name="h3trio cancel watch"
                    )
                    for source in self._sources:
                        name = f"h3trio accept {source.address}"
                        nursery.start_soon(self._accept, source, nursery, name=name)
                    task_status.started(self)
                around.cancel_scope.cancel(reason="the server has ended")
        finally:
            self._watchdog.stop()
            self._ended.set()

    # -- the drain

    async def _drain(self, everything: trio.CancelScope) -> None:
        await self._context.draining.wait()
        settings = self._context.settings
        with trio.move_on_after(settings.drain_soft):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_connections, settings.drain_soft)
                await self._wait_empty()
                nursery.cancel_scope.cancel(reason="nothing is left to end")
        for connection in self._connections:
            # Those whose turn the phase was too short for.
            connection.end_stream(CloseReason.DRAINING)
        for source in self._sources:
            await source.aclose()
        with trio.move_on_after(settings.drain_hard):
            await self._wait_empty()
        if self._connections:
            logger.warning("drain: cancelling %d connections", len(self._connections))
        everything.cancel(reason=CloseReason.DRAINING.value)
        await trio.sleep(_OVERDUE)
        for connection, task in self._connections.items():
            # Nothing more can be done from inside: no library can stop a task
            # that swallows its cancellation.
            logger.error(
                "drain: %r was cancelled and doesn't end; still running: %s",
                connection,
                _whereabouts(task),
            )

    async def _end_connections(self, seconds: float) -> None:
        """End idle connections now, streams one after the other over the phase."""
        streams = [connection for connection in self._connections if connection.is_streaming]
        for connection in self._connections:
            connection.drain()
        start, share = trio.current_time(), 1 - _HEAD_START
        for index, connection in enumerate(streams):
            await trio.sleep_until(start + seconds * (_HEAD_START + share * index / len(streams)))
            connection.end_stream(CloseReason.DRAINING)

    def _where(self, connection: object) -> str:
        """Say what the tasks of a connection are at."""
        return next((_whereabouts(t) for c, t in self._connections.items() if c is connection), "")

    async def _wait_empty(self) -> None:
        while self._connections or self._refusing:
            await self._empty.park()

    def _wake_if_empty(self) -> None:
        if not self._connections and not self._refusing:
            self._empty.unpark_all()

    # -- connections

    async def _accept(self, source: Source, nursery: trio.Nursery) -> None:
        """Take connections from one source until it closes."""
        batch = 0
        while True:
            try:
                transport, client = await source.accept()
            except trio.ClosedResourceError:
                return
            self._context.counts.connections += 1
            has_room = len(self._connections) < self._context.settings.max_connections
            take = self._serve if has_room else self._refuse
            take(transport, client, nursery)
            batch = (batch + 1) % _ACCEPT_BATCH
            if not batch:
                await trio.lowlevel.checkpoint()

    def _serve(self, transport: Transport, client: str, nursery: trio.Nursery) -> None:
        connection = Connection(transport, client=client, context=self._context)
        # Counted from now on: the next one accepted may be one too many.
        self._connections[connection] = None
        nursery.start_soon(self._run, connection, name=f"h3trio connection from {client}")

    async def _run(self, connection: Connection) -> None:
        self._connections[connection] = trio.lowlevel.current_task()
        try:
            await _contain(connection.run, connection)
        finally:
            del self._connections[connection]
            self._wake_if_empty()

    def _refuse(self, transport: Transport, client: str, nursery: trio.Nursery) -> None:
        self._context.counts.refused += 1
        name = f"h3trio refusal of {client}"
        if self._refusing >= _REFUSALS:
            nursery.start_soon(_contain, transport.aclose, transport, name=name)
            return
        self._refusing += 1
        nursery.start_soon(self._run_refusal, transport, client, name=name)

    async def _run_refusal(self, transport: Transport, client: str) -> None:
        """Say 503, so that the client knows when to come again."""
        try:
            after = str(self._context.retry_after())
            refusal = HTTPError(503, "too many connections", headers={"Retry-After": after})
            connection = Connection(
                transport, client=client, context=self._context, refusal=refusal
            )
            await _contain(connection.run, connection)
        finally:
            self._refusing -= 1
            self._wake_if_empty()


async def _contain(run: Callable[[], Awaitable[None]], what: object) -> None:
    """Run what belongs to one connection; an error in it is logged and hurts no other."""
    try:
        await run()
    except Exception:
        logger.exception("%r: internal error", what)


def _whereabouts(task: trio.lowlevel.Task | None) -> str:
    """Name the innermost tasks of a connection, and where their code waits."""
    if task is None:
        return "not started"
    children = [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    if children:
        return ", ".join(map(_whereabouts, children))
    place = ""
    for frame, line in task.iter_await_frames():
        # Where it waits inside Trio says nothing; who called Trio does.
        if frame.f_globals.get("__name__", "").partition(".")[0] != "trio":
            place = f" at {frame.f_code.co_filename}:{line}, in {frame.f_code.co_name}"
    return f"{task.name}{place}"


async def serve(
    handler: Handler,
    *,
    host: str | None = "127.0.0.1",
    port: int = 3000,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]] | None = None,
    settings: Settings | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a handler until cancelled or drained.

    Args:
        handler: `async def handler(event)`, such as an `App`. If it has a
            `lifespan()` method, that context is entered around the serving.
        host: address or name to bind; all its addresses. `None`: every interface.
        port: TCP port; 0 for a free one, told by `Server.addresses`.
        listeners: serve these instead of `host` and `port`; closed at the end.
        settings: limits and times.
        task_status: `await nursery.start(serve, …)` gives the `Server` once it listens.

    Raises:
        OSError: an address can't be bound.
    """
    settings = settings or Settings()
    raise_open_file_limit(settings.max_connections)
    sources: Sequence[Source]
    async with contextlib.AsyncExitStack() as stack:
        app: object = handler
        if isinstance(app, HasLifespan):
            await stack.enter_async_context(app.lifespan())
        if listeners is None:
            sources = await open_sources(host, port, settings)
        else:
            sources = [ListenerSource(listener, settings) for listener in listeners]
        for source in sources:
            stack.push_async_callback(source.aclose)
        await Server(Context(handler, settings), sources).run(task_status)


def raise_open_file_limit(connections: int) -> None:
    """Raise the soft limit of open files to the hard one: each connection holds one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < connections + _OTHER_FILES:
        logger.warning("%d open files are allowed, too few for %d connections", limit, connections)
