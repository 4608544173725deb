"""Tokens from mint to stream, with every part a process: `token`, `serve`, `publish` and `tail`."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from auth_helpers import jwk, private_pem, public_pem
from e2e.process import ServeProcess, connect, fetch
from e2e.test_cli_publish_tail import Command

if TYPE_CHECKING:
    from pathlib import Path

    import trio


async def mint(nursery: trio.Nursery, *argv: str, **environ: str) -> str:
    """Run `token`; return what it prints."""
    command = await Command.start(nursery, "token", *argv, **environ)
    token, status = await command.out.rest(), await command.wait()
    assert status == 0
    return token.strip()


@pytest.mark.parametrize("algorithm", ["HS256", "ES256"])
async def test_from_mint_to_stream(nursery: trio.Nursery, tmp_path: Path, algorithm: str) -> None:
    """A token that `token` prints lets `publish` and `tail` in, each as far as it says."""
    private, public = tmp_path / "private", tmp_path / "public"
    private.write_bytes(private_pem(algorithm))
    public.write_bytes(public_pem(algorithm))
    served = await ServeProcess.start(nursery, "--jwt-key-file", str(public))
    key = ("--key-file", str(private))
    writer = await mint(nursery, *key, "--publish", "news", "--subject", "writer")
    reader = await mint(nursery, *key, "--subscribe", "news")
    url = {"H3TRIO_URL": served.url}

    tail = await Command.tail(nursery, "news", "--count", "2", H3TRIO_TOKEN=reader, **url)
    publish = await Command.start(nursery, "publish", "news", "hi", "--token", writer, **url)
    assert await publish.wait() == 0
    secret = await fetch(
        served.port,
        "POST",
        "/events/news?private=on",
        headers={"Authorization": f"Bearer {writer}"},
        body=b"secret",
    )
    assert secret.status == 200
    assert await tail.out.rest() == "hi\nsecret\n"
    assert await tail.wait() == 0

    for token, status in ((None, 401), (reader, 403), (writer + "x", 401)):
        environ = url if token is None else {**url, "H3TRIO_TOKEN": token}
        refused = await Command.start(nursery, "publish", "news", "hi", **environ)
        assert f"the server answered {status}" in await refused.err.rest()
        assert await refused.wait() == 1
    assert await served.stop() == 0


async def test_the_relay_is_printed(nursery: trio.Nursery, tmp_path: Path) -> None:
    """With the right for it `tail --relay` prints records and notices, a close among them."""
    key = tmp_path / "key"
    key.write_bytes(private_pem("HS256"))
    served = await ServeProcess.start(nursery, "--jwt-key-file", str(key))
    options = ("--key-file", str(key))
    writer = await mint(nursery, *options, "--publish", "*", "--subscribe", "*")
    reader = await mint(nursery, *options, "--relay")
    url = {"H3TRIO_URL": served.url}

    async def publish(*argv: str) -> str:
        command = await Command.start(nursery, "publish", *argv, H3TRIO_TOKEN=writer, **url)
        id, status = await command.out.rest(), await command.wait()
        assert status == 0
        return id.strip()

    first = await publish("run", "1")
    relay = ("--relay", "--first", "oldest")
    tail = await Command.tail(nursery, *relay, H3TRIO_TOKEN=reader, **url)
    last = await publish("run", "2", "--last")
    epoch = first.partition("-")[0]
    assert await tail.out.next() == f'epoch {{"epochs":[["{epoch}",1]]}}'
    assert await tail.out.next() == 'trimmed {"floor":0,"private_floor":0,"marks":[]}'
    for id, data, is_last in ((first, "1", False), (last, "2", True)):
        record = json.loads(await tail.out.next())
        assert record.pop("published") > 0
        frame = f"id: {id}\ndata: {data}\n\n"
        wanted = {"topics": ["run"], "private": False, "last": is_last, "frame": frame}
        assert record == wanted
    assert await tail.out.next() == 'closed {"topics":["run"],"private":false}'

    again = ("--relay", "--since", first, "--json", "--count", "4", "--quiet")
    command = await Command.start(nursery, "tail", *again, H3TRIO_TOKEN=reader, **url)
    printed = [json.loads(line) for line in (await command.out.rest()).splitlines()]
    assert [event["event"] for event in printed] == ["epoch", "trimmed", "message", "closed"]
    assert [event["id"] for event in printed] == [first, first, last, last]

    refused = await Command.start(nursery, "tail", "--relay", H3TRIO_TOKEN=writer, **url)
    assert "the server answered 403" in await refused.err.rest()
    assert await refused.wait() == 1
    assert await served.stop() == 0
    assert not any(token in line for line in served.log for token in (writer, reader))


async def test_a_stream_ends_with_its_token(nursery: trio.Nursery) -> None:
    """At its end it is closed, and the log says so."""
    environ = {"H3TRIO_JWT_KEY": "k" * 32}
    served = await ServeProcess.start(nursery, environ=environ)
    token = await mint(nursery, "--subscribe", "*", "--expires", "2s", **environ)
    async with await connect(served.port) as connection:
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        assert (await connection.ask("GET", "/events", headers=headers)).status_code == 200
        body, is_whole = await connection.rest()
    assert is_whole
    assert b"retry: " in body
    await served.wait_line(r'"GET /events" 200 auth_expired')
    again = await fetch(served.port, target="/events", headers=headers)
    assert (again.status, again.body) == (401, b"the token has expired\n")


async def test_a_key_is_taken_out_of_a_set(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Its streams end, without a restart, once their rights are checked again."""
    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [jwk("ES256", kid="old"), jwk("EdDSA", kid="new")]}))
    private = tmp_path / "private"
    private.write_bytes(private_pem("ES256"))
    served = await ServeProcess.start(nursery, "--jwks", str(path), "--recheck-interval", "1")
    token = await mint(nursery, "--key-file", str(private), "--kid", "old", "--subscribe-public")
    async with await connect(served.port) as connection:
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/event-stream"}
        assert (await connection.ask("GET", "/events", headers=headers)).status_code == 200
        new = tmp_path / "new.json"
        new.write_text(json.dumps({"keys": [jwk("EdDSA", kid="new")]}))
        new.rename(path)
        assert (await connection.rest())[1]
    await served.wait_line(r'"GET /events" 200 auth_expired')


def test_a_mint_that_fails_prints_no_token() -> None:
    """`$(python -m h3trio token)` is empty then, and the status is 2."""
    done = subprocess.run(
        [sys.executable, "-m", "h3trio", "token"], capture_output=True, check=False, timeout=60
    )
    assert (done.returncode, done.stdout) == (2, b"")
