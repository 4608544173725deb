"""What a handler raises: its own doing is an answer and a log entry, the rest passes through."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
import trio
from helpers import connect, request
from tables import table

from h3trio import CloseReason, H3Event, HTTPError, Settings
from h3trio._server.handler_errors import separate

if TYPE_CHECKING:
    from collections.abc import Callable

    Raise = Callable[[], BaseException]


class Odd(BaseException):
    """Derived from what nobody should derive from."""


def group(*errors: BaseException) -> BaseException:
    """Put errors in a group, as nurseries do."""
    return BaseExceptionGroup("", errors)


BUGS = [
    *(ValueError("x"), SystemExit(3), asyncio.CancelledError(), Odd()),
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


async def test_separate() -> None:
    """What is the handler's own and what passes are told apart inside groups too."""
    bug, interrupt, closed = HTTPError(404), KeyboardInterrupt(), GeneratorExit()
    assert separate(bug, "x", None) == (bug, None)
    assert separate(group(group(bug)), "x", None) == (bug, None)
    assert separate(interrupt, "x", None) == (None, interrupt)
    assert separate(closed, "x", None) == (None, closed)
    own, passing = separate(group(bug, group(interrupt)), "x", None)
    assert own is bug
    assert isinstance(passing, BaseExceptionGroup)
    assert passing.subgroup(KeyboardInterrupt) is not None
    assert passing.subgroup(HTTPError) is None
