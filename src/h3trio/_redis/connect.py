"""`open_redis`: connects to a server, finding it by Sentinel if need be, and says who we are.

Strategy: each step has a deadline, and nothing is used before it is known to be right: TLS checks
the certificate and the host name, `HELLO 3` says protocol, user and password in one command, and a
server that isn't the primary is refused, whoever named it: a sentinel may be late.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from h3trio._nursery import OwnedNursery, members

from .address import HostPort, Login
from .connection import RedisConnection, require_hiredis
from .server_info import QUESTIONS, ServerInfo
from .values import NoAnswerError, NotSentError, RedisError, RedisLimits, RedisReplyError

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator

    from .address import Place, RedisAddress

CLIENT_NAME: Final = "h3trio"
"""The connection's name in `CLIENT LIST`."""
NO_LIMITS: Final = RedisLimits()


@asynccontextmanager
async def open_redis(
    address: RedisAddress,
    *,
    limits: RedisLimits = NO_LIMITS,
    opener: Callable[[Place], Awaitable[trio.abc.Stream]] | None = None,
) -> AsyncGenerator[RedisConnection]:
    """Connect to the primary at an address; the connection ends with the block.

    If it breaks inside the block, nothing is cancelled: calls raise, and `wait_broken` returns.

    Args:
        address: the server, or sentinels that know it.
        limits: bounds of the connection. Each server that is asked has `timeout` seconds.
        opener: makes the stream to a server, instead of a socket.

    Raises:
        ImportError: hiredis isn't installed.
        ValueError: a file for TLS can't be used.
        NotSentError: there is no such server, or it isn't the primary.
        RedisReplyError: it refuses us: the code is `WRONGPASS`, `NOPERM`, `LOADING` …
    """
    require_hiredis()
    if opener is None:
        context = address.tls.context() if address.tls is not None else None
        opener = partial(open_socket, context=context)
    async with OwnedNursery() as nursery:
        joiner = _Joiner(nursery, address, limits, opener)
        if address.sentinel_name is None:
            yield await joiner.join_primary(address.places[0])
        else:
            yield await joiner.ask_sentinels(address.sentinel_name)


@dataclass(frozen=True, slots=True)
class _Joiner:
    """Makes connections for an address; their tasks run in the nursery."""

    nursery: trio.Nursery
    address: RedisAddress
    limits: RedisLimits
    open: Callable[[Place], Awaitable[trio.abc.Stream]]

    async def ask_sentinels(self, name: str) -> RedisConnection:
        """Ask one sentinel after the other, until one leads to the primary."""
        failures: list[RedisError] = []
        for place in self.address.places:
            try:
                return await self.join_primary(await self._ask(place, name))
            except (NotSentError, NoAnswerError) as exc:
                failures.append(exc)
        said = f"no sentinel leads to the primary {name}: {'; '.join(map(str, failures))}"
        refusals = [exc.__cause__ for exc in failures if isinstance(exc.__cause__, RedisReplyError)]
        if len(refusals) == len(failures):
            # It is no question of time, as where one of them can't be reached.
            raise RedisReplyError(f"{refusals[0].code} {said}") from refusals[0]
        raise NotSentError(said)

    async def _ask(self, place: Place, name: str) -> HostPort:
        """Ask a sentinel for the primary."""
        try:
            sentinel = await self._join(place, self.address.sentinel_login)
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
        connection = await self._join(place, self.address.login)
        with _thrown_away_on_error(connection):
            connection.server = await self._look(connection, place)
        return connection

    async def _look(self, connection: RedisConnection, place: Place) -> ServerInfo:
        """Choose the database and ask the server about itself."""
        selected, *replies = await connection.pipeline([("SELECT", self.address.db), *QUESTIONS])
        if isinstance(selected, RedisReplyError):
            raise selected
        server = ServerInfo.read(replies)
        if server.role != "master":
            raise NotSentError(f"{place}: is no primary, but a {server.role}, and takes no writes")
        return server

    async def _join(self, place: Place, login: Login) -> RedisConnection:
        """Connect and say who we are."""
        timeout = self.limits.timeout
        try:
            with trio.fail_after(timeout):
                stream = await self.open(place)
        except (OSError, trio.BrokenResourceError, ValueError) as exc:  # a host that is no name
            # Trio's own words name no reason: the cause does, one for each address of the host.
            causes = members(exc.__cause__ or exc) or (exc.__cause__ or exc,)
            reasons = "; ".join(dict.fromkeys(map(str, causes)))
            raise NotSentError(f"{place}: {reasons}") from exc
        except trio.TooSlowError as exc:
            kind = "TLS connection" if self.address.tls is not None else "connection"
            raise NotSentError(f"{place}: no {kind} within {timeout:g} s") from exc
        connection = RedisConnection(stream, str(place), self.limits)
        self.nursery.start_soon(connection.run)
        with _thrown_away_on_error(connection):
            try:
                await connection.call(*_hello(login))
            except RedisReplyError as exc:
                if exc.code == "NOAUTH":
                    # Redis' own words are for who types the command.
                    raise RedisReplyError(f"NOAUTH {place}: a password is needed") from None
                if exc.code != "ERR" or "HELLO" not in str(exc):
                    raise
                # Before Redis 6 the error repeats the arguments, the password among them.
                raise RedisReplyError(f"ERR {place}: Redis 6 or newer is needed") from None
        return connection


@contextmanager
def _thrown_away_on_error(connection: RedisConnection) -> Generator[None]:
    """Don't leave a connection behind that isn't of use; nobody's call was sent on it."""
    try:
        yield
    except NoAnswerError as exc:
        raise NotSentError(str(exc)) from exc
    except BaseException:
        connection.throw_away("closed")
        raise


async def open_socket(place: Place, *, context: ssl.SSLContext | None) -> trio.abc.Stream:
    """Open a stream; with TLS, check the certificate and the name in it."""
    if isinstance(place, str):
        return await trio.open_unix_socket(place)
    plain = await trio.open_tcp_stream(place.host, place.port)
    if context is None:
        return plain
    stream = trio.SSLStream(plain, context, server_hostname=place.host)
    try:
        await stream.do_handshake()
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return stream


def _hello(login: Login) -> tuple[str | int, ...]:
    """Make the first command of a connection."""
    auth = () if login == Login() else ("AUTH", login.user or "default", login.password or "")
    return ("HELLO", 3, *auth, "SETNAME", CLIENT_NAME)
