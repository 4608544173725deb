"""`Peer`: the other side of one connection, and whom the proxy in front of us names.

What is known of a connection is said once, when it is made: which proxies are trusted is asked
then, and again only where a PROXY header names somebody else. What a trusted proxy says of each
request comes with its headers. Streams are counted under the address that the request came from,
whoever carried it here.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from .peers.addresses import MEMORY, UNKNOWN, address_key, is_local
from .peers.users import user_of

if TYPE_CHECKING:
    from h3trio._http.errors import HTTPError
    from h3trio._http.headers import Headers

    from .peers.trusted_proxies import TrustedProxies
    from .peers.users import PeerSocket
    from .state import ServerState


# Connections that are told at once that there is no room for them; beyond, they are just closed:
# rejecting must not become what a server is busy with.
_MAX_TOLD: Final = 100


@final
@dataclass(slots=True, eq=False, repr=False)
class Peer:
    """The client, or the proxy, at the other end of a connection."""

    client: str
    """The address of the connection itself."""
    scheme: str
    state: ServerState
    sock: PeerSocket | None = None
    """The socket of its connection, of which the kernel knows the user at the other end."""
    told_user: int | None = None
    """The user that a connection in memory counts as, if not our own."""
    expects_header: bool = False
    """Whether its connection begins with a header of the PROXY protocol."""
    is_rejected: bool = False
    """Whether there is no room for its connection."""
    closes_silently: bool = False
    """Whether it is rejected without a word: so many others are being told so."""
    _key: str | None = None  # what its connection is counted under; a proxy's isn't counted
    _is_counted: bool = False
    _forwarders: TrustedProxies | None = None
    _stream_key: str | None = None
    _user: int | None = None
    _is_user_asked: bool = False

    def __post_init__(self) -> None:
        proxies, client = self.state.proxies, self.client
        if proxies is None or not proxies.trusts(client):
            self._key = address_key(client)
        else:
            self.expects_header = proxies.proxy_protocol
            if not self.expects_header or proxies.believes(client):
                self._forwarders = proxies

    def name(self, client: str) -> None:
        """Take the word of the PROXY header for who it is."""
        # A name of this machine would have its rights, and whoever is in front of the proxy may
        # be anybody.
        self.client = client = UNKNOWN if is_local(client) else client
        proxies = self.state.proxies
        is_named = proxies is not None and proxies.names(client)
        self._forwarders = proxies if is_named else None
        self._key = None if is_named else address_key(client)

    @property
    def user(self) -> int | None:
        """The user that the program at the other end runs as; `None` where that isn't sure.

        The kernel is asked at most once: an answer that changes later is about somebody else.
        """
        if not self._is_user_asked:
            self._is_user_asked = True
            if self.sock is not None:
                self._user = user_of(self.sock, self.state.netlink)
            elif self.client == MEMORY:
                # It is in our own process.
                self._user = os.geteuid() if self.told_user is None else self.told_user
        return self._user

    def identify(self, headers: Headers) -> tuple[str, str]:
        """Return whom a request came from, and by which scheme."""
        if self._forwarders is None:
            return self.client, self.scheme
        return self._forwarders.origin(self.client, self.scheme, headers)

    def take_connection(self) -> HTTPError | None:
        """Count its connection under its address; return 429 if that holds all it may."""
        state = self.state
        self._is_counted = state.addresses.connections.take(self._key)
        if self._is_counted:
            return None
        state.counts.refused_by_address += 1
        state.count_limit("max_connections_per_address")
        return self.reject(state.too_many("connections"))

    def reject(self, error: HTTPError) -> HTTPError:
        """Count its connection among those for which there is no room; return the error."""
        self.is_rejected = True
        self.state.connections -= 1
        self.state.rejected += 1
        self.closes_silently = self.state.rejected > _MAX_TOLD
        return error

    def leave(self) -> None:
        """Count its connection no more: it is closed."""
        state = self.state
        if self._is_counted:
            state.addresses.connections.leave(self._key)
        if self.is_rejected:
            state.rejected -= 1
        else:
            state.connections -= 1
        state.wake_if_empty()

    def take_stream(self, client: str) -> None:
        """Count the stream that a request of this client opens, see `ServerState.take_stream`.

        Raises:
            HTTPError: 429, its address holds all it may.
        """
        # A proxy that names no client is many, or a health check.
        is_client = self._forwarders is None or client != self.client
        if self._stream_key is None and is_client:
            self._stream_key = self.state.take_stream(client)

    def leave_stream(self) -> None:
        """Count it no more: the request is over."""
        self.state.addresses.streams.leave(self._stream_key)
        self._stream_key = None
