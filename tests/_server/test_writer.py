"""`SSEWriter`: what a handler sends is what the client reads, and each way it can end."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest
import trio
from fakes import FakeTransport, exchange_scope
from helpers import connect, request
from hypothesis import given
from hypothesis import strategies as st
from tables import table
from trio.testing import assert_checkpoints, lockstep_stream_pair, wait_all_tasks_blocked

from h3trio import Settings, SSEEvent, SSEParser, SSEWriter
from h3trio._server.send_queue import SendQueue
from h3trio._server.writer import _frame
from h3trio._wire.batch import Batch

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from h3trio import H3Event
    from h3trio._wire.batch import FrameSink


class Stream:
    """A writer over a fake transport, without HTTP around it."""

    def __init__(
        self, nursery: trio.Nursery, *, room: int | None = None, events: int = 256
    ) -> None:
        self.transport = FakeTransport(room=room)
        self.exchange = exchange_scope()
        queue = SendQueue(
            self.transport,
            chunked=False,
            settings=Settings(queue_events=events),
            nursery=nursery,
            scope=self.exchange,
        )
        self.writer = SSEWriter(queue)

    async def sent(self) -> str:
        """Return all that was sent once nothing moves any more."""
        await wait_all_tasks_blocked()
        return self.transport.sent.decode()

    async def data(self) -> list[str | None]:
        """Return the data of the events that were sent."""
        return [event.data for event in SSEParser().feed((await self.sent()).encode())]


# -- what is sent


async def test_send(nursery: trio.Nursery) -> None:
    """Data with fields, and ready events, are sent as the standard writes them."""
    stream = Stream(nursery)
    with assert_checkpoints():
        await stream.writer.send("a\nb", event="note", id="1", retry=5)
    await stream.writer.send(SSEEvent("ready", id="2"))
    await stream.writer.send_event(SSEEvent(id="3"))
    stream.writer.send_nowait("now", event="e", id="4", retry=0)
    stream.writer.send_nowait(SSEEvent("now", id="5"))
    await stream.writer.send("")
    assert await stream.sent() == (
        "event: note\nid: 1\nretry: 5\ndata: a\ndata: b\n\n"
        "id: 2\ndata: ready\n\n"
        "id: 3\n\n"
        "event: e\nid: 4\nretry: 0\ndata: now\n\n"
        "id: 5\ndata: now\n\n"
        "data: \n\n"
    )


async def test_send_json(nursery: trio.Nursery) -> None:
    """An object is sent as compact JSON, in the letters of its language."""
    stream = Stream(nursery)
    with assert_checkpoints():
        await stream.writer.send_json({"a": [1, None], "b": "ä\n"}, event="e", id="1", retry=2)
    assert await stream.sent() == ('event: e\nid: 1\nretry: 2\ndata: {"a":[1,null],"b":"ä\\n"}\n\n')


async def test_json_is_one_line_for_every_reader(nursery: trio.Nursery) -> None:
    """NEL and the separators of Unicode are escaped: clients that split text there lose nothing."""
    value = {"t": "a\x85b\u2028c\u2029d ✅"}
    stream = Stream(nursery)
    await stream.writer.send_json(value)
    (data,) = await stream.data()
    assert len(f"{data}.".splitlines()) == 1
    assert json.loads(data or "") == value


@table(
    "obj, error",
    [
        (object(), TypeError),
        ({1, 2}, TypeError),
        (float("nan"), ValueError),
        ("\ud800", ValueError),
    ],
)
async def test_send_json_of_what_is_none(
    nursery: trio.Nursery, obj: object, error: type[Exception]
) -> None:
    """What has no JSON form is an error, and nothing is sent."""
    stream = Stream(nursery)
    with pytest.raises(error):
        await stream.writer.send_json(obj)
    assert await stream.sent() == ""
    assert stream.writer.is_active


async def test_send_comment(nursery: trio.Nursery) -> None:
    """A comment may have lines, or nothing in it."""
    stream = Stream(nursery)
    with assert_checkpoints():
        await stream.writer.send_comment()
    await stream.writer.send_comment("one\r\ntwo")
    assert await stream.sent() == ":\n: one\n: two\n"


@table("fields", [{"event": "a\nb"}, {"id": "a\rb"}, {"id": "a\0b"}, {"retry": -1}])
async def test_what_cannot_be_framed(nursery: trio.Nursery, fields: dict[str, Any]) -> None:
    """A field that would break the stream is an error, and nothing is sent."""
    stream = Stream(nursery)
    (name,) = fields
    with pytest.raises(ValueError, match=name):
        await stream.writer.send("x", **fields)
    with pytest.raises(ValueError, match=name):
        stream.writer.send_nowait("x", **fields)
    with pytest.raises(ValueError, match=name):
        await stream.writer.send_json("x", **fields)
    assert await stream.sent() == ""


@pytest.mark.parametrize("fields", [{"event": "e"}, {"id": "1"}, {"retry": 1}])
async def test_an_event_with_fields_besides(nursery: trio.Nursery, fields: dict[str, Any]) -> None:
    """A ready event has its own fields; others beside it are an error, not ignored."""
    stream = Stream(nursery)
    with pytest.raises(TypeError, match="its own"):
        await stream.writer.send(SSEEvent("x"), **fields)
    with pytest.raises(TypeError, match="its own"):
        stream.writer.send_nowait(SSEEvent("x"), **fields)
    assert await stream.sent() == ""


async def test_several_senders(nursery: trio.Nursery) -> None:
    """Events of several tasks never interleave, and each task's come in its order."""
    stream = Stream(nursery, room=0, events=4)

    async def sender(name: str) -> None:
        for number in range(20):
            await stream.writer.send(f"{name}{number}\n" * 3)

    async with trio.open_nursery() as senders:
        for name in "abc":
            senders.start_soon(sender, name)
        while senders.child_tasks:
            stream.transport.change(room=7)
            await wait_all_tasks_blocked()
    stream.transport.change(room=None)
    data = await stream.data()
    assert len(data) == 60
    for name in "abc":
        own = [item for item in data if item and item.startswith(name)]
        assert own == [f"{name}{n}\n{name}{n}\n{name}{n}\n" for n in range(20)]


