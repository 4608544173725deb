"""`bench` as a process: against the hub, and against servers that lose, repeat, cut and refuse."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

PROGRAM = (sys.executable, "-W", "error", "-m", "h3trio", "bench")
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def bench(*args: str) -> tuple[int, str, str]:
    """Run it to its end; return its exit status and what it wrote."""
    environ = {name: value for name, value in os.environ.items() if "H3TRIO" not in name}
    with trio.fail_after(PATIENCE):
        done = await trio.run_process(
            [*PROGRAM, *args], capture_stdout=True, capture_stderr=True, check=False, env=environ
        )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


async def figures(*args: str) -> tuple[int, dict[str, Any]]:
    """Run it with JSON as its output."""
    status, out, err = await bench(*args, "--json", "--quiet")
    assert out, err
    found: dict[str, Any] = json.loads(out)
    assert found["status"] == status
    return status, found


@asynccontextmanager
async def answering(serve: Callable[[trio.SocketStream], Awaitable[None]]) -> AsyncGenerator[str]:
    """Run a server that reads a head and then does this; give its URL."""

    async def handle(stream: trio.SocketStream) -> None:
        async with stream:
            try:
                if await stream.receive_some():
                    await serve(stream)
            except trio.BrokenResourceError:
                pass

    async with trio.open_nursery() as nursery:
        listen = partial(trio.serve_tcp, handle, 0, host="127.0.0.1")
        listeners = await nursery.start(listen)
        port = listeners[0].socket.getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
        nursery.cancel_scope.cancel()


def in_chunks(body: bytes, size: int) -> bytes:
    """Frame a body in chunks of this size, without the last one."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)


@pytest.mark.alone
async def test_hub_is_measured_with_nothing_else(nursery: trio.Nursery) -> None:
    """Every stream gets every event that the generator published, once, and latencies are told."""
    served = await ServeProcess.start(nursery, "--log-level", "warning")
    url = f"{served.url}/events/news"
    load = ("-c", "20", "-d", "0.6", "--publish-url", url, "--rate", "50", "--processes", "2")
    status, found = await figures(url, *load)
    received, published = found["received"], found["published"]
    assert (status, found["problems"]) == (0, [])
    assert published["acked"] >= 25
    assert received["events"] == 20 * published["acked"] == received["judged"]
    assert received["least"] == received["most"] == published["acked"]
    assert received["timed"] == received["events"]
    assert 0 < received["latency_ms"]["p50"] <= received["latency_ms"]["max"]
    assert received["connect_ms"]["p99"] > 0


@pytest.mark.alone
async def test_plain_output(nursery: trio.Nursery) -> None:
    """Without a terminal, progress is lines on standard error and the table is text."""
    served = await ServeProcess.start(nursery, "--log-level", "warning")
    status, out, err = await bench(f"{served.url}/events/a", "-c", "2", "-d", "3")
    assert status == 0
    assert "streams          2 of 2" in out
    # The first line may come before the first stream.
    assert err.splitlines()[-1].startswith("h3trio: 2 opened; 0 events")


@pytest.mark.alone
@pytest.mark.parametrize("size", [1, 7, 10_000])
async def test_chunks_within_events_leave_the_count_alone(size: int) -> None:
    """However a server frames its events, they are counted once each; an end is no error."""
    body = b"".join(b"id: %d\r\ndata: x\r\ndata: y\r\n\r\n" % n for n in range(50))

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(CHUNKED)
        await trio.sleep(1)  # real time, in another process: until its count has begun
        await stream.send_all(in_chunks(body, size))
        await stream.send_all(b"0\r\n\r\n")

    async with answering(serve) as url:
        status, found = await figures(url, "-c", "4", "-d", "2")
    assert (status, found["problems"]) == (0, [])
    assert (found["received"]["events"], found["received"]["ended"]) == (200, 4)
    assert found["notes"][0].startswith("no latencies")


@pytest.mark.alone
async def test_losses_and_repeats_are_errors() -> None:
    """One stream lacks an event, one gets one twice, one breaks: each is said, and status is 1."""
    numbers = iter(([1, 2, 3, 4], [1, 2, 4], [1, 2, 3, 3, 4], [1, 2]))

    async def serve(stream: trio.SocketStream) -> None:
        mine = next(numbers, None)
        if mine is None:
            return
        await stream.send_all(CHUNKED + in_chunks(b"id: a-0\n\n", 99))
        await trio.sleep(1)  # as above
        body = b"".join(b"id: a-%d\ndata: x\n\n" % number for number in mine)
        await stream.send_all(in_chunks(body, 99))
        if len(mine) > 2:
            await trio.sleep(2)

    async with answering(serve) as url:
        status, found = await figures(url, "-c", "4", "-d", "2")
    assert status == 1
    assert (found["received"]["missing"], found["received"]["repeated"]) == (1, 1)
    assert found["received"]["lost"] == {"closed amid the stream": 1}
    assert len(found["problems"]) == 3


@pytest.mark.alone
async def test_refusals_are_counted_by_reason() -> None:
    """Answers that are no streams leave nothing to measure, and that is known at once."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.send_all(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n")

    async with answering(serve) as url:
        status, found = await figures(url, "-c", "3", "-d", "1000")
    assert status == 3
    assert found["problems"] == ["3 not opened: status 503"]


@pytest.mark.alone
async def test_silence_is_given_up() -> None:
    """A server that takes connections and says nothing is left after the time allowed."""

    async def serve(_stream: trio.SocketStream) -> None:
        await trio.sleep_forever()

    async with answering(serve) as url:
        status, found = await figures(url, "-c", "3", "-d", "1000", "--timeout", "0.2")
    assert status == 3
    assert found["problems"] == ["3 not opened: timed out"]


@pytest.mark.alone
async def test_nobody_there() -> None:
    """A port where nobody listens is one line, with its own status."""
    status, out, err = await bench("http://127.0.0.1:1/", "-c", "1")
    assert (status, out) == (3, "")
    assert err == "h3trio: error: can't reach 127.0.0.1 at port 1: Connection refused\n"


@pytest.mark.alone
async def test_interrupt_ends_it_with_its_figures(nursery: trio.Nursery) -> None:
    """What was measured before an interrupt is printed."""
    served = await ServeProcess.start(nursery, "--log-level", "warning")
    argv = [*PROGRAM, f"{served.url}/events/a", "-c", "2", "-d", "1000"]
    process = await trio.lowlevel.open_process(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with trio.fail_after(PATIENCE):
        said = b""
        while b"2 opened" not in said:
            said += await process.stderr.receive_some()
        process.send_signal(signal.SIGINT)
        out = b"".join([bytes(piece) async for piece in process.stdout])
        assert await process.wait() == 0
    assert b"2 of 2" in out
    assert b"note: interrupted" in out


FEW_FILES = """
import resource, sys
from h3trio._cli.main import main
resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
sys.exit(main(["bench", "http://127.0.0.1:1/", "-c", "256"]))
"""


async def test_more_connections_than_open_files() -> None:
    """The limit on open files is named before anything is started."""
    command = [sys.executable, "-c", FEW_FILES]
    done = await trio.run_process(command, capture_stderr=True, check=False)
    assert done.returncode == 2
    assert b"256 open files" in done.stderr
