"""`SQLiteHistory`: the suite for histories, restarts, limits, full files and refusals."""

from __future__ import annotations

import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio
from hub_helpers import Matcher
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import (
    Appended,
    HistoryError,
    HistoryFullError,
    KeyReusedError,
    Record,
    Selection,
    SQLiteHistory,
    Update,
)
from h3trio.hub._history.selection import MATCH_COST, MAX_SCAN, NOTHING
from h3trio.hub._sqlite import pages
from h3trio.hub._sqlite.change import MAX_REMOVED_RECORDS
from h3trio.hub._sqlite.schema import connect
from h3trio.testing import check_history

if TYPE_CHECKING:
    from collections.abc import Callable

EVERYTHING = Selection(["*"])
AMPLE = 10**9


class Suffix:
    """Matches topics by their end."""

    def __init__(self, suffix: str) -> None:
        self.suffix = suffix

    def matches(self, topic: str, /) -> bool:
        """Whether the topic ends so."""
        return topic.endswith(self.suffix)

    def __hash__(self) -> int:
        return hash(self.suffix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Suffix) and other.suffix == self.suffix


class Clock:
    """Unix time that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Tell it."""
        return self.now


@pytest.fixture
def history(tmp_path: Path) -> Callable[..., SQLiteHistory]:
    """Make histories of one file; `fast`, so that no test waits for a disk."""
    return partial(SQLiteHistory, tmp_path / "hub.db", durability="fast", reserve_bytes=0)


def update(
    *topics: str,
    data: str = "x",
    id: str | None = None,
    dedup: str | None = None,
    private: bool = False,
) -> Update:
    """Make an update."""
    return Update(
        event=SSEEvent(data, id=id), topics=topics or ("a",), dedup=dedup, private=private
    )


async def put(history: SQLiteHistory, *updates: Update) -> list[Appended]:
    """Append as a hub does."""
    appended = await history.append(updates)
    for _id, record, *_rest in appended:
        if record is not None:
            history.log.append(record)
    return appended


async def fill(history: SQLiteHistory, count: int, *topics: str, size: int = 1) -> None:
    """Publish so many updates at once, the topics in turn."""
    names = topics or ("a",)
    await put(history, *(update(names[n % len(names)], data="x" * size) for n in range(count)))


async def read(
    history: SQLiteHistory, selection: Selection = EVERYTHING, after: int = 0
) -> list[int]:
    """Read page by page from the file; return positions."""
    found: list[int] = []
    more = True
    while more:
        page = await history.read(after, selection=selection, max_records=50, max_bytes=AMPLE)
        found += [record.position for record in page.records]
        after, more = page.last, page.more
    return found


# -- as any history


@pytest.mark.slow
@pytest.mark.parametrize("options", [{}, {"tail_events": 1}, {"tail_bytes": 200}])
async def test_it_is_a_history(tmp_path: Path, options: dict[str, Any]) -> None:
    """It passes the suite that any history must, however little of it is in memory."""
    paths = (tmp_path / f"{n}.db" for n in range(100))

    def make(**more: Any) -> SQLiteHistory:  # noqa: ANN401 - handed on
        return SQLiteHistory(next(paths), durability="fast", reserve_bytes=0, **{**options, **more})

    await check_history(
        make,
        make_small=lambda count: make(max_events=count),
        reopen=lambda old: SQLiteHistory(
            old.path if isinstance(old, SQLiteHistory) else "", durability="fast", **options
        ),
    )


async def test_durable_is_the_default(tmp_path: Path) -> None:
    """Unless told otherwise what was acknowledged outlives the end of power."""
    async with SQLiteHistory(tmp_path / "hub.db") as history:
        assert (history.durability, history.statistics().durability) == ("durable", "durable")
        await fill(history, 3)
    async with SQLiteHistory(tmp_path / "hub.db", durability="fast") as history:
        assert (history.durability, history.statistics().durability) == ("fast", "fast")
        assert await read(history) == [1, 2, 3]


# -- restarts


