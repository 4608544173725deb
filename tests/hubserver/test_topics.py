"""Topics that end or are pinned, over HTTP: what subscribers and publishers are answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from helpers import Client, connect, event_source, post, request
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason
from h3trio.hub import Hub, MemoryHistory
from h3trio.hubserver import AnonymousAccess, create_app

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    import trio

    Connect = Callable[[], Client]


@pytest.fixture
async def hub() -> Hub:
    """A hub in memory, which the app runs."""
    return Hub(MemoryHistory())


@pytest.fixture
async def opened(nursery: trio.Nursery, hub: Hub) -> AsyncGenerator[Connect]:
    """Opens connections from this machine."""
    app = create_app(hub, anonymous=AnonymousAccess())
    async with app.lifespan():
        yield lambda: connect(nursery, app)
        nursery.cancel_scope.cancel()


async def ask(opened: Connect, raw: bytes) -> tuple[int, dict[str, str], str]:
    """Make one request; return status, headers and body."""
    client = opened()
    await client.send(raw.replace(b"Host: test", b"Host: localhost", 1))
    head, body = await client.response()
    return head.status, head.headers, body.decode()


STREAM = "Content-Type: text/event-stream"


@table(
    "raw, frames",
    [
        (post(b"end", "/events/T?last=on"), ["end"]),
        (post(b"", "/events/T?last"), [""]),
        (post(b"data: 1\n\ndata: 2\n\n", "/events/T?last=on", STREAM), ["1", "2"]),
        (post(b"", "/events/T?last=on", STREAM), []),
    ],
)
async def test_last_closes_the_topic(
    hub: Hub, opened: Connect, raw: bytes, frames: list[str]
) -> None:
    """The event is the last, or what a stream of them held; a live stream ends orderly."""
    topic = f"{len(raw)}"
    raw = raw.replace(b"/T?", f"/{topic}?".encode())
    client = opened()
    get = event_source(f"/events/{topic}", "User-Agent: x")
    await client.send(get.replace(b"Host: test", b"Host: localhost"))
    assert (await client.head()).status == 200
    await wait_all_tasks_blocked()
    assert (await ask(opened, raw))[0] == 200
    assert [event.data for event in await client.events()] == frames
    await wait_all_tasks_blocked()
    assert client.state.counts.closings[CloseReason.COMPLETED] >= 1
    assert hub.statistics().ended == {"complete": sum(hub.statistics().ended.values())}
    status, headers, _body = await ask(opened, post(b"late", f"/events/{topic}"))
    assert (status, "retry-after" in headers) == (409, False)


async def test_a_refused_stream_says_how_far_it_came(hub: Hub, opened: Connect) -> None:
    """A body of events for a topic that is closed meanwhile is answered 409, and closes nothing."""
    await hub.close("a")
    late = await ask(opened, post(b"data: 1\n\n", "/events/a?last=on", STREAM))
    assert late[0] == 409
    assert late[2] == '{"published":0,"id":"","error":"the topic \'a\' is closed"}'
    assert (await ask(opened, post(b"x", "/events/c?last=off")))[0] == 400


@table("behind", [b"", b"zz\r\n", b"5\r\ndat"])
async def test_a_stream_that_broke_off_closes_nothing(
    hub: Hub, opened: Connect, behind: bytes
) -> None:
    """What it brought is published; its publisher may come back with the rest."""
    client, before = opened(), hub.statistics().published
    chunked = request("/events/b?last=on", STREAM, "Transfer-Encoding: chunked", method="POST")
    head = chunked.replace(b"Host: test", b"Host: localhost")
    await client.send(head + b"9\r\ndata: 1\n\n\r\n" + behind)
    await wait_all_tasks_blocked()
    await client.stream.aclose()
    await wait_all_tasks_blocked()
    assert hub.statistics().published == before + 1
    assert not (await hub.locate(["b"])).closed


async def test_a_stream_that_would_be_empty_for_ever_is_204(hub: Hub, opened: Connect) -> None:
    """Where all is closed and nothing is left to send: before the head, and not to be cached."""
    first = await hub.publish("1", topics=["a"])
    last = await hub.publish("2", topics=["a"], last=True)
    await hub.close("b")
    for path, status in (
        ("/events/a", 204),
        (f"/events/a?last_event_id={last}", 204),
        (f"/events/a?last_event_id={first}", 200),
        ("/events/a?first=oldest", 200),
        ("/events/a?last_event_id=unknown", 200),
        ("/events?topic=a&topic=b", 204),
        (f"/events?topic=a&topic=b&last_event_id={first}", 200),
        ("/events/b?first=oldest", 204),
    ):
        seen, headers, body = await ask(opened, event_source(path))
        assert seen == status, path
        if status == 204:
            assert headers["last-event-id"] in (last, hub.last_event_id) or "first" in path
            assert (headers["cache-control"], body) == ("no-store", "")
            assert "content-type" not in headers
        else:
            assert body.endswith(f"id: {last}\ndata: 2\n\n")
    head = request("/events/a", method="HEAD")
    assert (await ask(opened, head))[0] == 204


async def test_an_event_source_stops_by_itself(hub: Hub, opened: Connect) -> None:
    """As it comes back with the last id that it got, whatever it asked for, it meets the 204."""
    for number in range(3):
        await hub.publish(str(number), topics=["a"])
    await hub.close("a")
    asked: Any = "/events/a?first=oldest"
    lines: list[str] = []
    bodies = []
    while True:
        status, _headers, body = await ask(opened, event_source(asked, *lines))
        bodies.append(body)
        if status == 204:
            break
        ids = [line[4:] for line in body.splitlines() if line.startswith("id: ")]
        lines = [f"Last-Event-ID: {ids[-1]}"]
    assert len(bodies) == 2
    assert [line for line in bodies[0].splitlines() if "data" in line][-3:] == [
        "data: 0",
        "data: 1",
        "data: 2",
    ]


async def test_deleting_forgets_the_close(hub: Hub, opened: Connect) -> None:
    """The topic takes events again."""
    await hub.close("a")
    assert (await ask(opened, post(b"1", "/events/a")))[0] == 409
    assert (await ask(opened, request("/events/a", method="DELETE")))[0] == 200
    assert (await ask(opened, post(b"1", "/events/a")))[0] == 200


async def test_a_private_close_is_no_news_to_the_public(hub: Hub, opened: Connect) -> None:
    """It is answered as an open topic is: by a stream."""
    assert (await ask(opened, post(b"1", "/events/a?last=on&private=on")))[0] == 200
    client = opened()
    await client.send(event_source("/events/a").replace(b"Host: test", b"Host: localhost"))
    assert (await client.head()).status == 200
    assert not (await hub.locate(["a"])).closed


async def test_a_pinned_topic_without_room_is_503(nursery: trio.Nursery) -> None:
    """The limit is counted; what closes the topic is taken."""
    hub = Hub(MemoryHistory(max_pinned_events=1))
    app = create_app(hub, anonymous=AnonymousAccess())
    async with app.lifespan():
        client = connect(nursery, app)
        with hub.pin("a"):
            statuses = []
            for query in ("", "", "?last=on"):
                raw = post(b"x", f"/events/a{query}").replace(b"Host: test", b"Host: localhost")
                await client.send(raw)
                statuses.append((await client.response())[0].status)
        assert statuses == [200, 503, 200]
        assert client.state.counts.limits == {"max_pinned_events": 1}
        nursery.cancel_scope.cancel()
