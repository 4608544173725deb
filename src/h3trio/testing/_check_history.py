"""`check_history`: the suite of checks for any implementation of `History`.

Each check gets a history of its own, and uses it as a hub does: records that `append` returns are
put into `log` at once. Every page that is read is held against the rules of pages. A broken rule
raises `AssertionError` with the rule and what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio._wire.event import SSEEvent
from h3trio._wire.parser import SSEParser
from h3trio.hub._history.record import Update
from h3trio.hub._history.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from h3trio.hub._history.history import History
    from h3trio.hub._history.record import Appended, Page, Record

AMPLE: Final = 1_000_000
_ALL: Final = Selection([EVERYTHING])
_SMALL: Final = 4


async def check_history(
    make_history: Callable[[], History],
    *,
    make_small: Callable[[int], History] | None = None,
    reopen: Callable[[History], History] | None = None,
) -> None:
    """Run every check against an implementation of `h3trio.hub.History`.

    Args:
        make_history: makes a history that is empty, not open, and has room for 100 small events.
        make_small: makes one that keeps the given number of events in all. Without it, retention
            isn't checked.
        reopen: gets a closed history and makes one with the same store, for histories that outlive
            their process. Without it, that isn't checked.

    Raises:
        AssertionError: a rule is broken.
    """
    for check in CHECKS:
        async with make_history() as history:
            await check(history)
    await _closed_takes_nothing(make_history())
    if make_small is not None:
        async with make_small(_SMALL) as history:
            await _oldest_go_first(history)
        async with make_small(_SMALL) as history:
            await _keys_and_ids_go_with_their_record(history)
    if reopen is not None:
        await _everything_outlives_closing(make_history(), reopen)
        await _no_id_is_given_twice(make_history(), reopen)


# -- a history, used as a hub does


def expect(condition: bool, rule: str, seen: object) -> None:  # noqa: FBT001 - it reads like `assert`
    """Raise unless a rule holds, under `python -O` too."""
    if not condition:
        raise AssertionError(f"{rule}; seen: {seen!r}")


def update(
    data: str,
    *topics: str,
    id: str | None = None,
    dedup: str | None = None,
    private: bool = False,
) -> Update:
    event = SSEEvent(data, event="test", id=id)
    return Update(event=event, topics=topics or ("a",), private=private, dedup=dedup)


async def publish(history: History, *updates: Update) -> list[Appended]:
    """Append as a hub does."""
    appended = await history.append(updates)
    for _id, record in appended:
        if record is not None:
            history.log.append(record)
    return appended


async def fill(history: History, count: int, *topics: str) -> list[Record]:
    """Publish so many updates one by one, the topics in turn."""
    names = topics or ("a",)
    records: list[Record] = []
    for number in range(count):
        (appended,) = await publish(history, update(str(number), names[number % len(names)]))
        expect(appended.record is not None, "an update without a `dedup` key is stored", appended)
        records += [appended.record] if appended.record else []
    return records


# What has to be the same when a record is read again.
fields_of = attrgetter("position", "id", "topics", "private", "published", "frame")


def positions(records: Sequence[Record]) -> list[int]:
    return [record.position for record in records]


async def read_all(
    history: History,
    selection: Selection = _ALL,
    after: int = 0,
    *,
    max_records: int = AMPLE,
    max_bytes: int = AMPLE,
) -> list[Record]:
    """Read page by page to the end, and hold every page against its rules."""
    records: list[Record] = []
    more = True
    while more:
        page = await history.read(
            after, selection=selection, max_records=max_records, max_bytes=max_bytes
        )
        _check_page(page, after, max_records, max_bytes)
        expect(page.last > after or not page.more, "a page with `more` goes forward", page)
        expect(page.last <= max(history.log.head, after), "a page ends at the log's head", page)
        records += page.records
        after, more = page.last, page.more
    expect(after >= history.log.head, "the last page reaches the log's head", after)
    return records


def _check_page(page: Page, after: int, max_records: int, max_bytes: int) -> None:
    records, last = page.records, page.last
    places = positions(records)
    expect(places == sorted(set(places)), "a page is in order, each record once", places)
    inside = all(after < position <= last for position in places)
    expect(inside, "a page's records lie behind `after` and not behind `last`", places)
    expect(len(records) <= max_records, "a page keeps to `max_records`", len(records))
    size = sum(len(record.frame) for record in records)
    fits = size <= max_bytes or len(records) == 1
    expect(fits, "a page keeps to `max_bytes`, or has one record", size)


# -- the rules


async def _empty_has_a_cursor(history: History) -> None:
    known = history.durability in ("memory", "fast", "durable")
    expect(known, "`durability` is one of three", history.durability)
    statistics = history.statistics()
    expect(history.log.head == 0, "an empty log's head is 0", history.log.head)
    seen = (statistics.events, statistics.bytes, statistics.newest, statistics.oldest)
    expect(seen == (0, 0, 0, 0), "an empty history counts nothing", statistics)
    cursor = history.epochs.format(0)
    position = history.epochs.resolve(cursor, 0)
    expect(position == 0, "the cursor of an empty history is good", cursor)
    expect(await read_all(history) == [], "there is nothing to read", None)
    await publish(history, update("first"))
    position = history.epochs.resolve(cursor, history.log.head)
    expect(position == 0, "it is still good after the first record", cursor)


async def _log_has_one_order(history: History) -> None:
    updates = [update(str(n), "ab"[n % 2], "c") for n in range(10)]
    appended = await publish(history, *updates[:7]) + await publish(history, *updates[7:])
    records = [record for _id, record in appended if record is not None]
    expect(len(records) == len(updates), "each update gives one record", appended)
    places = positions(records)
    expect(places == sorted(set(places)), "positions ascend", places)
    expect(places[0] > 0, "the first position is at least 1", places)
    ids = [record.id for record in records]
    expect(ids == [a.id for a in appended], "the id returned is the record's", ids)
    expect(len(set(ids)) == len(ids), "ids are given once", ids)
    for record, asked in zip(records, updates, strict=True):
        _check_record(history, record, asked)
    read = await read_all(history)
    seen = [fields_of(record) for record in read]
    wanted = [fields_of(record) for record in records]
    expect(seen == wanted, "what is read is what was returned", read)


def _check_record(history: History, record: Record, asked: Update) -> None:
    expect(record.topics == asked.topics, "topics keep their order", record.topics)
    expect(record.private == asked.private, "`private` is kept", record)
    (event,) = SSEParser().feed(record.frame)
    seen = (event.data, event.event, event.id)
    wanted = (asked.event.data, asked.event.event, record.id)
    expect(seen == wanted, "the frame is the event with its id", record.frame)
    position = history.epochs.resolve(record.id, record.position)
    expect(position == record.position, "the hub's ids are resolved to positions", record)


async def _append_leaves_the_log_alone(history: History) -> None:
    await fill(history, 2)
    head = history.log.head
    (appended,) = await history.append([update("third")])
    expect(history.log.head == head, "`append` doesn't touch `log`", history.log.head)
    read = positions(await read_all(history))
    expect(max(read) == head, "`read` ends at the head of `log`", read)
    if appended.record is not None:
        history.log.append(appended.record)
    read = positions(await read_all(history))
    expect(len(read) == 3, "then it reads what was added", read)  # noqa: PLR2004 - two and one


async def _pages_have_limits(history: History) -> None:
    records = await fill(history, 10)
    size = len(records[0].frame)
    for max_records, max_bytes in ((1, AMPLE), (3, AMPLE), (AMPLE, 1), (AMPLE, 3 * size + 1)):
        read = await read_all(history, _ALL, max_records=max_records, max_bytes=max_bytes)
        whole = positions(read) == positions(records)
        expect(whole, "small pages together give everything", (max_records, max_bytes, read))
    for after in (records[3].position, history.log.head, history.log.head + 5):
        read = await read_all(history, _ALL, after)
        wanted = [position for position in positions(records) if position > after]
        expect(positions(read) == wanted, f"reading starts behind {after}", read)


@final
@dataclass(frozen=True, slots=True)
class _Suffix:
    """Matches topics by their end."""

    suffix: str

    def matches(self, topic: str, /) -> bool:
        return topic.endswith(self.suffix)


_TOPICS: Final = ("a", "b", "c/1", "d/1", "é ☃/\N{ROCKET}?%2F#")
_SELECTIONS: Final = (
    Selection(["a"]),
    Selection(["a", "b"]),
    Selection(["a", "never"]),
    Selection(["never"]),
    Selection([_TOPICS[-1]]),
    Selection([_Suffix("/1")]),
    Selection(["b", _Suffix("/1")]),
    _ALL,
    Selection([]),
)


async def _selections_select(history: History) -> None:
    records = await fill(history, 20, *_TOPICS)
    both = await publish(history, update("both", "b", "a"), update("secret", "a", private=True))
    records += [record for _id, record in both if record is not None]
    for selection in _SELECTIONS:
        wanted = [r.position for r in records if selection.matches(r.topics)]
        for max_records in (1, 4, AMPLE):
            read = positions(await read_all(history, selection, max_records=max_records))
            expect(read == wanted, f"{selection!r} gives its records, each once", read)
        for count in (0, 1, 3, 100):
            after = await history.position_before_last(count, selection=selection)
            read = positions(await read_all(history, selection, after))
            last = wanted[-count:] if count else []
            expect(read == last, f"the last {count} of {selection!r} are found", (after, read))


async def _publishers_choose_ids(history: History) -> None:
    appended = await publish(history, update("1", id="x"), update("2"), update("3", id="x"))
    expect([a.id for a in appended][::2] == ["x", "x"], "a publisher's id is kept", appended)
    records = [record for _id, record in appended if record is not None]
    expect(len(records) == 3, "using an id again is no repetition", appended)  # noqa: PLR2004 - all three
    found = await history.find("x")
    expect(found == records[2].position, "of records with one id the newest is found", found)
    for strange in (records[1].id, "y", "", "\0", "\ud800", "x" * 1000, "X"):
        found = await history.find(strange)
        expect(found is None, f"no publisher chose {strange!r}", found)


async def _longest_ids_and_keys_are_taken(history: History) -> None:
    longest = update("good", id="!" * 128, dedup="é" * 255)
    (appended,) = await publish(history, longest)
    expect(appended.record is not None, "an id of 128 characters is taken", appended)
    (again,) = await publish(history, longest)
    expect(again == ("!" * 128, None), "a key of 255 characters is known again", again)


async def _repeated_keys_are_one_publish(history: History) -> None:
    first, again, other = await publish(
        history,
        update("1", dedup="k"),
        update("2", dedup="k", id="x"),
        update("3", dedup="K"),
    )
    expect(again == (first.id, None), "a repeated key gives the first id", again)
    expect(other.record is not None, "another key is another publish", other)
    (later,) = await publish(history, update("4", "b", dedup="k"))
    expect(later == (first.id, None), "in a later append too", later)
    read = await read_all(history)
    expect(len(read) == 2, "a repetition isn't stored", read)  # noqa: PLR2004 - two keys
    (own,) = await publish(history, update("5", dedup="own", id="y"))
    (later,) = await publish(history, update("6", dedup="own"))
    expect(later == (own.id, None), "the first id may be a publisher's", later)


async def _purging_removes_and_leaves_gaps(history: History) -> None:
    records = await fill(history, 9, "a", "b", "c")
    (shared,) = await publish(history, update("shared", "b", "a"))
    cursor = history.log.head
    removed = await history.purge("a")
    expect(removed == 4, "purging says how many records went", removed)  # noqa: PLR2004 - 3 and the shared
    expect(await history.purge("a") == 0, "purging again finds nothing", None)
    left = [r.position for r in records if "a" not in r.topics]
    read = positions(await read_all(history))
    expect(read == left, "what was purged can't be read", read)
    in_log = positions(list(history.log))
    expect(set(in_log) <= set(left), "nor is it in `log`", in_log)
    gaps = history.gaps
    expect(gaps.has_gap(Selection(["a"]), 0), "who wanted it has a gap", gaps)
    expect(gaps.has_gap(Selection(["b"]), cursor - 1), "under its other topics too", gaps)
    expect(not gaps.has_gap(Selection(["c"]), 0), "who wanted something else has none", gaps)
    expect(not gaps.has_gap(Selection(["a"]), cursor), "nor has who saw it", gaps)
    expect(history.log.head == cursor, "positions don't go back", history.log.head)
    statistics = history.statistics()
    seen = (statistics.events, statistics.topics, statistics.newest, statistics.trimmed)
    expect(seen == (6, 2, cursor, 4), "statistics() agrees", statistics)
    (after,) = await publish(history, update("after"))
    expect(after.id != shared.id, "ids of purged records aren't given again", after)


async def _trimming_without_need_does_nothing(history: History) -> None:
    records = await fill(history, 3)
    expect(await history.trim() == 0, "trim removes nothing within the limits", None)
    read = positions(await read_all(history))
    expect(read == positions(records), "everything is there", read)


async def _statistics_count(history: History) -> None:
    records = await fill(history, 5, "a", "b")
    statistics = history.statistics()
    seen = (statistics.events, statistics.topics, statistics.oldest, statistics.newest)
    wanted = (5, 2, records[0].position, records[-1].position)
    expect(seen == wanted, "statistics() counts records and topics", statistics)
    size = sum(len(record.frame) for record in records)
    expect(statistics.bytes == size, "statistics() counts the frames' bytes", statistics)
    expect(statistics.durability == history.durability, "and says the durability", statistics)


CHECKS: Final[tuple[Callable[[History], Awaitable[None]], ...]] = (
    _empty_has_a_cursor,
    _log_has_one_order,
    _append_leaves_the_log_alone,
    _pages_have_limits,
    _selections_select,
    _publishers_choose_ids,
    _longest_ids_and_keys_are_taken,
    _repeated_keys_are_one_publish,
    _purging_removes_and_leaves_gaps,
    _trimming_without_need_does_nothing,
    _statistics_count,
)


# -- the rules of those that end, forget or outlive their process


async def _closed_takes_nothing(history: History) -> None:
    async with history:
        await publish(history, update("1"))
    try:
        await history.append([update("2")])
    except trio.ClosedResourceError:
        pass
    else:
        raise AssertionError("a closed history raises ClosedResourceError from append")
    await history.aclose()


async def _oldest_go_first(history: History) -> None:
    records = await fill(history, 3, "quiet", "busy", "quiet")
    records += await fill(history, 5, "busy")
    kept = records[-_SMALL:]
    read = positions(await read_all(history))
    expect(read == positions(kept), "the newest are kept", read)
    in_log = positions(list(history.log))
    expect(set(in_log) <= set(read), "`log` has nothing that isn't kept", in_log)
    cursors = [0, *positions(records)]
    for selection in (Selection(["quiet"]), Selection(["busy"]), Selection(["x"]), _ALL):
        gone = [r.position for r in records[:-_SMALL] if selection.matches(r.topics)]
        for after in cursors:
            wanted = any(position > after for position in gone)
            seen = history.gaps.has_gap(selection, after)
            expect(seen == wanted, f"gaps of {selection!r} behind {after} are told per topic", seen)
    statistics = history.statistics()
    trimmed = len(records) - _SMALL
    counted = (statistics.events, statistics.oldest, statistics.trimmed)
    expect(counted == (_SMALL, kept[0].position, trimmed), "statistics() agrees", statistics)


async def _keys_and_ids_go_with_their_record(history: History) -> None:
    (first,) = await publish(history, update("1", id="x", dedup="k"))
    await fill(history, _SMALL)
    expect(await history.find("x") is None, "an id goes with its record", "x")
    position = history.epochs.resolve("x", history.log.head)
    expect(position is None, "a publisher's id is none of the hub's", position)
    (again,) = await publish(history, update("2", dedup="k"))
    expect(again.record is not None, "a key goes with its record", (first, again))


async def _everything_outlives_closing(
    history: History, reopen: Callable[[History], History]
) -> None:
    async with history:
        await fill(history, 5, "a", "b")
        (own,) = await publish(history, update("own", id="x", dedup="k", private=True))
        records = await read_all(history)
        removed = len(await fill(history, 1, "gone")) and await history.purge("gone")
        cursor, head = history.epochs.format(history.log.head), history.log.head
    expect(removed == 1, "purging says how many records went", removed)
    async with reopen(history) as second:
        expect(second.log.head == head, "the head is where it was", second.log.head)
        again = await read_all(second)
        same = [fields_of(r) for r in again] == [fields_of(r) for r in records]
        expect(same, "records are what they were", again)
        position = second.epochs.resolve(cursor, second.log.head)
        expect(position == head, "a cursor from before is good", cursor)
        expect(await second.find("x") is not None, "publishers' ids are found", "x")
        repeated = await publish(second, update("again", dedup="k"))
        expect(repeated == [(own.id, None)], "keys are known", repeated)
        gaps = [second.gaps.has_gap(Selection([topic]), 0) for topic in ("gone", "a")]
        expect(gaps == [True, False], "gaps are known, per topic", gaps)
        counted = second.statistics()
        seen = (counted.events, counted.topics, counted.newest)
        expect(seen == (6, 2, head), "statistics() counts what was found", counted)
        (new,) = await fill(second, 1)
        expect(new.position > head, "positions go on", new)


async def _no_id_is_given_twice(history: History, reopen: Callable[[History], History]) -> None:
    given: dict[str, int] = {}
    epochs: list[str] = []
    future = ""
    for number in range(1, 5):
        async with history:
            given |= {record.id: record.position for record in await fill(history, 3)}
            expect(len(given) == 3 * number, "ids are given once", given)
            head = history.log.head
            for known, place in given.items():
                position = history.epochs.resolve(known, head)
                expect(position == place, "ids of all epochs are good", (known, position))
            position = history.epochs.resolve(future, head)
            expect(position is None, "an id that was never given is unknown", (future, position))
            epochs.append(history.epochs.current)
            future = history.epochs.format(head + 1)
        history = reopen(history)
    expect(len(set(epochs)) == len(epochs), "each time it is opened a new epoch begins", epochs)
