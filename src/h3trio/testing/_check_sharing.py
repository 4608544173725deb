"""The rules for what two hubs see of each other that share a store."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from h3trio.hub._history.errors import TopicClosedError
from h3trio.hub._history.selection import NOTHING, Selection

from ._check_closing import closed_topics, silent
from ._drive_history import (
    ALL,
    Followed,
    driven,
    expect,
    fields_of,
    fill,
    positions,
    publish,
    read_all,
    update,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from h3trio.hub._history.history import History

_A: Final = Selection(["a"])


@asynccontextmanager
async def _two(
    history: History, share: Callable[[History], History]
) -> AsyncGenerator[tuple[Followed, Followed]]:
    async with driven(history) as one:
        expect(one.is_shared, "a history that several hubs share says so", one)
        assert isinstance(one, Followed), "made of a shared one"
        async with driven(share(one.shared)) as other:
            assert isinstance(other, Followed), "as above"
            yield one, other


async def hubs_share_one_log(
    make_history: Callable[[], History],
    share: Callable[[History], History],
    make_small: Callable[[], History] | None,
    room: int,
) -> None:
    """Run the rules, each with hubs on a store of their own."""
    for rule in _RULES:
        async with _two(make_history(), share) as (one, other):
            await rule(one, other)
    if make_small is not None:
        async with _two(make_small(), share) as (one, other):
            await _pins_of_all_count(one, other, room)
    async with driven(make_history()) as one:
        assert isinstance(one, Followed), "as above"
        await _who_comes_later_has_all(one, share)


async def _follow(*hubs: Followed) -> None:
    """Let each follow up to where its store is now."""
    for hub in hubs:
        await hub.wait_for(await hub.head())


async def _there_is_one_order(one: Followed, other: Followed) -> None:
    ids: list[str] = []
    for number in range(12):
        node = (one, other)[number % 2]
        ids += [a.id for a in await publish(node, update(str(number), "ab"[number % 3 == 0]))]
    await _follow(one, other)
    expect(len(set(ids)) == len(ids), "ids are given once, whoever publishes", ids)
    seen = [[fields_of(record) for record in await read_all(node)] for node in (one, other)]
    expect(seen[0] == seen[1], "all read the same", seen)
    expect([fields[1] for fields in seen[0]] == ids, "in the order in which it was stored", seen)
    logs = [[fields_of(record) for record in node.log] for node in (one, other)]
    least = min(map(len, logs))
    expect(least > 0 and logs[0][-least:] == logs[1][-least:], "all have the same in `log`", logs)
    for node in (one, other):
        places = [node.epochs.resolve(id, node.log.head) for id in ids]
        expect(None not in places, "the ids of one are good at the other", places)
    epochs = one.epochs.current, other.epochs.current
    expect(epochs[0] == epochs[1], "who comes later begins no epoch", epochs)


async def _keys_and_ids_are_known_to_all(one: Followed, other: Followed) -> None:
    asked = update("1", id="x", dedup="k")
    (first,) = await publish(one, asked)
    (again,) = await publish(other, asked)
    expect(again.id == first.id, "a key is known to all", again)
    read = await read_all(other)
    expect(len(read) == 1, "and a repetition isn't stored", read)
    (refused,) = await publish(other, update("2", dedup="k"))
    expect(refused.error is not None, "and the event that it came with", refused)
    found = await other.find("x", selection=ALL, allow=NOTHING)
    expect(found is not None, "publishers' ids are found by all", found)


async def _purging_reaches_all(one: Followed, other: Followed) -> None:
    await fill(one, 6, "a", "b")
    await _follow(other)
    serial, cursor = other.gaps.serial, other.log.head
    removed = await one.purge("a")
    expect(removed == 3, "purging says how many records went", removed)  # noqa: PLR2004 - half of them
    await _follow(other)
    for node in (one, other):
        left = [record.topics for record in await read_all(node)]
        expect(("a",) not in left, "what was purged can't be read by any", left)
        in_log = [record.topics for record in node.log]
        expect(("a",) not in in_log, "nor is it in their `log`", in_log)
        expect(node.gaps.has_gap(_A, 0), "who wanted it has a gap", node.gaps)
        expect(not node.gaps.has_gap(_A, cursor), "nor has who saw it", node.gaps)
    noted = dict(other.gaps.purges_since(serial))
    expect("a" in noted, "a purge is noted as one by all", noted)


async def _closing_reaches_all(one: Followed, other: Followed) -> None:
    await fill(one, 4, "a", "b")
    await _follow(other)
    await publish(one, update("end", "a", last=True), silent("b", private=True))
    for answer in await publish(other, update("late", "a"), silent("b")):
        expect(isinstance(answer.error, TopicClosedError), "closed by one is closed by all", answer)
        expect(not answer.cursor, "what is refused has no place", answer)
    await _follow(other)
    for node in (one, other):
        closed = await closed_topics(node, "a", "b", "c")
        expect(closed == ["a", "b"], "all know it by their follower", closed)
        closed = await closed_topics(node, "a", "b", allow=NOTHING)
        expect(closed == ["a"], "a private one by right only", closed)
        last = [record.last for record in await read_all(node, _A)]
        expect(last == [False, False, True], "the record says that it is the last", last)
    await other.purge("a")
    await _follow(one)
    for node in (one, other):
        closed = await closed_topics(node, "a", "b")
        expect(closed == ["b"], "purged by one it is as new for all", closed)
    (again,) = await publish(one, update("again", "a"))
    expect(again.error is None, "and may be published to", again)


async def _pins_of_all_count(one: Followed, other: Followed, room: int) -> None:
    """Check two hubs on a store with room for a number of records: a pin of either counts."""
    try:
        one.pin("a")
    except NotImplementedError:
        return
    other.pin("a")
    pinned = positions(await fill(one, 1, "a") + await fill(other, 1, "a"))
    await fill(one, 2 * room, "noise")
    one.unpin("a")
    await fill(one, 2 * room, "noise")
    left = positions(await read_all(other, _A))
    expect(left == pinned, "a topic is pinned while any hub pins it", left)
    other.unpin("a")
    await fill(other, 1, "noise")
    await fill(one, room, "noise")
    await _follow(other)
    left = positions(await read_all(other, _A))
    expect(left == [], "unpinned by all, its records count in all again", left)


async def _who_comes_later_has_all(one: Followed, share: Callable[[History], History]) -> None:
    await fill(one, 8, "a", "b")
    await one.purge("b")
    async with driven(share(one.shared)) as other:
        read = positions(await read_all(other))
        wanted = positions(await read_all(one))
        expect(read == wanted, "who is opened later reads all that is kept", read)
        expect(other.log.head == one.log.head, "and begins at the head", other.log.head)
        gap = other.gaps.has_gap(Selection(["b"]), 0)
        expect(gap, "and knows the gaps", other.gaps)


_RULES: Final[tuple[Callable[[Followed, Followed], Awaitable[None]], ...]] = (
    _there_is_one_order,
    _keys_and_ids_are_known_to_all,
    _purging_reaches_all,
    _closing_reaches_all,
)
