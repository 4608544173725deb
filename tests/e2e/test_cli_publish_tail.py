"""`publish` and `tail` as processes: with the hub as a process, and with servers that misbehave.

The latter are functions on a real socket: what no hub does on purpose, but proxies and networks do.
"""

from __future__ import annotations

import contextlib
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
import trustme
from e2e.process import PATIENCE, ServeProcess

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Handle = Callable[["Peer"], Awaitable[None]]

IRI = "https://example.com/a?b#c"
PROGRAM = (sys.executable, "-W", "default", "-m", "h3trio")
OTHERS = re.compile("H3TRIO|PROXY", re.IGNORECASE)
ENVIRON = {
    **{name: value for name, value in os.environ.items() if not OTHERS.search(name)},
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
    (first,) = await published(
        served.url, "news", "a\nb", "--event", "note", "--reconnection-time", "100"
    )
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
    lines = "".join(f"{n}\n" for n in range(100))
    assert await published(served.url, "news", "--quiet", stdin=lines.encode()) == []
    arguments = ("tail", "news", "--first", "oldest", "--count", "100", "--quiet")
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


@pytest.mark.parametrize("topic", [IRI, ".."])
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


async def test_whom_to_trust(nursery: trio.Nursery, tmp_path: Path) -> None:
    """`--ca-file` and `--insecure` reach a hub whose authority the system doesn't know."""
    authority, pem, trusted = trustme.CA(), tmp_path / "server.pem", tmp_path / "authority.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(pem))
    authority.cert_pem.write_to_path(str(trusted))
    served = await ServeProcess.start(nursery, "--tls-cert", str(pem))
    url = f"https://localhost:{served.port}"
    tail = ("tail", "news", "--first", "1", "--count", "1", "--quiet")
    for command in (("publish", "news", "x"), tail, ("top", "--once")):
        status, _, err = await run(*command, H3TRIO_URL=url)
        assert (status, "CERTIFICATE_VERIFY_FAILED" in err) == (1, True)
        assert err.endswith("; --ca-file FILE trusts it\n")
        for flags in (("--ca-file", str(trusted)), ("--insecure",)):
            status, out, err = await run(*command, *flags, H3TRIO_URL=url)
            assert (status, err, bool(out)) == (0, "", True)
        (status, _, err) = await run(*command, H3TRIO_URL=url, H3TRIO_CA_FILE="/no/such")
        said = "h3trio: error: H3TRIO_CA_FILE: can't load /no/such: No such file or directory\n"
    assert (status, err) == (2, said)


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
    served = await ServeProcess.start(nursery, "--reconnect-delay", "0.2", "--drain-soft", "0.1")
    tail = await Command.tail(nursery, "news", "--json", "--url", served.url)
    (before,) = await published(served.url, "news", "before")
    assert events(await tail.out.next()) == [(before, "message", "before")]
    served = await restarted(nursery, served)
    assert "again in " in await tail.err.next()
    warning = await tail.err.find("^h3trio: warning: ")
    assert warning.endswith(f": reset (unknown): events after {before} may be missing")
    (after,) = await published(served.url, "news", "after")
    assert events(await tail.out.next()) == [(after, "message", "after")]


async def test_restart_of_a_hub_with_a_file(nursery: trio.Nursery, tmp_path: Path) -> None:
    """`tail` comes back with its cursor: nothing is missing, nothing comes twice."""
    store = f"sqlite:{tmp_path / 'hub.db'}"
    args = ("--reconnect-delay", "0.2", "--drain-soft", "0.1", "--store", store)
    served = await ServeProcess.start(nursery, *args)
    tail = await Command.tail(nursery, "news", "--url", served.url)
    await published(served.url, "news", "1")
    assert await tail.out.next() == "1"
    served = await restarted(nursery, served, *args)
    await published(served.url, "news", stdin=b"2\n3\n")
    assert [await tail.out.next() for _ in range(2)] == ["2", "3"]
    tail.process.send_signal(signal.SIGINT)
    assert "reset" not in await tail.err.rest()


async def test_a_pipe_outlives_a_restart(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Lines that come while the hub is away are stored when it is back, once and in order."""
    args = ("--drain-soft", "0.1", "--store", f"sqlite:{tmp_path / 'hub.db'}")
    served = await ServeProcess.start(nursery, *args)
    publish = await Command.start(nursery, "publish", "news", "--url", served.url)
    await publish.send(b"1\n")
    first = await publish.out.next()
    assert await served.stop() == 0
    await publish.send(b"2\n3\n")
    assert "line 2: can't reach " in await publish.err.next()
    again = await ServeProcess.launch(nursery, "--port", str(served.port), *args)
    await again.wait_line("h3trio: http")
    await publish.send(b"4\n")
    await publish.end_input()
    assert len({first, *(await publish.out.rest()).splitlines()}) == 4
    assert await publish.wait() == 0
    arguments = ("tail", "news", "--first", "oldest", "--count", "4", "--quiet")
    assert await run(*arguments, H3TRIO_URL=served.url) == (0, "1\n2\n3\n4\n", "")


async def test_a_wrong_variable_is_named(nursery: trio.Nursery) -> None:
    """Whatever command meets a wrong variable says in one line which; `http://` needs no file."""
    served = await ServeProcess.start(nursery)
    missing = "/nowhere/cacert.pem"
    assert (await run("publish", "t", "x", "--url", served.url, SSL_CERT_FILE=missing))[0] == 0
    url = served.url.replace("http:", "https:")
    for command in (("publish", "t", "x", "--url"), ("tail", "t", "--url"), ("top", "--once")):
        status, out, err = await run(*command, url, SSL_CERT_FILE=missing)
        assert (status, out) == (1, "")
        assert err.count("\n") == 1
        assert err.startswith("h3trio: error: SSL_CERT_FILE: can't load '/nowhere/cacert.pem': No")
        status, out, err = await run(*command, url, ALL_PROXY="ftp://h")
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert err.startswith("h3trio: error: ALL_PROXY: ")
    status, out, err = await run("doctor", url, SSL_CERT_FILE=missing)
    assert (status, "SSL_CERT_FILE: can't load" in out, "Traceback" in err) == (3, True, False)


# -- errors


@pytest.mark.parametrize("command", [("publish", "t", "x"), ("publish", "t"), ("tail", "t")])
async def test_nobody_listens(command: tuple[str, ...]) -> None:
    """A server that can't be reached is one line with the reason, and status 1."""
    with trio.socket.socket() as unused:
        await unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        status, out, err = await run(*command, "--url", url, stdin=b"x\n")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert f"can't reach {url}/events" in err
    assert err.endswith(": Connection refused\n")


@pytest.mark.parametrize("command", [("publish", "t", "x"), ("tail", "t")])
async def test_forbidden(nursery: trio.Nursery, command: tuple[str, ...]) -> None:
    """A refusal is one line with its status and what the hub says of it."""
    served = await ServeProcess.start(nursery)
    # By way of a proxy, a request may come from anywhere; the hub takes that form as well.
    arguments = (*command, "--url", "http://example.com")
    status, out, err = await run(*arguments, HTTP_PROXY=served.url, NO_PROXY="")
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


@pytest.mark.parametrize("command", [("publish", "t", "x"), ("tail", "t")])
async def test_bad_url(command: tuple[str, ...]) -> None:
    """An address that is none is one line, and status 2."""
    status, out, err = await run(*command, "--url", "localhost:3000")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "argument --url: " in err


async def test_stream_that_is_refused_midway(nursery: trio.Nursery) -> None:
    """An error ends `--sse` though its input goes on, and says what was published."""
    served = await ServeProcess.start(nursery)
    tail = await Command.tail(nursery, "t", "--url", served.url)
    options = ("--sse", "--heartbeat", "0.2", "--url", served.url)
    publish = await Command.start(nursery, "publish", "t", *options)
    await publish.send(b"data: 1\nid: own\n\n")
    assert await tail.out.next() == "1"
    await publish.send(b"event: reset\ndata: 2\n\n")
    assert await publish.wait() == 1
    err = await publish.err.rest()
    assert err.startswith("h3trio: error: the server answered 400: ")
    assert err.endswith(" (1 published, the last as own)\n")


async def test_without_httpx2() -> None:
    """Without httpx2 the commands say how to get it, with status 2."""
    code = "import sys; sys.modules['httpx2'] = None; from h3trio._cli.main import main"
    code += "; sys.exit(main())"
    for command in (("publish", "t", "x"), ("tail", "t")):
        done = await trio.run_process(
            [sys.executable, "-c", code, *command], capture_stderr=True, check=False, env=ENVIRON
        )
        said = b"h3trio: error: h3trio.client needs httpx2: pip install '.[client]'\n"
        assert (done.returncode, done.stderr) == (2, said)


# -- ends


@pytest.mark.parametrize("command", [("tail", "t"), ("publish", "t"), ("publish", "t", "--sse")])
async def test_interrupted(nursery: trio.Nursery, command: tuple[str, ...]) -> None:
    """SIGINT ends a command quietly, with status 130, while it waits for input or events."""
    served = await ServeProcess.start(nursery)
    tail = await Command.tail(nursery, "t", "--url", served.url)
    running = tail
    if "tail" not in command:
        running = await Command.start(nursery, *command, "--url", served.url)
        await running.send(b"data: x\n\n")
        assert await tail.out.next()
    running.process.send_signal(signal.SIGINT)
    assert (await running.wait(), await running.err.rest()) == (130, "")


async def test_nobody_reads(nursery: trio.Nursery) -> None:
    """When its reader leaves, `tail` ends, even if no event comes; quietly, with status 141."""
    served = await ServeProcess.start(nursery)
    tail = await Command.tail(nursery, "t", "--url", served.url)
    assert tail.process.stdout is not None
    await tail.process.stdout.aclose()
    assert (await tail.wait(), await tail.err.rest()) == (141, "")


async def test_nobody_reads_ids(nursery: trio.Nursery) -> None:
    """When the reader of its ids leaves, `publish` ends with the next one, just as quietly."""
    served = await ServeProcess.start(nursery)
    publish = await Command.start(nursery, "publish", "t", "--url", served.url)
    assert publish.process.stdout is not None
    await publish.process.stdout.aclose()
    await publish.send(b"line\n")
    assert (await publish.wait(), await publish.err.rest()) == (141, "")


# -- servers that do as they are told


@final
class Peer:
    """The server's end of a connection."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._read = b""

    async def until(self, text: bytes) -> bytes:
        """Read up to and with a text."""
        while text not in self._read:
            piece = await self.stream.receive_some()
            assert piece, f"it ended: {self._read!r}"
            self._read += piece
        before, _, self._read = self._read.partition(text)
        return before + text

    async def head(self) -> str:
        """Read the head of a request."""
        return (await self.until(b"\r\n\r\n")).decode()

    async def answer(self, status: str, body: bytes = b"", *headers: str) -> None:
        """Send a whole answer."""
        fields = "".join(f"{field}\r\n" for field in (f"Content-Length: {len(body)}", *headers))
        await self.stream.send_all(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + body)

    async def stream_events(self, body: bytes) -> None:
        """Send the head of a stream, and what there is of it."""
        await self.stream.send_all(STREAM_HEAD + body)


async def serve(nursery: trio.Nursery, *handles: Handle) -> str:
    """Serve each connection by its own function, closing it when that returns; give the address."""
    waiting = iter(handles)

    async def accept(stream: trio.SocketStream) -> None:
        handle = next(waiting, None)
        assert handle is not None, "one connection too many"
        with contextlib.suppress(trio.BrokenResourceError):
            async with stream:
                await handle(Peer(stream))

    listeners = await nursery.start(partial(trio.serve_tcp, accept, 0, host="127.0.0.1"))
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"


def answering(status: str, body: bytes = b"", *headers: str) -> Handle:
    """Make a server that answers so."""

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.answer(status, body, *headers)

    return handle


def streaming(body: bytes, *, then_wait: bool = False) -> Handle:
    """Make a server that sends this much of a stream, then ends or is silent."""

    async def handle(peer: Peer) -> None:
        await peer.head()
        await peer.stream_events(body)
        if then_wait:
            await peer.stream.receive_some()

    return handle


async def silent(peer: Peer) -> None:
    """Be a server that never answers."""
    async for _ in peer.stream:
        pass


async def test_tail_comes_back_with_its_cursor(nursery: trio.Nursery) -> None:
    """Where a stream ends, `tail` goes on behind the last whole event, until it is told to stop."""
    heads = []

    async def resume(peer: Peer) -> None:
        heads.append(await peer.head())
        await peer.stream_events(b"data: two\n\n")

    url = await serve(
        nursery,
        streaming("retry: 1\nid: ü7\ndata: one\n\nid: 8\ndata: cut".encode()),
        resume,
        answering("204 No Content"),
    )
    status, out, err = await run("tail", f"{url}/stream?x=1", "--since", "6")
    assert (status, out) == (0, "one\ntwo\n")
    assert re.fullmatch(
        rf"h3trio: connected to {url}/stream\?x=1\n"
        r"h3trio: the server ended the stream; again in 0\.[12] s\n"
        rf"h3trio: connected to {url}/stream\?x=1\n"
        r"h3trio: the server ended the stream; again in 0\.[12] s\n"
        r"h3trio: the server answered 204: there is no more\n",
        err,
    )
    assert heads[0].startswith("GET /stream?x=1 HTTP/1.1\r\n")
    assert "\r\nlast-event-id: ü7\r\n" in heads[0].lower()
    assert "\r\naccept: text/event-stream\r\n" in heads[0].lower()


async def test_tail_comes_back_after_silence(nursery: trio.Nursery) -> None:
    """A stream that is silent for too long is lost."""
    url = await serve(
        nursery,
        streaming(b"retry: 1\n\n", then_wait=True),
        streaming(b"data: back\n\n", then_wait=True),
    )
    status, out, err = await run("tail", f"{url}/", "--idle-timeout", "0.3", "--count", "1")
    assert (status, out) == (0, "back\n")
    assert "h3trio: the server was silent for 0.3 s; again in " in err


async def test_tail_comes_back_while_a_server_fails(nursery: trio.Nursery) -> None:
    """Once there was a stream, failures of the server are waited out; a refusal is the end."""
    url = await serve(
        nursery,
        streaming(b"retry: 1\ndata: one\n\n"),
        answering("503 Service Unavailable", b"draining", "Retry-After: 0", "Connection: close"),
        streaming(b"data: two\n\n"),
        answering("404 Not Found", b"gone\n"),
    )
    status, out, err = await run("tail", f"{url}/")
    assert (status, out) == (1, "one\ntwo\n")
    assert "h3trio: the server answered 503: draining; again in " in err
    assert err.endswith("\nh3trio: error: the server answered 404: gone\n")


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (answering("404 Not Found", b"no\nsuch \x1b stream"), "answered 404: no such ? stream"),
        (answering("503 Service Unavailable"), "answered 503"),
        (answering("200 OK", b"hi", "Content-Type: text/html"), "no text/event-stream: text/html"),
        (answering("200 OK", b"hi"), "no text/event-stream: nothing said"),
        (answering("302 Found"), "answered 302"),
    ],
)
async def test_tail_of_no_stream(nursery: trio.Nursery, handle: Handle, message: str) -> None:
    """What isn't a stream at first is one line, and status 1."""
    url = await serve(nursery, handle)
    status, out, err = await run("tail", f"{url}/")
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("h3trio: error: the server answered ")
    assert err.endswith(f"{message}\n")


async def test_tail_follows_redirects(nursery: trio.Nursery) -> None:
    """A stream that has moved is found."""
    url = await serve(
        nursery,
        answering("307 Temporary Redirect", b"", "Location: /there", "Connection: close"),
        streaming(b"data: here\n\n"),
    )
    status, out, err = await run("tail", f"{url}/", "--count", "1")
    assert (status, out, err) == (0, "here\n", f"h3trio: connected to {url}/there\n")


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"Connection: close\r\n\r\n", (0, "")),
        (b"Content-Length: 99\r\n\r\n", (1, "h3trio: error: the connection was lost: peer closed")),
    ],
)
async def test_tail_of_one_stream(
    nursery: trio.Nursery, head: bytes, expected: tuple[int, str]
) -> None:
    """With `--no-reconnect` the end of the stream is the end: an error if it was cut off."""

    async def handle(peer: Peer) -> None:
        await peer.head()
        start = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        await peer.stream.send_all(start + head + b"data: one\n\n")

    url = await serve(nursery, handle)
    status, out, err = await run("tail", f"{url}/", "--no-reconnect", "--quiet")
    assert (status, out) == (expected[0], "one\n")
    assert err.startswith(expected[1])