async def test_the_newest_part_is_loaded_again(history: Callable[..., SQLiteHistory]) -> None:
    """After a restart the log holds the newest records, and its floor says from where."""
    async with history() as first:
        await fill(first, 10)
    async with history(tail_events=4) as again:
        assert [record.position for record in again.log] == [7, 8, 9, 10]
        assert (again.log.floor, again.log.head) == (6, 10)
        assert await read(again) == list(range(1, 11))
        await fill(again, 1)
        assert (again.log.floor, again.log.head, len(again.log)) == (7, 11, 4)


async def test_a_whole_log_in_memory_has_no_floor(history: Callable[..., SQLiteHistory]) -> None:
    """If everything fits, no cursor needs the file, not even across removed records."""
    async with history() as first:
        await fill(first, 6, "a", "b")
        await first.purge("a")
    async with history() as again:
        assert (again.log.floor, again.log.head) == (0, 6)
        assert [record.position for record in again.log] == [2, 4, 6]


async def test_positions_go_on_after_the_last_records_were_purged(
    history: Callable[..., SQLiteHistory],
) -> None:
    """A position is given once, though nothing in the file tells of its record."""
    async with history() as first:
        await fill(first, 3)
        await first.purge("a")
    async with history() as again:
        assert (again.log.head, again.log.floor) == (3, 0)
        ((id, record, *_rest),) = await put(again, update())
        assert record is not None
        assert record.position == 4
        assert again.epochs.resolve(id, again.log.head) == 4


async def test_a_restored_copy_knows_no_later_ids(
    history: Callable[..., SQLiteHistory], tmp_path: Path
) -> None:
    """An old copy of the file gives new ids, and ids of what it never saw are unknown."""
    async with history() as first:
        await fill(first, 3)
    shutil.copy(tmp_path / "hub.db", tmp_path / "copy.db")
    async with history() as first:
        lost = [id for id, _record, *_rest in await put(first, update(), update())]
        kept = first.epochs.format(3)
    shutil.copy(tmp_path / "copy.db", tmp_path / "hub.db")
    async with history() as restored:
        new = [id for id, _record, *_rest in await put(restored, update(), update())]
        head = restored.log.head
        assert [restored.epochs.resolve(id, head) for id in new] == [4, 5]
        assert [restored.epochs.resolve(id, head) for id in lost] == [None, None]
        assert not set(new) & set(lost)
        # The cursor before the lost epoch's first record is that epoch's too.
        assert restored.epochs.resolve(kept, head) == 3


async def test_gaps_outlive_a_restart(history: Callable[..., SQLiteHistory]) -> None:
    """A gap is found after a restart as well, per topic."""
    async with history(max_events=2) as first:
        for topic in ("a", "b", "c", "d"):
            await put(first, update(topic))
    async with history() as again:
        gaps = [again.gaps.newest(Selection([topic])) for topic in "abcd"]
        assert gaps == [1, 2, 0, 0]
        assert again.gaps.newest(Selection(["*"])) == 2


async def test_it_may_be_opened_again(history: Callable[..., SQLiteHistory]) -> None:
    """One object can be opened and closed in turn, but is open once."""
    one = history()
    for count in (2, 4):
        async with one:
            with pytest.raises(trio.BusyResourceError):
                await one.open()
            await fill(one, 2)
            assert one.statistics().events == count
        with pytest.raises(trio.ClosedResourceError):
            await one.append([update()])
        with pytest.raises(trio.ClosedResourceError):
            await one.read(0, selection=EVERYTHING, max_records=1, max_bytes=1)


# -- retention


@pytest.mark.parametrize("limits", [{"max_topic_events": 2}, {"max_topic_bytes": 60}])
async def test_topics_are_bounded(
    history: Callable[..., SQLiteHistory], limits: dict[str, int]
) -> None:
    """A busy topic's oldest go, from memory too, and a quiet one keeps its own."""
    async with history(**limits) as one:
        for topic in ("quiet", "busy", "busy", "busy", "quiet", "busy"):
            await put(one, update(topic))
        assert await read(one) == [1, 4, 5, 6]
        assert [record.position for record in one.log] == [1, 4, 5, 6]
        assert one.gaps.newest(Selection(["busy"])) == 3
        assert not one.gaps.has_gap(Selection(["quiet"]), 0)
        assert one.statistics().trimmed == 2


