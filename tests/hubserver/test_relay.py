"""`/relay`: the whole log for who has the right, and what becomes of it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from tables import table

from h3trio import H3Event, SSEEvent, SSEParser
from h3trio.hub import Hub, MemoryHistory, SQLiteHistory
from h3trio.hubserver import AccessControl, AnonymousAccess, Grant, create_app
from h3trio.hubserver._access.grant import ALL_TOPICS
from h3trio.hubserver._relay import MAX_NOTICE_CHARACTERS
from h3trio.testing import Client, SharedMemoryHistory, SharedMemoryStore, connect

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from h3trio import App
    from h3trio.hub import History

RELAY = {"Authorization": "relay"}
GRANTS = {
    "relay": Grant(relay=True),
    "others": Grant(publish=ALL_TOPICS, subscribe=ALL_TOPICS, operate=True),
}
OPEN = AnonymousAccess(
    allow_anonymous_publish=True, allow_anonymous_subscribe=True, allow_anonymous_operate=True
)


async def authenticate(event: H3Event) -> Grant | None:
    """Give the rights that a request names."""
    return GRANTS.get(event.headers.get("authorization", ""))


class Reader:
    """A reader of the relay."""

    def __init__(self, client: Client) -> None:
        self.client = client

    async def next(self) -> tuple[str, Any, str]:
        """The next event: its type, its data, and its id."""
        event = await self.client.next_event()
        return event.event or "", json.loads(event.data or ""), event.id or ""

    async def records(self, count: int) -> list[str]:
        """The data of the next events that were published; notices are passed over."""
        found: list[str] = []
        while len(found) < count:
            kind, fields, _id = await self.next()
            if kind == "message":
                (event,) = SSEParser().feed(fields["frame"].encode())
                found.append(event.data or "")
        return found

    async def notice(self, kind: str) -> Any:  # noqa: ANN401 - JSON
        """The data of the next event of a type."""
        while True:
            found, fields, _id = await self.next()
            if found == kind:
                return fields


class Served:
    """A hub that is served."""

    def __init__(self, hub: Hub, app: App) -> None:
        self.hub = hub
        self.app = app

    async def publish(self, *data: str, topic: str = "a") -> list[str]:
        """Publish events; return their ids."""
        return [await self.hub.publish(one, topics=[topic]) for one in data]

    @asynccontextmanager
    async def read(
        self, query: str = "", last_event_id: str | None = None
    ) -> AsyncGenerator[Reader]:
        """Read the relay."""
        async with connect(
            self.app,
            f"/relay{query}",
            headers=RELAY,
            last_event_id=last_event_id,
            lifespan=False,
        ) as client:
            assert client.status == 200
            with trio.fail_after(10):
                yield Reader(client)


@asynccontextmanager
async def served(history: History | None = None) -> AsyncGenerator[Served]:
    """Serve a hub."""
    hub = Hub(history)
    app = create_app(hub, access=AccessControl(authenticator=authenticate))
    async with app.lifespan():
        yield Served(hub, app)


@table(
    "access, token, status",
    [
        (AccessControl(anonymous=OPEN), "relay", 401),
        (AccessControl(anonymous=OPEN, authenticator=authenticate), "none", 401),
        (AccessControl(authenticator=authenticate), "others", 403),
        (AccessControl(authenticator=authenticate), "relay", 200),
    ],
)
async def test_it_needs_a_right_of_its_own(access: AccessControl, token: str, status: int) -> None:
    """Nobody has it without a token, whatever is open to anyone; nor by another right."""
    headers = {"Authorization": token}
    async with connect(create_app(access=access), "/relay", headers=headers) as client:
        assert client.status == status


@table("query", ["?first=10", "?topic=a", "?first=x"])
async def test_a_wrong_query_is_refused(query: str) -> None:
    """It is all of the log, from its beginning, from an id, or from now on."""
    async with (
        served() as hub,
        connect(hub.app, f"/relay{query}", headers=RELAY, lifespan=False) as client,
    ):
        assert client.status == 400


async def test_a_record_is_json_and_its_id_a_cursor() -> None:
    """Private events are among them; the publisher's id is in the frame."""
    async with served() as hub:
        event = SSEEvent("é\nb", event="note", id="own")
        await hub.hub.publish(event, topics=["a", "b"], private=True)
        async with hub.read("?first=oldest") as reader:
            epochs = await reader.notice("epoch")
            ((epoch, first),) = epochs["epochs"]
            assert first == 1
            marks = await reader.notice("trimmed")
            assert marks == {"floor": 0, "private_floor": 0, "marks": []}
            kind, fields, id = await reader.next()
            assert (kind, id) == ("message", f"{epoch}-1")
            assert fields.pop("published") == pytest.approx(1.8e9, rel=0.5)
            assert fields == {
                "topics": ["a", "b"],
                "private": True,
                "last": False,
                "frame": "event: note\nid: own\ndata: é\ndata: b\n\n",
            }


