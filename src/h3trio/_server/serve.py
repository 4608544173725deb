"""`serve`: listeners, connections and the end of both, in one nursery.

Everything a server runs is a child of the nursery in `serve`, so when `serve`
returns no task is left. Shutdown is a sequence of deadlines, never a wait:

1. soft: `draining` is set, running streams are told to go, spread over the
   phase, and what is new is still answered, with "come back elsewhere".
2. the listeners close; what is left may finish until the hard deadline, and what
   is new is refused.
3. the nursery is cancelled.

Beside these, streams that are to finish (`SendQueue.finishes`) go on until `drain_finish`,
counted from the start. Where that is later than the hard deadline, only they are left by then.
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
from h3trio._tasks import run_again

from .callables import HANDLER, require_async
from .connection import Connection
from .handler_errors import parts
from .handshakes import handshake
from .peer import Peer
from .peers.users import open_netlink
from .sockets.listeners import open_sources, source_of
from .sockets.unix import open_unix
from .state import ServerState
from .watchdog import whereabouts

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Awaitable, Sequence
    from collections.abc import Set as AbstractSet
    from contextlib import AbstractAsyncContextManager

    from h3trio._http.errors import HTTPError
    from h3trio._http.statistics import ServerStatistics

    from .event import Handler
    from .peers.trusted_proxies import TrustedProxies
    from .send_queue import SendQueue
    from .sockets.listeners import SocketSource, Source
    from .sockets.transport import Transport

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

    def __init__(
        self,
        handler: Handler,
        sources: Sequence[Source],
        state: ServerState,
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._handler = handler
        self._state = state
        state.sources = sources
        self._ssl_context = ssl_context
        self._ended = trio.Event()

    def __repr__(self) -> str:
        return f"<Server: {' '.join(self.addresses)}, {self._state.connections} connections>"

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses that it listens on: `http://127.0.0.1:3000`, with the true port."""
        return tuple(source.address for source in self._state.sources)

    @property
    def is_draining(self) -> bool:
        """Whether `drain` was called: not ready for new work."""
        return self._state.draining.is_set()

    @property
    def drain_time(self) -> float:
        """How many seconds a drain that begins now may take.

        `Settings.drain_soft` and `drain_hard`; or, where streams are open that are to finish,
        `drain_finish` and the time of a farewell, if that is longer.
        """
        settings = self._state.settings
        phases = settings.drain_soft + settings.drain_hard
        if not self._streams(finish=True):
            return phases
        return max(phases, settings.drain_finish + settings.farewell_timeout)

    def statistics(self) -> ServerStatistics:
        """A snapshot; its cost doesn't grow with the connections."""
        return self._state.statistics()

    async def drain(self) -> None:
        """Shut down: returns once no connection is left, by the hard deadline.

        A second call waits for the same end. Cancelling the call ends the wait,
        not the drain.
        """
        self._state.draining.set()
        await self._ended.wait()

    async def _run(self, task_status: trio.TaskStatus[Server]) -> None:
        """Serve until drained or cancelled; `serve` calls this, once."""
        state = self._state
        state.watchdog.start()
        state.netlink = open_netlink()
        try:
            async with trio.open_nursery() as around:
                async with trio.open_nursery() as nursery:
                    # Outside the nursery that it cancels, so that it can tell what stays.
                    around.start_soon(self._drain, nursery, name="h3trio drain")
                    for run, task in (
                        (state.heartbeat.run, "heartbeat"),
                        (state.cancels.run, "cancel watch"),
                    ):
                        owned = partial(
                            run_again,
                            run,
                            name=task,
                            logger=logger,
                            failures=state.counts.task_failures,
                        )
                        nursery.start_soon(owned, name=f"h3trio {task}")
                    for source in state.sources:
                        name = f"h3trio accept {source.address}"
                        nursery.start_soon(self._accept, source, nursery, name=name)
                    task_status.started(self)
                around.cancel_scope.cancel(reason="the server has ended")
        finally:
            state.watchdog.stop()
            if state.netlink is not None:
                state.netlink.close()
                state.netlink = None
            self._ended.set()

    # -- the drain

    async def _drain(self, serving: trio.Nursery) -> None:
        state = self._state
        await state.draining.wait()
        logger.info("drain: %d connections, at most %g s", state.connections, self.drain_time)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_finishing)
            await self._drain_in_phases(serving)
            nursery.cancel_scope.cancel(reason="the phases are over")
        if state.connections:
            state.counts.limits["drain_hard"] += state.connections
            logger.warning("drain: cancelling %d connections", state.connections)
        serving.cancel_scope.cancel(reason=CloseReason.DRAINING.value)
        await trio.sleep(_OVERDUE)
        for task in serving.child_tasks:
            # Nothing more can be done from inside: no library can stop a task
            # that swallows its cancellation.
            logger.error(
                "drain: %s was cancelled and doesn't end; still running: %s",
                task.name,
                whereabouts(task),
            )

    async def _drain_in_phases(self, serving: trio.Nursery) -> None:
        """Return once no connection is left, or nothing has time any more."""
        state, settings = self._state, self._state.settings
        finish_by = trio.current_time() + settings.drain_finish + settings.farewell_timeout
        with trio.move_on_after(settings.drain_soft):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._end_streams, settings.drain_soft)
                await state.wait_empty()
                nursery.cancel_scope.cancel(reason="nothing is left to end")
        state.is_closing = True
        # Those whose turn the phase was too short for, and those that came in it.
        for queue in self._streams(finish=False):
            queue.scope.cancel(CloseReason.DRAINING)
        state.end_idle()
        for source in state.sources:
            await source.aclose()
        with trio.move_on_after(settings.drain_hard):
            await state.wait_empty()
        finishing = {queue.nursery.parent_task for queue in self._streams(finish=True)}
        if finishing and trio.current_time() < finish_by:
            self._cancel_connections(serving.child_tasks - finishing)
            with trio.move_on_at(finish_by):
                await state.wait_empty()

    def _cancel_connections(self, tasks: AbstractSet[trio.lowlevel.Task]) -> None:
        """Cancel connections that have had their time, while others go on.

        Each has one nursery in its task, where its reader and its handler are; other tasks of a
        server have none.
        """
        nurseries = [nursery for task in tasks for nursery in task.child_nurseries]
        if nurseries:
            self._state.counts.limits["drain_hard"] += len(nurseries)
            logger.warning("drain: cancelling %d connections", len(nurseries))
        for nursery in nurseries:
            nursery.cancel_scope.cancel(reason=CloseReason.DRAINING.value)

    def _streams(self, *, finish: bool) -> list[SendQueue]:
        """Return the open streams that a drain lets finish, or all others."""
        return [each for each in self._state.heartbeat.streams() if each.finishes is finish]

    async def _end_finishing(self) -> None:
        """End the streams that are to finish, once they have had their time."""
        await trio.sleep(self._state.settings.drain_finish)
        for queue in self._streams(finish=True):
            self._state.count_limit("drain_finish")
            queue.scope.cancel(CloseReason.DRAINING)

    async def _end_streams(self, seconds: float) -> None:
        """End idle connections now, streams one after the other over the phase."""
        streams = self._streams(finish=False)
        self._state.end_idle()
        start, share = trio.current_time(), 1 - _HEAD_START
        for index, queue in enumerate(streams):
            await trio.sleep_until(start + seconds * (_HEAD_START + share * index / len(streams)))
            queue.scope.cancel(CloseReason.DRAINING)

    # -- connections

    async def _accept(self, source: Source, nursery: trio.Nursery) -> None:
        """Take connections from one source until it closes."""
        state, batch = self._state, 0
        while True:
            try:
                transport, client = await source.accept()
            except trio.ClosedResourceError:
                return
            state.counts.connections += 1
            # Counted from now on: the next one accepted may be one too many.
            state.connections += 1
            peer = Peer(client, source.scheme, state, transport.raw_socket)
            rejection = self._reject_above_the_limit(peer)
            name = f"h3trio connection from {client}"
            nursery.start_soon(self._serve, transport, peer, rejection, name=name)
            batch = (batch + 1) % _ACCEPT_BATCH
            if not batch:
                await trio.lowlevel.checkpoint()

    def _reject_above_the_limit(self, peer: Peer) -> HTTPError | None:
        state = self._state
        if state.connections <= state.settings.max_connections:
            return None
        state.counts.refused += 1
        state.count_limit("max_connections")
        return peer.reject(state.no_room())

    async def _serve(self, transport: Transport, peer: Peer, rejection: HTTPError | None) -> None:
        """Serve one connection, from its first byte to its end; an error in it hurts no other."""
        try:
            try:
                if not peer.closes_silently:
                    ready = await handshake(
                        transport,
                        peer,
                        state=self._state,
                        ssl_context=self._ssl_context,
                        rejection=rejection,
                    )
                    if ready is not None and not peer.closes_silently:
                        transport, received, rejection = ready
                        del ready
                        await self._speak(transport, peer, rejection, received)
            finally:
                await transport.aclose()
        except BaseException as error:
            own, passing = parts(error, trio.lowlevel.current_task())
            if own is None:
                raise
            logger.exception("connection from %s: internal error", peer.client, exc_info=own)
            if passing is not None:
                raise passing from None
        finally:
            peer.leave()

    def _speak(
        self, transport: Transport, peer: Peer, rejection: HTTPError | None, received: bytes
    ) -> Awaitable[None]:
        """Speak HTTP until the connection ends; a plain function, which keeps no frame."""
        connection = Connection(
            transport,
            self._handler,
            peer=peer,
            state=self._state,
            rejection=rejection,
            received=received,
        )
        return connection.run()


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
        TypeError: the handler can't be called with an event, or isn't async.
    """
    require_async(handler, HANDLER)
    settings = settings or Settings()
    raise_open_file_limit(settings.max_connections)
    scheme = "http" if ssl_context is None else "https"
    state = ServerState(settings, proxies=proxies)
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
        server = Server(handler, [*given, *opened], state, ssl_context=ssl_context)
        await server._run(task_status)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - its maker's to call


def raise_open_file_limit(connections: int) -> None:
    """Raise the soft limit of open files to the hard one: each connection holds one."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit != resource.RLIM_INFINITY and limit < connections + _OTHER_FILES:
        logger.warning("%d open files are allowed, too few for %d connections", limit, connections)