async def test_bytes_are_bounded(history: Callable[..., SQLiteHistory]) -> None:
    """The oldest go when the frames are too many bytes; the newest stays, however large."""
    async with history(max_bytes=300) as one:
        for _ in range(9):
            await fill(one, 1, size=70)
        assert one.statistics().bytes <= 300
        assert await read(one) == [7, 8, 9]
        await fill(one, 1, size=1000)
        assert await read(one) == [10]


async def test_a_record_over_two_limits_goes_once(history: Callable[..., SQLiteHistory]) -> None:
    """A record that a topic's limit takes away counts for the limit of all."""
    async with history(max_events=3, max_topic_events=1) as one:
        await fill(one, 3, "a", "b", "c")
        await fill(one, 2, "a", "d")
        assert await read(one) == [3, 4, 5]
        assert one.statistics().events == 3


async def test_an_append_never_removes_its_own_records(
    history: Callable[..., SQLiteHistory],
) -> None:
    """A record that was just acknowledged is delivered first; the next append takes it away."""
    async with history(max_events=3, max_topic_events=2) as one:
        await fill(one, 10)
        assert await read(one) == list(range(1, 11))
        await fill(one, 1)
        assert await read(one) == [10, 11]


async def test_age_is_bounded_by_trimming(history: Callable[..., SQLiteHistory]) -> None:
    """A record older than `max_age` goes at the next `trim`, and leaves a gap."""
    clock = Clock()
    async with history(max_age=60, clock=clock) as one:
        count = MAX_REMOVED_RECORDS + 1
        await fill(one, count, "a")
        clock.now += 30
        await fill(one, 2, "b")
        assert await one.trim() == 0
        clock.now += 31
        assert await one.trim() == count
        assert await read(one) == [count + 1, count + 2]
        assert [record.position for record in one.log] == [count + 1, count + 2]
        assert one.gaps.has_gap(Selection(["a"]), 0)
        assert not one.gaps.has_gap(Selection(["b"]), 0)


@pytest.mark.slow
async def test_lower_limits_are_met_step_by_step(history: Callable[..., SQLiteHistory]) -> None:
    """After a restart with lower limits an append stays short, and `trim` does the rest."""
    async with history() as one:
        await fill(one, 1200)
    async with history(max_events=10) as one:
        await fill(one, 1)
        left = one.statistics().events
        assert left == 1200 - MAX_REMOVED_RECORDS
        assert await one.trim() == left - 10
        assert one.statistics().events == 10
        assert await read(one) == list(range(1192, 1202))


async def test_purging_takes_what_is_in_the_log(history: Callable[..., SQLiteHistory]) -> None:
    """Many records go in steps; what is stored but not yet in the log is about to be delivered."""
    async with history() as one:
        count = MAX_REMOVED_RECORDS + 1
        await fill(one, 2 * count, "a", "b")
        ((_id, coming, *_rest),) = await one.append([update("a")])
        assert await one.purge("a") == count
        assert coming is not None
        one.log.append(coming)
        assert await read(one, Selection(["a"])) == [2 * count + 1]
        assert one.statistics().topics == 2


# -- reading


async def test_reading_stops_at_the_logs_head(history: Callable[..., SQLiteHistory]) -> None:
    """A record that is committed but not in the log yet is not read, found or counted back to."""
    async with history(tail_events=1) as one:
        await fill(one, 3)
        await one.append([update(id="x")])
        assert await read(one) == [1, 2, 3]
        assert await one.find("x", selection=EVERYTHING, allow=NOTHING) is None
        assert await one.position_before_last(2, selection=EVERYTHING, allow=NOTHING) == 1