async def test_nowait_when_full(nursery: trio.Nursery) -> None:
    """Without room `send_nowait` raises WouldBlock and `send` waits."""
    stream = Stream(nursery, room=0, events=1)
    await stream.writer.send("1")
    stream.writer.send_nowait("2")
    with pytest.raises(trio.WouldBlock):
        stream.writer.send_nowait("3")
    with trio.move_on_after(0) as scope:
        await stream.writer.send("3")
    assert scope.cancelled_caught
    stream.transport.change(room=None)
    assert await stream.data() == ["1", "2"]


# -- from a source


class Source:
    """Values, from generators, and whether those were closed."""

    def __init__(self, values: list[Any], error: Exception | None = None) -> None:
        self.closings: list[str] = []
        self.values = values
        self.error = error

    async def generate(self) -> AsyncIterator[Any]:
        """Give the values."""
        try:
            for value in self.values:
                yield value
                await trio.lowlevel.checkpoint()
            if self.error is not None:
                raise self.error
        finally:
            self.closings.append("closed")

    def __aiter__(self) -> AsyncIterator[Any]:
        return self.generate()


@pytest.fixture(params=["generator", "iterable"])
def as_is(request: pytest.FixtureRequest) -> bool:
    """Tell whether to pass a generator itself, or something that makes one."""
    return bool(request.param == "generator")


def form(source: Source, *, as_is: bool) -> Any:  # noqa: ANN401 - because it is either of two
    """Return the generator, or what makes one."""
    return source.generate() if as_is else source


async def test_send_from(nursery: trio.Nursery, *, as_is: bool) -> None:
    """Everything a source gives is sent, however full the queue, and the source is closed."""
    stream, source = Stream(nursery, room=0, events=2), Source(["1", SSEEvent("2"), *"345678"])
    async with trio.open_nursery() as sending:
        sending.start_soon(stream.writer.send_from, form(source, as_is=as_is))
        await wait_all_tasks_blocked()
        assert source.closings == []
        stream.transport.change(room=None)
    assert await stream.data() == list("12345678")
    assert source.closings == ["closed"]


async def test_send_from_nothing(nursery: trio.Nursery) -> None:
    """An empty source is a checkpoint."""
    with assert_checkpoints():
        await Stream(nursery).writer.send_from(Source([]))


@table("bad", [3, "\ud800", b"\xff"])
async def test_send_from_a_source_with_a_bad_value(
    nursery: trio.Nursery, bad: object, *, as_is: bool
) -> None:
    """A value that is no event is an error; the source is closed."""
    stream, source = Stream(nursery), Source(["1", bad, "2"])
    with pytest.raises((TypeError, ValueError)):
        await stream.writer.send_from(form(source, as_is=as_is))
    assert await stream.data() == ["1"]
    assert source.closings == ["closed"]