async def test_tail_of_too_large_an_event(nursery: trio.Nursery) -> None:
    """An event above the limit is an error after those before it: it would come again."""
    url = await serve(nursery, streaming(b"data: 1\n\ndata: 23456789\n\ndata: 3\n\n"))
    status, out, err = await run("tail", f"{url}/", "--max-event-size", "10", "--quiet")
    assert (status, out, err.count("\n")) == (1, "1\n", 1)
    assert err.endswith("10 bytes; see --max-event-size\n")


async def test_lines_share_a_connection(nursery: trio.Nursery) -> None:
    """Lines are posted over one connection, each with the fields given."""
    posts = []

    async def handle(peer: Peer) -> None:
        for n in range(3):
            head = await peer.head()
            posts.append((head.split("\r\n")[0], await peer.until(b".")))
            await peer.answer("200 OK", b'{"id": "%d"}' % n)

    url = await serve(nursery, handle)
    ids = await published(f"{url}/hub/", "a/b", "--event", "e", stdin=b"1.\n2.\n3.\n")
    assert ids == ["0", "1", "2"]
    assert posts == [
        ("POST /hub/events?topic=a%2Fb&event=e HTTP/1.1", data) for data in (b"1.", b"2.", b"3.")
    ]


async def test_stream_is_kept_alive(nursery: trio.Nursery) -> None:
    """In every silence of `--sse` a comment goes out, inside an unfinished line too."""
    publish: list[Command] = []
    received = []

    async def handle(peer: Peer) -> None:
        received.append(await peer.head())
        await publish[0].send(b"data: 1\nda")
        await peer.until(b"data: 1\n")
        for _ in range(2):
            await peer.until(b"\r\n:\n\r\n")
        await publish[0].send(b"ta: 2\n\n")
        await publish[0].end_input()
        await peer.until(b"\r\ndata: 2\n")
        await peer.until(b"\r\n0\r\n\r\n")
        await peer.answer("200 OK", b'{"published": 1, "id": "7"}')

    url = await serve(nursery, handle)
    arguments = ("publish", "t", "--sse", "--heartbeat", "0.1", "--url", url)
    publish.append(await Command.start(nursery, *arguments))
    assert (await publish[0].wait(), await publish[0].out.rest()) == (0, "7\n")
    assert "\r\ncontent-type: text/event-stream\r\n" in received[0].lower()
    assert "\r\ntransfer-encoding: chunked\r\n" in received[0].lower()


