"""The rules for what two hubs see of each other that share a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h3trio.hub._history.selection import NOTHING, Selection

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
    from collections.abc import Awaitable, Callable

    from h3trio.hub._history.history import History

_A: Final = Selection(["a"])


async def hubs_share_one_log(
    make_history: Callable[[], History], share: Callable[[History], History]
) -> None:
    """Run the rules, each with hubs on a store of their own."""
    for rule in _RULES:
        async with driven(make_history()) as one:
            expect(one.is_shared, "a history that several hubs share says so", one)
            assert isinstance(one, Followed), "made of a shared one"
            async with driven(share(one.shared)) as other:
                assert isinstance(other, Followed), "as above"
                await rule(one, other)
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
)
