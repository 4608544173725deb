"""The hub: publish, subscribe, replay, reset, kick, over fake sinks and memory."""

from __future__ import annotations

import json
import re
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import FakeSink
from tables import table
from trio.testing import wait_all_tasks_blocked

from h3trio import EventTooLargeError, SSEEvent
from h3trio._wire.batch import Batch
from h3trio.hub import (
    EndReason,
    HistoryError,
    Hub,
    HubSettings,
    KeyReusedError,
    MemoryHistory,
    SQLiteHistory,
    Start,
)
from h3trio.hub._fanout.replay import MAX_PAGE_RECORDS
from h3trio.hub._history.epochs import Epochs

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from h3trio.hub._history.record import Page


@pytest.fixture
async def hub() -> AsyncGenerator[Hub]:
    """A running hub in memory."""
    async with Hub() as running:
        yield running


class Client:
    """One subscription in a task of its own."""

    def __init__(
        self,
        nursery: trio.Nursery,
        hub: Hub,
        topics: list[str] | Start,
        *,
        sink: FakeSink | None = None,
        **options: Any,  # noqa: ANN401 - those of `subscribe`
    ) -> None:
        self.sink = sink or FakeSink()
        self.scope = trio.CancelScope()
        self.reason: EndReason | None = None
        self.error: Exception | None = None
        self._hub = hub
        self._topics = topics
        self._options = options
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        with self.scope:
            try:
                self.reason = await self._hub.subscribe(self.sink, self._topics, **self._options)
            except (trio.BrokenResourceError, trio.ClosedResourceError, ValueError) as exc:
                self.error = exc

    @property
    def data(self) -> list[str | None]:
        """The data that it received, without that of the hub's own events."""
        return [e.data for e in self.sink.events if e.event not in ("reset", "cursor")]

    @property
    def resets(self) -> list[dict[str, Any]]:
        """The data of each `reset`."""
        return [json.loads(e.data or "") for e in self.sink.events if e.event == "reset"]


async def settle() -> None:
    """Let every task do what it can."""
    await wait_all_tasks_blocked()


# -- publishing


