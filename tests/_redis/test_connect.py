"""Connecting: what a server is told and asked first, which one is taken, and what is refused."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
import trio
from redis_scripted import ScriptedRedis, bulk, good_answers
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio._redis.address import parse_address
from h3trio._redis.connect import open_redis
from h3trio._redis.server_info import ServerInfo
from h3trio._redis.values import NoAnswerError, NotSentError, RedisLimits, RedisReplyError

if TYPE_CHECKING:
    from trio.testing import MockClock

SENTINEL = {"HELLO": b"%0\r\n", "SENTINEL": b"*2\r\n$2\r\nup\r\n$4\r\n6379\r\n"}
LATE = SENTINEL | {"SENTINEL": b"*2\r\n$7\r\nreplica\r\n$4\r\n6379\r\n"}
GONE = SENTINEL | {"SENTINEL": b"*2\r\n$4\r\ngone\r\n$4\r\n6379\r\n"}
OTHER = SENTINEL | {"SENTINEL": b"_\r\n"}
LOCKED = SENTINEL | {"SENTINEL": b"-NOPERM no\r\n"}


async def connect(redis: ScriptedRedis, url: str) -> ServerInfo:
    """Connect, call, and go."""
    address = parse_address(url)
    async with open_redis(address, opener=redis.open) as connection:
        assert await connection.call("PING") == b"PONG"
        return connection.server


@table(
    "url, hello, db",
    [
        ("redis://up", "HELLO 3 SETNAME h3trio", "0"),
        ("redis://:a%20b@up/3", "HELLO 3 AUTH default a b SETNAME h3trio", "3"),
        ("redis://hub:s@up:1/4", "HELLO 3 AUTH hub s SETNAME h3trio", "4"),
        ("redis://hub@up", "HELLO 3 AUTH hub  SETNAME h3trio", "0"),
    ],
)
async def test_a_server_learns_who_we_are_first(
    nursery: trio.Nursery, url: str, hello: str, db: str
) -> None:
    """Protocol, user, password and name go in one command, and nothing before its answer."""
    redis = ScriptedRedis(nursery, {"up": good_answers()})
    await connect(redis, url)
    asked = [" ".join(words) for words in redis.commands("up")]
    assert asked[:3] == [hello, f"SELECT {db}", "INFO"]
    await wait_all_tasks_blocked()
    assert redis.ended == ["up"]


async def test_a_server_says_what_it_is(nursery: trio.Nursery) -> None:
    """Its identity, role and durability are read; what it doesn't tell is `None`."""
    info = (
        "# Server\r\nredis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:8.0.1\r\n"
        "run_id:r\r\n\r\n# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"
        "master_replid:a\r\nmaster_replid2:b\r\nmaxmemory:100\r\n"
        "maxmemory_policy:allkeys-lru\r\naof_enabled:1\r\n"
    )
    config = b"%1\r\n$11\r\nappendfsync\r\n$6\r\nalways\r\n"
    redis = ScriptedRedis(nursery, {"up": good_answers() | {"INFO": bulk(info), "CONFIG": config}})
    assert await connect(redis, "redis://up") == ServerInfo(
        software="valkey",
        version="8.0.1",
        run_id="r",
        replication_ids=("a", "b"),
        role="master",
        replicas=2,
        maxmemory=100,
        maxmemory_policy="allkeys-lru",
        has_aof=True,
        appendfsync="always",
        skips_fsync=None,
        save=None,
    )
    bare = await connect(ScriptedRedis(nursery, {"up": good_answers()}), "redis://up")
    assert (bare.software, bare.version, bare.run_id) == ("redis", "7.0.15", "r1")
    assert (bare.replication_ids, bare.maxmemory_policy) == (("m1",), None)
    assert (bare.has_aof, bare.appendfsync, bare.save) == (False, None, None)


OLD = b"-ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `x`, `s3cret`, \r\n"


@table(
    "answers, code, reason",
    [
        ({"HELLO": b"-WRONGPASS invalid\r\n"}, "WRONGPASS", "invalid"),
        ({"HELLO": b"-NOAUTH HELLO must be\r\n"}, "NOAUTH", "up:6379: a password is needed"),
        ({"HELLO": OLD}, "ERR", "up:6379: Redis 6 or newer is needed"),
        ({"SELECT": b"-ERR DB index is out of range\r\n"}, "ERR", "out of range"),
        ({"INFO": b"-NOPERM no\r\n"}, "NOPERM", "no"),
        ({"SELECT": b"-LOADING data\r\n", "INFO": b"-LOADING data\r\n"}, "LOADING", "data"),
    ],
)
async def test_a_refusal_is_the_servers_error(
    nursery: trio.Nursery, answers: dict[str, bytes], code: str, reason: str
) -> None:
    """Its code says why; the password is in no error, though an old server repeats it."""
    redis = ScriptedRedis(nursery, {"up": good_answers() | answers})
    with pytest.raises(RedisReplyError, match=reason) as caught:
        await connect(redis, "redis://:s3cret@up")
    assert caught.value.code == code
    error: BaseException | None = caught.value
    assert "s3cret" not in str(error)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    await wait_all_tasks_blocked()
    assert redis.ended == ["up"]


@table(
    "role, reason",
    [("slave", "up:6379: is no primary, but a slave"), ("", "is no primary, but a ")],
)
async def test_a_replica_is_refused(nursery: trio.Nursery, role: str, reason: str) -> None:
    """It would take no writes."""
    redis = ScriptedRedis(nursery, {"up": good_answers(role)})
    with pytest.raises(NotSentError, match=reason):
        await connect(redis, "redis://up")


