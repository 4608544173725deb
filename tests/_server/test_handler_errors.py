"""What a handler raises: its own doing is an answer and a log entry, the rest passes through."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from helpers import MemoryListener, connect, kept_cancelled, request
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import App, CloseReason, H3Event, HTTPError, Settings, serve
from h3trio._server.handler_errors import separate

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio import Closing, SSEWriter
    from h3trio._app.app import Next

    Raise = Callable[[], BaseException]


class Odd(BaseException):
    """Derived from what nobody should derive from."""


def group(*errors: BaseException) -> BaseException:
    """Put errors in a group, as nurseries do."""
    return BaseExceptionGroup("", errors)


BUGS = [
    *(ValueError("x"), SystemExit(3), asyncio.CancelledError(), Odd(), GeneratorExit()),
    *(group(GeneratorExit()), group(GeneratorExit(), KeyError("x"))),
    *(group(ValueError("x")), group(ValueError("x"), KeyError("y")), group(group(Odd()))),
    group(SystemExit(1), ValueError("x")),
]


@pytest.mark.parametrize("bug", BUGS)
async def test_a_bug_is_contained(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, bug: BaseException
) -> None:
    """Whatever a handler raises is a 500, logged with its task; the connection serves on."""

    async def handler(event: H3Event) -> str:
        if event.path == "/bug":
            raise bug
        return "fine"

    client = connect(nursery, handler)
    await client.send(request("/bug"))
    assert (await client.response())[0].status == 500
    await client.send(request("/"))
    assert (await client.response())[1] == b"fine"
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    # Formatted when it was logged: the event's state has changed since.
    assert (
        "<H3Event: GET '/bug' from memory, new>: the handler raised, "
        "in task 'h3trio handler for memory'"
    ) in caplog.text
    assert record.exc_info
    assert client.state.counts.closings[CloseReason.HANDLER_ERROR] == 1
    nursery.cancel_scope.cancel()


@table("bug", BUGS)
async def test_a_bug_in_a_stream(nursery: trio.Nursery, bug: BaseException) -> None:
    """A stream that fails ends without its last chunk, whatever was raised."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("hi")
            raise bug

    client = connect(nursery, handler, settings=Settings(linger_timeout=0))
    await client.send(request())
    await client.head()
    assert (await client.event()).data == "hi"
    with pytest.raises(EOFError):
        await client.chunk()
    await client.finished.wait()
    assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}


@pytest.mark.parametrize("wrap", [lambda error: error, group], ids=["bare", "in a group"])
async def test_ctrl_c_passes(
    caplog: pytest.LogCaptureFixture, wrap: Callable[[BaseException], BaseException]
) -> None:
    """`KeyboardInterrupt` ends what is around the server, and the log says where it struck."""

    async def handler(_event: H3Event) -> None:
        raise wrap(KeyboardInterrupt())

    async def serving() -> None:
        async with trio.open_nursery() as nursery:
            client = connect(nursery, handler)
            await client.send(request())
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await serving()
    assert caught.value.subgroup(KeyboardInterrupt) is not None
    assert "KeyboardInterrupt, in task 'h3trio handler for memory'" in caplog.text


