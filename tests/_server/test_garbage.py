"""What is over is freed at once: no circle of references waits for the garbage collector.

The collector runs when it likes, and a server whose closed connections wait for it holds memory
that nobody counted. So it is off here, and what a connection leaves behind is counted.
"""

from __future__ import annotations

import gc
import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest
import trio
from helpers import connection_of, post, request
from trio.testing import memory_stream_pair, wait_all_tasks_blocked

from h3trio import App, H3Event, HTTPError, Settings
from h3trio._server.sockets.transport import StreamTransport
from h3trio._server.state import ServerState
from h3trio.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

CHUNKED: Final = ("Transfer-Encoding: chunked",)


@contextmanager
def no_collector() -> Generator[Callable[[], Counter[str]]]:
    """Give a function that counts what of h3trio was made inside and is there, by its type."""

    def left() -> Counter[str]:
        kinds = (type(thing) for thing in gc.get_objects())
        return Counter(kind.__qualname__ for kind in kinds if kind.__module__.startswith("h3trio"))

    gc.collect()
    gc.freeze()  # what was there before isn't looked at
    gc.disable()
    try:
        yield left
    finally:
        gc.enable()
        gc.unfreeze()


def make_app(hub: Hub) -> App:
    """Make an app whose handlers end in each way there is."""
    app = App()

    @app.get("/plain")
    async def plain(event: H3Event) -> str:
        return event.path

    @app.post("/body")
    async def body(event: H3Event) -> bytes:
        return await event.body()

    @app.get("/failing")
    async def failing(event: H3Event) -> None:
        raise HTTPError(404, event.path)

    @app.get("/stream")
    async def stream(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("hi")
            await trio.sleep_forever()

    @app.get("/ended")
    async def ended(event: H3Event) -> None:
        async with event.start_sse():
            event.end()
            await trio.sleep_forever()

    @app.get("/callback")
    async def callback(event: H3Event) -> None:
        event.start_sse()
        event.set_stream_callback(lambda writer: writer.send(event.path))

    @app.get("/failing-stream")
    async def failing_stream(event: H3Event) -> None:
        async with event.start_sse():
            raise HTTPError(404, event.path)

    @app.get("/hub")
    async def subscribe(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await hub.subscribe(writer, ["news"])

    return app


# What clients send before they leave.
SENT: Final = (
    b"",
    b"GET / HT",
    b"no request\r\n\r\n",
    request("/%zz"),
    request("/%ff"),
    request("http://"),
    request("/plain"),
    request("/plain") * 3,
    request("/plain", "Connection: close"),
    request("/nowhere"),
    request("/failing"),
    post(b"abc", "/body"),
    post(b"abc", "/body", "Expect: 100-continue"),
    post(b"abc", "/body")[:-1],
    request("/body", *CHUNKED, method="POST") + b"no chunk\r\n",
    request("/body", *CHUNKED, method="POST") + b"3\r\nab",
    request("/stream"),
    request("/stream", method="HEAD"),
    request("/stream", version="1.0"),
    request("/stream") + b"x" * 100_000,
    request("/ended"),
    request("/callback"),
    request("/failing-stream"),
    request("/hub"),
)


@pytest.mark.slow
@pytest.mark.parametrize("leave", ["close", "half-close"])
async def test_a_closed_connection_leaves_nothing_behind(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, *, leave: str
) -> None:
    """Whatever became of its requests, nothing of a connection is left when it is closed."""
    caplog.set_level(logging.CRITICAL, "h3trio.server")  # it keeps the errors that are logged
    async with Hub() as hub:
        state = ServerState(Settings(linger_timeout=0))
        app = make_app(hub)
        nursery.start_soon(state.heartbeat.run)
        await wait_all_tasks_blocked()
        with no_collector() as left:
            for sent in SENT:
                await talk(app, state, sent, leave)
                assert not left(), sent[:50]
    nursery.cancel_scope.cancel()


async def talk(app: App, state: ServerState, sent: bytes, leave: str) -> None:
    """Send something on a connection of its own, and leave."""
    async with trio.open_nursery() as nursery:
        ours, theirs = memory_stream_pair()
        connection = connection_of(StreamTransport(ours), app, state)
        nursery.start_soon(connection.run)
        await theirs.send_all(sent)
        await wait_all_tasks_blocked()
        if leave == "close":
            await theirs.aclose()
        else:
            await theirs.send_eof()


async def test_requests_of_one_connection_leave_nothing_behind(nursery: trio.Nursery) -> None:
    """A connection that stays doesn't keep the requests that it had."""
    async with Hub() as hub:
        state = ServerState(Settings())
        ours, theirs = memory_stream_pair()
        connection = connection_of(StreamTransport(ours), make_app(hub), state)
        nursery.start_soon(connection.run)
        await wait_all_tasks_blocked()
        with no_collector() as left:
            for sent in (request("/plain"), request("/failing"), post(b"abc", "/body")):
                await theirs.send_all(sent)
                assert await theirs.receive_some()
                await wait_all_tasks_blocked()
            assert not left()
    nursery.cancel_scope.cancel()


async def test_a_subscription_in_code_leaves_nothing_behind(nursery: trio.Nursery) -> None:
    """A channel of a hub that was closed is gone, with its subscription."""
    async with Hub() as hub:
        await hub.publish("kept", topics=["news"])
        with no_collector() as left:
            async with hub.subscription(["news"], first="oldest") as events:
                await events.receive()
            await wait_all_tasks_blocked()
            del events
            assert not left()
    nursery.cancel_scope.cancel()


async def test_an_event_outlives_its_connection(nursery: trio.Nursery) -> None:
    """What a request says can be asked when all is over; what would change it does nothing."""
    events: list[H3Event] = []

    async def handler(event: H3Event) -> None:
        async with event.start_sse():
            events.append(event)

    state = ServerState(Settings(max_body_bytes=3))
    ours, theirs = memory_stream_pair()
    nursery.start_soon(connection_of(StreamTransport(ours), handler, state).run)
    await theirs.send_all(request("/path"))
    await theirs.send_eof()
    while await theirs.receive_some():
        pass
    (event,) = events
    assert event.path == "/path"
    assert event.draining is state.draining
    assert await event.body() == b""
    event.end()
    with pytest.raises(RuntimeError, match="can't start a stream: closed already"):
        event.start_sse()