async def test_a_reader_goes_on_behind_its_id() -> None:
    """Live, and after it was away: each record once, in order."""
    async with served() as hub:
        async with hub.read() as reader:
            await reader.notice("trimmed")
            await hub.publish("1", "2")
            assert await reader.records(2) == ["1", "2"]
            id = reader.client.last_event_id
        await hub.publish(*"345")
        async with hub.read(last_event_id=id) as reader:
            assert await reader.records(3) == list("345")
            await hub.publish("6")
            assert await reader.records(1) == ["6"]


async def test_a_close_is_told() -> None:
    """Behind the record that says it too, which may have no event; not to who comes behind it."""
    async with served() as hub:
        await hub.hub.publish("end", topics=["a", "b"], private=True, last=True)
        await hub.hub.close("c")
        async with hub.read("?first=oldest") as reader:
            await reader.notice("trimmed")
            told = [await reader.next() for _ in range(4)]
            kinds, fields, ids = zip(*told, strict=True)
            assert kinds == ("message", "closed", "message", "closed")
            assert [record["last"] for record in fields[::2]] == [True, True]
            assert fields[2]["frame"] == ""
            assert fields[1] == {"topics": ["a", "b"], "private": True}
            assert fields[3] == {"topics": ["c"], "private": False}
            assert ids[::2] == ids[1::2]
        async with hub.read(last_event_id=ids[0]) as reader:
            await reader.notice("trimmed")
            assert [await reader.next() for _ in range(2)] == told[2:]


async def test_an_unknown_id_is_told() -> None:
    """Then all comes that is left."""
    async with served() as hub:
        await hub.publish("1")
        async with hub.read(last_event_id="?") as reader:
            assert await reader.notice("reset") == {"reason": "unknown", "id": "?"}
            assert await reader.records(1) == ["1"]


async def test_removals_are_told_while_they_happen() -> None:
    """What retention takes by its topics and positions, what is purged as such."""
    async with served(MemoryHistory(max_events=2)) as hub, hub.read() as reader:
        await reader.notice("trimmed")
        await hub.publish("1", "2")
        await reader.records(2)
        await hub.hub.publish("3", topics=["b", "c"], private=True)
        marks = await reader.notice("trimmed")
        assert marks["marks"] == [{"topics": ["a"], "position": 1, "private": False}]
        await hub.hub.purge("b")
        mark = {"topics": ["b", "c"], "position": 3, "private": True}
        assert (await reader.notice("trimmed"))["marks"] == [mark]
        assert await reader.notice("purged") == {"topic": "b", "position": 3}


async def test_age_is_told_without_an_event(autojump_clock: trio.testing.MockClock) -> None:
    """A reader that waits learns that records have become too old."""
    history = MemoryHistory(max_age=2, clock=autojump_clock.current_time)
    async with served(history) as hub, hub.read() as reader:
        await reader.notice("trimmed")
        await hub.publish("1")
        marks = (await reader.notice("trimmed"))["marks"]
        assert [mark["position"] for mark in marks] == [1]


async def test_all_marks_come_first_in_notices_of_a_bounded_size() -> None:
    """A reader that begins has every gap before it has a record."""
    names = [f"{n}-{'x' * 1000}" for n in range(200)]
    async with served(MemoryHistory(max_events=1)) as hub:
        for name in names:
            await hub.publish("x", topic=name)
        async with hub.read("?first=oldest") as reader:
            found: list[str] = []
            count = 0
            while len(found) < len(names) - 1:
                kind, fields, _id = await reader.next()
                assert kind in ("epoch", "trimmed")
                size = len(json.dumps(fields))
                assert size < 2 * MAX_NOTICE_CHARACTERS
                found += [t for mark in fields.get("marks", ()) for t in mark["topics"]]
                count += 1
            assert found == names[:-1]
            assert count > 3
            assert await reader.records(1) == ["x"]


async def test_it_reads_beyond_what_is_in_memory(tmp_path: Path) -> None:
    """The store has the rest; a new epoch of it is told."""
    for number in range(2):
        history = SQLiteHistory(tmp_path / "hub.db", durability="fast", tail_events=2)
        async with served(history) as hub:
            await hub.publish(*"12345")
            async with hub.read("?first=oldest") as reader:
                assert len((await reader.notice("epoch"))["epochs"]) == number + 1
                assert await reader.records(5) == list("12345")


async def test_a_loss_is_told(autojump_clock: trio.testing.MockClock) -> None:
    """A reader that had more than is left lets go of it, and goes on behind what is left."""
    assert autojump_clock.current_time() == 0
    store = SharedMemoryStore()
    async with served(SharedMemoryHistory(store)) as hub, hub.read() as reader:
        await reader.notice("trimmed")
        (kept,) = await hub.publish("1")
        store.replicate()
        (lost,) = await hub.publish("2")
        assert await reader.records(2) == ["1", "2"]
        store.fail_over()
        await hub.publish("3")
        assert len((await reader.notice("epoch"))["epochs"]) == 2
        kind, fields, id = await reader.next()
        assert (kind, fields["reason"], id) == ("reset", "lost", kept)
        assert await reader.records(1) == ["3"]
        async with hub.read(last_event_id=lost) as other:
            assert await other.notice("reset") == {"reason": "lost", "id": lost}
            assert await other.records(1) == ["3"]
