"""The hub over HTTP, in memory: the contract of `/events`, health and the page."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import TYPE_CHECKING, Any, Literal, Never
from urllib.parse import quote

import pytest
import trio
from helpers import Client, Head, connect, event_source, post, request
from hub_helpers import BusiestStep, WrappedHistory
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import CloseReason
from h3trio.hub import (
    HistoryError,
    HistoryFullError,
    Hub,
    HubSettings,
    MemoryHistory,
    OutcomeUnknownError,
)
from h3trio.hub._history.log import Log
from h3trio.hubserver import AnonymousAccess, create_app
from h3trio.runs import Run, Runs, RunState

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Sequence

    from h3trio import App
    from h3trio.hub import Appended, Update

LOCAL = "Host: localhost"


class HubClient:
    """A hub's app, and connections to it as from this machine."""

    def __init__(self, nursery: trio.Nursery, app: App, hub: Hub) -> None:
        self._nursery = nursery
        self._app = app
        self.hub = hub

    def connect(self) -> Client:
        """Open a connection."""
        return connect(self._nursery, self._app)

    async def ask(self, raw: bytes) -> tuple[Head, Any]:
        """Make one request; return the head and the body, parsed if it is JSON."""
        client = self.connect()
        await client.send(local(raw))
        head, body = await client.response()
        if "json" in head.headers.get("content-type", ""):
            return head, json.loads(body)
        return head, body.decode()

    async def subscribe(self, path: str, *lines: str) -> Client:
        """Open a stream and read its opening block away."""
        client = self.connect()
        await client.send(local(event_source(path, *lines)))
        assert (await client.head()).status == 200
        assert await client.chunk() == b":\n"
        assert (await client.chunk()).startswith(b"retry: ")
        await wait_all_tasks_blocked()
        return client


def local(raw: bytes) -> bytes:
    """The same request, asking for this machine."""
    return raw.replace(b"Host: test", LOCAL.encode(), 1)


@pytest.fixture
async def hub(nursery: trio.Nursery) -> AsyncGenerator[HubClient]:
    """A hub that keeps eight events."""
    running = Hub(MemoryHistory(max_events=8), settings=HubSettings(max_event_bytes=1000))
    app = create_app(running)
    async with app.lifespan():
        yield HubClient(nursery, app, running)
        nursery.cancel_scope.cancel()


async def test_what_is_posted_arrives(hub: HubClient) -> None:
    """The body is the data whatever its type; the answer has the id on the wire."""
    client = await hub.subscribe("/events/news")
    head, answer = await hub.ask(
        post(b"hi", "/events/news", "Content-Type: application/x-www-form-urlencoded")
    )
    event = await client.event()
    assert event is not None
    assert (head.status, answer, event.data) == (200, {"id": event.id}, "hi")


async def test_query_sets_the_fields(hub: HubClient) -> None:
    """`?event=&id=&retry=` are those fields; an empty body is an event with empty data."""
    client = await hub.subscribe("/events/news")
    await hub.ask(post(b"", "/events/news?event=note&id=own&retry=99"))
    assert await client.chunk() == b"event: note\nid: own\nretry: 99\ndata: \n\n"


@pytest.mark.parametrize(
    ("path", "topic"),
    [
        ("/events/a/b", "a/b"),
        ("/events/a%2Fb", "a/b"),
        ("/events/caf%C3%A9", "café"),
        ("/events/https://example.com/x%3Fy%23z", "https://example.com/x?y#z"),
        ("/events/https%3A%2F%2Fexample.com%2F%2Fx", "https://example.com//x"),
        ("/events/%2A%2A", "**"),
    ],
)
async def test_the_topic_is_the_rest_of_the_path(hub: HubClient, path: str, topic: str) -> None:
    """Slashes, percent-encoded ones and whole IRIs work."""
    client = await hub.subscribe("/events")
    assert (await hub.ask(post(b"x", path)))[0].status == 200
    event = await client.event()
    assert event is not None
    async with hub.hub.subscription([topic], first="oldest") as events:
        assert (await events.receive()).id == event.id


