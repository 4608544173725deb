"""What a server has to be, and what its errors say of an event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tables import table

from h3trio._redis.server_info import ServerInfo
from h3trio._redis.values import NoAnswerError, NotSentError, RedisError, RedisReplyError
from h3trio.hub import HistoryError, HistoryFullError, OutcomeUnknownError
from h3trio.hub._redis.link import check_server, describe, durability_of, translated

if TYPE_CHECKING:
    from h3trio.hub import Durability


def server(
    *,
    aof: bool = False,
    appendfsync: str | None = None,
    policy: str | None = "noeviction",
    skips_fsync: bool | None = False,
) -> ServerInfo:
    """A server, as it said at the beginning."""
    return ServerInfo(
        software="valkey",
        version="8.0.1",
        run_id="r",
        replication_ids=("m",),
        role="master",
        replicas=1,
        maxmemory=0,
        maxmemory_policy=policy,
        has_aof=aof,
        appendfsync=appendfsync,
        skips_fsync=skips_fsync,
        save="3600 1",
    )


@table(
    "one, level",
    [
        (server(), "memory"),
        (server(appendfsync="always"), "memory"),
        (server(aof=True, appendfsync="no"), "fast"),
        (server(aof=True, appendfsync="everysec"), "fast"),
        (server(aof=True), "fast"),
        (server(aof=True, appendfsync="always"), "durable"),
        (server(aof=True, appendfsync="always", skips_fsync=True), "fast"),
        (server(aof=True, appendfsync="always", skips_fsync=None), "fast"),
    ],
)
def test_a_server_keeps_what_its_file_keeps(one: ServerInfo, level: Durability) -> None:
    """A level that isn't reached is refused, and no promise is made of what isn't known."""
    assert durability_of(one) == level
    check_server(one, None)
    levels: tuple[Durability, ...] = ("memory", "fast", "durable")
    for wanted in levels[: levels.index(level) + 1]:
        check_server(one, wanted)
    for wanted in levels[levels.index(level) + 1 :]:
        with pytest.raises(HistoryError, match="appendonly yes"):
            check_server(one, wanted)


def test_a_server_that_tells_no_settings_is_refused_for_that() -> None:
    """What isn't known can't be set: the right to ask is what is missing."""
    for one in (server(aof=True), server(aof=True, appendfsync="always", skips_fsync=None)):
        with pytest.raises(
            HistoryError, match=r"forbids CONFIG GET.*allow this user \+config\|get"
        ):
            check_server(one, "durable")


@table("policy", ["allkeys-lru", "volatile-ttl", None])
def test_a_server_that_may_evict_is_refused(policy: str | None) -> None:
    """At every level, and where it doesn't say."""
    with pytest.raises(HistoryError, match="set noeviction"):
        check_server(server(policy=policy), None)


def test_a_server_is_described() -> None:
    """In words for a log: what it is, and how it keeps what it has."""
    said = describe(server(aof=True, appendfsync="always"))
    assert "but on rewrite" in describe(server(aof=True, appendfsync="always", skips_fsync=True))
    assert said == "valkey 8.0.1, appendfsync always, snapshots 3600 1, 1 replica"


@table(
    "error, reading, changing",
    [
        (NotSentError("x"), HistoryError, HistoryError),
        (NoAnswerError("x"), HistoryError, OutcomeUnknownError),
        (RedisReplyError("OOM command not allowed"), HistoryFullError, HistoryFullError),
        (
            RedisReplyError("ERR Error running script: -OOM command"),
            HistoryFullError,
            HistoryFullError,
        ),
        (RedisReplyError("READONLY You can't write"), HistoryError, HistoryError),
        (RedisReplyError("MISCONF Redis is configured"), HistoryError, HistoryError),
        (RedisReplyError("ERR value is not an integer"), HistoryError, OutcomeUnknownError),
        (RedisReplyError("ERR no BOOMERANG"), HistoryError, OutcomeUnknownError),
        (RedisError("x"), HistoryError, HistoryError),
    ],
)
def test_an_error_says_whether_something_is_stored(
    error: RedisError, reading: type[Exception], changing: type[Exception]
) -> None:
    """Not if it wasn't sent, or was refused at the first write; else nobody knows."""
    for changes, kind in ((False, reading), (True, changing)):
        with pytest.raises(HistoryError) as caught, translated(changes=changes):
            raise error
        assert type(caught.value) is kind
