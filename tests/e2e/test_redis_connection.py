"""The client against a real server: who is let in, what is noticed, and what each call is told."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
import trio
import trustme
from e2e.redis_server import redis_sentinel, redis_server

from h3trio._redis.address import parse_address
from h3trio._redis.connect import open_redis
from h3trio._redis.values import (
    NoAnswerError,
    NotSentError,
    RedisError,
    RedisLimits,
    RedisReplyError,
    Script,
)

if TYPE_CHECKING:
    from pathlib import Path

    from h3trio._redis.connection import RedisConnection

CALLERS = 64
COUNT = Script(b"return redis.call('INCR', KEYS[1])")


async def connect(url: str, **limits: float) -> None:
    """Connect and go."""
    async with open_redis(parse_address(url), limits=RedisLimits(**limits)):  # type: ignore[arg-type]  # all are numbers
        pass


async def test_commands_pipelines_scripts_and_messages(tmp_path: Path) -> None:
    """A call returns its reply, a script is sent once, and a subscriber gets what is published."""
    async with (
        redis_server(tmp_path / "redis", unix=True) as server,
        open_redis(parse_address(f"{server.url}?db=3")) as connection,
    ):
        assert await connection.call("SET", "é", b"\0\r\n") == b"OK"
        assert await connection.call("GET", "é") == b"\0\r\n"
        replies = await connection.pipeline([("LPUSH", "é", 1), ("INCR", "n"), ("GET", "n")])
        assert isinstance(replies[0], RedisReplyError)
        assert (replies[0].code, replies[1:]) == ("WRONGTYPE", [1, b"1"])
        assert [await connection.eval_script(COUNT, ["n"]) for _ in range(2)] == [2, 3]
        confirmed = [b"subscribe", b"news", 1]
        assert await connection.call("SUBSCRIBE", "news") == confirmed
        assert await connection.call("PUBLISH", "news", "hi") == 1
        assert await connection.pushes.receive() == confirmed
        assert await connection.pushes.receive() == [b"message", b"news", b"hi"]
        about = connection.server
        assert (about.role, about.maxmemory_policy, about.save) == ("master", "noeviction", "")
        assert len(about.run_id) == len(about.replication_ids[0]) == 40


async def test_a_user_has_the_rights_of_its_rule(tmp_path: Path) -> None:
    """A wrong password, an unknown user and a forbidden command or key are the server's errors."""
    users = ["default off", "hub on >secret resetchannels ~h3trio* &h3trio* +@all -config"]
    async with redis_server(tmp_path / "redis", user=users) as server:
        for user in ("hub:wrong", "other:secret", ":secret"):
            with pytest.raises(RedisReplyError, match="WRONGPASS") as caught:
                await connect(server.url.replace("://", f"://{user}@"))
            assert "secret" not in str(caught.value)
        with pytest.raises(RedisReplyError, match="NOAUTH"):
            await connect(server.url)
        address = parse_address(server.url.replace("://", "://hub:secret@"))
        async with open_redis(address) as connection:
            assert connection.server.appendfsync is None, "CONFIG is forbidden"
            assert connection.server.maxmemory_policy == "noeviction"
            assert await connection.call("SET", "h3trio:a", 1) == b"OK"
            for command in (("SET", "a", 1), ("CONFIG", "GET", "*"), ("SUBSCRIBE", "other")):
                with pytest.raises(RedisReplyError) as caught:
                    await connection.call(*command)
                assert caught.value.code == "NOPERM"
            assert await connection.call("SUBSCRIBE", "h3trio") == [b"subscribe", b"h3trio", 1]


async def test_tls_checks_the_authority_and_the_host_name(tmp_path: Path) -> None:
    """Only a certificate of an authority that we trust, for the name that was asked, is taken."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    async with redis_server(tmp_path / "redis", tls=trustme.CA()) as server:
        async with open_redis(parse_address(server.url)) as connection:
            assert await connection.call("PING") == b"PONG"
            assert await connection.call("ECHO", b"x" * 1_000_000) == b"x" * 1_000_000
        url, _, ca = server.url.partition("?ca=")
        for wrong, reason in (
            (f"{url}?ca={other}", "certificate verify failed"),
            (url, "certificate verify failed"),
            (f"{url.replace('localhost', '127.0.0.1')}?ca={ca}", "not valid for '127.0.0.1'"),
            (url.replace("rediss", "redis"), "closed the connection|lost|protocol"),
        ):
            with pytest.raises(NotSentError, match=reason):
                await connect(wrong)


async def test_no_server_is_told_at_once(tmp_path: Path) -> None:
    """A port and a socket that nobody listens on are refused connections."""
    async with redis_server(tmp_path / "redis") as server:
        url = server.url
    with pytest.raises(NotSentError, match="refused"):
        await connect(url)
    with pytest.raises(NotSentError, match="No such file"):
        await connect(f"unix://{tmp_path}/none")


async def test_a_frozen_server_is_noticed_by_the_deadline(tmp_path: Path) -> None:
    """A call to it has no answer, the next isn't sent, and to connect takes no longer either."""
    async with redis_server(tmp_path / "redis") as server:
        limits = RedisLimits(timeout=0.3)
        async with open_redis(parse_address(server.url), limits=limits) as connection:
            server.freeze()
            with trio.fail_after(5), pytest.raises(NoAnswerError, match="no answer in time"):
                await connection.call("INCR", "n")
            with pytest.raises(NotSentError):
                await connection.call("INCR", "n")
            assert "no answer in time" in await connection.wait_broken()
        with trio.fail_after(5), pytest.raises(NotSentError, match="no answer in time"):
            await connect(server.url, timeout=0.3)
        server.thaw()
        async with open_redis(parse_address(server.url)) as connection:
            assert await connection.call("GET", "n") == b"1", "as NoAnswerError says, it may be"


