"""A request body between the reader that feeds it and the handler that takes it."""

from __future__ import annotations

import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from h3trio import HTTPError
from h3trio._server.body import BodyBuffer
from h3trio._server.body_stream import BodyStream


class Reader:
    """A body of up to ten buffered bytes, with its two sides."""

    def __init__(self) -> None:
        self.body = BodyBuffer(10)
        self.stream = BodyStream(self.body, None)


async def test_receive_some() -> None:
    """What is there is given at once, in pieces of the size asked for; then comes the end."""
    reader = Reader()
    reader.body.feed(b"abc")
    reader.body.feed(b"def")
    reader.body.feed_eof()
    with assert_no_checkpoints():
        assert await reader.stream.receive_some(2) == b"ab"
        assert await reader.stream.receive_some() == b"cdef"
        assert await reader.stream.receive_some() == b""
        assert await reader.stream.receive_some() == b""


@pytest.mark.parametrize("size", [0, -1])
async def test_receive_nothing(size: int) -> None:
    """Asking for less than one byte is an error."""
    with pytest.raises(ValueError, match="max_bytes"):
        await Reader().stream.receive_some(size)


async def test_iterate(nursery: trio.Nursery) -> None:
    """A body is a stream: iterate it, and wait for what comes."""
    reader, pieces = Reader(), list[bytes]()

    async def take() -> None:
        pieces.extend([bytes(piece) async for piece in reader.stream])
        pieces.append(b"end")

    nursery.start_soon(take)
    for piece in (b"abc", b"def"):
        await wait_all_tasks_blocked()
        reader.body.feed(piece)
    await wait_all_tasks_blocked()
    reader.body.feed_eof()
    await wait_all_tasks_blocked()
    assert pieces == [b"abc", b"def", b"end"]


async def test_full(nursery: trio.Nursery) -> None:
    """At its bound a body is full, and its reader waits until something is taken."""
    reader, went_on = Reader(), list[bool]()

    async def wait() -> None:
        while reader.body.is_full:
            await reader.body.room()
        went_on.append(True)

    reader.body.feed(b"123456789")
    assert not reader.body.is_full
    reader.body.feed(b"0")
    assert reader.body.is_full
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert not went_on
    await reader.stream.receive_some(1)
    await wait_all_tasks_blocked()
    assert went_on


@pytest.mark.parametrize(("limit", "content"), [(6, b"abcdef"), (5, None)])
async def test_read(nursery: trio.Nursery, limit: int, content: bytes | None) -> None:
    """The whole body is read up to a bound, beyond which there is none."""
    reader, read = Reader(), list[bytes | None]()

    async def take() -> None:
        read.append(await reader.stream.read(limit))

    nursery.start_soon(take)
    for piece in (b"abc", b"def"):
        await wait_all_tasks_blocked()
        reader.body.feed(piece)
    reader.body.feed_eof()
    await wait_all_tasks_blocked()
    assert read == [content]


async def test_fail() -> None:
    """After a failure what came before it is still given, then the error, each time."""
    reader = Reader()
    reader.body.feed(b"abc")
    reader.body.fail(HTTPError(408))
    assert await reader.stream.receive_some() == b"abc"
    for _ in range(2):
        with pytest.raises(HTTPError, match="408"):
            await reader.stream.receive_some()


async def test_fail_wakes(nursery: trio.Nursery) -> None:
    """Whoever waits for more hears of a failure."""
    reader, heard = Reader(), list[int]()

    async def take() -> None:
        with pytest.raises(HTTPError) as caught:
            await reader.stream.receive_some()
        heard.append(caught.value.status)

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    reader.body.fail(HTTPError(400))
    await wait_all_tasks_blocked()
    assert heard == [400]


@pytest.mark.parametrize("complete", [False, True])
async def test_aclose(*, complete: bool) -> None:
    """A closed body drops what it holds and what still comes, and can't be read."""
    reader = Reader()
    reader.body.feed(b"1234567890")
    if complete:
        reader.body.feed_eof()
    await reader.stream.aclose()
    reader.body.feed(b"more")
    assert not reader.body.is_full
    assert reader.body.discarded == 14
    with pytest.raises(trio.ClosedResourceError):
        await reader.stream.receive_some()
    await reader.stream.aclose()


async def test_aclose_wakes(nursery: trio.Nursery) -> None:
    """Whoever waits for more hears that another task closed the body."""
    reader, heard = Reader(), list[str]()

    async def take() -> None:
        with pytest.raises(trio.ClosedResourceError):
            await reader.stream.receive_some()
        heard.append("closed")

    nursery.start_soon(take)
    await wait_all_tasks_blocked()
    await reader.stream.aclose()
    await wait_all_tasks_blocked()
    assert heard == ["closed"]


@pytest.mark.parametrize(
    ("pieces", "fails", "discarded"),
    [([b""], False, True), ([b"x" * 5, b"y" * 6], False, False), ([b"x"], True, False)],
)
async def test_wait_discarded(
    nursery: trio.Nursery, pieces: list[bytes], *, fails: bool, discarded: bool
) -> None:
    """Discarding goes on to the body's end, its bound, or its failure."""
    reader, result = Reader(), list[bool]()

    async def wait() -> None:
        result.append(await reader.body.wait_discarded(10))

    reader.body.feed(b"")
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert result == []
    for piece in pieces:
        reader.body.feed(piece)
        await wait_all_tasks_blocked()
    if fails:
        reader.body.fail(HTTPError(408))
    else:
        reader.body.feed_eof()
    await wait_all_tasks_blocked()
    assert result == [discarded]


def test_repr() -> None:
    """Its repr says how far it has come."""
    reader = Reader()
    reader.body.feed(b"abc")
    assert repr(reader.body) == "<BodyBuffer: open, 3 bytes>"
    reader.body.feed_eof()
    assert repr(reader.body) == "<BodyBuffer: complete, 3 bytes>"
