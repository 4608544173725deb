"""The rules for topics that end: what closes one, what that refuses, and who may know it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h3trio.hub._history.errors import KeyReusedError, TopicClosedError
from h3trio.hub._history.record import Appended, Update
from h3trio.hub._history.selection import NOTHING, Selection

from ._drive_history import (
    ALL,
    Followed,
    driven,
    expect,
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


def silent(*topics: str, private: bool = False) -> Update:
    """Make an update that closes topics without an event."""
    return Update(None, topics, private=private, last=True)


async def closed_topics(history: History, *topics: str, allow: Selection = ALL) -> list[str]:
    """List those of some topics that are closed."""
    return [topic for topic in topics if await history.are_closed([topic], allow=allow)]


async def closing_is_a_record(history: History) -> None:
    await fill(history, 4, "a", "b", "c")
    first, second, third = await publish(
        history, update("end", "a", "b", last=True), update("late", "b", "d"), silent("c")
    )
    expect(isinstance(second.error, TopicClosedError), "a closed topic is refused at once", second)
    expect(second[:2] == ("", None), "what is refused has no id and no record", second)
    (event, quiet) = stored([first, third])
    expect(event.last and event.topics == ("a", "b"), "the record says that it is the last", event)
    expect(quiet.last and not quiet.frame, "one without an event has no frame", quiet)
    read = await read_all(history)
    same = positions(read)[-2:] == [event.position, quiet.position]
    expect(same and read[-2].last and read[-1].last, "closing records are read like others", read)
    expect(not read[-1].frame and not read[0].last, "with what they are", read)
    late = update("late", "a"), update("late", "d", "c"), silent("c")
    for refused in await publish(history, *late):
        expect(isinstance(refused.error, TopicClosedError), "and in later appends", refused)
    closed = await closed_topics(history, "a", "b", "c", "d")
    expect(closed == ["a", "b", "c"], "an update closes the topics that it names", closed)
    expect(await history.are_closed(["b", "c"], allow=NOTHING), "several may be closed", closed)
    both = await history.are_closed(["c", "d"], allow=ALL)
    expect(not both, "several aren't if one of them isn't", closed)
    after = await history.position_before_last(1, selection=ALL, allow=ALL)
    expect(after == event.position - 1, "one without an event is none of the last", after)


async def closing_waits_for_the_log(history: History) -> None:
    if isinstance(history, Followed):
        return
    await fill(history, 1)
    (answer,) = await history.append([silent("a")])
    expect(not await closed_topics(history, "a"), "closed by what is in `log` only", answer)
    (refused,) = await history.append([update("late")])
    expect(isinstance(refused.error, TopicClosedError), "but refused at once", refused)
    for record in stored([answer]):
        history.log.append(record)
    expect(await closed_topics(history, "a") == ["a"], "then it is closed", answer)


async def closing_repeats(history: History) -> None:
    asked = update("end", dedup="k", last=True)
    (first,) = await publish(history, asked)
    again, other, open_ = await publish(
        history, asked, update("end", dedup="k"), update("end", "b", dedup="k")
    )
    expect(again == Appended(first.id, None), "a repeated close gives the first id", again)
    expect(isinstance(other.error, KeyReusedError), "one that doesn't close is another", other)
    expect(open_.record is not None, "another topic is open", open_)


async def closing_may_be_secret(history: History) -> None:
    await publish(
        history,
        update("end", "a", "b", private=True, last=True),
        silent("c", private=True),
        silent("d"),
    )
    for allow, wanted in (
        (NOTHING, ["d"]),
        (Selection(["b"]), ["a", "b", "d"]),
        (Selection(["c"]), ["c", "d"]),
        (ALL, ["a", "b", "c", "d"]),
    ):
        closed = await closed_topics(history, "a", "b", "c", "d", allow=allow)
        expect(closed == wanted, f"a private close is seen by right only, by {allow!r}", closed)


async def purging_opens(history: History) -> None:
    records = await fill(history, 2, "b", "a")
    await publish(history, silent("a", "b"))
    cursor = records[-1].position
    removed = await history.purge("a")
    expect(removed == 2, "purging removes the closing record", removed)  # noqa: PLR2004 - and the event
    closed = await closed_topics(history, "a", "b")
    expect(closed == [], "then all topics that it closed are open", closed)
    gaps = [history.gaps.has_gap(Selection([topic]), cursor) for topic in "ab"]
    expect(gaps == [False, False], "one without an event leaves no gap", gaps)
    expect(
        history.gaps.has_gap(Selection(["a"]), 0), "who wanted the event has a gap", history.gaps
    )
    answers = await publish(history, update("again", "a"), update("end", "b", last=True))
    expect(len(stored(answers)) == len(answers), "they are as new", answers)


CLOSING_CHECKS: Final[tuple[Callable[[History], Awaitable[None]], ...]] = (
    closing_is_a_record,
    closing_waits_for_the_log,
    closing_repeats,
    closing_may_be_secret,
    purging_opens,
)


async def close_goes_last(history: History, room: int) -> None:
    """Check a history with room for a number of records: retention takes the close behind all."""
    await fill(history, room - 2, "a")
    (answer,) = await publish(history, silent("a"))
    for number in range(room):
        closed = await closed_topics(history, "a")
        expect(closed == ["a"], "a topic is closed while the record of that is kept", number)
        await fill(history, 1, "noise")
    expect(not await closed_topics(history, "a"), "open when it is gone", answer)
    (new,) = await publish(history, update("new", "a"))
    expect(new.record is not None, "and as new", new)


async def close_outlives_closing(first: History, reopen: Callable[[History], History]) -> None:
    async with driven(first) as history:
        await fill(history, 2, "a", "b")
        await publish(history, update("end", "a", last=True), silent("b", private=True))
        await fill(history, 1, "c")
    async with driven(reopen(first)) as second:
        closed = await closed_topics(second, "a", "b", "c")
        expect(closed == ["a", "b"], "closed topics are closed afterwards", closed)
        closed = await closed_topics(second, "a", "b", "c", allow=NOTHING)
        expect(closed == ["a"], "and private closes private", closed)
        refused = await publish(second, update("late", "a"), silent("b"))
        known = all(isinstance(answer.error, TopicClosedError) for answer in refused)
        expect(known, "nothing can be published to them", refused)
        last = [record.last for record in await read_all(second, Selection(["a"]))]
        expect(last == [False, True], "the record still says that it is the last", last)