async def test_subscribers_get_what_is_published_to_their_topics(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """An event reaches the subscribers of each of its topics, once, and nobody else."""
    news = Client(nursery, hub, ["news"])
    both = Client(nursery, hub, ["news", "sport"])
    everything = Client(nursery, hub, ["*"])
    other = Client(nursery, hub, ["weather"])
    await settle()
    await hub.publish("1", topics=["news"])
    await hub.publish("2", topics=["sport"])
    await hub.publish("3", topics=["sport", "news"])
    await settle()
    assert news.data == ["1", "3"]
    assert both.data == ["1", "2", "3"]
    assert everything.data == ["1", "2", "3"]
    assert other.data == []


async def test_publish_returns_the_id_on_the_wire(hub: Hub, nursery: trio.Nursery) -> None:
    """The id of an acknowledged publish is the one that subscribers see."""
    client = Client(nursery, hub, ["news"])
    await settle()
    ids = [await hub.publish(str(n), topics=["news"]) for n in range(3)]
    own = await hub.publish(SSEEvent("x", id="mine"), topics=["news"])
    await settle()
    assert [event.id for event in client.sink.events] == [*ids, own]
    assert own == "mine"
    assert len(set(ids)) == 3


async def test_publish_all_is_one_step(hub: Hub, nursery: trio.Nursery) -> None:
    """Events of one call arrive in order, in one send."""
    client = Client(nursery, hub, ["news"])
    await settle()
    before = len(client.sink.batches)
    await hub.publish_all(["1", "2", "3"], topics=["news"])
    await settle()
    assert client.data == ["1", "2", "3"]
    assert len(client.sink.batches) == before + 1


async def test_publish_nowait_is_the_same_step_inline(hub: Hub, nursery: trio.Nursery) -> None:
    """A memory history takes an event without a checkpoint."""
    client = Client(nursery, hub, ["news"])
    await settle()
    event_id = hub.publish_nowait("now", topics=["news"])
    await settle()
    assert [(e.id, e.data) for e in client.sink.events] == [(event_id, "now")]


def test_settings_without_meaning_are_refused(subtests: pytest.Subtests) -> None:
    """A limit of a hub is a number from 1 on, a time one from 0 on, and both have an end."""
    names = ("max_topics", "flush_interval", "reconnect_delay")
    for name, value in product(names, (-1, float("nan"), float("inf"))):
        problem = f"{name} must be a number from"
        with subtests.test(name, value=value), pytest.raises(ValueError, match=problem):
            HubSettings(**{name: value})  # type: ignore[arg-type] # as a caller without types does
    assert HubSettings(flush_interval=0).flush_interval == 0


REFUSED: list[tuple[SSEEvent | str, list[str], str]] = [
    ("x", [], "needs at least one topic"),
    ("x", ["*"], "not published to"),
    ("x", ["a\x00"], "control characters"),
    ("x", ["t" * 1025], "may have 1024 characters, not 1025"),
    ("x", [str(n) for n in range(1001)], "at most 1000 topics, not 1001"),
    ("x", [f"{n:03}" + 64 * "☃" for n in range(400)], "topics may have 65536 bytes together, not"),
    (SSEEvent("x", event="reset"), ["news"], "the hub's own"),
    (SSEEvent("x", event="cursor"), ["news"], "the hub's own"),
    (SSEEvent(comment="only"), ["news"], "needs data"),
    (SSEEvent("x", id="i" * 513), ["news"], "id must have 1 to 512"),
]


async def test_what_may_not_be_published_is_refused(hub: Hub, subtests: pytest.Subtests) -> None:
    """A bad topic, type or id is a ValueError that says so, and nothing is stored."""
    for event, topics, problem in REFUSED:
        with subtests.test(problem):
            with pytest.raises(ValueError, match=problem):
                await hub.publish(event, topics=topics)
            with pytest.raises(ValueError, match=problem):
                await hub.publish_all(["good", event], topics=topics)
    assert hub.statistics().history.events == 0


async def test_limits_hold_exactly(hub: Hub) -> None:
    """A topic of 1,024 characters, 1,000 topics, and 64 KiB of topics are taken."""
    await hub.publish("x", topics=["t" * 1024])
    await hub.publish("x", topics=[str(n) for n in range(1000)])
    full = [f"{n:02}" + 1022 * "t" for n in range(64)]
    await hub.publish("x", topics=full)
    assert hub.statistics().history.events == 3
    with pytest.raises(ValueError, match="not 65537"):
        await hub.subscribe(FakeSink(), [*full, "x"])


async def test_an_event_has_a_largest_size() -> None:
    """At the limit it is published, one byte above it is refused."""
    settings = HubSettings(max_event_bytes=len(SSEEvent("xx").encode()))
    async with Hub(settings=settings) as hub:
        await hub.publish("xx", topics=["news"])
        with pytest.raises(EventTooLargeError, match="may have"):
            await hub.publish("xxx", topics=["news"])


async def test_a_single_string_is_not_a_list_of_topics(hub: Hub) -> None:
    """`topics="news"` is a TypeError, not four topics of one letter."""
    with pytest.raises(TypeError, match="several"):
        await hub.publish("x", topics="news")
    with pytest.raises(TypeError, match="several"):
        await hub.subscribe(FakeSink(), "news")


async def test_the_same_key_is_the_same_publish(hub: Hub, nursery: trio.Nursery) -> None:
    """A repeated `dedup` key gives the first id and sends nothing."""
    client = Client(nursery, hub, ["news"])
    await settle()
    first = await hub.publish("1", topics=["news"], dedup="k")
    assert await hub.publish("1", topics=["news"], dedup="k") == first
    await settle()
    assert client.data == ["1"]


async def test_a_key_belongs_to_its_topics(hub: Hub, nursery: trio.Nursery) -> None:
    """Used for another topic it takes nothing away; for another event of the same it is refused."""
    client = Client(nursery, hub, ["news"])
    await settle()
    await hub.publish("elsewhere", topics=["sport"], dedup="k")
    await hub.publish("1", topics=["news"], dedup="k")
    with pytest.raises(KeyReusedError, match="'k' was used for another event"):
        await hub.publish("2", topics=["news"], dedup="k")
    await settle()
    assert client.data == ["1"]


async def test_a_key_is_for_one_event(hub: Hub, nursery: trio.Nursery) -> None:
    """With several it is a ValueError and nothing is published; with one it is as `publish`."""
    client = Client(nursery, hub, ["news"])
    await settle()
    with pytest.raises(ValueError, match="dedup is for one event, not 3"):
        await hub.publish_all(["1", "2", "3"], topics=["news"], dedup="k")
    first = await hub.publish_all(["4"], topics=["news"], dedup="k")
    assert await hub.publish_all(["4"], topics=["news"], dedup="k") == first
    await settle()
    assert client.data == ["4"]


async def test_a_bad_key_is_refused(hub: Hub) -> None:
    """A `dedup` key that can't be kept is a ValueError at the call."""
    with pytest.raises(ValueError, match="dedup"):
        await hub.publish("x", topics=["news"], dedup="k" * 256)


async def test_topics_may_come_from_an_iterator(hub: Hub, nursery: trio.Nursery) -> None:
    """It is read once, whatever the number of events."""
    client = Client(nursery, hub, ["b"])
    await settle()
    await hub.publish_all(["1", "2"], topics=iter(["a", "b"]))
    await settle()
    assert client.data == ["1", "2"]


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_64_publishers_at_once_make_one_order(
    nursery: trio.Nursery, tmp_path: Path, store: str
) -> None:
    """However Trio shuffles them, all subscribers see one order: that of the log."""
    is_file = store == "sqlite"
    history = SQLiteHistory(tmp_path / "hub.db", durability="fast") if is_file else None
    async with Hub(history) as hub:
        clients = [Client(nursery, hub, ["*"]) for _ in range(3)]
        await settle()
        ids: list[str] = []

        async def publish(n: int) -> None:
            ids.extend([await hub.publish(f"{n}.{m}", topics=[f"t{n % 4}"]) for m in range(3)])

        async with trio.open_nursery() as publishers:
            for n in range(64):
                publishers.start_soon(publish, n)
        await settle()
        log = [(event.id, event.data) for event in clients[0].sink.events]
        assert len(log) == 64 * 3
        assert {event_id for event_id, _ in log} == set(ids)
        positions = [int((event_id or "").rpartition("-")[2]) for event_id, _ in log]
        assert positions == list(range(1, 64 * 3 + 1))
        for client in clients:
            assert [(event.id, event.data) for event in client.sink.events] == log
        late = Client(nursery, hub, ["*"], first="oldest")
        await settle()
        assert [(event.id, event.data) for event in late.sink.events] == log
        for client in (*clients, late):
            client.scope.cancel()


async def test_a_hub_that_does_not_run_says_so() -> None:
    """Publishing and subscribing before or after the hub's block is a ClosedResourceError."""
    hub = Hub()
    with pytest.raises(trio.ClosedResourceError, match="isn't running"):
        await hub.publish("x", topics=["news"])
    async with hub:
        await hub.publish("x", topics=["news"])
    with pytest.raises(trio.ClosedResourceError, match="isn't running"):
        await hub.publish("x", topics=["news"])
    with pytest.raises(trio.ClosedResourceError, match="isn't running"):
        await hub.subscribe(FakeSink(), ["news"])


# -- opening and replay


class BrowserSink(FakeSink):
    """A sink whose peer is a browser's `EventSource`."""

    is_event_source = True


def opening(retry: str) -> re.Pattern[str]:
    """Match what a stream opens with; one without a cursor has no blank line for any parser."""
    return re.compile(retry.replace("RETRY", r"retry: (?P<retry>\d+)\n"))


RETRY_ALONE = opening("RETRY")
CURSOR = opening(r"event: cursor\nid: (?P<id>.+)\nRETRYdata: \{\}\n\n")


async def test_a_stream_opens_with_a_retry(hub: Hub, nursery: trio.Nursery) -> None:
    """It stands alone on its line: clients take a block without data for an event."""
    await hub.publish("before", topics=["news"])
    client = Client(nursery, hub, ["news"])
    await settle()
    found = RETRY_ALONE.fullmatch(client.sink.payload.decode())
    assert found is not None
    assert 1000 <= int(found["retry"]) <= 3000


async def test_a_browser_gets_its_cursor_before_its_first_event(
    hub: Hub, nursery: trio.Nursery, subtests: pytest.Subtests
) -> None:
    """It is an event of a type of its own with JSON; `cursor=` decides otherwise."""
    known = await hub.publish("before", topics=["news"])
    cases: list[tuple[FakeSink, dict[str, Any], bool]] = [
        (FakeSink(), {}, False),
        (FakeSink(), {"cursor": True}, True),
        (BrowserSink(), {}, True),
        (BrowserSink(), {"cursor": False}, False),
        (BrowserSink(), {"first": 1}, True),
        # It has that one.
        (BrowserSink(), {"last_event_id": known}, False),
    ]
    for sink, options, has_cursor in cases:
        with subtests.test(sink=type(sink), options=options):
            client = Client(nursery, hub, ["news"], sink=sink, **options)
            await settle()
            found = (CURSOR if has_cursor else RETRY_ALONE).match(sink.payload.decode())
            assert found is not None
            assert not has_cursor or sink.last_event_id in (found["id"], known)
            client.scope.cancel()


@pytest.mark.parametrize("is_browser", [False, True])
async def test_a_quiet_client_reconnects_without_a_gap(
    hub: Hub, nursery: trio.Nursery, *, is_browser: bool
) -> None:
    """With the cursor of the beginning alone, nothing published since is missed."""
    start = await hub.locate(["news"])
    sink = BrowserSink() if is_browser else FakeSink()
    client = Client(nursery, hub, start, sink=sink)
    await settle()
    client.scope.cancel()
    await settle()
    await hub.publish("other", topics=["sport"])
    await hub.publish("missed", topics=["news"])
    cursor = sink.last_event_id if is_browser else start.headers["Last-Event-ID"]
    again = Client(nursery, hub, ["news"], last_event_id=cursor)
    await settle()
    await hub.publish("live", topics=["news"])
    await settle()
    assert again.data == ["missed", "live"]
    assert again.resets == []


async def test_a_stream_begins_where_it_was_located(hub: Hub, nursery: trio.Nursery) -> None:
    """What is published before the writer is there comes too; one start serves many."""
    ids = [await hub.publish(str(n), topics=["news"]) for n in range(3)]
    live = await hub.locate(["news"])
    last_two = await hub.locate(["news"], first=2)
    from_id = await hub.locate(["news"], last_event_id=ids[0], allow=["news"])
    assert [one.cursor for one in (live, last_two, from_id)] == [ids[2], ids[0], ids[0]]
    await hub.publish("secret", topics=["news"], private=True)
    await hub.publish("3", topics=["news"])
    starts = (live, live, last_two, from_id)
    clients = [Client(nursery, hub, start) for start in starts]
    await settle()
    await hub.publish("4", topics=["news"])
    await settle()
    assert [client.data for client in clients] == [
        ["3", "4"],
        ["3", "4"],
        ["1", "2", "3", "4"],
        ["1", "2", "secret", "3", "4"],
    ]


async def test_a_start_says_all(hub: Hub) -> None:
    """An id, `first` or rights beside it are a TypeError; bad topics a ValueError at once."""
    start = await hub.locate(["news"])
    options: list[dict[str, Any]] = [{"last_event_id": "x"}, {"first": 1}, {"allow": ["news"]}]
    for option in options:
        with pytest.raises(TypeError, match="give it alone"):
            await hub.subscribe(FakeSink(), start, **option)
    with pytest.raises(ValueError, match="topic"):
        await hub.locate([])


async def test_without_an_id_only_what_comes(hub: Hub, nursery: trio.Nursery) -> None:
    """No id: live only; `first` asks for more."""
    for n in range(5):
        await hub.publish(str(n), topics=["news"])
    clients = [
        Client(nursery, hub, ["news"], first=first) for first in (None, "newest", 2, "oldest", 99)
    ]
    await settle()
    await hub.publish("live", topics=["news"])
    await settle()
    assert [client.data for client in clients] == [
        ["live"],
        ["live"],
        ["3", "4", "live"],
        ["0", "1", "2", "3", "4", "live"],
        ["0", "1", "2", "3", "4", "live"],
    ]
    assert all(client.resets == [] for client in clients)


async def test_replay_goes_on_from_a_publishers_own_id(hub: Hub, nursery: trio.Nursery) -> None:
    """A publisher's id is a cursor too; of two equal ones the newest counts."""
    for n in range(4):
        await hub.publish(SSEEvent(str(n), id="same" if n in (0, 2) else None), topics=["news"])
    client = Client(nursery, hub, ["news"], last_event_id="same")
    await settle()
    assert client.data == ["3"]


async def test_an_id_belongs_to_its_topics(hub: Hub, nursery: trio.Nursery) -> None:
    """An id that somebody used in another topic makes nobody skip an event."""
    await hub.publish(SSEEvent("1", id="o-2"), topics=["news"])
    await hub.publish("2", topics=["news"])
    await hub.publish(SSEEvent("elsewhere", id="o-2"), topics=["sport"])
    news = Client(nursery, hub, ["news"], last_event_id="o-2")
    both = Client(nursery, hub, ["news", "sport"], last_event_id="o-2")
    await settle()
    assert (news.data, news.resets) == (["2"], [])
    assert (both.data, both.resets) == (["2", "elsewhere"], [])


async def test_an_id_doesnt_tell_that_a_private_event_exists(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """The id of an event that a client may not see is answered like any other."""
    await hub.publish("public", topics=["news"])
    await hub.publish(SSEEvent("secret", id="hidden"), topics=["news"], private=True)
    await hub.publish("after", topics=["news"])
    hidden, absent, allowed = (
        Client(nursery, hub, ["news"], last_event_id=id, allow=allow)
        for id, allow in (("hidden", []), ("absent", []), ("hidden", ["news"]))
    )
    await settle()
    answers = [re.sub(rb"retry: [0-9]+", b"", one.sink.payload) for one in (hidden, absent)]
    assert answers[0].replace(b"hidden", b"absent") == answers[1]
    assert hidden.resets == [{"reason": "unknown", "id": "hidden"}]
    assert (allowed.data, allowed.resets) == (["after"], [])


async def test_the_last_events_are_those_that_may_be_seen(hub: Hub, nursery: trio.Nursery) -> None:
    """`first=2` gives two, whatever private events stand between."""
    for data, private in (("1", False), ("2", False), ("s", True), ("3", False), ("t", True)):
        await hub.publish(data, topics=["news"], private=private)
    public = Client(nursery, hub, ["news"], first=2)
    allowed = Client(nursery, hub, ["news"], first=2, allow=["news"])
    await settle()
    assert (public.data, allowed.data) == (["2", "3"], ["3", "t"])


async def test_an_unknown_id_is_told_and_gets_what_is_retained(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """`reset` names the id that was asked for; its own id is good on the next reconnect."""
    for n in range(3):
        await hub.publish(str(n), topics=["news"])
    client = Client(nursery, hub, ["news"], last_event_id="never-heard-of")
    await settle()
    assert client.resets == [{"reason": "unknown", "id": "never-heard-of"}]
    assert client.data == ["0", "1", "2"]
    again = Client(nursery, hub, ["news"], last_event_id=client.sink.last_event_id)
    reset_id = next(e.id for e in client.sink.events if e.event == "reset")
    from_reset = Client(nursery, hub, ["news"], last_event_id=reset_id)
    await settle()
    assert (again.data, again.resets) == ([], [])
    assert (from_reset.data, from_reset.resets) == (["0", "1", "2"], [])


async def test_a_trimmed_cursor_is_told_once(nursery: trio.Nursery) -> None:
    """History that is gone is a `reset`, then what is retained, then live."""
    async with Hub(MemoryHistory(max_events=3)) as hub:
        first = await hub.publish("0", topics=["news"])
        for n in range(1, 7):
            await hub.publish(str(n), topics=["news"])
        client = Client(nursery, hub, ["news"], last_event_id=first)
        await settle()
        await hub.publish("live", topics=["news"])
        await settle()
        assert [reset["reason"] for reset in client.resets] == ["trimmed"]
        assert client.data == ["4", "5", "6", "live"]
        client.scope.cancel()


def first_reset(client: Client) -> SSEEvent | None:
    """The first `reset` that a client got, if it got one."""
    return next((e for e in client.sink.events if e.event == "reset"), None)


@pytest.mark.parametrize("is_browser", [False, True])
async def test_who_keeps_the_id_of_a_reset_is_not_told_again(
    nursery: trio.Nursery, subtests: pytest.Subtests, *, is_browser: bool
) -> None:
    """Whatever id was asked for, a page that reloads on `reset` does it once for a gap."""
    async with Hub(MemoryHistory(max_topic_events=2)) as hub:
        # Of `quiet` an older one is left than the newest that is gone of `news`.
        await hub.publish("quiet", topics=["quiet"])
        ids = [await hub.publish(str(n), topics=["news"]) for n in range(5)]
        await hub.purge("sport")
        for topics, asked in product((["news"], ["news", "quiet"], ["*"]), (ids[0], "unknown")):
            with subtests.test(topics=topics, asked=asked):
                sink = BrowserSink() if is_browser else FakeSink()
                client = Client(nursery, hub, topics, last_event_id=asked, sink=sink)
                await settle()
                reset = first_reset(client)
                assert reset is not None
                assert json.loads(reset.data or "")["id"] == asked
                assert client.data[-2:] == ["3", "4"]
                for cursor in (reset.id, client.sink.last_event_id):
                    again = Client(nursery, hub, topics, last_event_id=cursor)
                    await settle()
                    assert again.resets == []
                    again.scope.cancel()
                client.scope.cancel()


async def test_the_id_of_a_reset_is_of_an_epoch_that_is_known(nursery: trio.Nursery) -> None:
    """Even where everything that is left is of one that was forgotten."""
    history = MemoryHistory()
    history.epochs = Epochs(max_epochs=1)
    for n in range(3):
        async with Hub(history) as hub:
            await hub.publish(str(n), topics=["news"])
    async with Hub(history) as hub:
        client = Client(nursery, hub, ["news"], last_event_id="unknown")
        await settle()
        assert client.data == ["0", "1", "2"]
        reset = first_reset(client)
        assert reset is not None
        again = Client(nursery, hub, ["news"], last_event_id=reset.id)
        await settle()
        assert again.resets == []
        nursery.cancel_scope.cancel()


async def test_a_browser_is_not_told_again_while_its_topics_are_quiet(
    nursery: trio.Nursery,
) -> None:
    """If all that is left is older than what is gone, it gets a cursor behind both."""
    async with Hub(MemoryHistory()) as hub:
        seen = await hub.publish("seen", topics=["a"])
        await hub.publish("left", topics=["a"])
        await hub.publish("gone", topics=["b"])
        await hub.purge("b")
        options: list[dict[str, Any]] = [{"last_event_id": seen}, {"first": "oldest"}, {"first": 1}]
        for option in options:
            client = Client(nursery, hub, ["a", "b"], sink=BrowserSink(), **option)
            await settle()
            assert client.data[-1:] == ["left"]
            assert client.sink.last_event_id == hub.last_event_id
            client.scope.cancel()


async def test_a_beginning_that_is_gone_is_no_reset(
    nursery: trio.Nursery, subtests: pytest.Subtests
) -> None:
    """The start, its headers, the channel and the subscription say it, if less is left."""
    async with Hub(MemoryHistory(max_topic_events=3)) as hub:
        for n in range(3):
            await hub.publish(str(n), topics=["whole"])
        for n in range(5):
            await hub.publish(str(n), topics=["news"])
        cases: list[tuple[str, int | str | None, bool]] = [
            ("whole", "oldest", False),
            ("whole", 9, False),
            ("news", "oldest", True),
            ("news", 4, True),
            ("news", 3, False),
            ("news", None, False),
            ("news", "newest", False),
        ]
        for topic, first, truncated in cases:
            with subtests.test(topic=topic, first=first):
                start = await hub.locate([topic], first=first)
                headers = {"Last-Event-ID": start.cursor}
                if truncated:
                    headers["History-Truncated"] = "?1"
                assert (start.truncated, start.headers) == (truncated, headers)
                client = Client(nursery, hub, [topic], first=first)
                await settle()
                assert [one.truncated for one in hub.subscriptions()] == [truncated]
                assert client.resets == []
                client.scope.cancel()
                async with hub.subscription([topic], first=first) as events:
                    assert (events.truncated, events.last_event_id) == (truncated, start.cursor)


async def test_as_many_as_were_asked_for_may_begin_with_the_first_of_all(hub: Hub) -> None:
    """Two are left of which the older is the first of the log: `first=2` isn't truncated."""
    await hub.publish("1", topics=["a"])
    await hub.publish("2", topics=["b"])
    await hub.publish("3", topics=["a"])
    await hub.purge("b")
    starts = [await hub.locate(["a", "b"], first=first) for first in (1, 2, 3)]
    assert [start.truncated for start in starts] == [False, False, True]


async def test_a_beginning_that_goes_before_it_is_sent(nursery: trio.Nursery) -> None:
    """It is a `reset` only where the head promised it, and it isn't there in another form."""
    async with Hub(MemoryHistory(max_topic_events=3)) as hub:
        for n in range(3):
            await hub.publish(str(n), topics=["news"])
        oldest, last_two, last_three = [
            await hub.locate(["news"], first=first) for first in ("oldest", 2, 3)
        ]
        for n in range(3, 5):
            await hub.publish(str(n), topics=["news"])
        truncated = await hub.locate(["news"], first="oldest")
        await hub.publish("5", topics=["news"])
        starts = (oldest, last_two, last_three, truncated)
        clients = [Client(nursery, hub, start) for start in starts]
        await settle()
        assert [len(client.resets) for client in clients] == [1, 0, 0, 0]
        assert [client.data for client in clients] == [["3", "4", "5"]] * 4
        for client in clients:
            client.scope.cancel()


async def test_nothing_is_lost_while_a_gap_is_looked_into(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the head has told of it takes a checkpoint, and others publish meanwhile."""
    history = MemoryHistory()
    look_back = history.position_before_last

    async def publish_meanwhile(count: int, **options: Any) -> int:  # noqa: ANN401 - its own
        running.publish_nowait("meanwhile", topics=["news"])
        return await look_back(count, **options)

    async with Hub(history) as running:
        start = await running.locate(["news"], first=0)
        await running.publish("gone", topics=["news"])
        await running.purge("news")
        monkeypatch.setattr(history, "position_before_last", publish_meanwhile)
        client = Client(nursery, running, start)
        await settle()
        assert client.data == ["meanwhile"]
        client.scope.cancel()


async def test_noise_in_other_topics_is_no_gap(nursery: trio.Nursery) -> None:
    """A cursor that is trimmed itself is fine while its topics lost nothing since."""
    async with Hub(MemoryHistory(max_events=3)) as hub:
        cursor = await hub.publish("seen", topics=["quiet"])
        for n in range(10):
            await hub.publish(str(n), topics=["noisy"])
        client = Client(nursery, hub, ["quiet"], last_event_id=cursor)
        await settle()
        await hub.publish("live", topics=["quiet"])
        await settle()
        assert client.resets == []
        assert client.data == ["live"]
        client.scope.cancel()


async def test_publishing_during_replay_neither_loses_nor_doubles(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """Clients that replay while others publish end with the same log."""
    cursor = await hub.publish("start", topics=["news"])
    behind = 2 * MAX_PAGE_RECORDS
    await hub.publish_all([str(n) for n in range(behind)], topics=["news"])
    clients = [Client(nursery, hub, ["news"], last_event_id=cursor) for _ in range(3)]

    async def publish_more() -> None:
        for n in range(behind, behind + 100):
            await hub.publish(str(n), topics=["news"])

    async with trio.open_nursery() as publishers:
        publishers.start_soon(publish_more)
    await settle()
    assert [client.data for client in clients] == [[str(n) for n in range(behind + 100)]] * 3


async def test_a_thousand_replays_share_their_pages(hub: Hub, nursery: trio.Nursery) -> None:
    """Clients with one selection and one cursor are given the same batches."""
    cursor = await hub.publish("start", topics=["news"])
    for _ in range(20):
        await hub.publish("x" * 10_000, topics=["news"])
    clients = [Client(nursery, hub, ["news"], last_event_id=cursor) for _ in range(10)]
    await settle()
    full_pages = {id(client.sink.batches[1]) for client in clients}
    assert len(full_pages) == 1
    assert {len(client.data) for client in clients} == {20}


# -- slow and gone clients


async def test_a_stalled_client_costs_the_others_nothing(hub: Hub, nursery: trio.Nursery) -> None:
    """While one is stalled the others are live; when it reads again it gets the whole log."""
    slow = Client(nursery, hub, ["news"])
    fast = Client(nursery, hub, ["news"])
    await settle()
    slow.sink.stalled = True
    for n in range(50):
        await hub.publish(str(n), topics=["news"])
        await settle()
    assert fast.data == [str(n) for n in range(50)]
    assert slow.data == ["0"]
    assert hub.statistics().ready == 1
    slow.sink.resume()
    await settle()
    assert slow.data == [str(n) for n in range(50)]
    assert hub.statistics().ready == 2


async def test_who_falls_out_of_the_history_is_told_and_goes_on_at_the_head(
    nursery: trio.Nursery,
) -> None:
    """Policy `resync`: a `reset`, whose id is valid, and then what comes."""
    async with Hub(MemoryHistory(max_events=3)) as hub:
        slow = Client(nursery, hub, ["news"])
        await settle()
        slow.sink.stalled = True
        for n in range(10):
            await hub.publish(str(n), topics=["news"])
            await settle()
        slow.sink.resume()
        await settle()
        await hub.publish("live", topics=["news"])
        await settle()
        assert [reset["reason"] for reset in slow.resets] == ["lagged"]
        assert slow.data == ["0", "live"]
        slow.scope.cancel()


@pytest.mark.parametrize("others", [0, 1])
async def test_what_was_not_for_it_is_no_gap_for_who_was_ready(
    nursery: trio.Nursery, others: int
) -> None:
    """Private events are trimmed, then its sink is busy: no `reset`, and nothing is lost."""
    async with Hub(MemoryHistory(max_events=3)) as hub:
        clients = [Client(nursery, hub, ["news"]) for _ in range(1 + others)]
        await settle()
        for _ in range(10):
            await hub.publish("secret", topics=["news"], private=True)
        sink = clients[0].sink
        sink.stalled = True
        sink.send_batch_nowait(Batch((b":\n\n",)))
        await hub.publish("public", topics=["news"])
        await settle()
        sink.resume()
        await settle()
        assert [(c.data, c.resets) for c in clients] == [(["public"], [])] * (1 + others)


@table("private", [True, False])
@table("how", ["trimmed", "purged"])
async def test_what_was_removed_is_told_to_who_could_have_seen_it(
    tmp_path: Path, *, how: str, private: bool
) -> None:
    """Neither a `reset` nor the head of a stream tells of a private event without its right."""
    stored = SQLiteHistory(tmp_path / f"{how}{private}.db", durability="fast", max_events=4)
    for history in (MemoryHistory(max_events=4), stored):
        async with Hub(history) as hub, trio.open_nursery() as nursery:
            cursor = await hub.publish("0", topics=["other"])
            await hub.publish("secret", topics=["news", "user/1"], private=private)
            if how == "purged":
                await hub.purge("user/1")
            for n in range(4 if how == "trimmed" else 0):
                await hub.publish(str(n), topics=["other"])
            for allow in ([], ["other"], ["user/1"]):
                told = not private or allow == ["user/1"]
                back = Client(nursery, hub, ["news"], last_event_id=cursor, allow=allow)
                await settle()
                assert [reset["reason"] for reset in back.resets] == ["trimmed"] * told
                for first in ("oldest", 5):
                    start = await hub.locate(["news"], first=first, allow=allow)
                    assert start.truncated == told
            nursery.cancel_scope.cancel()


async def test_full_windows_are_no_gap_for_who_was_ready(nursery: trio.Nursery) -> None:
    """Subscribers that go on from the log get the window's records, and aren't told of others."""
    settings = HubSettings(max_window_records=1)
    async with Hub(MemoryHistory(max_events=3), settings=settings) as hub:
        clients = [Client(nursery, hub, ["news"]) for _ in range(2)]
        await settle()
        for _ in range(10):
            await hub.publish("secret", topics=["news"], private=True)
        for data in ("1", "2"):
            hub.publish_nowait(data, topics=["news"])
        await settle()
        assert [(c.data, c.resets) for c in clients] == [(["1", "2"], [])] * 2


async def test_a_cursor_passes_what_was_not_for_it_behind_the_last_send(
    nursery: trio.Nursery,
) -> None:
    """Private events that a pass passed over are no gap for a client that is slow to take it."""
    async with Hub(MemoryHistory(max_events=3)) as hub:
        client = Client(nursery, hub, ["news"])
        await settle()
        client.sink.stalled = True
        hub.publish_nowait("public", topics=["news"])
        for _ in range(10):
            hub.publish_nowait("secret", topics=["news"], private=True)
        await settle()
        client.sink.resume()
        await settle()
        assert (client.data, client.resets) == (["public"], [])


async def test_windows_that_others_filled_cost_nobody_an_event(nursery: trio.Nursery) -> None:
    """A subscriber of an empty window goes on from the log, with the event that found no room."""
    async with Hub(settings=HubSettings(max_window_records=1)) as hub:
        clients = [Client(nursery, hub, [topic]) for topic in ("sport", "news")]
        await settle()
        hub.publish_nowait("1", topics=["sport"])
        hub.publish_nowait("2", topics=["news"])
        await settle()
        assert [client.data for client in clients] == [["1"], ["2"]]


async def test_policy_disconnect_ends_who_falls_out_of_the_history(nursery: trio.Nursery) -> None:
    """Policy `disconnect`: the subscription returns `lagged`."""
    async with Hub(MemoryHistory(max_events=3)) as hub:
        slow = Client(nursery, hub, ["news"], policy="disconnect")
        await settle()
        slow.sink.stalled = True
        for n in range(10):
            await hub.publish(str(n), topics=["news"])
            await settle()
        slow.sink.resume()
        await settle()
        assert slow.reason is EndReason.LAGGED


async def test_a_client_that_vanishes_is_forgotten(hub: Hub, nursery: trio.Nursery) -> None:
    """Its subscription raises BrokenResourceError, and nothing of it is left."""
    client = Client(nursery, hub, ["news"])
    await settle()
    client.sink.vanish()
    await hub.publish("x", topics=["news"])
    await settle()
    assert isinstance(client.error, trio.BrokenResourceError)
    statistics = hub.statistics()
    assert (statistics.subscribers, statistics.ready, statistics.feeds) == (0, 0, 0)


async def test_a_writer_has_one_subscription(hub: Hub, nursery: trio.Nursery) -> None:
    """A second one for the same writer is a BusyResourceError; the first goes on."""
    client = Client(nursery, hub, ["news"])
    await settle()
    with pytest.raises(trio.BusyResourceError):
        await hub.subscribe(client.sink, ["sport"])
    await hub.publish("x", topics=["news"])
    await settle()
    assert client.data == ["x"]


async def test_a_subscription_needs_topics(hub: Hub) -> None:
    """None, a bad one, or too many are ValueErrors."""
    for topics in ([], ["a\n"], [str(n) for n in range(1001)]):
        with pytest.raises(ValueError, match="topic"):
            await hub.subscribe(FakeSink(), topics)


# -- rights, kick, looking


async def test_private_events_need_the_right_live_and_on_replay(
    hub: Hub, nursery: trio.Nursery
) -> None:
    """`allow` decides per topic, and again for what is replayed."""
    options: list[dict[str, Any]] = [{}, {"allow": ["news"]}, {"allow": ["sport"]}]
    cursor = await hub.publish("start", topics=["news"])
    live = [Client(nursery, hub, ["news"], **option) for option in options]
    await settle()
    await hub.publish("public", topics=["news"])
    await hub.publish("secret", topics=["news"], private=True)
    await settle()
    replayed = [Client(nursery, hub, ["news"], last_event_id=cursor, **o) for o in options]
    await settle()
    for clients in (live, replayed):
        assert [c.data for c in clients] == [["public"], ["public", "secret"], ["public"]]


async def test_a_predicate_that_nobody_waits_for(hub: Hub) -> None:
    """An async predicate would choose everybody: it is refused."""

    async def nobody(_subscription: object) -> bool:
        return False

    predicate: Any = nobody
    with pytest.raises(TypeError, match="nobody waits"):
        hub.kick(predicate)


async def test_kick_ends_who_a_predicate_chooses(hub: Hub, nursery: trio.Nursery) -> None:
    """Also one that is stalled; the others stay."""
    clients = [Client(nursery, hub, ["news"], info={"user": user}) for user in "aab"]
    await settle()
    clients[0].sink.stalled = True
    await hub.publish("x", topics=["news"])
    await settle()
    assert hub.kick(lambda subscription: subscription.info["user"] == "a") == 2
    await settle()
    assert [client.reason for client in clients] == [EndReason.KICKED, EndReason.KICKED, None]
    assert hub.statistics().kicked == 2


async def test_a_subscription_is_kicked_once(hub: Hub, nursery: trio.Nursery) -> None:
    """One that was ended and has yet to unwind isn't chosen again."""
    Client(nursery, hub, ["news"])
    await settle()
    assert [hub.kick(lambda _: True) for _ in range(2)] == [1, 0]
    await settle()
    assert hub.statistics().kicked == 1


async def test_subscriptions_are_a_snapshot_with_cursors(hub: Hub, nursery: trio.Nursery) -> None:
    """Each tells its topics, its cursor and whether it is live."""
    clients = [Client(nursery, hub, ["news"]), Client(nursery, hub, ["news", "sport"])]
    await settle()
    clients[0].sink.stalled = True
    first = await hub.publish("1", topics=["news"])
    await settle()
    second = await hub.publish("2", topics=["news"])
    await settle()
    stalled, live = sorted(hub.subscriptions(), key=lambda one: len(one.topics.topics))
    assert (stalled.cursor, stalled.ready) == (first, False)
    assert (live.cursor, live.ready) == (second, True)
    assert live.topics.topics == {"news", "sport"}


async def test_closing_the_hub_ends_subscriptions(nursery: trio.Nursery) -> None:
    """A subscription that outlives the hub's block returns `closed`."""
    async with Hub() as hub:
        client = Client(nursery, hub, ["news"])
        await settle()
    await settle()
    assert client.reason is EndReason.CLOSED


async def test_a_purged_topic_is_not_replayed(hub: Hub, nursery: trio.Nursery) -> None:
    """After a purge an old cursor is told of the gap; other topics keep theirs."""
    cursor = await hub.publish("start", topics=["news"])
    await hub.publish("gone", topics=["news"])
    await hub.publish("kept", topics=["sport"])
    assert await hub.purge("news") == 2
    client = Client(nursery, hub, ["news", "sport"], last_event_id=cursor)
    sport = Client(nursery, hub, ["sport"], last_event_id=cursor)
    await settle()
    assert client.data == ["kept"]
    assert [reset["reason"] for reset in client.resets] == ["trimmed"]
    assert (sport.data, sport.resets) == (["kept"], [])


async def heard_before_live(hub: Hub, cursor: str) -> list[str | None]:
    """Return the data that a new subscription to `news` replays, without `reset`."""
    async with hub.subscription(["news"], last_event_id=cursor) as events:
        await hub.publish("live", topics=["news"])
        heard: list[str | None] = []
        async for event in events:
            if event.data == "live":
                break
            if event.event != "reset":
                heard.append(event.data)
    return heard


async def test_a_page_that_was_read_before_a_purge_is_not_kept(
    nursery: trio.Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store's answer that is on its way during a purge brings nothing back."""
    history = SQLiteHistory(tmp_path / "hub.db", tail_events=1)
    answered, let_go, read = trio.Event(), trio.Event(), history.read

    async def slow_read(after: int, **bounds: Any) -> Page:  # noqa: ANN401 - those of `read`
        page = await read(after, **bounds)
        answered.set()
        await let_go.wait()
        return page

    async with Hub(history) as hub:
        cursor = await hub.publish("start", topics=["news"])
        await hub.publish("gone", topics=["news"])
        await hub.publish("other", topics=["sport"])
        with monkeypatch.context() as patch:
            patch.setattr(history, "read", slow_read)
            Client(nursery, hub, ["news"], last_event_id=cursor)
            await answered.wait()
            await hub.purge("news")
            let_go.set()
            await settle()
        assert await heard_before_live(hub, cursor) == []


async def test_a_purge_that_was_cut_short_keeps_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages are forgotten although the purge failed on its way: a part may be gone."""
    history = SQLiteHistory(tmp_path / "hub.db", tail_events=1)
    purge = history.purge

    async def failing_purge(topic: str) -> int:
        await purge(topic)
        raise HistoryError

    async with Hub(history) as hub:
        cursor = await hub.publish("start", topics=["news"])
        await hub.publish("gone", topics=["news"])
        await hub.publish("other", topics=["sport"])
        assert await heard_before_live(hub, cursor) == ["gone"]
        monkeypatch.setattr(history, "purge", failing_purge)
        with pytest.raises(HistoryError):
            await hub.purge("news")
        assert await heard_before_live(hub, cursor) == []


async def test_a_topic_without_subscribers_leaves_no_feed(hub: Hub, nursery: trio.Nursery) -> None:
    """Feeds come with the first subscriber and go with the last."""
    clients = [
        Client(nursery, hub, ["a"]),
        Client(nursery, hub, ["a"]),
        Client(nursery, hub, ["*"]),
    ]
    await settle()
    assert hub.statistics().feeds == 2
    for client in clients:
        client.scope.cancel()
    await settle()
    for topic in "abc":
        await hub.publish("x", topics=[topic])
    assert hub.statistics().feeds == 0


# -- the channel


async def test_code_subscribes_by_a_receive_channel(hub: Hub) -> None:
    """`hub.subscription` gives events in order, from a cursor if asked."""
    cursor = await hub.publish("0", topics=["news"])
    await hub.publish("1", topics=["news"])
    async with hub.subscription(["news"], last_event_id=cursor) as events:
        assert (await events.receive()).data == "1"
        await hub.publish_all(["2", "3"], topics=["news"])
        assert [(await events.receive()).data for _ in range(2)] == ["2", "3"]
        assert events.last_event_id == hub.last_event_id
    assert hub.statistics().subscribers == 0


async def test_a_channel_that_is_not_read_holds_one_batch(hub: Hub) -> None:
    """Publishing goes on; the reader finds everything, out of the log."""
    async with hub.subscription(["news"]) as events:
        await settle()
        for n in range(100):
            await hub.publish(str(n), topics=["news"])
        assert [(await events.receive()).data for _ in range(100)] == [str(n) for n in range(100)]


async def test_a_channel_ends_with_its_subscription(hub: Hub) -> None:
    """A kick is the end of the channel; a closed channel can't be read."""
    async with hub.subscription(["news"]) as events:
        await settle()
        hub.kick(lambda _subscription: True)
        with pytest.raises(trio.EndOfChannel):
            await events.receive()
    async with hub.subscription(["news"]) as events:
        await events.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await events.receive()


async def test_waiting_for_the_next_event(nursery: trio.Nursery) -> None:
    """Whoever waits for something to be published wakes with the next event, of any topic."""
    woken: list[str] = []

    async def wait(hub: Hub) -> None:
        await hub.wait_published()
        woken.append(hub.last_event_id)

    async with Hub() as hub:
        await hub.publish("before", topics=["a"])
        nursery.start_soon(wait, hub)
        nursery.start_soon(wait, hub)
        await wait_all_tasks_blocked()
        assert woken == []
        published = await hub.publish("x", topics=["b"])
        await wait_all_tasks_blocked()
        assert woken == [published, published]


@table("first", ["x", "", "-1", -1, "1.5", 1.5, True, "\N{SUPERSCRIPT TWO}", "1" * 5000, 10**9])
async def test_first_that_is_no_place_is_refused(first: Any) -> None:  # noqa: ANN401 - what is wrong
    """What is neither a number from 0 nor a word for a place is a `ValueError` that shows it."""
    async with Hub() as hub:
        said = f'first is a number from 0 to 999999999, "oldest" or "newest", not {first!r}'
        with pytest.raises(ValueError, match=f"^{re.escape(said)}$"):
            await hub.locate(["news"], first=first)
        with pytest.raises(ValueError, match="first is a number"):
            await hub.subscribe(FakeSink(), ["news"], first=first)
        assert not hub.subscriptions()


async def test_first_may_be_digits(hub: Hub) -> None:
    """A query's value can be handed on: its digits are a number."""
    for n in range(3):
        await hub.publish(str(n), topics=["news"])
    assert await hub.locate(["news"], first="2") == await hub.locate(["news"], first=2)