async def test_several_topics_and_everything(hub: HubClient) -> None:
    """`?topic=a&topic=b` is those two, no topic is everything public."""
    some = await hub.subscribe("/events?topic=a&topic=b")
    everything = await hub.subscribe("/events")
    for topic in "abc":
        await hub.ask(post(topic.encode(), f"/events/{topic}"))
    await hub.hub.publish("secret", topics=["a"], private=True)
    await hub.ask(post(b"end", "/events/b"))
    assert [getattr(await some.event(), "data", None) for _ in range(3)] == ["a", "b", "end"]
    assert [getattr(await everything.event(), "data", None) for _ in range(4)] == [
        *"abc",
        "end",
    ]


async def test_one_event_for_several_topics(hub: HubClient) -> None:
    """`POST /events?topic=a&topic=b` is one event, which a subscriber of both gets once."""
    clients = [await hub.subscribe(f"/events?topic={query}") for query in ("a", "b", "a&topic=b")]
    head, answer = await hub.ask(post(b"both", "/events?topic=b&topic=a&topic=b&event=note"))
    assert (head.status, hub.hub.statistics().published) == (200, 1)
    await hub.ask(post(b"end", "/events?topic=a&topic=b"))
    for client in clients:
        events = [await client.event() for _ in range(2)]
        assert [getattr(event, "data", None) for event in events] == ["both", "end"]
        assert (events[0].id, events[0].event) == (answer["id"], "note")


async def test_a_body_of_events_for_several_topics(hub: HubClient) -> None:
    """Each event of a stream goes to all topics of the query."""
    some = [await hub.subscribe(f"/events?topic={topic}") for topic in "ab"]
    kind = "Content-Type: text/event-stream"
    body = b"data: 1\n\ndata: 2\n\n"
    _, answer = await hub.ask(post(body, "/events?topic=a&topic=b", kind))
    assert (answer["published"], hub.hub.statistics().published) == (2, 2)
    for client in some:
        assert [getattr(await client.event(), "data", None) for _ in range(2)] == ["1", "2"]


async def test_a_topic_in_the_query_is_any_text(hub: HubClient) -> None:
    """What a proxy would rewrite in a path is a topic like any other, to publish and to purge."""
    for topic in ("https://example.com/x//y", "a/./b", "..", "a%2Fb", "é +&#?", "\ufffd"):
        query = f"topic={quote(topic, safe='')}"
        head, answer = await hub.ask(post(b"x", f"/events?{query}"))
        assert head.status == 200
        async with hub.hub.subscription([topic], first="oldest") as events:
            assert (await events.receive()).id == answer["id"]
        assert (await hub.ask(request(f"/events?{query}", method="DELETE")))[1] == {"purged": 1}


async def test_a_key_belongs_to_the_set_of_topics(hub: HubClient) -> None:
    """In any order it is the same publish; for other topics it is another."""
    ids = [
        (await hub.ask(post(b"x", f"/events?topic={query}", "Idempotency-Key: k")))[1]["id"]
        for query in ("a&topic=b", "b&topic=a", "a", "a&topic=b&topic=c")
    ]
    assert ids[0] == ids[1]
    assert len(set(ids)) == hub.hub.statistics().published == 3


async def test_several_topics_are_purged_together(hub: HubClient) -> None:
    """An event of two of them counts once; others stay."""
    for query in ("a", "b", "a&topic=b", "c"):
        await hub.ask(post(b"x", f"/events?topic={query}"))
    raw = request("/events?topic=a&topic=b", method="DELETE")
    assert (await hub.ask(raw))[1] == {"purged": 3}
    assert (await hub.ask(raw))[1] == {"purged": 0}


@table("how", ["Last-Event-ID", "last_event_id", "lastEventID", "lastEventId"])
async def test_reconnecting_goes_on_behind_the_id(hub: HubClient, how: str) -> None:
    """The header, then the query's aliases."""
    ids = [(await hub.ask(post(str(n).encode(), "/events/news")))[1]["id"] for n in range(3)]
    if how == "Last-Event-ID":
        client = await hub.subscribe("/events/news", f"Last-Event-ID: {ids[0]}")
    else:
        client = await hub.subscribe(f"/events/news?{how}={ids[0]}")
    assert [getattr(await client.event(), "data", None) for _ in range(2)] == ["1", "2"]


