"""`check_history`: the suite of checks for any implementation of `History`.

Each check gets a history of its own, and uses it as a hub does: records that `append` returns are
put into `log` at once. A broken rule raises `AssertionError` with the rule and what was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio

from h3trio.hub._history.selection import EVERYTHING, Selection

from ._history_checks import CHECKS
from ._history_tools import expect, fields_of, fill, positions, publish, read_all, update

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio.hub._history.history import History

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
    everything = Selection([EVERYTHING])
    read = positions(await read_all(history, everything))
    expect(read == positions(kept), "the newest are kept", read)
    in_log = positions(list(history.log))
    expect(set(in_log) <= set(read), "`log` has nothing that isn't kept", in_log)
    cursors = [0, *positions(records)]
    for selection in (Selection(["quiet"]), Selection(["busy"]), Selection(["x"]), everything):
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
    everything = Selection([EVERYTHING])
    async with history:
        await fill(history, 5, "a", "b")
        (own,) = await publish(history, update("own", id="x", dedup="k", private=True))
        records = await read_all(history, everything)
        removed = len(await fill(history, 1, "gone")) and await history.purge("gone")
        cursor, head = history.epochs.format(history.log.head), history.log.head
    expect(removed == 1, "purging says how many records went", removed)
    async with reopen(history) as second:
        expect(second.log.head == head, "the head is where it was", second.log.head)
        again = await read_all(second, everything)
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
