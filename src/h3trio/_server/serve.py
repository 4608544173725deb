"""`serve`: listeners, connections and the end of both, in one nursery.

Everything a server runs is a child of the nursery in `serve`, so when `serve`
returns no task is left. Shutdown is a sequence of deadlines, never a wait:

1. soft: `draining` is set, running streams are told to go, spread over the
   phase, and what is new is still answered, with "come back elsewhere".
2. the listeners close; what is left may finish until the hard deadline, and what
   is new is refused.
3. the nursery is cancelled.
"""

from __future__ import annotations

import contextlib
import logging
import resource
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, final, runtime_checkable

import trio

from h3trio._http.closing import CloseReason
from h3trio._http.settings import Settings

from .context import Context
from .handshakes import Arrival, Entrance
from .no_room import Refusals, contain
from .sockets.listeners import open_sources, source_of
from .sockets.unix import open_unix
from .watchdog import Watchdog

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager

    from h3trio._http.statistics import ServerStatistics

    from .connection import Connection
    from .context import Handler
    from .peers.trusted_proxies import TrustedProxies
    from .sockets.listeners import SocketSource, Source

logger = logging.getLogger("h3trio.server")

# Connections taken in one go before other tasks have their turn.
_ACCEPT_BATCH: Final = 16
# Share of the soft phase before the first stream is ended: handlers that watch
# `H3Event.draining` end theirs in their own way.
_HEAD_START: Final = 0.1
# A cancelled connection that is still there after so many seconds is reported.
_OVERDUE: Final = 1.0
# Descriptors a server needs beside its connections.
_OTHER_FILES: Final = 64


@runtime_checkable
class HasLifespan(Protocol):
    """A handler that needs something around it while it is served, as `App` does."""

    def lifespan(self) -> AbstractAsyncContextManager[object]:
        """Entered before the server listens, left after its last task is gone."""
        ...