async def test_of_records_with_one_id_the_newest_is_found(
    history: Callable[..., SQLiteHistory],
) -> None:
    """In the file as in memory, within a topic; of several topics the oldest of these."""
    async with history(tail_events=1) as one:
        await put(one, update(id="x"), update("b", id="x"), update("b", id="x"), update())
        found = [
            await one.find("x", selection=selection, allow=NOTHING)
            for selection in (EVERYTHING, Selection(["a", "b"]), Selection(["b"]))
        ]
        assert found == [1, 1, 3]
        await one.purge("b")
        assert await one.find("x", selection=Selection(["b"]), allow=NOTHING) is None


async def test_a_long_search_ends_its_page(history: Callable[..., SQLiteHistory]) -> None:
    """A page with matchers is bounded by what it looks at, and then says where to go on."""
    async with history(tail_events=1) as one:
        await fill(one, MAX_SCAN, "other")
        await fill(one, 1, "a/x")
        selection = Selection([Suffix("/x")])
        page = await one.read(0, selection=selection, max_records=9, max_bytes=AMPLE)
        assert page == ([], MAX_SCAN - MATCH_COST, True)
        assert await read(one, selection) == [MAX_SCAN + 1]


@pytest.mark.slow
async def test_a_thread_asks_a_few_matchers_at_a_time(
    history: Callable[..., SQLiteHistory],
) -> None:
    """While a thread asks matchers nobody else's Python runs: so it says how far it came."""
    asked = Counter[str]()
    patterns = Selection([Matcher(f"never/{n}", asked) for n in range(40)])
    last = Selection([Matcher("last", asked)])
    async with history(tail_events=1) as one:
        await put(one, update("last"), *(update(f"t/{n}", private=True) for n in range(200)))
        with closing(connect(one.path, mode="ro")) as db:
            for selection, allow in ((EVERYTHING, patterns), (last, NOTHING), (last, patterns)):
                left, position, turns = 1, one.log.head, 0
                rights = {"selection": selection, "allow": allow}
                while left:
                    asked.clear()
                    left, position = pages.look_back(db, count=left, head=position, **rights)
                    assert asked["calls"] <= MAX_SCAN // MATCH_COST
                    turns += 1
                assert turns > 1
                assert position == await one.position_before_last(1, **rights) == 0
            asked.clear()
            page, _trims = pages.read_page(
                db, after=0, head=99, selection=patterns, max_records=9, max_bytes=AMPLE
            )
            assert (page.records, page.more) == ([], True)
            assert 0 < asked["calls"] <= MAX_SCAN // MATCH_COST


async def test_a_database_of_the_first_schema_is_brought_up_to_date(
    tmp_path: Path, history: Callable[..., SQLiteHistory]
) -> None:
    """Its records, ids and keys are what they were, and belong to their topics from now on."""
    with closing(sqlite3.connect(tmp_path / "hub.db")) as old:
        old.executescript(Path(__file__).with_name("schema_1.sql").read_text())
    for _ in range(2):
        async with history() as one:
            assert await read(one) == [1, 2, 3, 4, 6]
            assert one.gaps.newest(Selection(["gone"])) == 5
            assert one.epochs.resolve("s2xf9cch-3", one.log.head) == 3
            found = [
                await one.find("x", selection=Selection(topics), allow=allow)
                for topics, allow in (
                    (["a"], NOTHING),
                    (["b"], NOTHING),
                    (["b"], EVERYTHING),
                    (["a", "b"], EVERYTHING),
                    (["d"], EVERYTHING),
                )
            ]
            assert found == [3, 3, 4, 3, None]
            again = await one.append(
                [
                    update("a", data="1", dedup="k"),
                    update("b", "a", "c", data="3", id="x", dedup="l"),
                    update("a", data="other", dedup="k"),
                ]
            )
            assert [answer.id for answer in again] == ["s2xf9cch-1", "x", ""]
            assert [type(answer.error) for answer in again[1:]] == [type(None), KeyReusedError]


