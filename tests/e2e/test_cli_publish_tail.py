"""`publish` and `tail` as processes: with the hub as a process, and with servers that misbehave.

The latter are functions on a real socket: what no hub does on purpose, but proxies and networks do.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, final

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handle = Callable[["Peer"], Awaitable[None]]

IRI = "https://example.com/a?b#c"
PROGRAM = (sys.executable, "-X", "dev", "-m", "h3trio")
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not re.search("H3TRIO|PROXY", name, re.I)},
    "NO_PROXY": "127.0.0.1",
}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


# -- commands


@final
class Lines:
    """What a process writes, line by line."""

    def __init__(self, stream: trio.abc.ReceiveStream | None) -> None:
        assert stream is not None
        self._stream = stream
        self._read = b""

    async def next(self) -> str:
        """Return the next line."""
        with trio.fail_after(PATIENCE):
            while b"\n" not in self._read:
                piece = await self._stream.receive_some()
                assert piece, f"it ended: {self._read!r}"
                self._read += piece
        line, _, self._read = self._read.partition(b"\n")
        return line.decode()

    async def find(self, pattern: str) -> str:
        """Return the next line that has a pattern in it."""
        while not re.search(pattern, line := await self.next()):
            pass
        return line

    async def rest(self) -> str:
        """Return all that comes until the end."""
        with trio.fail_after(PATIENCE):
            async for piece in self._stream:
                self._read += piece
        return self._read.decode()


@final
class Command:
    """A running command; killed with the nursery it was started in."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self.out = Lines(process.stdout)
        self.err = Lines(process.stderr)

    @classmethod
    async def start(cls, nursery: trio.Nursery, *args: str, **environ: str) -> Command:
        """Start `python -m h3trio` with these arguments."""

        async def kill(process: trio.Process) -> None:
            process.kill()

        run = partial(
            trio.run_process,
            [*PROGRAM, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
            env={**ENVIRON, **environ},
            deliver_cancel=kill,
        )
        return cls(await nursery.start(run))

    @classmethod
    async def tail(cls, nursery: trio.Nursery, *args: str, **environ: str) -> Command:
        """Start `tail`; return when it is connected."""
        tail = await cls.start(nursery, "tail", *args, **environ)
        await tail.err.find("^h3trio: connected to ")
        return tail

    async def send(self, data: bytes) -> None:
        """Write to its standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(data)

    async def end_input(self) -> None:
        """Close its standard input."""
        assert self.process.stdin is not None
        await self.process.stdin.aclose()

    async def wait(self) -> int:
        """Wait for its end; return the exit status."""
        with trio.fail_after(PATIENCE):
            return await self.process.wait()


async def run(*args: str, stdin: bytes = b"", **environ: str) -> tuple[int, str, str]:
    """Run a command to its end; return its exit status and what it wrote."""
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*PROGRAM, *args],
            stdin=stdin,
            capture_stdout=True,
            capture_stderr=True,
            check=False,
            env={**ENVIRON, **environ},
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def published(url: str, *args: str, stdin: bytes = b"") -> list[str]:
    """Publish, which has to succeed; return the ids."""
    status, out, err = await run("publish", *args, stdin=stdin, H3TRIO_URL=url)
    assert (status, err) == (0, "")
    return out.splitlines()


def events(text: str) -> list[tuple[str, str, str]]:
    """Return id, type and data of the events that `tail --json` printed."""
    values = map(json.loads, text.splitlines())
    return [(value["id"], value["event"], value["data"]) for value in values]


# -- publish, then tail


async def test_one_event(nursery: trio.Nursery) -> None:
    """An event is printed with the id that its publisher was told."""
    served = await ServeProcess.start(nursery)
    tail = await Command.tail(nursery, "news", "--json", "--count", "2", H3TRIO_URL=served.url)
    (first,) = await published(served.url, "news", "a\nb", "--event", "note", "--retry", "100")
    assert await published(served.url, "news", "", "--id", "own") == ["own"]
    assert events(await tail.out.rest()) == [(first, "note", "a\nb"), ("own", "message", "")]
    assert (await tail.wait(), await tail.err.rest()) == (0, "")


async def test_lines_are_published_as_they_come(nursery: trio.Nursery) -> None:
    """Each line of standard input is an event, at once and in order, the last one unended."""
    served = await ServeProcess.start(nursery)
    tail = await Command.tail(nursery, "news", "--url", served.url)
    publish = await Command.start(nursery, "publish", "news", "--url", served.url)
    for line in ("one", "", "drei ü"):
        await publish.send(f"{line}\n".encode())
        assert await tail.out.next() == line
        assert await publish.out.next()
    await publish.send(b"last\r\nof all")
    await publish.end_input()
    assert [await tail.out.next() for _ in range(2)] == ["last", "of all"]
    assert (await publish.wait(), len((await publish.out.rest()).splitlines())) == (0, 2)


async def test_many_lines_keep_their_order(nursery: trio.Nursery) -> None:
    """Lines that come all at once are published in their order; quietly if told so."""
    served = await ServeProcess.start(nursery)
    lines = "".join(f"{n}\n" for n in range(300))
    assert await published(served.url, "news", "--quiet", stdin=lines.encode()) == []
    arguments = ("tail", "news", "--first", "oldest", "--count", "300", "--quiet")
    assert await run(*arguments, H3TRIO_URL=served.url) == (0, lines, "")


async def test_stream_is_published_as_it_comes(nursery: trio.Nursery) -> None:
    """With `--sse` events are on their way while the stream is open; the last id is printed."""
    served = await ServeProcess.start(nursery)
    tail = await Command.tail(nursery, "news", "--json", "--url", served.url)
    publish = await Command.start(nursery, "publish", "news", "--sse", "--url", served.url)
    await publish.send(b"event: note\r\ndata: 1\r\ndata: 2\r\n\r\nda")
    assert events(await tail.out.next())[0][1:] == ("note", "1\n2")
    await publish.send(b"ta: 3\nid: own\n\ndata: cut off")
    assert events(await tail.out.next()) == [("own", "message", "3")]
    await publish.end_input()
    assert (await publish.out.rest(), await publish.wait()) == ("own\n", 0)


async def test_stream_without_an_event(nursery: trio.Nursery) -> None:
    """A stream of which nothing is published prints no id, and is no error."""
    served = await ServeProcess.start(nursery)
    assert await published(served.url, "news", "--sse", stdin=b": nothing\n") == []


@pytest.mark.parametrize("topic", [IRI, "a b/../ü?x=1&y#z+%2F", ".."])
async def test_any_text_is_a_topic(nursery: trio.Nursery, topic: str) -> None:
    """IRIs and other strange topics come through, alone and beside others."""
    served = await ServeProcess.start(nursery)
    tails = [
        await Command.tail(nursery, *topics, "--url", served.url)
        for topics in ((topic,), ("other", topic), ("*",))
    ]
    await published(served.url, topic, "hi")
    assert [await tail.out.next() for tail in tails] == ["hi"] * 3


async def test_tail_of_a_url(nursery: trio.Nursery) -> None:
    """A URL is tailed as it is, whatever serves it."""
    served = await ServeProcess.start(nursery)
    await published(served.url, "news", stdin=b"1\n2\n3\n")
    arguments = ("--first", "2", "--count", "2", "--quiet")
    assert await run("tail", f"{served.url}/events/news", *arguments) == (0, "2\n3\n", "")


async def test_tail_since_an_id(nursery: trio.Nursery) -> None:
    """`--since` begins behind the event with that id."""
    served = await ServeProcess.start(nursery)
    ids = await published(served.url, "news", stdin=b"1\n2\n3\n")
    arguments = ("tail", "news", "--url", served.url, "--quiet", "--since", ids[0], "--count", "2")
    assert await run(*arguments) == (0, "2\n3\n", "")


async def test_key_publishes_once(nursery: trio.Nursery) -> None:
    """With the same key, the second publish is told the id of the first."""
    served = await ServeProcess.start(nursery)
    first = await published(served.url, "news", "hi", "--key", "k")
    assert await published(served.url, "news", "hi", "--key", "k") == first


# -- a hub that restarts


async def restarted(nursery: trio.Nursery, served: ServeProcess, *args: str) -> ServeProcess:
    """Stop a hub, and start another one on its port."""
    assert await served.stop() == 0
    again = await ServeProcess.launch(nursery, "--port", str(served.port), *args)
    again.url = (await again.wait_line("h3trio: http")).split()[1]
    return again


async def test_restart_of_a_hub_in_memory(nursery: trio.Nursery) -> None:
    """`tail` comes back to a hub that lost its events, and says so."""
    served = await ServeProcess.start(nursery, "--reconnect-delay", "0.2")
    tail = await Command.tail(nursery, "news", "--json", "--url", served.url)
    (before,) = await published(served.url, "news", "before")
    assert events(await tail.out.next()) == [(before, "message", "before")]
    served = await restarted(nursery, served)
    assert "again in " in await tail.err.next()
    await tail.err.find("^h3trio: connected to ")
    assert await tail.err.next() == (
        f"h3trio: warning: reset (unknown): events after {before} may be missing"
    )
    (after,) = await published(served.url, "news", "after")
    assert events(await tail.out.next()) == [(after, "message", "after")]


async def test_restart_of_a_hub_with_a_file(nursery: trio.Nursery, tmp_path: Path) -> None:
    """`tail` comes back with its cursor: nothing is missing, nothing comes twice."""
    args = ("--reconnect-delay", "0.2", "--store", f"sqlite:{tmp_path / 'hub.db'}")
    served = await ServeProcess.start(nursery, *args)
    tail = await Command.tail(nursery, "news", "--url", served.url)
    await published(served.url, "news", "1")
    assert await tail.out.next() == "1"
    served = await restarted(nursery, served, *args)
    await published(served.url, "news", stdin=b"2\n3\n")
    assert [await tail.out.next() for _ in range(2)] == ["2", "3"]
    tail.process.send_signal(signal.SIGINT)
    assert "reset" not in await tail.err.rest()


# -- errors


@pytest.mark.parametrize("command", [("publish", "t", "x"), ("publish", "t"), ("tail", "t")])
async def test_nobody_listens(command: tuple[str, ...]) -> None:
    """A server that can't be reached is one line with the reason, and status 1."""
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        status, out, err = await run(*command, "--url", url, stdin=b"x\n")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert re.match(rf"h3trio: error: (line 1: )?can't reach {url}/events.*: Connection refused", err)


@pytest.mark.parametrize("command", [("publish", "t", "x"), ("tail", "t")])
async def test_forbidden(nursery: trio.Nursery, command: tuple[str, ...]) -> None:
    """A refusal is one line with its status and what the hub says of it."""
    served = await ServeProcess.start(nursery)
    # By way of a proxy, a request may come from anywhere; the hub takes that form as well.
    environ = {"HTTP_PROXY": served.url, "NO_PROXY": ""}
    status, out, err = await run(*command, "--url", "http://example.com", **environ)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("h3trio: error: the server answered 403: ")
    assert "--allow-anonymous-" in err


async def test_too_large(nursery: trio.Nursery) -> None:
    """What the hub finds too large is an error that says which line it was."""
    served = await ServeProcess.start(nursery, "--max-body", "10")
    lines = b"short\n" + b"long" * 100_000 + b"\nshort\n"
    status, out, err = await run("publish", "t", "--url", served.url, stdin=lines)
    assert (status, out.count("\n"), err.count("\n")) == (1, 1, 1)
    assert err.startswith("h3trio: error: line 2: the server answered 413: ")


@pytest.mark.parametrize("url", ["nowhere", "ftp://localhost", "http://", "http://h:port"])
async def test_bad_url(url: str) -> None:
    """An address that is none is one line, and status 2."""
    for command in (("publish", "t", "x"), ("tail", "t")):
        status, out, err = await run(*command, "--url", url)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert "argument --url: " in err


async def test_stream_that_is_refused_midway(nursery: trio.Nursery) -> None:
    """An error ends `--sse` at once, though its input goes on, and says what was published."""
    served = await ServeProcess.start(nursery)
    publish = await Command.start(nursery, "publish", "t", "--sse", "--url", served.url)
    await publish.send(b"data: 1\nid: own\n\n" + b"event: reset\ndata: 2\n\n")
    assert await publish.wait() == 1
    err = await publish.err.rest()
    assert re.match(r"h3trio: error: the server answered 400: .*\(1 published, the last as own\)", err)


async def test_without_httpx() -> None:
    """Without httpx the commands say how to get it, with status 2."""
    code = "import sys; sys.modules['httpx'] = None; from h3trio._cli import main; sys.exit(main())"
    for command in (("publish", "t", "x"), ("tail", "t")):
        done = await trio.run_process(
            [sys.executable, "-c", code, *command], capture_stderr=True, check=False, env=ENVIRON
        )
        said = b"h3trio: error: needs httpx: pip install 'h3trio[client]'\n"
        assert (done.returncode, done.stderr) == (2, said)


# -- ends


@pytest.mark.parametrize("command", [("tail", "t"), ("publish", "t"), ("publish", "t", "--sse")])
async def test_interrupted(nursery: trio.Nursery, command: tuple[str, ...]) -> None:
    """SIGINT ends a command quietly, with status 130, while it waits for input or events."""
    served = await ServeProcess.start(nursery)
    running = await Command.start(nursery, *command, "--url", served.url)
    if "tail" in command:
        await running.err.find("connected")
    else:
        await running.send(b"data: x\n\n")
        await served.wait_line(r"POST") if "--sse" not in command else await running_sse(served)
    running.process.send_signal(signal.SIGINT)
    assert (await running.wait(), await running.err.rest()) == (130, "")
