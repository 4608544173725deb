"""`Link`: a connection to the store by which a history asks, once it is known to be right.

A server that evicts keys, or keeps a promise that was asked for less well, is refused when it is
connected to. Errors say by their kind whether something is stored: what wasn't sent isn't, what was
refused at the first write isn't, and of all else nobody knows.
"""

from __future__ import annotations

import logging
import re
import secrets
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, final

from h3trio._redis.values import NoAnswerError, NotSentError, RedisError, RedisReplyError
from h3trio.hub._history.epochs import MAX_EPOCHS, new_name
from h3trio.hub._history.errors import HistoryError, HistoryFullError, OutcomeUnknownError

from . import codec, scripts

if TYPE_CHECKING:
    from collections.abc import Generator

    from h3trio._redis.connection import RedisConnection
    from h3trio._redis.server_info import ServerInfo
    from h3trio._redis.values import Argument, Reply, Script
    from h3trio.hub._history.history import Durability

logger = logging.getLogger("h3trio.hub")

LEVELS: Final[tuple[Durability, ...]] = ("memory", "fast", "durable")

# Refused before anything is written. Inside a script Redis 6 puts words in front of the code.
_REFUSED: Final = re.compile(
    r"(?:^|-)(OOM|MISCONF|READONLY|NOREPLICAS|NOSCRIPT|LOADING|BUSY|MASTERDOWN|CLUSTERDOWN"
    r"|NOAUTH|WRONGPASS|TRYAGAIN|MOVED)\b"
)
_PASSING: Final = frozenset(
    {"LOADING", "BUSY", "MASTERDOWN", "READONLY", "NOREPLICAS", "MISCONF", "CLUSTERDOWN"}
)
"""Those that a server gives for a time, such as while it starts."""
_FULL: Final = "OOM"
_REPLICA: Final = "READONLY"


class StaleError(HistoryError):
    """The store is in another epoch than this hub: nothing was done, and it has to look anew."""


def durability_of(server: ServerInfo) -> Durability:
    """Return how much survives at a server: by its append-only file, the only one of each write.

    A snapshot is minutes old, and a replica may be behind by what it was just told. With `everysec`
    the server writes the file before it answers, unless the disk hasn't finished with the last
    second: then, for two seconds at most, it answers first.
    """
    if not server.has_aof:
        return "memory"
    is_always = server.appendfsync == "always" and server.skips_fsync is False
    return "durable" if is_always else "fast"


def check_server(server: ServerInfo, wanted: Durability | None) -> None:
    """Check that a server may be used.

    Raises:
        HistoryError: it may not.
    """
    policy = server.maxmemory_policy
    if policy != "noeviction":
        raise HistoryError(
            f"the server's maxmemory-policy is {policy}: it would remove events, and nobody could"
            " be told; set noeviction"
        )
    found = durability_of(server)
    if wanted is not None and LEVELS.index(found) < LEVELS.index(wanted):
        how = {
            "fast": "appendonly yes",
            "durable": "appendonly yes, appendfsync always, no-appendfsync-on-rewrite no",
        }
        if server.has_aof and None in (server.appendfsync, server.skips_fsync):
            raise HistoryError(
                f"the server forbids CONFIG GET, so it may keep events only as {found!r}, not as"
                f" {wanted!r} ({how[wanted]}): allow this user +config|get"
            )
        raise HistoryError(
            f"the server keeps events only as {found!r}, not as {wanted!r}: set {how[wanted]}"
        )


def describe(server: ServerInfo) -> str:
    """Say what a server is, and what it keeps how."""
    aof, save = "no append-only file", "no snapshots"
    if server.has_aof:
        aof = f"appendfsync {server.appendfsync or 'unknown'}"
        aof += " but on rewrite" if server.skips_fsync else ""
    if server.save:
        save = f"snapshots {server.save}"
    replicas = "1 replica" if server.replicas == 1 else f"{server.replicas} replicas"
    return f"{server.software} {server.version}, {aof}, {save}, {replicas}"


@contextmanager
def translated(*, changes: bool = False) -> Generator[None]:
    """Raise the client's errors as the history's.

    Args:
        changes: whether something may be stored if the answer is missing.
    """
    unknown = OutcomeUnknownError if changes else HistoryError
    try:
        yield
    except NotSentError as exc:
        raise HistoryError(str(exc)) from exc
    except NoAnswerError as exc:
        raise unknown(str(exc)) from exc
    except RedisReplyError as exc:
        code = refusal_of(exc)
        if code == _FULL:
            raise HistoryFullError(f"the server has no memory left: {exc}") from exc
        raise (HistoryError if code else unknown)(str(exc)) from exc
    except RedisError as exc:
        raise HistoryError(str(exc)) from exc