@pytest.mark.parametrize(("schema", "epoch"), [(2, "hb38m4c6"), (3, "sx8xwnzm")])
async def test_a_database_of_a_later_schema_is_brought_up_to_date(
    tmp_path: Path, history: Callable[..., SQLiteHistory], schema: int, epoch: str
) -> None:
    """Its records, ids and keys are what they were; its topics are open, and can be closed."""
    with closing(sqlite3.connect(tmp_path / "hub.db")) as old:
        old.executescript(Path(__file__).with_name(f"schema_{schema}.sql").read_text())
    async with history() as one:
        assert [(r.position, r.last) for r in one.log] == [(n, False) for n in range(1, 5)]
        assert one.gaps.newest(Selection(["gone"])) == 5
        secret = one.gaps.newest(Selection(["secret"]), Selection(["secret"]))
        assert secret == (0 if schema < 3 else 6)
        assert await one.find("x", selection=Selection(["b"]), allow=NOTHING) == 3
        again, other = await one.append(
            [update("a", data="1", dedup="k"), update("b", "a", data="3", id="x", dedup="l")]
        )
        assert [again, other] == [Appended(f"{epoch}-1", None), Appended("x", None)]
        head = one.log.head
        await put(one, update("a"), update("a"), update("b"))
        assert await read(one, Selection(["a"])) == [1, 2, 3, head + 1, head + 2]
        assert await read(one, Selection(["b"])) == [3, 4, head + 3]
        assert not await one.are_closed(["a"], allow=NOTHING)
        (end,) = await one.append([Update(None, ["a", "gone"], last=True)])
        assert end.record is not None
        one.log.append(end.record)
    async with history() as one:
        assert await one.are_closed(["a", "gone"], allow=NOTHING)
        assert not await one.are_closed(["a", "b"], allow=NOTHING)
        assert await one.purge("a") == 6
        assert await read(one, Selection(["a", "b"])) == [4, head + 3]


async def test_a_close_that_is_in_the_file_alone_is_known(
    history: Callable[..., SQLiteHistory],
) -> None:
    """However long ago it was: the store is asked, for what may be seen, and counts them anew."""
    async with history(tail_events=2) as one:
        await fill(one, 2, "a", "b")
        for private in (False, True):
            (end,) = await one.append([Update(None, ["ab"[private]], private=private, last=True)])
            assert end.record is not None
            one.log.append(end.record)
        await fill(one, 5, "noise")
    for _ in range(2):
        async with history(tail_events=2) as one:
            assert await one.are_closed(["a"], allow=NOTHING)
            assert not await one.are_closed(["a", "b"], allow=NOTHING)
            assert await one.are_closed(["a", "b"], allow=EVERYTHING)
            assert not await one.are_closed(["a", "never"], allow=EVERYTHING)
    async with history(tail_events=2) as one:
        assert await one.purge("a") == await one.purge("b") == 2
        assert one._sums.closed == 0  # noqa: SLF001 - nothing public tells that no thread is asked
        assert not await one.are_closed(["a"], allow=EVERYTHING)


@pytest.mark.parametrize("limits", [{"max_topic_events": 2}, {"max_topic_bytes": 30}])
async def test_a_close_without_an_event_takes_no_events_place(
    history: Callable[..., SQLiteHistory], limits: dict[str, int]
) -> None:
    """A topic that is full keeps its last events when it is closed."""
    async with history(**limits) as one:
        for _ in range(3):
            await fill(one, 1, "a")
        before = await read(one)
        assert await one.append([Update(None, ["a"], last=True)])
        assert one.statistics().events == len(before) + 1


async def test_any_text_is_a_topic(history: Callable[..., SQLiteHistory]) -> None:
    """Quotes, signs and other scripts are data to the database, never part of a statement."""
    topics = ["a'; DROP TABLE records; --", 'a"b', "?1", "☃", "%", " "]
    async with history(tail_events=1) as one:
        await fill(one, 12, *topics)
        for number, topic in enumerate(topics, start=1):
            assert await read(one, Selection([topic])) == [number, number + 6]
    async with history() as one:
        assert [record.topics[0] for record in one.log] == topics * 2


