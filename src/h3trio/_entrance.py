"""What comes before HTTP on a new connection: a proxy's PROXY header, a TLS handshake.

Each step has its own deadline, and whatever goes wrong in one ends that
connection alone: it is counted, said in one line without a traceback (half the
world's scanners come by), and closed.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, final

import trio

from ._close import CloseReason
from ._connection import Connection
from ._proxies import seen_through
from ._proxy_protocol import ProxyProtocolError, parse
from ._tls import TLSTransport, explain

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Sequence

    from ._context import Context
    from ._errors import HTTPError
    from ._proxy_protocol import ProxyHeader
    from ._transport import Transport

    Step = Callable[["Arrival"], Awaitable[bool]]

logger = logging.getLogger("h3trio.server")


@final
class Arrival:
    """A connection that was accepted, and doesn't speak HTTP yet."""

    __slots__ = (
        "_scope",
        "client",
        "is_inside",
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
        self.was_told: bool = False
        """Whether a proxy's PROXY header says who the client is."""
        self._scope = trio.CancelScope()

    def __repr__(self) -> str:
        return f"<Arrival: {self.transport!r} from {self.client}>"

    async def enter(self, steps: Sequence[Step]) -> None:
        """Take the steps; one that fails closes the transport."""
        try:
            with self._scope:
                for step in steps:
                    if not await step(self):
                        return
                self.is_inside = True
        finally:
            if not self.is_inside:
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

    async def enter(self, arrival: Arrival) -> None:
        """Take what comes first: `arrival.is_inside` tells whether that went well."""
        steps: list[Step] = []
        if self._expects_header(arrival.client):
            steps.append(self._read_header)
        if self._ssl_context is not None:
            steps.append(self._shake_hands)
        await arrival.enter(steps)

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
                arrival.client = seen_through(header.client, arrival.client)
                arrival.was_told = True
            return True
        self._context.counts.failed_proxy_headers += 1
        logger.info("%s: PROXY header failed: %s", arrival.client, why)
        return False

    async def _shake_hands(self, arrival: Arrival) -> bool:
        assert self._ssl_context is not None, "else it isn't a step"
        transport = TLSTransport(arrival.transport, self._ssl_context, received=arrival.received)
        try:
            with trio.fail_after(self._context.settings.tls_handshake_timeout):
                await transport.handshake()
        except trio.TooSlowError:
            why = "it took too long"
        except trio.BrokenResourceError as exc:
            why = explain(exc)
        else:
            arrival.transport, arrival.received = transport, b""
            return True
        self._context.counts.failed_handshakes += 1
        logger.info("%s: TLS handshake failed: %s", arrival.client, why)
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
