"""`open_redis`: connects to a server, finding it by Sentinel if need be, and says who we are.

Strategy: each step has a deadline, and nothing is used before it is known to be right: TLS checks
the certificate and the host name, `HELLO 3` says protocol, user and password in one command, and a
server that isn't the primary is refused, whoever named it: a sentinel may be late.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import trio

from h3trio._nursery import OwnedNursery, bare

from .address import HostPort, Login
from .connection import RedisConnection
from .server_info import QUESTIONS, ServerInfo
from .values import NoAnswerError, NotSentError, RedisLimits, RedisReplyError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator

    from .address import Place, RedisAddress

CLIENT_NAME: Final = "h3trio"
"""The connection's name in `CLIENT LIST`."""
NO_LIMITS: Final = RedisLimits()


@asynccontextmanager
async def open_redis(
    address: RedisAddress, *, limits: RedisLimits = NO_LIMITS
) -> AsyncGenerator[RedisConnection]:
    """Connect to the primary at an address; the connection ends with the block.

    If it breaks inside the block, nothing is cancelled: calls raise, and `wait_broken` returns.

    Args:
        address: the server, or sentinels that know it.
        limits: bounds of the connection. Each server that is asked has `timeout` seconds.

    Raises:
        ImportError: hiredis isn't installed.
        ValueError: a file for TLS can't be used.
        NotSentError: there is no such server, or it isn't the primary.
        RedisReplyError: it refuses us: the code is `WRONGPASS`, `NOPERM`, `LOADING` …
    """
    context = address.tls.context() if address.tls is not None else None
    async with OwnedNursery() as nursery:
        joiner = _Joiner(nursery, address, limits, context)
        if address.sentinel_name is None:
            yield await joiner.join_primary(address.places[0])
        else:
            yield await joiner.ask_sentinels(address.sentinel_name)


class _Joiner:
    """Makes connections for an address; their tasks run in the nursery."""

    def __init__(
        self,
        nursery: trio.Nursery,
        address: RedisAddress,
        limits: RedisLimits,
        context: ssl.SSLContext | None,
    ) -> None:
        self._nursery = nursery
        self._address = address
        self._limits = limits
        self._context = context

    async def ask_sentinels(self, name: str) -> RedisConnection:
        """Ask one sentinel after the other, until one leads to the primary."""
        failures: list[str] = []
        for place in self._address.places:
            try:
                found = await self._ask(place, name)
                return await self.join_primary(found)
            except (NotSentError, NoAnswerError) as exc:
                failures.append(str(exc))
        raise NotSentError(f"no sentinel leads to the primary {name}: {'; '.join(failures)}")

    async def _ask(self, place: Place, name: str) -> HostPort:
        """Ask a sentinel for the primary."""
        try:
            sentinel = await self._join(place, self._address.sentinel_login)
            try:
                reply = await sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", name)
            finally:
                sentinel.throw_away("closed")
        except RedisReplyError as exc:
            raise NotSentError(f"{place}: {exc}") from exc
        match reply:
            case [bytes(host), bytes(port)] if port.isdigit():
                return HostPort(host.decode(errors="replace"), int(port))
            case _:
                raise NotSentError(f"{place}: knows no primary {name}")

    async def join_primary(self, place: Place) -> RedisConnection:
        """Connect to a server, and look at what it is."""
        connection = await self._join(place, self._address.login)
        try:
            connection.server = await self._look(connection, place)
        except BaseException:
            connection.throw_away("closed")
            raise
        return connection

    async def _look(self, connection: RedisConnection, place: Place) -> ServerInfo:
        """Choose the database and ask the server about itself."""
        selected, *replies = await connection.pipeline([("SELECT", self._address.db), *QUESTIONS])
        for reply in (selected, replies[0]):
            if isinstance(reply, RedisReplyError):
                raise reply
        server = ServerInfo.read(replies)
        if server.role != "master":
            raise NotSentError(f"{place}: is no primary, but a {server.role}, and takes no writes")
        return server

    async def _join(self, place: Place, login: Login) -> RedisConnection:
        """Connect and say who we are."""
        timeout = self._limits.timeout
        try:
            with trio.fail_after(timeout):
                stream = await self._open(place)
        except (OSError, trio.BrokenResourceError) as exc:
            # Trio's own words tell of all addresses of a host, or of none.
            raise NotSentError(f"{place}: {bare(exc.__cause__ or exc)}") from exc
        except trio.TooSlowError as exc:
            raise NotSentError(f"{place}: no connection within {timeout:g} s") from exc
        connection = RedisConnection(stream, str(place), self._limits)
        self._nursery.start_soon(connection.run)
        try:
            await connection.call(*_hello(login))
        except BaseException as exc:
            connection.throw_away("closed")
            if isinstance(exc, NoAnswerError):
                raise NotSentError(str(exc)) from exc
            if isinstance(exc, RedisReplyError) and exc.code == "ERR" and "HELLO" in str(exc):
                # Before Redis 6 the error repeats the arguments, the password among them.
                raise RedisReplyError(f"ERR {place}: Redis 6 or newer is needed") from None
            raise
        return connection

    async def _open(self, place: Place) -> trio.abc.Stream:
        """Open a stream; with TLS, check the certificate and the name in it."""
        if isinstance(place, str):
            return await trio.open_unix_socket(place)
        plain = await trio.open_tcp_stream(place.host, place.port)
        if self._context is None:
            return plain
        stream = trio.SSLStream(plain, self._context, server_hostname=place.host)
        try:
            await stream.do_handshake()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        return stream


def _hello(login: Login) -> tuple[str | int, ...]:
    """Make the first command of a connection."""
    if login.password is None and login.user is None:
        return ("HELLO", 3, "SETNAME", CLIENT_NAME)
    return (
        *("HELLO", 3, "AUTH", login.user or "default", login.password or ""),
        *("SETNAME", CLIENT_NAME),
    )
