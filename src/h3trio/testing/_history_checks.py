"""`CHECKS`: the rules of the interface `History`, each an async function of a fresh history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from h3trio._wire.parser import SSEParser
from h3trio.hub._history.selection import EVERYTHING, Selection

from ._history_tools import AMPLE, expect, fields_of, fill, positions, publish, read_all, update

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio.hub._history.history import History
    from h3trio.hub._history.record import Record, Update


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
    expect(await read_all(history, Selection([EVERYTHING])) == [], "there is nothing to read", None)
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
    read = await read_all(history, Selection([EVERYTHING]))
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
    read = positions(await read_all(history, Selection([EVERYTHING])))
    expect(max(read) == head, "`read` ends at the head of `log`", read)
    if appended.record is not None:
        history.log.append(appended.record)
    read = positions(await read_all(history, Selection([EVERYTHING])))
    expect(len(read) == 3, "then it reads what was added", read)  # noqa: PLR2004 - two and one


async def _pages_have_limits(history: History) -> None:
    records = await fill(history, 10)
    everything = Selection([EVERYTHING])
    size = len(records[0].frame)
    for max_records, max_bytes in ((1, AMPLE), (3, AMPLE), (AMPLE, 1), (AMPLE, 3 * size + 1)):
        read = await read_all(history, everything, max_records=max_records, max_bytes=max_bytes)
        whole = positions(read) == positions(records)
        expect(whole, "small pages together give everything", (max_records, max_bytes, read))
    for after in (records[3].position, history.log.head, history.log.head + 5):
        read = await read_all(history, everything, after)
        wanted = [position for position in positions(records) if position > after]
        expect(positions(read) == wanted, f"reading starts behind {after}", read)


@final
class _Suffix:
    """Matches topics by their end."""

    def __init__(self, suffix: str) -> None:
        self._suffix = suffix

    def matches(self, topic: str, /) -> bool:
        return topic.endswith(self._suffix)

    def __hash__(self) -> int:
        return hash(self._suffix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Suffix) and other._suffix == self._suffix


_TOPICS: Final = ("a", "b", "c/1", "d/1", "é ☃/\N{ROCKET}?%2F#")
_SELECTIONS: Final = (
    Selection(["a"]),
    Selection(["a", "b"]),
    Selection(["a", "never"]),
    Selection(["never"]),
    Selection([_TOPICS[-1]]),
    Selection([_Suffix("/1")]),
    Selection(["b", _Suffix("/1")]),
    Selection([EVERYTHING]),
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
    read = await read_all(history, Selection([EVERYTHING]))
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
    read = positions(await read_all(history, Selection([EVERYTHING])))
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
    read = positions(await read_all(history, Selection([EVERYTHING])))
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