async def test_the_header_counts_before_the_query(hub: HubClient) -> None:
    """A browser that reconnects knows better than the URL it was opened with."""
    ids = [(await hub.ask(post(str(n).encode(), "/events/news")))[1]["id"] for n in range(3)]
    client = await hub.subscribe(f"/events/news?last_event_id={ids[0]}", f"Last-Event-ID: {ids[1]}")
    assert getattr(await client.event(), "data", None) == "2"


async def test_first_asks_for_what_was(hub: HubClient) -> None:
    """`?first=2` and `?first=oldest` begin in the past; anything else is a 400."""
    for n in range(3):
        await hub.ask(post(str(n).encode(), "/events/news"))
    last_two = await hub.subscribe("/events/news?first=2")
    oldest = await hub.subscribe("/events/news?first=oldest")
    assert [getattr(await last_two.event(), "data", None) for _ in range(2)] == ["1", "2"]
    assert getattr(await oldest.event(), "data", None) == "0"
    for bad in ("x", "-1", "1e3", "9" * 30):
        assert (await hub.ask(request(f"/events/news?first={bad}")))[0].status == 400


async def test_an_unknown_id_is_a_reset(hub: HubClient) -> None:
    """The client is told which id wasn't known."""
    client = await hub.subscribe("/events/news", "Last-Event-ID: gone")
    event = await client.event()
    assert event is not None
    assert event.event == "reset"
    assert json.loads(event.data or "") == {"reason": "unknown", "id": "gone"}


BROWSER = (
    "Accept: text/event-stream",
    "Cache-Control: no-cache",
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
)
"""What distinguishes the `EventSource` of a browser."""


async def open_stream(hub: HubClient, path: str, *lines: str) -> tuple[Head, bytes]:
    """Open a stream; return its head, and its opening without the first comment."""
    client = hub.connect()
    await client.send(local(request(path, *lines)))
    head = await client.head()
    assert head.status == 200
    assert await client.chunk() == b":\n"
    return head, await client.chunk()


@table(
    "path, lines, has_cursor",
    [
        ("/events/news", BROWSER, True),
        # What sseclient and Node's fetch send.
        ("/events/news", BROWSER[:2], False),
        ("/events/news", BROWSER[1:], False),
        ("/events/news", (BROWSER[0], BROWSER[2]), False),
        ("/events/news", ("Accept: text/event-stream, */*", *BROWSER[1:]), False),
        ("/events/news", (BROWSER[0], "Cache-Control: no-store", BROWSER[2]), False),
        ("/events/news", (*BROWSER[:2], "User-Agent: python/3 like Mozilla/5.0"), False),
        ("/events/news", (), False),
        ("/events/news?cursor=on", (), True),
        ("/events/news?cursor=off", BROWSER, False),
    ],
)
async def test_who_asks_as_a_browser_gets_a_cursor(
    hub: HubClient, *, path: str, lines: tuple[str, ...], has_cursor: bool
) -> None:
    """An event of the type `cursor`, to browsers or by `?cursor=`; the head tells everyone."""
    id = (await hub.ask(post(b"1", "/events/news")))[1]["id"]
    head, opening = await open_stream(hub, path, *lines)
    assert head.headers["last-event-id"] == id
    if has_cursor:
        assert opening.startswith(f"event: cursor\nid: {id}\nretry: ".encode())
        assert opening.endswith(b"\ndata: {}\n\n")
    else:
        assert re.fullmatch(rb"retry: [0-9]+\n", opening)


async def test_the_cursor_is_what_the_stream_begins_behind(hub: HubClient) -> None:
    """Of a replay its start, and not the head of the hub; an id that is good is itself."""
    ids = [(await hub.ask(post(str(n).encode(), "/events/news")))[1]["id"] for n in range(4)]
    before_all = ids[0].replace("-1", "-0")
    for query, cursor in (
        ("", ids[3]),
        ("?first=2", ids[1]),
        ("?first=oldest", before_all),
        (f"?last_event_id={ids[1]}", ids[1]),
        ("?last_event_id=unknown", before_all),
    ):
        head, _ = await open_stream(hub, f"/events/news{query}")
        assert head.headers["last-event-id"] == cursor
        client = hub.connect()
        await client.send(local(request(f"/events/news{query}", method="HEAD")))
        assert (await client.head()).headers["last-event-id"] == cursor


