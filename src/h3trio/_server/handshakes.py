"""What comes before HTTP on a new connection: a proxy's PROXY header, a TLS handshake.

Each step has its own deadline, and whatever goes wrong in one ends that
connection alone: it is counted, said in one line without a traceback (half the
world's scanners come by), and closed.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._http.closing import CloseReason

from .connection import Connection
from .logs.redaction import printable
from .peers.addresses import UNKNOWN, is_local
from .peers.proxy_protocol import ProxyProtocolError, parse
from .sockets.tls import TLSTransport, explain

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from h3trio._http.errors import HTTPError

    from .context import Context
    from .peers.proxy_protocol import ProxyHeader
    from .sockets.transport import Transport

logger = logging.getLogger("h3trio.server")


@final
class Arrival:
    """A connection that was accepted, and doesn't speak HTTP yet."""

    __slots__ = (
        "_scope",
        "client",
        "is_counted",
        "is_identified",
        "is_inside",
        "is_refused",
        "key",
        "received",
        "scheme",
        "transport",
        "was_told",
    )

    is_streaming: Final = False

    def __init__(self, transport: Transport, client: str, scheme: str) -> None:
        self.transport: Transport = transport
        self.client: str = client
        self.scheme: str = scheme
        self.received: bytes = b""
        """What the client has sent of HTTP already."""
        self.is_inside: bool = False
        """Whether it may speak HTTP."""
        self.is_identified: bool = False
        """Whether it is known whose it is: no PROXY header is due any more."""
        self.key: str | None = None
        """What it is counted under, if `is_counted`: whoever has it gives it back."""
        self.is_counted: bool = False
        self.is_refused: bool = False
        """Whether it is only to be told that there is no place for it."""
        self.was_told: bool = False
        """Whether a proxy's PROXY header says who the client is."""
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Arrival: {self.transport!r} from {self.client}>"

    async def enter(self, step: Callable[[], Awaitable[bool]]) -> None:
        """Go through the entrance; closed if that fails, unless it is yet to be told why."""
        try:
            with self._scope:
                # What is here already makes a step no checkpoint.
                await trio.lowlevel.checkpoint_if_cancelled()
                self.is_inside = await step()
        finally:
            self._scope = trio.CancelScope()
            if not self.is_inside and not self.is_refused:
                await self.transport.aclose()

    def connection(self, context: Context, refusal: HTTPError | None = None) -> Connection:
        """Make it one that speaks HTTP, to refuse it or to serve it."""
        return Connection(
            self.transport,
            client=self.client,
            scheme=self.scheme,
            context=context,
            refusal=refusal,
            received=self.received,
        )

    def drain(self) -> None:
        """Give up: no request has begun."""
        self._scope.cancel(reason=CloseReason.DRAINING.value)

    def end_stream(self, reason: CloseReason) -> None:
        """Do nothing, as there is no stream."""


@final
class Entrance:
    """The door of one server."""

    __slots__ = ("_context", "_ssl_context")

    def __init__(self, context: Context, *, ssl_context: ssl.SSLContext | None = None) -> None:
        self._context = context
        self._ssl_context = ssl_context

    def is_open_to(self, peer: str) -> bool:
        """Whether HTTP begins with this peer's first byte, so that there is nothing to enter."""
        return self._ssl_context is None and not self._expects_header(peer)

    def _expects_header(self, peer: str) -> bool:
        proxies = self._context.proxies_for(peer)
        return proxies is not None and proxies.proxy_protocol

    async def enter(
        self, arrival: Arrival, *, admit: Callable[[Arrival], bool] | None = None
    ) -> None:
        """Take what comes first: `arrival.is_inside` tells whether that went well.

        `admit` is asked once it is known whose the connection is, and before a handshake
        that may be as slow as the client likes.
        """
        await arrival.enter(partial(self._steps, arrival, admit))

    async def _steps(self, arrival: Arrival, admit: Callable[[Arrival], bool] | None) -> bool:
        is_due = not arrival.is_identified and self._expects_header(arrival.client)
        if is_due and not await self._read_header(arrival):
            return False
        arrival.is_identified = True
        if admit is not None and not admit(arrival):
            return False
        return self._ssl_context is None or await self._shake_hands(arrival)

    async def _read_header(self, arrival: Arrival) -> bool:
        try:
            with trio.fail_after(self._context.settings.head_timeout):
                header, arrival.received = await _header(arrival.transport)
        except trio.TooSlowError:
            why = "it took too long"
        except trio.BrokenResourceError:
            why = "the connection was lost"
        except ProxyProtocolError as exc:
            why = str(exc)
        else:
            if header.client is not None:
                # A name of this machine would have its rights, and whoever is in front of
                # the proxy may be anybody.
                arrival.client = UNKNOWN if is_local(header.client) else header.client
                arrival.was_told = True
            return True
        self._context.counts.failed_proxy_headers += 1
        logger.info("%s: PROXY header failed: %s", printable(arrival.client), printable(why))
        return False

    async def _shake_hands(self, arrival: Arrival) -> bool:
        assert self._ssl_context is not None, "else it isn't a step"
        transport = TLSTransport(arrival.transport, self._ssl_context, received=arrival.received)
        try:
            with trio.fail_after(self._context.settings.tls_handshake_timeout):
                await transport.handshake()
        except trio.TooSlowError:
            self._context.met("tls_handshake_timeout")
            why = "it took too long"
        except trio.BrokenResourceError as exc:
            why = explain(exc)
        else:
            arrival.transport, arrival.received = transport, b""
            return True
        self._context.counts.failed_handshakes += 1
        logger.info("%s: TLS handshake failed: %s", printable(arrival.client), printable(why))
        return False


async def _header(transport: Transport) -> tuple[ProxyHeader, bytes]:
    """Read a PROXY header; return it and what came behind it.

    Bounded without a count of its own: `parse` asks for no more than a header may have.
    """
    data = b""
    while (header := parse(data)) is None:
        received = await transport.receive_some()
        if not received:
            raise ProxyProtocolError("the connection ended in the PROXY header")
        data += received
    return header, data[header.size :]
