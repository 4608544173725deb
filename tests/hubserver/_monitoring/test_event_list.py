"""The stream from which the dashboard lists events: topics and times, and nobody counted."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import Hub, MemoryHistory, Selection
from h3trio.hubserver import AccessControl, Grant, create_app
from h3trio.hubserver._monitoring.event_list import MAX_CHARACTERS, MAX_SHOWN
from h3trio.testing import Client, connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio.testing import MockClock

    from h3trio import App, H3Event

PATH = "/dashboard/events"


@pytest.fixture
async def hub() -> AsyncGenerator[Hub]:
    """A hub in memory."""
    async with Hub(MemoryHistory(max_events=1000)) as running:
        yield running


@pytest.fixture
def app(hub: Hub) -> App:
    """Its app."""
    return create_app(hub)


def look(app: App, query: str = "", **headers: str) -> Client:
    """Open a list."""
    return connect(app, PATH + query, headers=headers, lifespan=False)


async def take(client: Client, count: int) -> list[Any]:
    """Take some events of the list: the type, and what is in it."""
    events = [await client.next_event() for _ in range(count)]
    return [(event.event, json.loads(event.data or "")) for event in events]


async def test_an_event_says_its_topics_and_its_time(
    hub: Hub,
    app: App,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """Each says its id, topics, type, data, size, and when it was published."""
    id = await hub.publish(SSEEvent("é\nb", event="alert"), topics=["news", "a/b"])
    async with look(app, "?first=5") as client:
        (shown, begin) = await take(client, 2)
        await hub.publish("later", topics=["other"])
        ((_, later),) = await take(client, 1)
    assert abs(shown[1].pop("published") - time.time()) < 60
    assert shown == (
        "event",
        {
            "id": id,
            "topics": ["news", "a/b"],
            "private": False,
            "type": "alert",
            "data": "é\nb",
            "size": 4,
        },
    )
    assert begin == ("begin", {})
    assert (later["data"], later["topics"], later["type"]) == ("later", ["other"], "message")


async def test_it_is_nobody(
    hub: Hub,
    app: App,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """A page is no subscriber; its streams and refusals stand beside those of the server."""
    async with look(app), connect(app, "/statistics", lifespan=False) as statistics:
        await hub.publish("x", topics=["a"])
        await take_until(statistics, published=1)
        found = await take_until(statistics, published=1)
    assert (found["hub"]["subscribers"], found["hub"]["delivered"]) == (0, 0)
    assert (found["watchers"]["streams"], found["topics"][0]["subscribers"]) == (2, 0)
    async with look(app, via="1.1 proxy") as refused:
        assert refused.status == 403
    await wait_all_tasks_blocked()
    headers = {"accept": "application/json"}
    async with connect(app, "/statistics", headers=headers, lifespan=False) as client:
        found = json.loads(await client.body())
    assert found["watchers"] == {
        "streams": 0,
        "stream_closings": {"client_closed": 2},
        "refusals": {"403": 1},
    }
    assert (found["access"]["forbidden"], found["takes_tokens"]) == (1, False)


async def take_until(client: Client, *, published: int) -> dict[str, Any]:
    """Take snapshots until the hub has published so many."""
    while True:
        found: dict[str, Any] = json.loads((await client.next_event()).data or "")
        if found["hub"]["published"] == published:
            return found


async def test_it_goes_on_behind_the_last(hub: Hub, app: App) -> None:
    """With `Last-Event-ID` comes what was missed; a quiet list has an id to go on from too."""
    async with look(app) as client:
        begin = await client.next_event()
    await hub.publish("missed", topics=["a"])
    async with look(app, "?first=9", **{"last-event-id": begin.id or ""}) as client:
        ((_, missed),) = await take(client, 1)
    assert missed["data"] == "missed"


async def test_of_a_crowd_the_newest_come(
    hub: Hub,
    app: App,
    autojump_clock: MockClock,  # noqa: ARG001 - time that jumps
) -> None:
    """Of what is published between two looks only so many come, and that some didn't is told."""
    async with look(app) as client:
        await client.next_event()
        texts = [str(n) for n in range(3 * MAX_SHOWN)]
        await hub.publish_all(texts, topics=["a"])
        (gap, *rest) = await take(client, 1 + MAX_SHOWN)
    assert gap == ("gap", {"gap": "skipped"})
    assert [found["data"] for _, found in rest] == texts[-MAX_SHOWN:]


async def test_an_unknown_id_is_told(hub: Hub, app: App) -> None:
    """A page that comes to another hub is told, and gets what that has."""
    await hub.publish("x", topics=["a"])
    async with look(app, **{"last-event-id": "bcdfghjk-3"}) as client:
        gap, (_, shown) = await take(client, 2)
    assert (gap, shown["data"]) == (("gap", {"gap": "unknown"}), "x")


async def test_a_topic_is_chosen_and_an_event_without_data_is_none(hub: Hub, app: App) -> None:
    """Only events on the topic that is asked for; one without data dispatches nowhere."""
    await hub.publish("no", topics=["b"])
    await hub.publish(SSEEvent(id="own-1"), topics=["a"])
    await hub.publish("yes", topics=["a"])
    async with look(app, "?topic=a&first=5") as client:
        found = await take(client, 2)
    assert [kind for kind, _ in found] == ["event", "begin"]
    assert found[0][1]["data"] == "yes"


async def test_long_data_is_cut(hub: Hub, app: App) -> None:
    """Of long data the beginning comes, and its size."""
    await hub.publish("x" * (MAX_CHARACTERS + 1), topics=["a"])
    async with look(app, "?first=1") as client:
        ((_, shown),) = await take(client, 1)
    assert (len(shown["data"]), shown["size"]) == (MAX_CHARACTERS, MAX_CHARACTERS + 1)


async def test_private_events_need_the_right(hub: Hub) -> None:
    """A private event comes to whose grant has one of its topics, and names no other of them."""

    async def authenticate(event: H3Event) -> Grant:
        await trio.lowlevel.checkpoint()
        name = event.headers.get("authorization", "")
        return Grant(subscribe=Selection([name] if name else []), subject="alice")

    app = create_app(hub, access=AccessControl(authenticator=authenticate))
    await hub.publish("secret", topics=["a", "b"], private=True)
    for name, topics in (("", None), ("c", None), ("b", ["b"]), ("*", ["a", "b"])):
        async with look(app, "?first=5", authorization=name) as client:
            kind, shown = (await take(client, 1))[0]
            assert (kind, shown.get("topics")) == ("event" if topics else "begin", topics)


@table(
    "query",
    ["?first=201", "?first=x", "?first=-1", "?first=", "?first=%C2%B2", "?topic=a%00b", "?fist=1"],
)
async def test_what_cant_be_shown_is_refused(app: App, query: str) -> None:
    """400 in words, before a stream begins."""
    async with look(app, query) as client:
        assert client.status == 400
        assert b"first" in (said := await client.body()) or b"topic" in said