async def test_sentinels_are_asked_one_after_the_other(nursery: trio.Nursery) -> None:
    """One that is away, doesn't know, or leads to a replica or nowhere is passed over."""
    servers = {"up": good_answers(), "replica": good_answers("slave")}
    bad = {"other": OTHER, "late": LATE, "locked": LOCKED, "is-gone": GONE}
    redis = ScriptedRedis(nursery, servers | bad | {"good": SENTINEL, "unused": SENTINEL})
    hosts = "away,other,late,is-gone,locked,good,unused"
    url, word = f"redis+sentinel://hub:s@{hosts}/main/2?sentinel-user=who", "p"
    address = parse_address(url, sentinel_password=word)
    async with open_redis(address, opener=redis.open) as connection:
        assert connection.server.role == "master"
        await wait_all_tasks_blocked()
        assert sorted(redis.ended) == ["good", "is-gone", "late", "locked", "other", "replica"]
    assert redis.commands("up")[:2] == [
        ["HELLO", "3", "AUTH", "hub", "s", "SETNAME", "h3trio"],
        ["SELECT", "2"],
    ]
    assert redis.commands("good") == [
        ["HELLO", "3", "AUTH", "who", "p", "SETNAME", "h3trio"],
        ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", "main"],
    ]
    assert redis.commands("unused") == []


async def test_each_sentinels_failure_is_told(nursery: trio.Nursery) -> None:
    """If none leads to the primary, the error says why, for each."""
    servers = {"other": OTHER, "late": LATE, "locked": LOCKED, "replica": good_answers("slave")}
    redis = ScriptedRedis(nursery, servers)
    with pytest.raises(NotSentError) as caught:
        await connect(redis, "redis+sentinel://other,late:1,locked,away/main")
    assert str(caught.value) == (
        "no sentinel leads to the primary main: other:26379: knows no primary main; "
        "replica:6379: is no primary, but a slave, and takes no writes; "
        "locked:26379: NOPERM no; away:26379: nobody listens"
    )


async def test_where_every_sentinel_refuses_us_that_is_the_error(nursery: trio.Nursery) -> None:
    """It is no question of time then; where one is away it may be."""
    wrong = good_answers() | {"HELLO": b"-WRONGPASS no\r\n"}
    redis = ScriptedRedis(nursery, {"locked": LOCKED, "wrong": wrong})
    with pytest.raises(RedisReplyError, match="no sentinel leads to the primary main: wrong") as it:
        await connect(redis, "redis+sentinel://wrong,locked/main")
    assert it.value.code == "WRONGPASS"
    with pytest.raises(NotSentError, match="wrong:26379: WRONGPASS no; away:26379"):
        await connect(redis, "redis+sentinel://wrong,away/main")


async def test_a_primary_that_refuses_us_is_not_the_sentinels_fault(nursery: trio.Nursery) -> None:
    """A wrong password is told as such, and the other sentinels aren't asked."""
    servers = {"up": good_answers() | {"HELLO": b"-WRONGPASS no\r\n"}, "one": SENTINEL}
    redis = ScriptedRedis(nursery, servers | {"two": SENTINEL})
    with pytest.raises(RedisReplyError, match="WRONGPASS"):
        await connect(redis, "redis+sentinel://one,two/main")
    assert redis.commands("two") == []


@table("silent", ["HELLO", "SELECT", "INFO", "CONFIG"])
async def test_a_server_that_does_not_answer_has_a_deadline(
    nursery: trio.Nursery, autojump_clock: MockClock, silent: str
) -> None:
    """Nothing of ours was executed then, so it is an error that says so."""
    redis = ScriptedRedis(nursery, {"up": good_answers() | {silent: b""}})
    began = autojump_clock.current_time()
    limits = RedisLimits(timeout=3)
    with pytest.raises(NotSentError, match="up:6379: no answer in time"):
        async with open_redis(parse_address("redis://up"), limits=limits, opener=redis.open):
            pytest.fail("connected")
    assert autojump_clock.current_time() == began + 3


@table("scheme, kind", [("redis", "no connection"), ("rediss", "no TLS connection")])
async def test_connecting_has_a_deadline(autojump_clock: MockClock, scheme: str, kind: str) -> None:
    """A host that swallows packets is given up, as is one that doesn't answer in TLS."""
    began = autojump_clock.current_time()

    async def never(_place: object) -> trio.abc.Stream:
        await trio.sleep_forever()
        raise AssertionError

    with pytest.raises(NotSentError, match=f"up:6379: {kind} within 5 s"):
        async with open_redis(parse_address(f"{scheme}://up"), opener=never):
            pytest.fail("connected")
    assert autojump_clock.current_time() == began + 5


async def test_a_connection_that_breaks_cancels_nothing(nursery: trio.Nursery) -> None:
    """The block goes on, and what it raises leaves it bare."""
    answers = good_answers() | {"PING": b"what\r\n"}
    redis = ScriptedRedis(nursery, {"up": answers})
    seen: list[str] = []

    async def use() -> None:
        async with open_redis(parse_address("redis://up"), opener=redis.open) as connection:
            with pytest.raises(NoAnswerError):
                await connection.call("PING")
            seen.append(await connection.wait_broken())
            raise KeyError("own")

    with pytest.raises(KeyError, match="own"):
        await use()
    assert "protocol" in seen[0]


async def test_without_the_extra_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before the first byte."""

    async def opened(_place: object) -> trio.abc.Stream:
        pytest.fail("opened")

    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ImportError, match="Redis needs hiredis"):
        async with open_redis(parse_address("redis://up"), opener=opened):
            pytest.fail("connected")