async def test_a_page_waits_until_its_gaps_are_known(
    history: Callable[..., SQLiteHistory],
) -> None:
    """A page that lacks what was just removed isn't given before the gaps tell of it."""
    async with history(tail_events=1) as one, trio.open_nursery() as nursery:
        await fill(one, 5)
        pages: list[list[int]] = []

        async def read_all() -> None:
            pages.append(await read(one))

        store, writing = one._store, one._writing  # noqa: SLF001 - nothing public stops between
        async with writing:
            # As in an append: the file has changed, and the task doesn't know yet.
            _more, removed = store.purge("a", before=4)
            nursery.start_soon(read_all)
            while not writing.statistics().tasks_waiting:  # noqa: ASYNC110 - no event tells of it
                await trio.sleep(0.001)
            assert not pages
            one._note(removed)  # noqa: SLF001 - same
        await wait_all_tasks_blocked()
        assert pages == [[4, 5]]
        assert one.gaps.has_gap(Selection(["a"]), 0)


async def test_its_threads_are_its_own(history: Callable[..., SQLiteHistory]) -> None:
    """A program that uses all of Trio's threads still has a hub."""
    limiter = trio.to_thread.current_default_thread_limiter()
    async with history(tail_events=1) as one, trio.open_nursery() as nursery:
        tokens, limiter.total_tokens = limiter.total_tokens, 1
        try:
            await limiter.acquire_on_behalf_of(one)
            await fill(one, 5)
            for _ in range(10):
                nursery.start_soon(read, one)
            await wait_all_tasks_blocked()
        finally:
            limiter.release_on_behalf_of(one)
            limiter.total_tokens = tokens
        assert await read(one) == [1, 2, 3, 4, 5]


# -- cancelling


async def test_an_append_cancelled_before_it_began_stores_nothing(
    history: Callable[..., SQLiteHistory],
) -> None:
    """Waiting for another's transaction can be given up."""
    one = history()
    writing = one._writing  # noqa: SLF001 - to hold it as an append does
    async with one, trio.open_nursery() as nursery, writing:
        nursery.start_soon(one.append, [update()])
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert one.statistics().newest == 0


async def test_an_append_that_has_begun_finishes(history: Callable[..., SQLiteHistory]) -> None:
    """Cancelled with its transaction under way it answers, so what is stored is known."""
    async with history() as one:
        answers: list[list[Appended]] = []

        async def append() -> None:
            answers.append(await one.append([update()]))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(append)
            while not one._writer_threads.borrowed_tokens:  # noqa: SLF001 - nothing public says it
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()
        (((_id, record, *_rest),),) = answers
        assert isinstance(record, Record)
        one.log.append(record)
        await fill(one, 1)
        assert await read(one) == [1, 2]


async def test_a_cancelled_close_lets_go_of_the_file(
    history: Callable[..., SQLiteHistory],
) -> None:
    """The next one to open it finds it free."""
    one = history()
    await one.open()
    await fill(one, 2)
    await read(one)
    with trio.CancelScope() as scope:
        scope.cancel()
        await one.aclose()
    async with history() as again:
        assert await read(again) == [1, 2]


# -- a file that can't be used


async def test_a_second_owner_is_refused(history: Callable[..., SQLiteHistory]) -> None:
    """The error names the file and says why; the first one goes on."""
    async with history() as one:
        with pytest.raises(HistoryError, match=r"hub\.db is in use by another process"):
            await history().open()
        await fill(one, 1)
    async with history() as again:
        assert await read(again) == [1]


async def test_a_link_is_the_same_file(
    history: Callable[..., SQLiteHistory], tmp_path: Path
) -> None:
    """Opened under another name it has the same owner."""
    async with history() as one:
        (tmp_path / "link.db").symlink_to(one.path)
        with pytest.raises(HistoryError, match="in use"):
            await SQLiteHistory(tmp_path / "link.db").open()