async def test_stream_that_is_answered_too_early(nursery: trio.Nursery) -> None:
    """Success before the input's end is none: not all of it can have been published."""
    url = await serve(nursery, answering("200 OK", b'{"published": 1, "id": "7"}'))
    options = ("--sse", "--heartbeat", "0.2", "--url", url)
    publish = await Command.start(nursery, "publish", "t", *options)
    assert (await publish.wait(), await publish.out.rest()) == (1, "")
    assert await publish.err.rest() == (
        "h3trio: error: the server ended the stream early: the last event is 7\n"
    )


@pytest.mark.parametrize(
    ("handle", "message"),
    [
        (silent, "silent for 0.3 s; what was sent may be stored or not"),
        (answering("200 OK", b"ok"), "answered 200, but no id, so it is no hub: ok"),
        (answering("308 Moved", b"", "Location: /x"), "answered 308: it points to /x"),
        (answering("500 Oops", b"x" * 1_000_000), "xxx…"),
    ],
)
async def test_publish_without_success(nursery: trio.Nursery, handle: Handle, message: str) -> None:
    """Whatever doesn't say that the event is stored is one line, and status 1."""
    url = await serve(nursery, handle)
    status, out, err = await run("publish", "t", "x", "--url", url, "--timeout", "0.3")
    assert (status, out) == (1, "")
    assert err.endswith(f"{message}\n")
    assert len(err) < 600


async def test_publish_to_a_server_that_leaves(nursery: trio.Nursery) -> None:
    """A connection that ends without an answer leaves open whether the event is stored."""

    async def handle(peer: Peer) -> None:
        await peer.head()

    url = await serve(nursery, handle)
    status, out, err = await run("publish", "t", "x", "--url", url)
    assert (status, out, err.count("\n")) == (1, "", 1)
    assert err.startswith("h3trio: error: the connection was lost: ")
    assert err.endswith("; what was sent may be stored or not\n")