async def test_cancelled_calls_leave_nothing_behind(tmp_path: Path) -> None:
    """Those that wait and those that are sent are forgotten, and the next has its own answer."""
    async with (
        redis_server(tmp_path / "redis", unix=True) as server,
        open_redis(parse_address(server.url)) as connection,
    ):
        for number in range(100):
            with trio.move_on_after(0.0005 * (number % 3)):
                await connection.call("ECHO", f"cancelled {number}")
        assert await connection.call("ECHO", "kept") == b"kept"
        assert connection.statistics().calls_waiting == connection.statistics().bytes_waiting == 0
        clients = await connection.call("CLIENT", "LIST")
        assert isinstance(clients, bytes)
        assert clients.count(b"name=h3trio") == 1


@pytest.mark.parametrize("appendfsync", ["always", "no"])
async def test_a_kill_ends_each_call_in_what_is_true(tmp_path: Path, appendfsync: str) -> None:
    """Of 64 callers each has an answer, `NotSentError` or `NoAnswerError`, and none waits on."""
    outcomes: Counter[str] = Counter()

    async def call(connection: RedisConnection, answered: trio.Event) -> None:
        while True:
            try:
                await connection.eval_script(COUNT, ["n"])
            except (NotSentError, NoAnswerError) as exc:
                outcomes[type(exc).__name__] += 1
                return
            outcomes["answered"] += 1
            if outcomes["answered"] >= 1000:
                answered.set()

    async with redis_server(
        tmp_path / "redis", unix=True, appendonly="yes", appendfsync=appendfsync
    ) as server:
        async with open_redis(parse_address(server.url)) as connection:
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    answered = trio.Event()
                    for _ in range(CALLERS):
                        nursery.start_soon(call, connection, answered)
                    await answered.wait()
                    await server.kill()
            assert connection.statistics().calls_waiting == 0
        assert outcomes["NotSentError"] + outcomes["NoAnswerError"] == CALLERS
        await server.start()
        async with open_redis(parse_address(server.url)) as connection:
            reply = await connection.call("GET", "n")
    assert isinstance(reply, bytes)
    print(f"appendfsync {appendfsync}: {dict(outcomes)}, {int(reply)} executed")  # noqa: T201 - the record
    # A killed process loses nothing that it has written, synced or not.
    least = outcomes["answered"]
    assert least <= int(reply) <= least + outcomes["NoAnswerError"]


async def test_a_subscription_never_ends_in_silence(tmp_path: Path) -> None:
    """Who waits for messages is told that the server went, behind the last of them."""
    async with (
        redis_server(tmp_path / "redis", unix=True) as server,
        open_redis(parse_address(server.url)) as connection,
    ):
        await connection.call("SUBSCRIBE", "news")
        await connection.call("PUBLISH", "news", "last")
        await server.kill()
        await connection.wait_broken()
        assert (await connection.pushes.receive())[0] == b"subscribe"
        assert await connection.pushes.receive() == [b"message", b"news", b"last"]
        with pytest.raises(RedisError, match="closed the connection"):
            await connection.pushes.receive()


async def test_sentinel_leads_to_the_primary_before_and_after_a_failover(tmp_path: Path) -> None:
    """A replica is refused, whoever names it; sentinels that are away are passed over."""
    async with (
        redis_server(tmp_path / "first") as first,
        redis_server(tmp_path / "second", replica_of=first) as second,
        redis_sentinel(tmp_path / "sentinel", "main", first) as sentinel,
    ):
        with pytest.raises(NotSentError, match="no primary, but a slave"):
            await connect(second.url)
        with pytest.raises(NotSentError, match="knows no primary other"):
            await connect(sentinel.url.replace("/main", "/other"))
        address = parse_address(sentinel.url.replace("://", "://127.0.0.1:1,"))
        async with open_redis(address) as connection:
            run_id = connection.server.run_id
            assert connection.server.replicas == 1
            await connection.call("SET", "a", 1)
            assert await connection.call("WAIT", 1, 5000) == 1
            await sentinel.wait_line(r"\+slave slave")
            await first.kill()
            await sentinel.wait_line(r"\+switch-master main")
        async with open_redis(address) as connection:
            assert connection.server.run_id != run_id
            assert await connection.call("GET", "a") == b"1"


async def test_a_demoted_primary_is_refused(tmp_path: Path) -> None:
    """It refuses writes to those that are connected, and isn't connected to again."""
    async with redis_server(tmp_path / "redis") as server:
        async with open_redis(parse_address(server.url)) as connection:
            assert await connection.call("REPLICAOF", "127.0.0.1", 1) == b"OK"
            with pytest.raises(RedisReplyError) as caught:
                await connection.eval_script(COUNT, ["n"])
            assert "READONLY" in str(caught.value), "Redis 6 puts words in front of it"
        with pytest.raises(NotSentError, match="no primary, but a slave"):
            await connect(server.url)