async def test_a_browsers_own_id_is_not_sent_back(hub: HubClient) -> None:
    """Nor is there a cursor in front of a `reset`: who drops between them would miss it."""
    id = (await hub.ask(post(b"1", "/events/news")))[1]["id"]
    for own in (id, "unknown"):
        _, opening = await open_stream(hub, "/events/news", *BROWSER, f"Last-Event-ID: {own}")
        assert re.fullmatch(rb"retry: [0-9]+\n", opening)


async def test_a_history_that_is_gone_is_told_by_the_head(hub: HubClient) -> None:
    """`?first=` beyond what is left: `History-Truncated: ?1`, and no `reset`."""
    for n in range(10):
        await hub.ask(post(str(n).encode(), "/events/news"))
    for query, truncated in (("oldest", "?1"), ("9", "?1"), ("8", None), ("newest", None)):
        head, _ = await open_stream(hub, f"/events/news?first={query}")
        assert head.headers.get("history-truncated") == truncated
    client = await hub.subscribe("/events/news?first=oldest")
    event = await client.event()
    assert event is not None
    assert event.data == "2"


@pytest.mark.parametrize(("cursor", "has_cursor"), [("on", True), ("off", False)])
async def test_the_setting_decides_for_all(
    nursery: trio.Nursery, *, cursor: Literal["on", "off"], has_cursor: bool
) -> None:
    """`create_app(cursor=...)` holds where a stream doesn't say otherwise."""
    running = Hub()
    app = create_app(running, cursor=cursor)
    async with app.lifespan():
        client = HubClient(nursery, app, running)
        for query, expected in (("", has_cursor), ("?cursor=on", True), ("?cursor=off", False)):
            for lines in ((), BROWSER):
                _, opening = await open_stream(client, f"/events/news{query}", *lines)
                assert opening.startswith(b"event: cursor\n") == expected
        nursery.cancel_scope.cancel()


def test_a_setting_that_is_none_of_them() -> None:
    """Anything but auto, on and off is a ValueError."""
    with pytest.raises(ValueError, match="auto, on or off"):
        create_app(cursor="yes")  # type: ignore[arg-type] # as a caller without types does