async def test_send_from_a_source_that_fails(nursery: trio.Nursery, *, as_is: bool) -> None:
    """A source's own error comes through; what it gave before is sent."""
    stream, source = Stream(nursery), Source(["1"], KeyError("source"))
    with pytest.raises(KeyError, match="source"):
        await stream.writer.send_from(form(source, as_is=as_is))
    assert await stream.data() == ["1"]
    assert source.closings == ["closed"]


async def test_send_from_is_cancelled(nursery: trio.Nursery, *, as_is: bool) -> None:
    """A cancelled `send_from` closes its source, and what was accepted is sent."""
    stream, source = Stream(nursery, room=0, events=1), Source(list("12345"))
    with trio.CancelScope() as scope:
        nursery.start_soon(cancel_later, scope)
        await stream.writer.send_from(form(source, as_is=as_is))
    assert scope.cancelled_caught
    assert source.closings == ["closed"]
    stream.transport.change(room=None)
    # One is in the queue, and one or two are on their way: that is up to whose turn came first.
    assert await stream.data() in (["1", "2"], ["1", "2", "3"])


async def cancel_later(scope: trio.CancelScope) -> None:
    """Cancel once everybody waits."""
    await wait_all_tasks_blocked()
    scope.cancel()


async def test_send_from_in_a_cancelled_scope(nursery: trio.Nursery) -> None:
    """A source that never got its turn is closed too."""
    stream, source = Stream(nursery), Source(["1"])
    generator = source.generate()
    with trio.CancelScope() as scope:
        scope.cancel()
        await stream.writer.send_from(generator)
    assert await stream.sent() == ""
    with pytest.raises(StopAsyncIteration):
        await anext(generator)


@table("gone", [True, False])
async def test_send_from_to_nobody(nursery: trio.Nursery, *, as_is: bool, gone: bool) -> None:
    """Where the client is gone, or the stream closed, the source is closed and the error tells."""
    stream, source = Stream(nursery), Source(["1", "2", "3"])
    if gone:
        stream.transport.change(broken=True)
    else:
        await stream.writer.aclose()
    with pytest.raises(trio.BrokenResourceError if gone else trio.ClosedResourceError):
        await stream.writer.send_from(form(source, as_is=as_is))
    assert source.closings == ["closed"]


class Counter:
    """An iterator that needs no closing."""

    def __init__(self) -> None:
        self.count = 0

    def __aiter__(self) -> Counter:
        return self

    async def __anext__(self) -> str:
        self.count += 1
        if self.count > 3:
            raise StopAsyncIteration
        return str(self.count)


async def test_send_from_what_has_no_aclose(nursery: trio.Nursery) -> None:
    """Any async iterable will do."""
    stream = Stream(nursery)
    await stream.writer.send_from(Counter())
    assert await stream.data() == ["1", "2", "3"]


async def test_send_from_a_channel(nursery: trio.Nursery) -> None:
    """A memory channel is a source, and its sender learns that it was closed."""
    stream = Stream(nursery)
    send, receive = trio.open_memory_channel[str | SSEEvent](5)
    send.send_nowait("1")
    send.send_nowait("2")
    await send.aclose()
    await stream.writer.send_from(receive)
    assert await stream.data() == ["1", "2"]
    assert receive.statistics().open_receive_channels == 0


# -- the end


async def test_aclose(nursery: trio.Nursery) -> None:
    """After `aclose` sends are errors; closing again, or at once from several tasks, is none."""
    stream = Stream(nursery, room=0)
    await stream.writer.send("1")
    assert stream.writer.is_active
    async with trio.open_nursery() as closing:
        for _ in range(3):
            closing.start_soon(stream.writer.aclose)
        await wait_all_tasks_blocked()
        assert not stream.writer.is_active
        stream.transport.change(room=None)
    with assert_checkpoints():
        await stream.writer.aclose()
    for send in (stream.writer.send("x"), stream.writer.send_json(1), stream.writer.send_comment()):
        with pytest.raises(trio.ClosedResourceError):
            await send
    with pytest.raises(trio.ClosedResourceError):
        stream.writer.send_nowait("x")
    with pytest.raises(trio.ClosedResourceError):
        await stream.writer.flush()
    assert await stream.data() == ["1"]


async def test_writer_as_a_resource(nursery: trio.Nursery) -> None:
    """A writer is a Trio channel, closed by leaving its block."""
    stream = Stream(nursery)
    assert isinstance(stream.writer, trio.abc.SendChannel)
    async with stream.writer as writer:
        await writer.send("1")
    assert not writer.is_active
    assert writer.statistics().state == "ended"


