"""`ServerInfo`: a server at the moment of connecting: its identity, its role, its durability.

It is read from `INFO`, and from `CONFIG GET`, which many services refuse: what isn't known is
`None`, and the promise that stands on it can't be made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self, final

from .values import RedisReplyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .values import Argument, Reply

_SETTINGS: Final = ("appendfsync", "no-appendfsync-on-rewrite", "save", "maxmemory-policy")

QUESTIONS: Final[Sequence[tuple[Argument, ...]]] = (
    ("INFO",),
    # Several names in one command are newer than Redis 6.
    *(("CONFIG", "GET", name) for name in _SETTINGS),
)
"""The commands whose replies `ServerInfo.read` takes."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """A server, as it was when the connection was made."""

    software: str
    """`redis` or `valkey`."""
    version: str
    run_id: str
    """Another with each start of the process."""
    replication_ids: tuple[str, ...]
    """The id of the history of the data; the second is the one that it was before a failover."""
    role: str
    """`master` or `slave`."""
    replicas: int
    """Replicas that are connected."""
    maxmemory: int
    """Bytes; 0 is without a bound."""
    maxmemory_policy: str | None
    """Such as `noeviction`."""
    has_aof: bool
    """Whether each write goes to the append-only file, as `appendfsync` says."""
    appendfsync: str | None
    """`always`, `everysec` or `no`."""
    skips_fsync: bool | None
    """Whether `appendfsync` doesn't hold while a child process writes a file
    (`no-appendfsync-on-rewrite`)."""
    save: str | None
    """The times of snapshots, such as `3600 1 300 100`; empty without any."""

    @classmethod
    def read(cls, replies: Sequence[Reply]) -> Self:
        """Make it of the replies to `QUESTIONS`.

        Raises:
            RedisReplyError: the server refuses to say anything of itself.
            ValueError: it says something else.
        """
        text, *settings = replies
        if isinstance(text, RedisReplyError):
            raise text
        if not isinstance(text, bytes):
            raise ValueError(f"INFO is needed: {text!r}")  # noqa: TRY004 - the server's, not the caller's
        fields = _fields(text)
        known = dict(_setting(reply) for reply in settings)
        ids = (fields.get("master_replid", ""), fields.get("master_replid2", ""))
        skips = known.get("no-appendfsync-on-rewrite")
        is_valkey = fields.get("server_name") == "valkey"
        return cls(
            software="valkey" if is_valkey else "redis",
            version=fields.get("valkey_version" if is_valkey else "redis_version", ""),
            run_id=fields.get("run_id", ""),
            replication_ids=tuple(name for name in ids if name.strip("0")),  # zeros are none
            role=fields.get("role", ""),
            replicas=_number(fields, "connected_slaves"),
            maxmemory=_number(fields, "maxmemory"),
            maxmemory_policy=fields.get("maxmemory_policy", known.get("maxmemory-policy")),
            has_aof=fields.get("aof_enabled") == "1",
            appendfsync=known.get("appendfsync"),
            skips_fsync=None if skips is None else skips == "yes",
            save=known.get("save"),
        )


def _fields(text: bytes) -> Mapping[str, str]:
    """Read the lines of `INFO`: `name:value`."""
    lines = text.decode(errors="replace").splitlines()
    found = (line.partition(":") for line in lines)
    return {name: value for name, colon, value in found if colon}


def _number(fields: Mapping[str, str], name: str) -> int:
    value = fields.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0


def _setting(reply: Reply) -> tuple[str, str | None]:
    """Read the reply to `CONFIG GET`, which may be an error."""
    if isinstance(reply, dict):
        for name, value in reply.items():
            if isinstance(name, bytes) and isinstance(value, bytes):
                return name.decode(), value.decode(errors="replace")
    return "", None
