"""`read_recent`: the newest events for who looks on, what is left out, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from h3trio.hub import HistoryError, Hub, MemoryHistory, SQLiteHistory, read_recent
from h3trio.hub._history import recent

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from h3trio.hub import History, Recent


@pytest.fixture(params=["memory", "sqlite"])
async def hub(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncGenerator[Hub]:
    """A hub that keeps twenty events, three of them in memory where it has a store."""
    kept = 20
    histories: dict[str, Callable[[], History]] = {
        "memory": lambda: MemoryHistory(max_events=kept),
        "sqlite": lambda: SQLiteHistory(tmp_path / "hub.db", max_events=kept, tail_events=3),
    }
    async with Hub(histories[request.param]()) as running:
        yield running


async def publish(hub: Hub, topic: str, *texts: str, private: bool = False) -> str:
    """Publish some; return the last id."""
    return (await hub.publish_all(texts, topics=[topic], private=private))[-1]


def data(found: Recent) -> list[str]:
    """What the records say."""
    return [record.frame.decode().rpartition("data: ")[2].strip() for record in found.records]


async def test_the_newest_in_order(hub: Hub) -> None:
    """The last so many of the topics that are asked for, with their topics and times."""
    await publish(hub, "a", "1", "2")
    await publish(hub, "b", "3")
    await publish(hub, "a", "4", "5")
    found = await read_recent(hub.history, ["a"], count=3)
    assert data(found) == ["2", "4", "5"]
    assert (found.gap, found.last_event_id) == (None, hub.last_event_id)
    assert {record.topics for record in found.records} == {("a",)}
    assert all(record.published > 0 for record in found.records)
    assert data(await read_recent(hub.history, ["*"], count=9)) == ["1", "2", "3", "4", "5"]
    assert data(await read_recent(hub.history, ["c"], count=9)) == []


async def test_a_close_without_an_event_is_nothing_to_look_at(hub: Hub) -> None:
    """It isn't given, and counts for nothing that was left out."""
    before = await publish(hub, "a", "1", "2")
    await hub.close("a")
    assert data(await read_recent(hub.history, ["a"], count=2)) == ["1", "2"]
    found = await read_recent(hub.history, ["a"], count=1, last_event_id=before)
    assert (data(found), found.gap, found.last_event_id) == ([], None, hub.last_event_id)


async def test_what_came_behind_an_id(hub: Hub) -> None:
    """With an id, only what came behind it; with the cursor of the last answer, what is new."""
    before = await publish(hub, "a", "1", "2")
    await publish(hub, "a", "3", "4")
    found = await read_recent(hub.history, ["a"], count=5, last_event_id=before)
    assert (data(found), found.gap) == (["3", "4"], None)
    found = await read_recent(hub.history, ["a"], count=5, last_event_id=found.last_event_id)
    assert (data(found), found.gap) == ([], None)


async def test_what_is_left_out_is_told(hub: Hub) -> None:
    """More than asked for, removed, or behind an id that nobody knows: it says which."""
    first = await publish(hub, "a", "1")
    await publish(hub, "a", *"23456")
    found = await read_recent(hub.history, ["a"], count=4, last_event_id=first)
    assert (data(found), found.gap) == (list("3456"), "skipped")
    found = await read_recent(hub.history, ["a"], count=5, last_event_id=first)
    assert (data(found), found.gap) == (list("23456"), None)
    found = await read_recent(hub.history, ["a"], count=2, last_event_id="bcdfghjk-3")
    assert (data(found), found.gap) == (list("56"), "unknown")
    await publish(hub, "a", *map(str, range(7, 27)))
    found = await read_recent(hub.history, ["a"], count=30, last_event_id=first)
    assert (len(found.records), found.gap) == (20, "trimmed")
    assert (await read_recent(hub.history, ["b"], count=1, last_event_id=first)).gap is None


async def test_private_events_are_for_whom_they_are_allowed(hub: Hub) -> None:
    """A private event is given only where `allow` names its topic."""
    await publish(hub, "a", "open")
    await publish(hub, "a", "secret", private=True)
    assert data(await read_recent(hub.history, ["a"], count=5)) == ["open"]
    assert data(await read_recent(hub.history, ["*"], count=5, allow=["b"])) == ["open"]
    assert data(await read_recent(hub.history, ["*"], count=5, allow=["a"])) == ["open", "secret"]


async def test_it_is_bounded_in_bytes(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a size the older ones are left out, never the newest."""
    before = hub.last_event_id
    await publish(hub, "a", *(str(n) + 100 * "x" for n in range(5)))
    monkeypatch.setattr(recent, "MAX_BYTES", 400)
    found = await read_recent(hub.history, ["a"], count=5, last_event_id=before)
    assert [text[0] for text in data(found)] == ["2", "3", "4"]
    assert found.gap == "skipped"
    monkeypatch.setattr(recent, "MAX_BYTES", 1)
    assert [text[0] for text in data(await read_recent(hub.history, ["a"], count=5))] == ["4"]


async def test_nothing_is_counted(hub: Hub) -> None:
    """Who looks on is no subscriber, and gets no delivery that counts."""
    await publish(hub, "a", "1")
    await read_recent(hub.history, ["a"], count=1)
    found = hub.statistics()
    assert (found.delivered, found.replays, found.subscribers, found.ended) == (0, 0, 0, {})


async def test_none_is_no_count(hub: Hub) -> None:
    """Who wants none needn't ask."""
    with pytest.raises(ValueError, match="count must be 1 or more"):
        await read_recent(hub.history, ["a"], count=0)


async def test_a_store_that_does_not_answer_is_given_up(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """After a time that is long enough for any search."""
    async with Hub(Silent()) as hub:
        await publish(hub, "a", *"123")
        began = autojump_clock.current_time()
        with pytest.raises(HistoryError, match="within 30 s"):
            await read_recent(hub.history, ["a"], count=1)
        assert autojump_clock.current_time() - began == recent.MAX_SECONDS


class Silent(MemoryHistory):  # type: ignore[misc]  # it is final, and this a store that is frozen
    """A history that can't be searched."""

    async def position_before_last(self, *_: object, **__: object) -> int:
        """Never answer."""
        await trio.sleep_forever()