def refusal_of(error: RedisReplyError) -> str:
    """Return the code of an error by which nothing was done; `""` if that isn't known."""
    found = _REFUSED.search(str(error))
    return "" if found is None else found[1]


def may_pass(error: HistoryError) -> bool:
    """Whether a store that can't be used may be usable soon, though nobody changes anything.

    A server that isn't there yet may be; one that refuses our password, or whose certificate isn't
    trusted, stays so, and so does a path that goes through a socket.
    """
    cause = error.__cause__
    if isinstance(cause, RedisReplyError):
        return refusal_of(cause) in _PASSING
    if not isinstance(cause, (NotSentError, NoAnswerError)):
        return False
    while cause is not None:
        if isinstance(cause, (ssl.SSLError, NotADirectoryError)):
            return False
        cause = cause.__cause__
    return True


@final
class Link:
    """A connection, and the epoch that its store was in when it was made."""

    def __init__(self, connection: RedisConnection, *, prefix: str, db: int) -> None:
        self.connection: RedisConnection = connection
        self.epoch = ""
        self._has_warned = False
        self._key = scripts.state_key(prefix)
        self._channel = scripts.channel_of(prefix, db)

    async def begin(self, head: int) -> tuple[codec.Header, list[tuple[str, int]]]:
        """Find out the store's past; an epoch begins if it may be another than it was.

        Returns:
            The state, and the table of epochs.

        Raises:
            HistoryError: it can't be used.
        """
        server = self.connection.server
        await self._check_rights()
        while True:
            reply = await self._call(
                scripts.CONNECT,
                scripts.VERSION,
                server.run_id,
                next(iter(server.replication_ids), ""),
                new_name(),
                head,
                MAX_EPOCHS,
                changes=False,
            )
            match reply:
                case [b"ok", header, epochs]:
                    found = codec.Header.read(header)
                    self.epoch = found.epoch
                    return found, codec.epochs_of(epochs)
                case [b"version", bytes(version)]:
                    raise HistoryError(
                        f"{self._key} is of version {version.decode()}, which this one, of version"
                        f" {scripts.VERSION}, can't work with"
                    )
                case [b"name"]:
                    continue
                case _:
                    raise HistoryError(
                        f"{self._key} is gone, and others of its keys aren't: remove all of"
                        f" {self._key.removesuffix('state')}*, or take another prefix"
                    )

    async def _check_rights(self) -> None:
        """Refuse a server where a script would be stopped half-way, as a command is forbidden."""
        try:
            reply = await self._call(scripts.RIGHTS, changes=False)
        except HistoryError as exc:
            if "NOPERM" in str(exc):
                keys = self._key.removesuffix("state")
                raise HistoryError(f"{exc} (its keys begin with {keys})") from exc
            raise
        if isinstance(reply, list) and reply[0] == b"missing":
            raise HistoryError(
                f"the server's ACL forbids this user {codec.text(reply[1])}, on keys or a channel"
                f" that begin with {self._key.removesuffix('state')}"
            )

    async def ask(self, script: Script, *arguments: Argument, changes: bool = False) -> list[Reply]:
        """Run a script in this link's epoch, and return its answer.

        Raises:
            StaleError: the store is in another one.
            HistoryFullError, HistoryError, OutcomeUnknownError: as of `History.append`.
        """
        reply = await self._call(script, self.epoch, *arguments, changes=changes)
        if not isinstance(reply, list) or not reply or reply[0] == b"stale":
            self.connection.throw_away("the store is in another epoch")
            raise StaleError("the store is in another epoch than this hub")
        return reply

    async def _call(self, script: Script, *arguments: Argument, changes: bool) -> Reply:
        with translated(changes=changes):
            try:
                return await self.connection.eval_script(
                    script, [self._key], [self._channel, *arguments]
                )
            except RedisReplyError as exc:
                code = refusal_of(exc)
                if code == _REPLICA:
                    self.connection.throw_away(f"it is a replica now: {exc}")
                elif not code and not self._has_warned:
                    self._has_warned = True
                    logger.error("%s: somebody may have changed the store's keys", exc)  # noqa: TRY400 - it says all there is
                raise


def new_word() -> str:
    """Return a word that nobody else has: a node's name, or a probe."""
    return secrets.token_hex(8)