def files_in(folder: Path) -> set[str]:
    """List a folder."""
    return {path.name for path in folder.iterdir()}


def damage(path: Path) -> None:
    """Write over a page in the middle."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * 4096)


def make_newer(path: Path) -> None:
    """Raise the version of the schema."""
    with path.open("r+b") as file:
        file.seek(60)
        file.write((99).to_bytes(4, "big"))


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (damage, "is damaged|malformed"),
        (make_newer, r"newer h3trio \(schema 99, known is 4\)"),
        (lambda path: path.write_bytes(b"precious " * 1000), "is no history of h3trio"),
        (lambda path: path.write_bytes(b"x"), "is no history of h3trio"),
    ],
)
async def test_a_spoiled_file_is_refused_and_left_alone(
    history: Callable[..., SQLiteHistory], spoil: Callable[[Path], object], problem: str
) -> None:
    """Damaged, foreign or newer: the error says which, and not a byte is changed."""
    async with history() as one:
        await fill(one, 50, size=500)
    spoil(one.path)
    before = one.path.read_bytes()
    with pytest.raises(HistoryError, match=problem):
        await history(reserve_bytes=4096).open()
    assert one.path.read_bytes() == before
    assert files_in(one.path.parent) == {"hub.db", "hub.db.lock"}


async def test_somebody_elses_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    """Another program's database gets no table, no lock file and no other mode."""
    path = tmp_path / "theirs.db"
    with sqlite3.connect(path) as theirs:
        theirs.execute("CREATE TABLE precious (x)")
    theirs.close()
    before = path.read_bytes()
    with pytest.raises(HistoryError, match=r"theirs\.db is no history of h3trio"):
        await SQLiteHistory(path).open()
    assert path.read_bytes() == before
    assert files_in(tmp_path) == {"theirs.db"}


async def test_an_empty_file_becomes_a_history(tmp_path: Path) -> None:
    """A file that somebody made in advance, to own it, is used."""
    (tmp_path / "hub.db").touch()
    async with SQLiteHistory(tmp_path / "hub.db", durability="fast") as one:
        await fill(one, 1)
        assert await read(one) == [1]


@pytest.mark.parametrize("name", ["missing/hub.db", "."])
async def test_a_path_that_cant_be_a_file_is_refused(tmp_path: Path, name: str) -> None:
    """A missing folder, or a folder instead of a file, is an error that names it."""
    with pytest.raises(HistoryError, match=str(tmp_path)):
        await SQLiteHistory(tmp_path / name).open()


BAD_OPTIONS: list[tuple[dict[str, Any], str]] = [
    ({"durability": "memory"}, "durability must be"),
    ({"max_db_bytes": 1000}, "max_db_bytes must be at least"),
    ({"reserve_bytes": -1}, "reserve_bytes must be at least 0"),
    ({"tail_events": 0}, "tail_events must be positive"),
    ({"tail_bytes": -1}, "tail_bytes must be positive"),
    ({"max_events": 0}, "max_events must be positive"),
    ({"path": ":memory:"}, "MemoryHistory"),
    ({"path": ""}, "must name a file"),
]


def test_options_are_checked(subtests: pytest.Subtests) -> None:
    """An option that makes no sense is refused by name, before a file is touched."""
    for options, problem in BAD_OPTIONS:
        given: dict[str, Any] = {"path": "hub.db", **options}
        with subtests.test(problem), pytest.raises(ValueError, match=problem):
            SQLiteHistory(**given)


# -- a full file, a failing disk


async def fill_up(history: SQLiteHistory, *topics: str) -> None:
    """Publish until there is no room."""
    while history.statistics().events < 2000:
        await fill(history, 10, *topics, size=1000)


