"""`EventSource` over real sockets: with our own server, and with servers that misbehave."""

from __future__ import annotations

import contextlib
import runpy
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio
from e2e.process import PATIENCE

from h3trio import App, H3Event, Server, serve
from h3trio.client import EventSource, LostError, State, StateChange, StatusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Handle = Callable[[trio.SocketStream], Awaitable[None]]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


async def peers(nursery: trio.Nursery, *handles: Handle) -> str:
    """Serve each connection by its own function, closing it when that returns; give the address."""
    waiting = list(handles)

    async def accept(stream: trio.SocketStream) -> None:
        async with stream:
            with contextlib.suppress(trio.BrokenResourceError):
                while b"\r\n\r\n" not in await stream.receive_some():
                    pass
                await waiting.pop(0)(stream)

    listeners = await nursery.start(partial(trio.serve_tcp, accept, 0, host="127.0.0.1"))
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"


def sending(data: bytes, *, then: str = "close") -> Handle:
    """Make a server that sends this, and then closes, resets or waits."""

    async def handle(stream: trio.SocketStream) -> None:
        await stream.send_all(data)
        if then == "reset":
            # A linger of no seconds makes the close a reset.
            linger = struct.pack("ii", 1, 0)
            stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, linger)
        elif then == "wait":
            await stream.receive_some()

    return handle


END = sending(b"HTTP/1.1 204 No Content\r\n\r\n")


def test_httpx2_is_imported_late() -> None:
    """The import costs no httpx2; without it an event source says which extra brings it."""
    code = (
        "import sys; sys.modules['httpx2'] = None\n"
        "from h3trio.client import EventSource\n"
        "try: EventSource('http://h/')\n"
        "except ImportError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"h3trio.client needs httpx2: pip install '.[client]'\n"


async def test_our_own_server(nursery: trio.Nursery) -> None:
    """Events, ids and a server's restart, with the server of this package."""
    app = App()

    @app.get("/events")
    async def events(event: H3Event) -> None:
        start = int(event.last_event_id or 0)
        async with event.start_sse() as writer:
            for n in range(start + 1, start + 4):
                await writer.send(str(n), id=str(n), retry=1)

    server: Server = await nursery.start(partial(serve, app, port=0))
    changes: list[StateChange] = []
    with trio.fail_after(PATIENCE):
        async with EventSource(
            f"{server.addresses[0]}/events", on_state_change=changes.append
        ) as source:
            got = [await source.receive() for _ in range(8)]
    assert [event.data for event in got] == [str(n) for n in range(1, 9)]
    assert source.last_event_id == "8"
    assert changes[-1].state is State.CLOSED
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    "first",
    [
        sending(CHUNKED + b"f\r\nid: 1\ndata: 1\n\n\r\n8\r\nid: 2"),
        sending(CHUNKED + b"f\r\nid: 1\ndata: 1\n\n\r\nnonsense\r\n", then="wait"),
        sending(HEAD + b"\r\nid: 1\ndata: 1\n\nid: 2\ndat", then="reset"),
        sending(HEAD + b"Content-Length: 999\r\n\r\nid: 1\ndata: 1\n\nid: 2\nda"),
        sending(HEAD + b"\r\nid: 1\ndata: 1\n\nid: 2\ndata", then="wait"),
    ],
    ids=["cut", "garbage chunking", "reset", "too short", "stall"],
)
async def test_streams_that_break(nursery: trio.Nursery, first: Handle) -> None:
    """However a stream breaks, what follows is asked for, and no event is lost or torn."""
    again = sending(HEAD + b"\r\nid: 2\ndata: 2\n\n")
    url = await peers(nursery, first, again, END)
    with trio.fail_after(PATIENCE):
        async with EventSource(url, read_timeout=0.5, reconnect_delay=0.1) as source:
            got = [(event.id, event.data) async for event in source]
    assert got == [("1", "1"), ("2", "2")]
    nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (HEAD + b"X: " + b"x" * 200_000 + b"\r\n\r\n", "the connection was lost: "),
        (b"\x16\x03\x01 what is this\r\n\r\n", "the connection was lost: "),
        (b"", "the connection was lost: Server disconnected"),
    ],
    ids=["huge header", "no HTTP", "nothing"],
)
async def test_answers_that_are_none(nursery: trio.Nursery, data: bytes, message: str) -> None:
    """What is no HTTP, or too much of it, is a loss."""
    url = await peers(nursery, sending(data))
    source = EventSource(url, reconnect=False)
    with pytest.raises(LostError, match=message):
        async with source:
            await source.receive()
    nursery.cancel_scope.cancel()


async def test_nobody_listens() -> None:
    """A port where nobody listens is a loss that says so."""
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    source = EventSource(f"http://127.0.0.1:{port}/", reconnect=False)
    with pytest.raises(LostError, match=r"can't reach .*: Connection refused") as caught:
        async with source:
            await source.receive()
    assert not caught.value.connected


async def test_own_client_is_left_open(nursery: trio.Nursery) -> None:
    """A client that was given is used and not closed; a busy pool is not waited for for ever."""
    wait = sending(HEAD + b"\r\ndata: 1\n\n", then="wait")
    url = await peers(nursery, wait, sending(b"HTTP/1.1 404 No\r\n\r\nno"))
    async with httpx2.AsyncClient(limits=httpx2.Limits(max_connections=1)) as client:
        async with EventSource(url, http_client=client) as source:
            assert (await source.receive()).data == "1"
            second = EventSource(url, http_client=client, connect_timeout=0.1, reconnect=False)
            with pytest.raises(LostError, match="can't reach"):
                async with second:
                    await second.receive()
        third = EventSource(url, http_client=client)
        with pytest.raises(StatusError, match="404: no"):
            async with third:
                await third.receive()
        assert not client.is_closed
    nursery.cancel_scope.cancel()


async def test_tail_events_goes_on_where_it_was(nursery: trio.Nursery, tmp_path: Path) -> None:
    """The example prints what comes, and started again asks for what follows."""
    heads: list[bytes] = []

    async def accept(stream: trio.SocketStream) -> None:
        async with stream:
            heads.append(bytes(await stream.receive_some()))
            if b"last-event-id: 2" in heads[-1].lower():
                await stream.send_all(b"HTTP/1.1 204 No Content\r\n\r\n")
            else:
                await stream.send_all(HEAD + b"\r\nretry: 1\nid: 2\ndata: two\n\n")

    listeners = await nursery.start(partial(trio.serve_tcp, accept, 0, host="127.0.0.1"))
    url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
    program = Path(__file__).parents[2] / "examples" / "tail_events.py"
    with trio.fail_after(PATIENCE):
        for printed in (b"two\n", b""):
            done = await trio.run_process(
                [sys.executable, str(program), url],
                capture_stdout=True,
                capture_stderr=True,
                cwd=tmp_path,
            )
            assert done.stdout == printed
    assert b"the server ended the stream; again in" not in done.stderr
    assert len(heads) == 3
    nursery.cancel_scope.cancel()


async def test_tail_events_asks_a_model(
    nursery: trio.Nursery, capsys: pytest.CaptureFixture[str]
) -> None:
    """The example's prompt goes out once, with its token, and the answer is printed."""
    program = Path(__file__).parents[2] / "examples" / "tail_events.py"
    ask = runpy.run_path(str(program))["ask"]
    url = await peers(nursery, sending(HEAD + b"Content-Length: 13\r\n\r\ndata: hello\n\n"))
    with trio.fail_after(PATIENCE):
        await ask(url, b"{}", "token")
    assert capsys.readouterr().out == "hello\n"
    nursery.cancel_scope.cancel()
