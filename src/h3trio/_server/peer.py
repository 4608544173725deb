"""Whom a connection belongs to: the peer itself, or whom the proxy in front of us names.

What is known of the connection is said once, when it is made; what a trusted proxy
says of each request comes with its headers. Streams are counted under the address that
the request came from, whoever carried it here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from .context import Context
    from .event import H3Event


@final
class Peer:
    """The other side of one connection."""

    __slots__ = ("_context", "_proxies", "_scheme", "_stream_key", "client")

    def __init__(self, client: str, scheme: str, context: Context) -> None:
        self.client = client
        """The address of the connection itself."""
        self._scheme = scheme
        self._context = context
        self._proxies = context.forwarders_for(client)
        self._stream_key: str | None = None

    def sign(self, event: H3Event) -> None:
        """Tell a request whom it came from."""
        event.scheme = self._scheme
        if self._proxies is not None:
            event.client, event.scheme = self._proxies.origin(
                self.client, self._scheme, event.headers
            )

    def take_stream(self, event: H3Event) -> None:
        """Count the stream that a request opens, see `Context.take_stream`.

        Raises:
            HTTPError: 429, its address holds all it may.
        """
        # A proxy that names no client is many, or a health check.
        is_client = self._proxies is None or event.client != self.client
        if self._stream_key is None and is_client:
            self._stream_key = self._context.take_stream(event.client)

    def leave_stream(self) -> None:
        """The request is over."""
        self._context.leave_stream(self._stream_key)
        self._stream_key = None