@pytest.mark.slow
async def test_a_full_file_refuses_updates_and_recovers(
    history: Callable[..., SQLiteHistory],
) -> None:
    """Nothing kept is given up for what is new; removing works, and makes room."""
    async with history(max_db_bytes=1024 * 1024) as one:
        with pytest.raises(HistoryFullError, match=r"hub\.db has no room"):
            await fill_up(one, "a", "b")
        stored = one.log.head
        assert 500 < stored < 1100
        assert one.path.stat().st_size <= 1024 * 1024
        with pytest.raises(HistoryFullError):
            await fill(one, 10, size=1000)
        assert await read(one) == list(range(1, stored + 1))
        assert one.statistics().events == stored
        assert await one.purge("a") == stored // 2
        await fill(one, 10, size=1000)
        assert one.log.head == stored + 10
    async with history(max_db_bytes=1024 * 1024) as again:
        assert again.statistics().events == stored // 2 + 10


@pytest.mark.slow
async def test_a_full_file_turns_over_what_has_become_old(
    history: Callable[..., SQLiteHistory],
) -> None:
    """With an age limit, an append that finds no room trims first."""
    clock = Clock()
    async with history(max_db_bytes=1024 * 1024, max_age=60, clock=clock) as one:
        with pytest.raises(HistoryFullError):
            await fill_up(one)
        clock.now += 61
        await fill(one, 10, size=1000)
        assert one.gaps.has_gap(EVERYTHING, 0)


@pytest.mark.slow
async def test_a_full_file_at_its_limit_goes_on(history: Callable[..., SQLiteHistory]) -> None:
    """Limits that fit into the file never meet its end: the old makes room for the new."""
    async with history(max_db_bytes=1024 * 1024, max_bytes=400_000) as one:
        for _ in range(200):
            await fill(one, 10, size=1000)
        assert one.statistics().newest == 2000


async def test_a_broken_reader_is_replaced(history: Callable[..., SQLiteHistory]) -> None:
    """An error while reading is a `HistoryError`, and reading goes on with a new connection."""
    async with history(tail_events=1) as one:
        await fill(one, 3)
        await read(one)
        one._readers[0].close()  # noqa: SLF001 - the least that breaks one
        with pytest.raises(HistoryError, match="closed database"):
            await read(one)
        assert await read(one) == [1, 2, 3]


# -- whether it can store


async def test_it_is_well_as_long_as_its_files_are_there(
    history: Callable[..., SQLiteHistory], tmp_path: Path
) -> None:
    """Nothing is written to find that out while nothing has failed."""
    async with history() as one:
        await fill(one, 1)
        size = (tmp_path / "hub.db-wal").stat().st_size
        await one.health()
        assert (tmp_path / "hub.db-wal").stat().st_size == size
        (tmp_path / "hub.db-shm").unlink()
        with pytest.raises(HistoryError, match=r"hub\.db-shm was removed while in use"):
            await one.health()
    with pytest.raises(trio.ClosedResourceError):
        await one.health()


async def test_after_a_failure_it_is_tried_out(history: Callable[..., SQLiteHistory]) -> None:
    """It is well again when a small event could be stored, and no sooner."""
    async with history() as one:
        database = one._store._database  # noqa: SLF001 - nothing public has no patience
        database.connection.execute("PRAGMA busy_timeout = 1")
        with closing(sqlite3.connect(one.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(HistoryError, match="locked"):
                await fill(one, 1)
            with pytest.raises(HistoryError, match="locked"):
                await one.health()
            other.execute("ROLLBACK")
        await one.health()
        assert await read(one) == []


async def test_a_probe_waits_for_no_commit(history: Callable[..., SQLiteHistory]) -> None:
    """It is answered beside one that is under way."""
    async with history() as one, one._writing:  # noqa: SLF001 - as a commit does
        await one.health()


async def test_a_reader_reads_no_file_that_took_its_place(
    history: Callable[..., SQLiteHistory], tmp_path: Path
) -> None:
    """A connection that is opened later would: it is refused."""
    async with history(tail_events=1) as one:
        await fill(one, 3)
        copy = tmp_path / "copy.db"
        shutil.copy(one.path, copy)
        copy.replace(one.path)
        with pytest.raises(HistoryError, match="replaced while in use"):
            await read(one)