async def test_a_history_that_cant_be_read_is_a_503(
    hub: HubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A true status, as the place is looked up before the head goes out."""

    async def fail(*_args: object, **_options: object) -> Never:
        await trio.lowlevel.checkpoint()
        raise HistoryError("no disk")

    monkeypatch.setattr(hub.hub, "locate", fail)
    head, text = await hub.ask(request("/events/news"))
    assert head.status == 503
    assert "no disk" in text


async def test_a_stream_of_events_is_published_as_it_arrives(hub: HubClient) -> None:
    """Types and ids are kept; the answer counts, and names the last id."""
    client = await hub.subscribe("/events/news")
    publisher = hub.connect()
    body = b"data: one\n\n", b"id: own\nevent: x\ndata: two\n\ndata: three\n\n"
    head = f"Content-Type: text/event-stream\r\nContent-Length: {len(b''.join(body))}"
    await publisher.send(local(request("/events/news", head, method="POST")) + body[0])
    first = await client.event()
    await publisher.send(body[1])
    second, third = await client.event(), await client.event()
    _, answer = await publisher.response()
    assert first is not None
    assert second is not None
    assert third is not None
    assert (first.data, second.data, third.data) == ("one", "two", "three")
    assert (second.id, second.event) == ("own", "x")
    assert third.id not in ("own", first.id)
    assert json.loads(answer) == {"published": 3, "id": third.id}


@table(
    "bad, status",
    [(b"event: reset\ndata: x\n\n", 400), (b"data: " + b"x" * 1000 + b"\n\n", 413)],
)
@table("together", [True, False])
async def test_an_error_in_a_stream_says_what_stands(
    hub: HubClient, *, bad: bytes, status: int, together: bool
) -> None:
    """Events before the one that was refused are published, and counted."""
    publisher = hub.connect()
    body = b"data: good\n\n"
    head = f"Content-Type: text/event-stream\r\nContent-Length: {len(body + bad)}"
    request_head = local(request("/events/news", head, method="POST"))
    if together:
        await publisher.send(request_head + body + bad)
    else:
        await publisher.send(request_head + body)
        await wait_all_tasks_blocked()
        await publisher.send(bad)
    response, answer = await publisher.response()
    found = json.loads(answer)
    assert response.status == status
    assert (found["published"], found["id"]) == (1, hub.hub.last_event_id)
    assert found["error"]


BAD_REQUESTS = [
    (post(b"", "/events/a%0Ab", "Content-Type: text/event-stream"), 400),
    (post(b"\xff", "/events/news"), 400),
    (post(b"x", "/events/news?id=a%0Ab"), 400),
    (post(b"x", "/events/news?id=%E9"), 400),
    (post(b"x", "/events/news?event=%E9"), 400),
    (post(b"x", "/events/news?event=reset"), 400),
    (post(b"x", "/events/news?event=cursor"), 400),
    (request("/events/news?cursor=yes"), 400),
    (post(b"x", "/events/news?retry=soon"), 400),
    (post(b"x", "/events/a%0Ab"), 400),
    (post(b"x", "/events/"), 400),
    (post(b"x", "/events/*"), 400),
    (post(b"x", "/events/" + "t" * 1025), 400),
    (post(b"x" * 1000, "/events/news"), 413),
    (post(b"x", "/events"), 400),
    (post(b"x", "/events?topic="), 400),
    (post(b"x", "/events?topic=a&topic=*"), 400),
    (post(b"x", "/events?topic=a&topic=b%0A"), 400),
    (post(b"x", "/events?topic=%FF"), 400),
    (post(b"x", "/events?topic=a&topic=" + "t" * 1025), 400),
    (post(b"x", "/events/a?topic=b"), 400),
    (post(b"data: x\n\n", "/events?topic=a&event=b", "Content-Type: text/event-stream"), 400),
    (post(b"x", "/events?" + "&".join(f"topic={n}" for n in range(1001))), 400),
    (request("/events", method="DELETE"), 400),
    (request("/events/a?topic=b", method="DELETE"), 400),
    (request("/events?" + "&".join(f"topic={n}" for n in range(1001)), method="DELETE"), 400),
    (request("/events/"), 400),
    (request("/events/a%00b"), 400),
    (request("/events?" + "&".join(f"topic={n}" for n in range(1001))), 400),
    (request("/events/news", "Accept: text/html"), 406),
]


async def test_what_is_refused(subtests: pytest.Subtests, hub: HubClient) -> None:
    """Bad topics, fields and sizes get a clear error and store nothing."""
    for raw, status in BAD_REQUESTS:
        with subtests.test(raw=raw, status=status):
            head, text = await hub.ask(raw)
            assert head.status == status
            assert len(text) > 4
            assert hub.hub.statistics().published == 0


async def test_an_idempotency_key_belongs_to_its_topic(hub: HubClient) -> None:
    """Nobody uses up a key of another topic; another event with it is 422, and isn't stored."""
    answers = [
        await hub.ask(post(body, f"/events/{topic}", "Idempotency-Key: order-1001"))
        for topic, body in (("chat", b"x"), ("orders", b"paid"), ("orders", b"sent"))
    ]
    assert [head.status for head, _body in answers] == [200, 200, 422]
    assert "used for another event" in answers[2][1]


@pytest.mark.slow
async def test_a_body_of_small_events_lets_others_run(hub: HubClient) -> None:
    """What one read brought goes into the log by steps of 128 events."""
    raw = post(b"data\n\n" * 5000, "/events/news", "Content-Type: text/event-stream")
    with BusiestStep(Log.append) as busiest:
        head, body = await hub.ask(raw)
    assert (head.status, body["published"]) == (200, 5000)
    assert (busiest.total, busiest.most) == (5000, 128)


async def test_a_body_of_events_takes_no_idempotency_key(hub: HubClient) -> None:
    """It is refused before anything is published."""
    kind = "Content-Type: text/event-stream"
    raw = post(b"data: x\n\n", "/events/news", kind, "Idempotency-Key: k")
    head, text = await hub.ask(raw)
    assert head.status == 400
    assert "for one event" in text
    assert hub.hub.statistics().published == 0


@table("coding, pack", [("gzip", gzip.compress), ("deflate", zlib.compress)])
async def test_a_compressed_body_is_published_as_what_it_stands_for(
    hub: HubClient, coding: str, pack: Callable[[bytes], bytes]
) -> None:
    """One event and a stream of events are unpacked; both bounds count what comes out."""
    line, sse = f"Content-Encoding: {coding}", "Content-Type: text/event-stream"
    watched = await hub.subscribe("/events/news")
    head, _ = await hub.ask(post(pack(b"one"), "/events/news", line))
    assert head.status == 200
    body = b"data: two\n\ndata: three\n\n"
    assert (await hub.ask(post(pack(body), "/events/news", line, sse)))[1]["published"] == 2
    for data in ("one", "two", "three"):
        assert (await watched.event()).data == data
    large = pack(b"x" * 2_000_000)
    assert (await hub.ask(post(large, "/events/news", line)))[0].status == 413
    assert (await hub.ask(post(pack(body) + b"x", "/events/news", line, sse)))[0].status == 400
    assert (await hub.ask(post(b"plain", "/events/news", line)))[0].status == 400


async def test_what_the_header_says_of_a_body_is_obeyed_or_refused(hub: HubClient) -> None:
    """Another coding or charset is a 415, a part of a body a 400, and nothing is published."""
    for kind in ("text/plain", "text/event-stream"):
        for line, status in (
            ("Content-Encoding: br", 415),
            ("Content-Encoding: gzip, gzip", 415),
            (f"Content-Type: {kind}; charset=iso-8859-1", 415),
            ("Content-Range: bytes 0-2/9", 400),
        ):
            lines = [line] if line.startswith("Content-T") else [line, f"Content-Type: {kind}"]
            head, text = await hub.ask(post(b"data: x\n\n", "/events/news", *lines))
            assert head.status == status, lines
            coding = "accept-encoding" in head.headers
            assert coding == (status == 415 and "Encoding" in line), text
    assert hub.hub.statistics().published == 0


@table(
    "raw, known",
    [
        (post(b"x", "/events/news?evnt=a"), "event, id, retry, private, last"),
        (post(b"x", "/events/news?topic=a"), "event, id, retry, private, last"),
        (post(b"x", "/events?topic=a&topics=b"), "topic, event, id, retry, private, last"),
        (request("/events?topic=a&topics=b", method="DELETE"), "there is: topic"),
        (post(b"", "/events/news?event=a", "Content-Type: text/event-stream"), "private, last"),
        (request("/events/news?last_event_ld=1"), "first, last_event_id, lastEventID, lastEventId"),
        (request("/events/news?topic=other"), "first, last_event_id"),
        (request("/events?topics=a"), "topic, "),
        (request("/events/news?x=1", method="DELETE"), "none"),
        (request("/statistics?intervall=5"), "interval"),
        (post(b"x", "/events/news?event=a&id=1&event=b"), "'event' is there twice"),
        (post(b"x", "/events/news?id=1&id=1"), "'id' is there twice"),
        (post(b"x", "/events/news?private&private=on"), "'private' is there twice"),
        (request("/events/news?first=1&first=2"), "'first' is there twice"),
        (request("/events?topic=a&topic=b&last_event_id=1&last_event_id=2"), "twice"),
    ],
)
async def test_a_misspelt_parameter_is_refused(hub: HubClient, raw: bytes, known: str) -> None:
    """A query parameter that the endpoint doesn't know, or gets twice, is a 400 that says so."""
    head, text = await hub.ask(raw)
    error = text["error"] if isinstance(text, dict) else text
    assert head.status == 400
    assert known in error
    assert hub.hub.statistics().published == 0


async def test_parameters_that_an_endpoint_may_get(hub: HubClient) -> None:
    """Each known parameter passes, one for a token, and any that begins with an underscore."""
    free = ("&_=1718", "&_nocache", "&datastar=%7B%7D")
    for more in ("", "&authorization=x", "&access_token=x", *free):
        query = f"?event=a&id=b&retry=1&private=on{more}"
        assert (await hub.ask(post(b"x", f"/events/news{query}")))[0].status == 200
        assert (await hub.ask(request(f"/statistics?interval=1{more}")))[0].status == 200
        purge = request(f"/events/news?_{more}", method="DELETE")
        assert (await hub.ask(purge))[0].status == 200
        await hub.subscribe(f"/events?topic=a&topic=b&first=oldest{more}")
    for name in ("cursor=on", "lastEventID=", "lastEventId=", "last_event_id="):
        client = hub.connect()
        await client.send(local(request(f"/events/news?{name}", method="HEAD")))
        assert (await client.head()).status == 200


async def test_an_idempotency_key_is_published_once(hub: HubClient) -> None:
    """A retry of a publish whose answer was lost changes nothing."""
    raw = post(b"x", "/events/news", "Idempotency-Key: k1")
    first, second = (await hub.ask(raw))[1], (await hub.ask(raw))[1]
    assert first == second
    assert hub.hub.statistics().published == 1


async def test_delete_purges_a_topic(hub: HubClient) -> None:
    """The answer says how many events there were."""
    for _ in range(3):
        await hub.ask(post(b"x", "/events/news"))
    assert (await hub.ask(request("/events/news", method="DELETE")))[1] == {"purged": 3}
    assert (await hub.ask(request("/events/news", method="DELETE")))[1] == {"purged": 0}


class FailingHistory(WrappedHistory):
    """A history that can't store or remove anything, and says why."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.durability = "durable"
        self.error = error

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Fail."""
        assert updates
        raise self.error

    async def purge(self, topic: str) -> int:
        """Fail."""
        assert topic
        raise self.error


@table(
    "error, status",
    [
        (HistoryError("disk"), 503),
        (HistoryFullError("no room"), 503),
        (OutcomeUnknownError("no answer"), 500),
    ],
)
async def test_an_error_of_the_hub_is_the_same_at_each_door(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, error: Exception, status: int
) -> None:
    """A publish, a stream of events and a purge answer what the store raised; it's not theirs."""
    history = FailingHistory(error)
    running = Hub(history)
    stream = "Content-Type: text/event-stream"
    app = create_app(running)
    async with app.lifespan():
        hub = HubClient(nursery, app, running)
        for raw in (
            request("/events/news", method="DELETE"),
            post(b"x", "/events/news"),
            post(b"data: x\n\n", "/events/news", stream),
        ):
            head, text = await hub.ask(raw)
            assert head.status == status, raw
            assert str(error) in str(text)
            assert ("retry-after" in head.headers) == (status == 503)
    # That the store fails is said once, of the hub and not of a request.
    errors = {record.name for record in caplog.records if record.levelname == "ERROR"}
    assert errors <= {"h3trio.hub"}


class StuckHistory(WrappedHistory):
    """A history whose disk never answers."""

    async def append(self, updates: Sequence[Update]) -> list[Appended]:
        """Wait for ever."""
        assert updates
        await trio.sleep_forever()
        raise AssertionError


@table("limit", ["max_waiting", "max_waiting_bytes"])
async def test_a_full_queue_is_counted_by_the_limit_that_was_met(
    nursery: trio.Nursery, limit: str
) -> None:
    """One publish waits for the disk; the next is refused."""
    setting: dict[str, Any] = {limit: 1}
    running = Hub(StuckHistory(), settings=HubSettings(**setting))
    app = create_app(running)
    async with app.lifespan():
        waiting, refused = connect(nursery, app), connect(nursery, app)
        for client, limits in ((waiting, {}), (refused, {limit: 1})):
            await client.send(local(post(b"x", "/events/news")))
            await wait_all_tasks_blocked()
            assert client.state.statistics().limits == limits
        assert (await refused.response())[0].status == 503
        nursery.cancel_scope.cancel()


async def test_topics_of_runs_are_for_runs_alone(nursery: trio.Nursery) -> None:
    """Nobody forges how a run ends, removes its events or starts one by publishing, or reads it."""
    runs = Runs(Hub())
    app = create_app(runs=runs)
    async with app.lifespan():
        hub = HubClient(nursery, app, runs.hub)

        async def answer(run: Run) -> None:
            await run.send("secret")
            await trio.sleep_forever()

        run = await runs.start(answer)
        await wait_all_tasks_blocked()
        topic = f"/events/runs/{run.id}"
        for raw in (
            post(b"{}", f"{topic}?event=done&last=on&private=on"),
            post(b"event: done\ndata: {}\n\n", topic, "Content-Type: text/event-stream"),
            post(b"{}", f"/events?topic=news&topic=runs/{run.id}&last=on"),
            post(b"{}", f"/events/runs%2F{run.id}"),
            post(b"{}", "/events/runs/started"),
            request(topic, method="DELETE"),
        ):
            head, _ = await hub.ask(raw)
            assert head.status == 403, raw
        assert (await hub.ask(post(b"hi", "/events/news")))[0].status == 200
        assert run.status.state is RunState.RUNNING
        assert (await run.result(wait=False)).text == "secret"
        client = await hub.subscribe(f"/events?topic=runs/{run.id}&topic=news&first=oldest")
        await runs.stop(run.id)
        await hub.ask(post(b"last", "/events/news"))
        seen = [await client.event() for _ in range(2)]
        assert [None if event is None else event.data for event in seen] == ["hi", "last"]
        nursery.cancel_scope.cancel()


async def test_head_of_a_stream_subscribes_nobody(hub: HubClient) -> None:
    """HEAD gets the head of the stream and nothing more."""
    client = hub.connect()
    await client.send(local(request("/events/news", method="HEAD")))
    head = await client.head()
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    await wait_all_tasks_blocked()
    assert hub.hub.statistics().subscribers == 0


async def test_a_kicked_client_gets_a_farewell(hub: HubClient) -> None:
    """It is told when to come back, and the log says that it was kicked."""
    client = await hub.subscribe("/events/news")
    assert hub.hub.kick(lambda _subscription: True) == 1
    assert (await client.chunk()).startswith(b"retry: ")
    assert await client.chunk() == b""
    await wait_all_tasks_blocked()
    assert client.state.counts.closings == {CloseReason.KICKED: 1}


async def test_a_client_that_leaves_is_forgotten(hub: HubClient) -> None:
    """EOF ends the subscription."""
    client = await hub.subscribe("/events/news")
    await client.stream.aclose()
    await client.finished.wait()
    assert hub.hub.statistics().subscribers == 0


async def test_health(hub: HubClient) -> None:
    """Alive and ready; not ready once the server drains."""
    assert (await hub.ask(request("/healthz/live")))[0].status == 200
    assert (await hub.ask(request("/healthz/ready")))[0].status == 200
    client = hub.connect()
    client.state.draining.set()
    for path, status in (("/healthz/live", 200), ("/healthz/ready", 503)):
        client = hub.connect()
        client.state.draining.set()
        await client.send(local(request(path)))
        assert (await client.head()).status == status


async def test_the_page_is_for_this_machine(hub: HubClient) -> None:
    """The page is HTML; through a proxy it is a 403 that names the flag."""
    head, text = await hub.ask(request("/"))
    assert (head.status, head.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "static/dashboard.js" in text
    head, text = await hub.ask(request("/", "X-Forwarded-For: 10.0.0.1"))
    assert head.status == 403
    assert "--allow-anonymous-operate" in text


@table(
    "raw, flag",
    [
        (post(b"x", "/events/news", "Origin: https://evil.example"), "--cors-origin"),
        (post(b"x", "/events/news", "Via: 1.1 proxy"), "--allow-anonymous-publish"),
        (request("/events/news", "Via: 1.1 proxy", method="DELETE"), "--allow-anonymous-publish"),
        (request("/events", "Forwarded: for=10.0.0.1"), "--allow-anonymous-subscribe"),
    ],
)
async def test_anonymous_rights_end_at_this_machine(hub: HubClient, raw: bytes, flag: str) -> None:
    """Every route asks, and the 403 names the flag to set."""
    head, text = await hub.ask(raw)
    assert head.status == 403
    assert flag in text


async def test_flags_open_the_routes(nursery: trio.Nursery) -> None:
    """With the flags anyone may publish and subscribe."""
    rights = AnonymousAccess(allow_anonymous_publish=True, allow_anonymous_subscribe=True)
    running = Hub()
    app = create_app(running, anonymous=rights)
    async with app.lifespan():
        client = connect(nursery, app)
        await client.send(post(b"x", "/events/news", "Via: 1.1 proxy"))
        assert (await client.response())[0].status == 200
        nursery.cancel_scope.cancel()
