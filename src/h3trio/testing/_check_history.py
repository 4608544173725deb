"""`check_history`: the suite of checks for any implementation of `History`.

Each check gets a history of its own, and uses it as a hub does: one that several hubs share with
its follower. A broken rule raises `AssertionError` with the rule and what was seen.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from h3trio._wire.parser import SSEParser
from h3trio.hub._history.record import Appended, Update
from h3trio.hub._history.selection import NOTHING, Selection

from ._check_closing import CLOSING_CHECKS, close_goes_last, close_outlives_closing
from ._check_ids import ID_CHECKS
from ._check_nodes import nodes_meet_and_answer
from ._check_sharing import hubs_share_one_log
from ._drive_history import (
    ALL,
    AMPLE,
    Followed,
    Suffix,
    driven,
    expect,
    fields_of,
    fill,
    positions,
    publish,
    read_all,
    stored,
    update,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio.hub._history.history import History
    from h3trio.hub._history.record import Record

_SMALL: Final = 4


async def check_history(
    make_history: Callable[[], History],
    *,
    make_small: Callable[[int], History] | None = None,
    reopen: Callable[[History], History] | None = None,
    share: Callable[[History], History] | None = None,
) -> None:
    """Run every check against an implementation of `h3trio.hub.History`.

    Args:
        make_history: makes a history that is empty, not open, and has room for 100 small events.
        make_small: makes one that keeps the given number of events in all. Without it, retention
            isn't checked.
        reopen: gets a closed history and makes one with the same store, for histories that outlive
            their process. Without it, that isn't checked.
        share: gets an open history that `is_shared`, and makes another one with the same store.
            Without it, what two hubs see of each other isn't checked.

    Raises:
        AssertionError: a rule is broken.
    """
    for check in CHECKS:
        async with driven(make_history()) as history:
            await check(history)
    await _closed_takes_nothing(make_history())
    if make_small is not None:
        async with driven(make_small(_SMALL)) as history:
            await _oldest_go_first(history)
        async with driven(make_small(_SMALL)) as history:
            await _keys_and_ids_go_with_their_record(history)
        async with driven(make_small(_SMALL)) as history:
            await close_goes_last(history, _SMALL)
        async with driven(make_small(_SMALL)) as history:
            await _pinned_are_passed_over(history)
    if reopen is not None:
        await _everything_outlives_closing(make_history(), reopen)
        await _no_id_is_given_twice(make_history(), reopen)
        await close_outlives_closing(make_history(), reopen)
    if share is not None:
        small = None if make_small is None else partial(make_small, _SMALL)
        await hubs_share_one_log(make_history, share, small, _SMALL)
        await nodes_meet_and_answer(make_history, share)


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
    records = stored(appended)
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
    wanted = (asked.event and asked.event.data, asked.event and asked.event.event, record.id)
    expect(seen == wanted, "the frame is the event with its id", record.frame)
    position = history.epochs.resolve(record.id, record.position)
    expect(position == record.position, "the hub's ids are resolved to positions", record)


async def _append_leaves_the_log_alone(history: History) -> None:
    await fill(history, 2)
    head = history.log.head
    if isinstance(history, Followed):
        return
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
        read = await read_all(history, ALL, max_records=max_records, max_bytes=max_bytes)
        whole = positions(read) == positions(records)
        expect(whole, "small pages together give everything", (max_records, max_bytes, read))
    for after in (records[3].position, history.log.head, history.log.head + 5):
        read = await read_all(history, ALL, after)
        wanted = [position for position in positions(records) if position > after]
        expect(positions(read) == wanted, f"reading starts behind {after}", read)


_TOPICS: Final = ("a", "b", "c/1", "d/1", "é ☃/\N{ROCKET}?%2F#")
_SELECTIONS: Final = (
    Selection(["a"]),
    Selection(["a", "b"]),
    Selection(["a", "never"]),
    Selection(["never"]),
    Selection([_TOPICS[-1]]),
    Selection([Suffix("/1")]),
    Selection(["b", Suffix("/1")]),
    ALL,
    Selection([]),
)


async def _selections_select(history: History) -> None:
    records = await fill(history, 20, *_TOPICS)
    both = await publish(history, update("both", "b", "a"), update("secret", "a", private=True))
    records += stored(both)
    for selection in _SELECTIONS:
        wanted = [r.position for r in records if selection.matches(r.topics)]
        for max_records in (1, 4, AMPLE):
            read = positions(await read_all(history, selection, max_records=max_records))
            expect(read == wanted, f"{selection!r} gives its records, each once", read)
        for count in (0, 1, 3, 100):
            after = await history.position_before_last(count, selection=selection, allow=ALL)
            read = positions(await read_all(history, selection, after))
            last = wanted[-count:] if count else []
            expect(read == last, f"the last {count} of {selection!r} are found", (after, read))
    for allow, visible in ((NOTHING, records[-2]), (Selection(["a"]), records[-1])):
        after = await history.position_before_last(1, selection=ALL, allow=allow)
        seen = after < visible.position
        expect(seen, f"private records count if they are allowed, by {allow!r}", after)


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
    expect(history.log.head >= cursor, "positions don't go back", history.log.head)
    statistics = history.statistics()
    seen = (statistics.events, statistics.topics, statistics.newest, statistics.trimmed)
    expect(seen == (6, 2, history.log.head, 4), "statistics() agrees", statistics)
    (after,) = await publish(history, update("after"))
    expect(after.id != shared.id, "ids of purged records aren't given again", after)


async def _removals_tell_no_secrets(history: History) -> None:
    await publish(history, update("secret", "a", "b", private=True), update("public", "c"))
    await history.purge("a")
    cases: tuple[tuple[str, Selection, bool], ...] = (
        ("a", NOTHING, False),
        ("b", Selection(["c"]), False),
        ("a", Selection(["b"]), True),
        ("b", ALL, True),
        ("c", ALL, False),
    )
    for topic, allow, wanted in cases:
        seen = history.gaps.has_gap(Selection([topic]), 0, allow)
        expect(seen == wanted, f"of {topic} private removals are told by {allow!r}", seen)


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
    *ID_CHECKS,
    *CLOSING_CHECKS,
    _purging_removes_and_leaves_gaps,
    _removals_tell_no_secrets,
    _trimming_without_need_does_nothing,
    _statistics_count,
)


# -- the rules of those that end, forget or outlive their process


async def _closed_takes_nothing(history: History) -> None:
    async with driven(history) as opened:
        await publish(opened, update("1"))
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
    for selection in (Selection(["quiet"]), Selection(["busy"]), Selection(["x"]), ALL):
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
    found = await history.find("x", selection=ALL, allow=ALL)
    expect(found is None, "an id goes with its record", found)
    position = history.epochs.resolve("x", history.log.head)
    expect(position is None, "a publisher's id is none of the hub's", position)
    (again,) = await publish(history, update("2", dedup="k"))
    expect(again.record is not None, "a key goes with its record", (first, again))


async def _pinned_are_passed_over(history: History) -> None:
    (early,) = await fill(history, 1, "a")
    try:
        history.pin("a")
    except NotImplementedError:
        return
    history.pin("a")
    pinned = [early, *await fill(history, _SMALL, "a")]
    noise = await fill(history, 3 * _SMALL, "noise")
    pinned += stored(await publish(history, update("shared", "b", "a")))
    kept = positions([*pinned[:-1], *noise[-_SMALL:], pinned[-1]])
    read = positions(await read_all(history))
    expect(read == kept, "records of pinned topics are kept beside as many others", read)
    gap = history.gaps.has_gap(Selection(["a", "b"]), 0)
    expect(not gap, "and who wants them has no gap", history.gaps)
    counted = history.statistics()
    size = sum(len(record.frame) for record in pinned)
    seen = (counted.pinned_topics, counted.pinned_events, counted.pinned_bytes)
    expect(seen == (1, len(pinned), size), "statistics() counts them apart", counted)
    history.unpin("a")
    await fill(history, 1, "noise")
    left = positions(await read_all(history, Selection(["a"])))
    expect(left == positions(pinned), "a topic that was pinned twice is unpinned twice", left)
    history.unpin("a")
    await fill(history, 1, "noise")
    left = positions(await read_all(history))
    expect(len(left) == _SMALL, "unpinned, they count in all again", left)
    counted = history.statistics()
    seen = (counted.pinned_topics, counted.pinned_events, counted.pinned_bytes)
    expect(seen == (0, 0, 0), "and are counted apart no more", counted)


async def _everything_outlives_closing(
    first: History, reopen: Callable[[History], History]
) -> None:
    async with driven(first) as history:
        await fill(history, 5, "a", "b")
        own_update = update("own", id="x", dedup="k", private=True)
        (own,) = await publish(history, own_update)
        records = await read_all(history)
        removed = len(await fill(history, 1, "gone")) and await history.purge("gone")
        await publish(history, update("secret", "secret", private=True))
        await history.purge("secret")
        cursor, head = history.epochs.format(history.log.head), history.log.head
    expect(removed == 1, "purging says how many records went", removed)
    async with driven(reopen(first)) as second:
        expect(second.log.head == head, "the head is where it was", second.log.head)
        again = await read_all(second)
        same = [fields_of(r) for r in again] == [fields_of(r) for r in records]
        expect(same, "records are what they were", again)
        position = second.epochs.resolve(cursor, second.log.head)
        expect(position == head, "a cursor from before is good", cursor)
        found = await second.find("x", selection=ALL, allow=ALL)
        expect(found is not None, "publishers' ids are found", found)
        found = await second.find("x", selection=ALL, allow=NOTHING)
        expect(found is None, "private ones by those who may see them", found)
        (repeated,) = await publish(second, own_update)
        expect(repeated == Appended(own.id, None), "keys are known", repeated)
        (refused,) = await publish(second, update("again", dedup="k"))
        expect(refused.error is not None, "and the events that they came with", refused)
        gaps = [second.gaps.has_gap(Selection([topic]), 0) for topic in ("gone", "a")]
        expect(gaps == [True, False], "gaps are known, per topic", gaps)
        secret = [second.gaps.has_gap(Selection(["secret"]), 0, each) for each in (ALL, NOTHING)]
        expect(secret == [True, False], "those of private records to whom may know", secret)
        counted = second.statistics()
        seen = (counted.events, counted.topics, counted.newest)
        expect(seen == (6, 2, head), "statistics() counts what was found", counted)
        (new,) = await fill(second, 1)
        expect(new.position > head, "positions go on", new)


async def _no_id_is_given_twice(first: History, reopen: Callable[[History], History]) -> None:
    given: dict[str, int] = {}
    epochs: list[str] = []
    future = ""
    opened = first
    for number in range(1, 5):
        async with driven(opened) as history:
            given |= {record.id: record.position for record in await fill(history, 3)}
            expect(len(given) == 3 * number, "ids are given once", given)
            head = history.log.head
            for known, place in given.items():
                position = history.epochs.resolve(known, head)
                expect(position == place, "ids of all epochs are good", (known, position))
            position = history.epochs.resolve(future, head)
            expect(position is None, "an id that was never given is unknown", (future, position))
            epochs.append(history.epochs.current)
            future = history.epochs.format(head + 9)
        opened = reopen(opened)
    count = 1 if first.is_shared else len(epochs)
    rule = "a new epoch begins each time it is opened, but not if its store goes on meanwhile"
    expect(len(set(epochs)) == count, rule, epochs)