async def test_a_bug_while_cancelled(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug on the way out of a cancellation is logged, and the cancellation goes its way."""

    async def child() -> None:
        try:
            await trio.sleep_forever()
        finally:
            raise ValueError("clean-up")

    async def handler(event: H3Event) -> None:
        async with event.start_sse(), trio.open_nursery() as inner:
            inner.start_soon(child)
            await trio.sleep_forever()

    client = connect(nursery, handler)
    await client.send(request())
    await client.head()
    await client.stream.aclose()
    await client.finished.wait()
    assert "clean-up" in caplog.text
    assert client.state.counts.closings == {CloseReason.CLIENT_CLOSED: 1}


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("where", ["callback", "on_close", "on_head", "on_head of an error"])
async def test_a_bug_in_what_a_handler_leaves_behind(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, *, bug: BaseException, where: str
) -> None:
    """A callback or a hook that raises anything hurts its own exchange, and is logged."""

    def hook(_given: object) -> None:
        raise bug

    async def callback(_writer: SSEWriter) -> None:
        raise bug

    async def handler(event: H3Event) -> str | None:
        if event.path == "/":
            return "fine"
        if where == "callback":
            event.start_sse()
            event.set_stream_callback(callback)
            return None
        (event.on_close if where == "on_close" else event.on_head)(hook)
        if where == "on_head of an error":
            raise HTTPError(404)
        return "left a hook"

    client = connect(nursery, handler, settings=Settings(linger_timeout=0))
    await client.send(request("/bug"))
    if where == "callback":
        await client.head()
        await client.rest()
    else:
        assert (await client.response())[0].status == (200 if where == "on_close" else 500)
    await wait_all_tasks_blocked()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    if where != "callback":
        await client.send(request("/"))
        assert (await client.response())[1] == b"fine"
    nursery.cancel_scope.cancel()


@table("raised", ["in the handler", "in a group", "in a stream", "in middleware"])
async def test_a_cancellation_of_another_task(raised: str) -> None:
    """A `Cancelled` that was kept from elsewhere and raised again is a bug like any other."""
    app = App()

    async def raise_it() -> None:
        kept = await kept_cancelled()
        raise group(kept) if raised == "in a group" else kept

    @app.use
    async def middleware(_event: H3Event, following: Next) -> object:
        if raised == "in middleware":
            await raise_it()
        return await following()

    @app.get("/")
    async def handler(event: H3Event) -> None:
        if raised != "in a stream":
            await raise_it()
        async with event.start_sse():
            await raise_it()

    async with trio.open_nursery() as nursery:
        client = connect(nursery, app, settings=Settings(linger_timeout=0))
        await client.send(request("/", "Connection: close"))
        assert (await client.head()).status == (200 if raised == "in a stream" else 500)
        await client.finished.wait()
        assert client.state.counts.closings == {CloseReason.HANDLER_ERROR: 1}
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("bug", [GeneratorExit(), SystemExit(1), Odd(), group(Odd())])
async def test_a_server_outlives_its_requests(nursery: trio.Nursery, bug: BaseException) -> None:
    """Whatever one request raises, and wherever, the server takes the next connection."""

    async def handler(event: H3Event) -> str:
        def hook(_closing: Closing) -> None:
            raise bug

        if event.path == "/hook":
            event.on_close(hook)
        elif event.path != "/":
            raise bug
        return "fine"

    listener = MemoryListener()
    await nursery.start(partial(serve, handler, listeners=[listener]))
    for path in ("/bug", "/hook", "/"):
        stream = await listener.connect()
        await stream.send_all(request(path, "Connection: close"))
        answer = b"".join([bytes(data) async for data in stream])
        assert answer.startswith(b"HTTP/1.1 500" if path == "/bug" else b"HTTP/1.1 200")
        await stream.aclose()
    nursery.cancel_scope.cancel()


async def test_separate() -> None:
    """What is the handler's own and what passes are told apart inside groups too."""
    task = trio.lowlevel.current_task()
    bug, interrupt, closed = HTTPError(404), KeyboardInterrupt(), GeneratorExit()
    assert separate(bug, "x", task) == (bug, None)
    assert separate(group(group(bug)), "x", task) == (bug, None)
    assert separate(interrupt, "x", task) == (None, interrupt)
    assert separate(closed, "x", task) == (closed, None)
    assert separate(closed, "x", None) == (None, closed)
    own, passing = separate(group(bug, group(interrupt)), "x", task)
    assert own is bug
    assert isinstance(passing, BaseExceptionGroup)
    assert passing.subgroup(KeyboardInterrupt) is not None
    assert passing.subgroup(HTTPError) is None
