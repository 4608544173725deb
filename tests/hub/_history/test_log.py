"""`Log`: order, selections, limits and memory."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter
from functools import partial

import pytest
from hub_helpers import BusiestStep, Matcher
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio.hub._history.log import MIN_TOPIC_BYTES, RECORD_TOPIC_BYTES, Log
from h3trio.hub._history.pins import PinnedRecords, PinnedTopics
from h3trio.hub._history.record import Record
from h3trio.hub._history.retention import Retention
from h3trio.hub._history.selection import MATCH_COST, MAX_SCAN, NOTHING, Selection

EVERYTHING = Selection(["*"])
AMPLE = 10**9


class Prefix:
    """Matches topics by their start."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def matches(self, topic: str, /) -> bool:
        """Whether the topic starts so."""
        return topic.startswith(self.prefix)

    def __hash__(self) -> int:
        return hash(self.prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and other.prefix == self.prefix


def record(
    position: int,
    *topics: str,
    id: str | None = None,
    size: int = 10,
    private: bool = False,
    last: bool = False,
) -> Record:
    """Make a record with an id of the hub's, unless given."""
    return Record(
        position=position,
        id=f"bcdf2345-{position}" if id is None else id,
        topics=topics or ("a",),
        private=private,
        published=float(position),
        frame=b"x" * size,
        last=last,
    )


def limits(**given: int) -> Retention:
    """Make limits that nothing meets, unless given."""
    return Retention(**{"max_events": AMPLE, "max_bytes": AMPLE, **given})


def log_of(*records: Record, floor: int = 0, head: int = 0, **given: int) -> Log:
    """Make a log that holds everything, unless limits are given."""
    log = Log(limits(**given), floor=floor, head=head)
    for one in records:
        log.append(one)
    return log


def read(log: Log, selection: Selection = EVERYTHING, after: int = 0) -> list[int]:
    """Read to the end, page by page; return positions."""
    found: list[int] = []
    more = True
    while more:
        page = log.read(after, selection=selection, max_records=7, max_bytes=AMPLE)
        assert page is not None
        found += [one.position for one in page.records]
        after, more = page.last, page.more
    return found


# -- reading


def test_an_empty_log_reads_empty() -> None:
    """Nothing is there, and the log doesn't go on."""
    page = log_of().read(0, selection=EVERYTHING, max_records=1, max_bytes=1)
    assert page == ([], 0, False)


def test_reading_goes_in_order_from_behind_the_cursor() -> None:
    """The cursor's own record isn't read again."""
    log = log_of(*(record(n) for n in range(1, 6)))
    assert read(log) == [1, 2, 3, 4, 5]
    assert read(log, after=3) == [4, 5]
    assert read(log, after=5) == []


def test_a_cursor_ahead_of_the_head_stays_where_it_is() -> None:
    """Reading never moves a cursor back."""
    page = log_of(record(1)).read(9, selection=EVERYTHING, max_records=1, max_bytes=1)
    assert page == ([], 9, False)


def test_a_page_ends_at_max_records() -> None:
    """It says where to go on, and that there is more, only if there is."""
    log = log_of(*(record(n) for n in range(1, 4)))
    page = log.read(0, selection=EVERYTHING, max_records=2, max_bytes=AMPLE)
    assert page is not None
    assert ([r.position for r in page.records], page.last, page.more) == ([1, 2], 2, True)
    page = log.read(2, selection=EVERYTHING, max_records=1, max_bytes=AMPLE)
    assert page is not None
    assert ([r.position for r in page.records], page.last, page.more) == ([3], 3, False)


def test_a_page_ends_at_max_bytes_but_has_one_record() -> None:
    """A record above the byte bound goes alone."""
    log = log_of(record(1, size=10), record(2, size=10), record(3, size=50), record(4, size=5))
    sizes, after = [], 0
    for _ in range(3):
        page = log.read(after, selection=EVERYTHING, max_records=9, max_bytes=20)
        assert page is not None
        sizes.append([len(r.frame) for r in page.records])
        after = page.last
    assert sizes == [[10, 10], [50], [5]]


def test_the_last_page_answers_up_to_the_head() -> None:
    """A quiet topic's cursor moves on with the log."""
    log = log_of(record(1, "quiet"), record(2, "busy"), record(3, "busy"))
    page = log.read(0, selection=Selection(["quiet"]), max_records=9, max_bytes=AMPLE)
    assert page is not None
    assert (page.last, page.more) == (3, False)


def test_several_topics_are_merged_without_repetition() -> None:
    """A record under two selected topics is read once, in its place."""
    log = log_of(
        record(1, "a"), record(2, "b"), record(3, "b", "a"), record(4, "c"), record(5, "a")
    )
    assert read(log, Selection(["a", "b"])) == [1, 2, 3, 5]
    assert read(log, Selection(["a", "b", "never"]), after=2) == [3, 5]
    assert read(log, Selection(["c", "never"])) == [4]
    assert read(log, Selection()) == []


def test_matchers_are_asked_of_every_record() -> None:
    """Patterns and exact topics together select what either does."""
    log = log_of(record(1, "x/1"), record(2, "y"), record(3, "z", "x/2"), record(4, "z"))
    assert read(log, Selection([Prefix("x/")])) == [1, 3]
    assert read(log, Selection([Prefix("x/"), "y"])) == [1, 2, 3]


@pytest.mark.slow
@table("patterns, topics", [(1, 1), (5, 1), (1, 5), (40, 1), (400, 1), (400, 5)])
def test_a_search_asks_so_many_matchers_between_checkpoints(patterns: int, topics: int) -> None:
    """A page ends by what matching its records may cost, but has looked at one."""
    asked: Counter[str] = Counter()

    class Counting(Prefix):
        def matches(self, topic: str, /) -> bool:
            asked["calls"] += 1
            return super().matches(topic)

    selection = Selection(Counting(f"x{n}") for n in range(patterns))
    names = [[f"{n}/{t}" for t in range(topics)] for n in range(1, 101)]
    log = log_of(*(record(n, *given) for n, given in enumerate(names, 1)), record(101, "x0"))
    after, pages, found = 0, 0, list[int]()
    while after < log.head:
        page = log.read(after, selection=selection, max_records=9, max_bytes=AMPLE)
        assert page
        assert asked["calls"] <= max(MAX_SCAN // MATCH_COST, patterns * topics)
        assert (page.last > after, page.more) == (True, page.last < 101)
        after, pages = page.last, pages + 1
        asked.clear()
        found += [r.position for r in page.records]
    assert found == [101]
    assert pages > 1


@pytest.mark.slow
def test_a_search_looks_at_so_many_records_between_checkpoints() -> None:
    """A page ends when it has looked at its number of records, though all have the same topic."""
    log = log_of(*(record(n, "other") for n in range(1, 3 * MAX_SCAN)), record(3 * MAX_SCAN, "x"))
    page = log.read(0, selection=Selection([Prefix("x")]), max_records=9, max_bytes=AMPLE)
    assert page == ([], MAX_SCAN - MATCH_COST, True)
    assert read(log, Selection([Prefix("x")])) == [3 * MAX_SCAN]


def test_positions_need_not_be_consecutive() -> None:
    """A store with holes loads its newest part like any other."""
    log = log_of(record(3), record(7, "b"), record(1000), floor=2, head=2)
    assert read(log, after=2) == [3, 7, 1000]
    assert read(log, after=6) == [7, 1000]
    assert log.head == 1000


# -- the last so many


async def test_the_position_before_the_last_ones_is_found() -> None:
    """Reading behind it gives just as many, or all where there are fewer."""
    log = log_of(*(record(n, "a" if n % 3 else "b") for n in range(1, 10)), record(10, "a", "b"))
    for selection in (
        EVERYTHING,
        Selection(["a"]),
        Selection(["a", "b"]),
        Selection([Prefix("b")]),
    ):
        everything = read(log, selection)
        for count in range(12):
            after = await log.position_before_last(count, selection=selection, allow=NOTHING)
            assert after is not None
            assert read(log, selection, after) == (everything[-count:] if count else [])


async def test_a_log_with_a_store_doesnt_know_what_it_hasnt() -> None:
    """If the store may have more, the log says nothing."""
    log = log_of(record(5), record(6), floor=4, head=4)
    assert await log.position_before_last(2, selection=EVERYTHING, allow=NOTHING) == 4
    assert await log.position_before_last(3, selection=EVERYTHING, allow=NOTHING) is None
    assert await log.position_before_last(1, selection=Selection(["never"]), allow=NOTHING) is None


# -- limits


def test_a_whole_log_forgets_its_oldest() -> None:
    """Beyond `max_events` the oldest go, and are told; the log stays complete for any cursor."""
    gone: list[int] = []
    log = Log(limits(max_events=3), forget=lambda r: gone.append(r.position))
    for n in range(1, 6):
        log.append(record(n))
    assert (read(log), gone, log.floor, log.head) == ([3, 4, 5], [1, 2], 0, 5)


def test_a_log_with_a_store_raises_its_floor() -> None:
    """Cursors below what is in memory are the store's to answer."""
    log = log_of(*(record(n) for n in range(1, 6)), max_events=3)
    assert log.floor == 2
    assert log.read(1, selection=EVERYTHING, max_records=9, max_bytes=9) is None
    assert read(log, after=2) == [3, 4, 5]


def test_bytes_are_bounded_but_the_newest_stays() -> None:
    """One record larger than the log is the log."""
    log = log_of(record(1, size=40), record(2, size=40), record(3, size=40), max_bytes=100)
    assert (read(log, after=1), log.bytes) == ([2, 3], 80)
    log.append(record(4, size=500))
    assert ([r.position for r in log], log.bytes) == ([4], 500)


@pytest.mark.parametrize("limit", [{"max_topic_events": 2}, {"max_topic_bytes": 29}])
def test_a_topic_has_its_own_limit(limit: dict[str, int]) -> None:
    """A busy topic's oldest go from between the records of quiet ones."""
    gone: list[int] = []
    log = Log(limits(**limit), forget=lambda r: gone.append(r.position))
    for n in range(1, 8):
        log.append(record(n, "quiet" if n in {2, 5} else "busy"))
    assert (read(log), gone) == ([2, 5, 6, 7], [1, 3, 4])


def test_a_record_goes_from_all_its_topics() -> None:
    """Over the limit under one topic, it is gone under the other too."""
    log = Log(limits(max_topic_events=1), forget=lambda _r: None)
    log.append(record(1, "a", "b"))
    log.append(record(2, "a"))
    assert read(log, Selection(["b"])) == []
    assert log.topics == 1


def test_a_record_is_taken_out_of_the_middle() -> None:
    """Removing says whether it was there, and counts go down with it."""
    log = log_of(record(1), record(2, "b", size=5), record(3))
    assert log.remove(2)
    assert not log.remove(2)
    assert (read(log), log.bytes, log.topics, len(log), log.head) == ([1, 3], 20, 1, 2, 3)
    assert log.positions("b") == []
    assert log.positions("a") == [1, 3]


def test_the_head_stays_when_the_last_record_goes() -> None:
    """Positions don't go back, and the oldest record is found wherever it stands."""
    log = log_of(record(1), record(2))
    log.remove(2)
    assert log.head == 2
    assert log.oldest is not None
    assert log.oldest.position == 1
    log.remove(1)
    assert log.oldest is None
    log.append(record(3))
    assert read(log) == [3]


def pinned_log(*topics: str, **given: int) -> tuple[Log, PinnedTopics, list[int]]:
    """Make a log with pinned topics, and a list of what goes from it."""
    gone: list[int] = []
    pinned = PinnedTopics(9)
    log = Log(limits(**given), forget=lambda r: gone.append(r.position), pinned=pinned)
    for topic in topics:
        pinned.pin(topic)
        log.pin(topic)
    return log, pinned, gone


def test_limits_in_all_pass_over_pinned_topics() -> None:
    """They count for nothing there, under any of their topics, and the oldest of others go."""
    log, _pinned, gone = pinned_log("a", max_events=2)
    for position, topics in enumerate(["a", "b", "ba", "b", "a", "c", "b", "a"], start=1):
        log.append(record(position, *topics))
    assert (read(log), gone) == ([1, 3, 5, 6, 7, 8], [2, 4])
    assert (log.pins.events, log.pins.bytes) == (4, 40)
    log, _pinned, gone = pinned_log("a", max_bytes=25)
    for position, topics in enumerate(["a", "b", "a", "b", "b"], start=1):
        log.append(record(position, *topics))
    assert (read(log), gone) == ([1, 3, 4, 5], [2])


def test_a_topic_that_is_pinned_later_keeps_what_it_has() -> None:
    """Its records count apart from then on, and in all again once it is pinned no more."""
    log, pinned, gone = pinned_log(max_events=2)
    for position in (1, 2):
        log.append(record(position, "a", "ab"[position - 1]))
    for topic in "ab":
        pinned.pin(topic)
        log.pin(topic)
    for position in (3, 4, 5):
        log.append(record(position, "c"))
    assert (read(log), gone, log.pins.events) == ([1, 2, 4, 5], [3], 2)
    assert log.first_to_go is not None
    assert log.first_to_go.position == 4
    assert pinned.unpin("a")
    log.unpin("a")
    assert (log.first_to_go.position, log.pins.events) == (1, 1)
    log.append(record(6, "c"))
    assert (read(log), gone) == ([2, 5, 6], [3, 1, 4])
    log.remove(2)
    assert (log.pins.events, log.pins.bytes) == (0, 0)
    assert pinned.unpin("b")
    log.unpin("b")
    assert log.pins.places == 0
    log.append(record(7, "b"))
    assert read(log) == [6, 7]


def test_a_close_stays_behind_what_is_pinned_by_another_topic() -> None:
    """It is the last of its topics to go; and never is it the newest record that goes for it."""
    log, _pinned, gone = pinned_log("a", max_events=1)
    log.append(record(1, "a", "b"))
    log.append(record(2, "b", last=True))
    log.append(record(3, "c"))
    assert (read(log), gone) == ([1, 2, 3], [])
    log.append(record(4, "c"))
    assert (read(log), gone) == ([1, 2, 4], [3])


async def test_noise_behind_pinned_records_costs_what_it_costs_without() -> None:
    """What is passed over isn't looked at again for each record that goes."""
    log, _pinned, _gone = pinned_log("a", max_events=100)
    for position in range(1, 1001):
        log.append(record(position, "a"))
    for position in range(1001, 1201):
        log.append(record(position, "b"))
    looked = BusiestStep(PinnedRecords.__contains__)
    with looked:
        for position in range(1201, 2201):
            log.append(record(position, "b"))
    assert looked.total < 2500
    assert len(log) == 1100


# -- publishers' own ids


async def test_the_newest_of_records_with_one_id_is_found() -> None:
    """An id used again stands for the newest record that is left."""
    find = partial(Log.find, selection=EVERYTHING, allow=NOTHING)
    log = log_of(record(1, id="x"), record(2, id="x"), record(3), record(4, id="x"))
    found = [await find(log, id) for id in ("x", "y", "bcdf2345-3")]
    assert found == [4, None, None]
    log.remove(4)
    assert await find(log, "x") == 2
    log.remove(1)
    assert await find(log, "x") == 2
    log.remove(2)
    assert await find(log, "x") is None


@pytest.mark.slow
async def test_looking_for_an_id_asks_a_few_matchers_between_checkpoints() -> None:
    """However many topics have it, and however many private events of one."""
    asked = Counter[str]()
    patterns = [Matcher(f"never/{n}", asked) for n in range(40)]
    log = log_of(*(record(n, f"t/{n}", id="x", private=True) for n in range(1, 200)))
    log.append(record(200, "last", id="x"))
    for n in range(201, 400):
        log.append(record(n, "last", id="x", private=True))
    for selection, allow in (
        (Selection([*patterns, Matcher("last", asked)]), NOTHING),
        (Selection(["last"]), Selection(patterns)),
        (EVERYTHING, Selection(patterns)),
    ):
        with BusiestStep(Matcher.matches) as busiest:
            assert await log.find("x", selection=selection, allow=allow) == 200
        assert busiest.total > 100 * 40
        assert busiest.most <= MAX_SCAN // MATCH_COST


class Comparing(int):
    """A position that counts what it is compared with."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        Comparing.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


def test_taking_out_records_whose_ids_were_used_again_is_linear() -> None:
    """No record is looked for among all others with its id."""
    count = 2000
    log = log_of(*(record(Comparing(n), "ab"[n % 2], id="x") for n in range(1, count + 1)))
    Comparing.compared = 0
    for position in reversed(log.positions("a")):
        log.remove(position)
    assert len(log) == count // 2
    assert Comparing.compared <= 10 * count


# -- memory


def traced_size(log: Log) -> int:
    """Return the bytes in use by tracing, while the log is alive."""
    gc.collect()
    assert log.head
    return tracemalloc.get_traced_memory()[0]


@pytest.mark.slow
def test_topics_are_bounded_in_bytes() -> None:
    """Small events of many or long topics are as few as their topics take memory."""
    log = Log(limits(max_events=10_000), forget=lambda _r: None)
    for n in range(1, 61):
        log.append(record(n, *(f"{n}/{topic:0500}" for topic in range(500))))
    bound = max(MIN_TOPIC_BYTES, 10_000 * RECORD_TOPIC_BYTES)
    assert 0.9 * bound < log.topic_bytes <= bound
    assert read(log) == list(range(61 - len(log), 61))
    for position in read(log):
        log.remove(position)
    assert log.topic_bytes == 0


@pytest.mark.slow
def test_a_topic_with_one_record_costs_little() -> None:
    """A hundred thousand topics with a record each cost below half a KiB apiece."""
    count = 100_000
    records = [record(n, f"topic/{n}") for n in range(1, count + 1)]
    tracemalloc.start()
    try:
        log = log_of(*records)
        assert traced_size(log) / count < 512
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_an_old_record_of_a_quiet_topic_pins_nothing() -> None:
    """However much goes through a busy topic behind it, the log keeps what it holds."""
    log = Log(limits(max_events=1000, max_topic_events=10), forget=lambda _r: None)
    log.append(record(1, "quiet"))
    log.append(record(2, "busy", "quiet too"))
    log.remove(2)
    tracemalloc.start()
    try:
        for n in range(3, 20_000):
            log.append(record(n, "busy", id=f"own{n % 5}"))
        assert traced_size(log) < 20_000
    finally:
        tracemalloc.stop()
    assert read(log) == [1, *range(19_990, 20_000)]


# -- against a plain list

TOPICS = ["a", "b", "c/1", "c/2"]
SELECTIONS = [
    EVERYTHING,
    Selection(["a"]),
    Selection(["a", "b"]),
    Selection([Prefix("c/")]),
    Selection([Prefix("c/"), "b"]),
]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("append"), st.sets(st.sampled_from(TOPICS), min_size=1)),
            st.tuples(st.just("remove"), st.integers(1, 40)),
        ),
        max_size=60,
    ),
    st.sampled_from(SELECTIONS),
    st.integers(0, 60),
    st.integers(2, 50),
)
def test_a_log_is_a_list(
    steps: list[tuple[str, set[str] | int]], selection: Selection, after: int, limit: int
) -> None:
    """Whatever is appended and removed, reading gives what a filtered list gives."""
    log = Log(limits(max_events=limit), forget=lambda _r: None)
    kept: list[Record] = []
    for position, (_kind, value) in enumerate(steps, start=1):
        if isinstance(value, int):
            assert (log.remove(value) is not None) == any(r.position == value for r in kept)
            kept = [r for r in kept if r.position != value]
        else:
            log.append(record(position, *value))
            kept = [*kept, record(position, *value)][-limit:]
    wanted = [r.position for r in kept if r.position > after and selection.matches(r.topics)]
    assert read(log, selection, after) == wanted
    assert log.topics == len({topic for r in kept for topic in r.topics})
    assert log.bytes == sum(len(r.frame) for r in kept)
    assert [r.position for r in log] == [r.position for r in kept]


@table("end", [0, 2, 5, 9])
async def test_a_log_that_was_cut_goes_on_from_its_new_end(end: int) -> None:
    """It is what it would be, had it never had more: in each index, and with its limits."""
    records = [record(n, "ab"[n % 2], "c", id="x" if n % 3 else None) for n in range(1, 10)]
    log, other = log_of(*records, max_events=6), log_of(*records[:end], max_events=6)
    log.cut(end)
    kept = {one.position for one in log}
    for n in range(1, end + 1):
        if n not in kept:
            other.remove(n)
    other.floor = log.floor
    for one in (log, other):
        for n in range(end + 1, end + 4):
            one.append(record(n, "b", id="x"))
    assert log.head == other.head == end + 3
    assert (log.bytes, log.topics, log.topic_bytes) == (
        other.bytes,
        other.topics,
        other.topic_bytes,
    )
    for selection in (Selection([topic]) for topic in "abc*"):
        assert read(log, selection, log.floor) == read(other, selection, log.floor)
        found = [await one.find("x", selection=selection, allow=NOTHING) for one in (log, other)]
        assert found[0] == found[1]


def test_a_log_that_was_cut_knows_what_is_closed_and_pinned_in_it() -> None:
    """As far as it goes on: a close behind its end isn't one, and pins are counted anew."""
    log, _pinned, gone = pinned_log("a", "b", max_events=2)
    log.append(record(1, "a", last=True))
    log.append(record(2, "b", size=20))
    places = log.pins.places
    log.append(record(3, "a2", "b", last=True))
    log.append(record(4, "c", last=True))
    log.cut(2)
    assert [log.is_closed(topic, allow=NOTHING) for topic in ("a", "b", "c")] == [
        True,
        False,
        False,
    ]
    assert (log.pins.events, log.pins.bytes, log.pins.places) == (2, 30, places)
    for position in (3, 4, 5):
        log.append(record(position, "c"))
    assert (read(log), gone) == ([1, 2, 4, 5], [3])