async def test_client_gone(nursery: trio.Nursery) -> None:
    """Once the client is gone sends are broken, and `aclose` is still none of an error."""
    stream = Stream(nursery)
    stream.transport.change(broken=True)
    with pytest.raises(trio.BrokenResourceError):
        await stream.writer.send("1")
    assert not stream.writer.is_active
    for send in (stream.writer.send("x"), stream.writer.send_json(1), stream.writer.send_comment()):
        with pytest.raises(trio.BrokenResourceError):
            await send
    with pytest.raises(trio.BrokenResourceError):
        stream.writer.send_nowait("x")
    with assert_checkpoints():
        await stream.writer.aclose()


async def test_flush(nursery: trio.Nursery) -> None:
    """`flush` waits until the transport has everything."""
    stream = Stream(nursery, room=0)
    await stream.writer.send("1")
    with trio.move_on_after(0) as scope:
        await stream.writer.flush()
    assert scope.cancelled_caught
    stream.transport.change(room=None)
    await stream.writer.flush()
    assert stream.transport.sent == b"data: 1\n\n"


async def test_frame_sink(nursery: trio.Nursery) -> None:
    """A hub sees a writer as the place for its batches."""
    stream = Stream(nursery)
    sink: FrameSink = stream.writer
    assert sink.send_batch_nowait(Batch([b"data: 1\n\n", b"data: 2\n\n"]))
    await sink.flush()
    assert await stream.data() == ["1", "2"]


async def test_statistics(nursery: trio.Nursery) -> None:
    """A snapshot has the state and the counts, and doesn't change."""
    stream = Stream(nursery, room=3)
    await stream.writer.send("1")
    await stream.writer.send("2")
    await stream.writer.send("3")
    statistics = stream.writer.statistics()
    assert dataclasses.asdict(statistics) == {
        "state": "busy",
        "events_sent": 1,
        "bytes_sent": 3,
        "queued_events": 2,
        "queued_bytes": 18,
    }
    assert repr(stream.writer) == "<SSEWriter: busy, 1 events sent>"
    stream.transport.change(room=None)
    await wait_all_tasks_blocked()
    assert statistics.state == "busy"
    assert stream.writer.statistics().state == "idle"
    assert stream.writer.statistics().events_sent == 3


# -- over a connection


async def test_back_pressure(nursery: trio.Nursery) -> None:
    """A client that doesn't read makes the handler wait, and gets everything when it does."""
    sent: list[int] = []

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            for number in range(100):
                await writer.send(str(number))
                sent.append(number)

    settings = Settings(queue_events=10)
    client = connect(nursery, handler, settings=settings, pair=lockstep_stream_pair)
    await client.send(request())
    await wait_all_tasks_blocked()
    assert len(sent) <= 12
    await client.head()
    assert [event.data for event in await client.events()] == [str(n) for n in range(100)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stream", "socket"])
async def test_a_large_event(nursery: trio.Nursery, kind: str) -> None:
    """An event of 10 MiB arrives whole, in order with the others."""
    data = "0123456789abcdef" * 65536 * 10

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send("before")
            await writer.send(data)
            await writer.send("after")

    transport = FakeTransport(room=100_000) if kind == "socket" else None
    client = connect(nursery, handler, transport=transport)
    await client.send(request())
    if transport is not None:
        await wait_all_tasks_blocked()
        transport.change(room=None)
    _, body = await client.response()
    assert body == f":\ndata: before\n\ndata: {data}\n\ndata: after\n\n".encode()


async def test_tokens(nursery: trio.Nursery) -> None:
    """A stream of tokens from a source, a terminal event behind it: the pattern of chats."""

    async def handler(event: H3Event) -> None:
        async with event.start_sse() as writer:
            await writer.send_from(Source(["Hel", "lo"]))
            await writer.send("[DONE]", event="done")

    client = connect(nursery, handler)
    await client.send(request())
    await client.head()
    events = await client.events()
    assert [(event.event, event.data) for event in events] == [
        ("message", "Hel"),
        ("message", "lo"),
        ("done", "[DONE]"),
    ]


@given(st.text(st.characters(codec="ascii")))
def test_a_plain_line_is_framed_as_its_event(data: str) -> None:
    """The short way for text without fields gives the bytes of the long one."""
    assert _frame(data, None, None, None) == SSEEvent(data).encode()