@final
class Server:
    """A running server, as `serve` gives it by `nursery.start`."""

    def __init__(self, context: Context, sources: Sequence[Source], entrance: Entrance) -> None:
        self._context = context
        context.take_snapshot = self.statistics
        self._sources = sources
        self._entrance = entrance
        self._connections: dict[Connection | Arrival, trio.lowlevel.Task | None] = {}
        self._refusals = Refusals(context, entrance, on_end=self._wake_if_empty)
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
        return self._context.snapshot(
            connections=len(self._connections),
            blocked_loops=self._watchdog.blocked,
            accept_pauses=sum(source.pauses for source in self._sources),
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
        self._context.closing = True
        for connection in self._connections:
            # Those whose turn the phase was too short for, and those that came in it.
            connection.end_stream(CloseReason.DRAINING)
            connection.drain()
        for source in self._sources:
            await source.aclose()
        with trio.move_on_after(settings.drain_hard):
            await self._wait_empty()
        if self._connections:
            self._context.counts.limits["drain_hard"] += len(self._connections)
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
        while self._connections or self._refusals:
            await self._empty.park()

    def _wake_if_empty(self) -> None:
        if not self._connections and not self._refusals:
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
            if len(self._connections) >= self._context.settings.max_connections:
                take = self._refusals.no_room
            elif self._entrance.is_open_to(client):
                take = self._serve
            else:
                take = self._welcome
            take(Arrival(transport, client, source.scheme), nursery)
            batch = (batch + 1) % _ACCEPT_BATCH
            if not batch:
                await trio.lowlevel.checkpoint()

    def _serve(self, arrival: Arrival, nursery: trio.Nursery) -> None:
        """Speak HTTP from here on."""
        if not arrival.is_counted and not self._admit(arrival):
            self._refusals.too_many(arrival, nursery)
            return
        connection = arrival.connection(self._context)
        # Counted from now on: the next one accepted may be one too many.
        self._connections[connection] = None
        arrival.is_counted = False
        name = f"h3trio connection from {arrival.client}"
        nursery.start_soon(self._run, connection, arrival.key, name=name)

    def _admit(self, arrival: Arrival) -> bool:
        """Count it under its address; one too many is to be refused."""
        key = self._context.connection_key(arrival.client, was_told=arrival.was_told)
        arrival.is_counted = self._context.addresses.take_connection(key)
        arrival.is_refused = not arrival.is_counted
        arrival.key = key
        return arrival.is_counted

    async def _run(self, connection: Connection, key: str | None) -> None:
        self._connections[connection] = trio.lowlevel.current_task()
        # As `contain` does, whose frame would be 250 bytes more for each connection.
        try:
            await connection.run()
        except Exception:
            logger.exception("%r: internal error", connection)
        finally:
            del self._connections[connection]
            self._context.addresses.leave_connection(key)
            self._wake_if_empty()

    # -- what comes before HTTP

    def _welcome(self, arrival: Arrival, nursery: trio.Nursery) -> None:
        self._connections[arrival] = None
        name = f"h3trio entrance for {arrival.client}"
        nursery.start_soon(self._run_arrival, arrival, nursery, name=name)

    async def _run_arrival(self, arrival: Arrival, nursery: trio.Nursery) -> None:
        self._connections[arrival] = trio.lowlevel.current_task()
        try:
            await contain(partial(self._entrance.enter, arrival, admit=self._admit), arrival)
            if arrival.is_inside:
                self._serve(arrival, nursery)
            elif arrival.is_refused:
                self._refusals.too_many(arrival, nursery)
        finally:
            del self._connections[arrival]
            if arrival.is_counted:
                self._context.addresses.leave_connection(arrival.key)
            self._wake_if_empty()


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
    unix: str | None = None,
    unix_mode: int = 0o600,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream] | socket.socket] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    proxies: TrustedProxies | None = None,
    settings: Settings | None = None,
    task_status: trio.TaskStatus[Server] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve a handler until cancelled or drained.

    Args:
        handler: `async def handler(event)`, such as an `App`. If it has a
            `lifespan()` method, that context is entered around the serving.
        host: address or name to bind; all its addresses. `None`: every interface.
        port: TCP port; 0 for a free one, told by `Server.addresses`.
        unix: path of a unix socket to listen on, instead of `host` and `port`. A file
            that a dead server left there is replaced; removed at the end.
        unix_mode: permissions of its file: who may connect.
        listeners: serve these instead of `host` and `port`; closed at the end. A
            listening `socket.socket` is served as well as our own are.
        ssl_context: speak TLS on all of them. `Settings.tls_handshake_timeout` bounds
            the handshake; ALPN is the context's business, and HTTP/1.1 all there is.
        proxies: the peers that are believed about who their clients are.
        settings: limits and times.
        task_status: `await nursery.start(serve, …)` gives the `Server` once it listens.

    Raises:
        OSError: an address or a path can't be bound.
    """
    settings = settings or Settings()
    raise_open_file_limit(settings.max_connections)
    scheme = "http" if ssl_context is None else "https"
    context = Context(handler, settings, proxies=proxies)
    async with contextlib.AsyncExitStack() as stack:
        app: object = handler
        if isinstance(app, HasLifespan):
            await stack.enter_async_context(app.lifespan())
        given = [source_of(each, settings, scheme=scheme) for each in listeners or ()]
        for source in given:
            stack.push_async_callback(source.aclose)
        opened: list[SocketSource] = []
        if unix is not None:
            opened = [open_unix(unix, mode=unix_mode, settings=settings, scheme=scheme)]
        elif listeners is None:
            opened = await open_sources(host, port, settings, scheme=scheme)
        for source in opened:
            stack.push_async_callback(source.aclose)
        entrance = Entrance(context, ssl_context=ssl_context)
        await Server(context, [*given, *opened], entrance).run(task_status)


def raise_open_file_limit(connections: int) -> None:
    """Raise the soft limit of open files to the hard one: each connection holds one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < connections + _OTHER_FILES:
        logger.warning("%d open files are allowed, too few for %d connections", limit, connections)
