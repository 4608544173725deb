"""The rules for publishers' ids and `dedup` keys: both belong to topics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h3trio._wire.event import SSEEvent
from h3trio.hub._history.errors import KeyReusedError
from h3trio.hub._history.record import Appended, Update
from h3trio.hub._history.selection import EVERYTHING, NOTHING, Selection

from ._drive_history import ALL, Suffix, expect, positions, publish, read_all, stored, update

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio.hub._history.history import History
    from h3trio.hub._history.selection import TopicMatcher


async def publishers_choose_ids(history: History) -> None:
    appended = await publish(history, update("1", id="x"), update("2"), update("3", id="x"))
    expect([a.id for a in appended][::2] == ["x", "x"], "a publisher's id is kept", appended)
    records = stored(appended)
    expect(len(records) == 3, "using an id again is no repetition", appended)  # noqa: PLR2004 - all three
    found = await history.find("x", selection=ALL, allow=ALL)
    expect(found == records[2].position, "of records with one id the newest is found", found)
    for strange in (records[1].id, "y", "", "\0", "\ud800", "x" * 1000, "X"):
        found = await history.find(strange, selection=ALL, allow=ALL)
        expect(found is None, f"no publisher chose {strange!r}", found)


async def ids_belong_to_topics(history: History) -> None:
    appended = await publish(
        history,
        update("1", "a", id="x"),
        update("2", "b", id="x"),
        update("3", "b", "c/1", id="x"),
        update("4", "d/1", id="x", private=True),
        update("5", "a", id="x", private=True),
    )
    places = dict(enumerate(positions(stored(appended)), start=1))
    rights = {"nothing": NOTHING, "everything": ALL, "d/1": Selection(["d/1"])}
    cases: tuple[tuple[list[str | TopicMatcher], str, int | None], ...] = (
        (["a"], "nothing", 1),
        (["a"], "everything", 5),
        (["b"], "nothing", 3),
        (["a", "b"], "nothing", 1),
        (["a", "b"], "everything", 3),
        (["c/1"], "nothing", 3),
        (["d/1"], "nothing", None),
        (["d/1"], "d/1", 4),
        (["never"], "everything", None),
        ([Suffix("/1")], "nothing", 3),
        ([Suffix("/1"), "a"], "everything", 3),
        ([EVERYTHING], "nothing", 1),
        ([EVERYTHING], "d/1", 1),
    )
    for topics, allow, wanted in cases:
        found = await history.find("x", selection=Selection(topics), allow=rights[allow])
        rule = f"the id of an event of {topics}, {allow} allowed, is found in its topics"
        expect(found == places.get(wanted or 0), rule, found)


async def longest_ids_and_keys_are_taken(history: History) -> None:
    id = "é" * 256
    longest = update("good", id=id, dedup="é" * 255)
    (appended,) = await publish(history, longest)
    expect(appended.record is not None, "an id of 512 bytes is taken", appended)
    found = await history.find(id, selection=ALL, allow=ALL)
    wanted = None if appended.record is None else appended.record.position
    expect(found == wanted, "and found, whatever its characters", found)
    (again,) = await publish(history, longest)
    expect(again == Appended(id, None), "a key of 255 characters is known again", again)


async def repeated_keys_are_one_publish(history: History) -> None:
    first, again, other = await publish(
        history,
        update("1", dedup="k"),
        update("1", dedup="k"),
        update("1", dedup="K"),
    )
    expect(again == Appended(first.id, None), "a repeated key gives the first id", again)
    expect(other.record is not None, "another key is another publish", other)
    (later,) = await publish(history, update("1", dedup="k"))
    expect(later == Appended(first.id, None), "in a later append too", later)
    read = await read_all(history)
    expect(len(read) == 2, "a repetition isn't stored", read)  # noqa: PLR2004 - two keys
    (own,) = await publish(history, update("5", dedup="own", id="y"))
    (later,) = await publish(history, update("5", dedup="own", id="y"))
    expect(later == Appended(own.id, None), "the first id may be a publisher's", later)


async def keys_belong_to_topics(history: History) -> None:
    (first, both) = await publish(history, update("1", dedup="k"), update("2", "a", "b", dedup="k"))
    expect(both.record is not None, "with other topics a key is another publish", both)
    (elsewhere,) = await publish(history, update("2", "b", dedup="k"))
    expect(elsewhere.record is not None, "with one of the topics too", elsewhere)
    (turned,) = await publish(history, update("2", "b", "a", dedup="k"))
    expect(turned == Appended(both.id, None), "the order of topics doesn't count", turned)
    head = history.log.head
    typed = Update(SSEEvent("1", event="other"), ("a",), dedup="k")
    for changed in (
        update("2", dedup="k"),
        update("1", dedup="k", id="x"),
        update("1", dedup="k", private=True),
        typed,
    ):
        refused, stored = await publish(history, changed, update("beside it"))
        expect(isinstance(refused.error, KeyReusedError), "another event is refused", refused)
        expect(refused[:2] == ("", None), "what is refused has no id and no record", refused)
        expect(stored.record is not None, "an update beside a refused one is stored", stored)
    (again,) = await publish(history, update("1", dedup="k"))
    expect(again == Appended(first.id, None), "the first still has its key", again)
    read = await read_all(history, ALL, head)
    expect(len(read) == 4, "what is refused isn't stored", read)  # noqa: PLR2004 - those beside


ID_CHECKS: Final[tuple[Callable[[History], Awaitable[None]], ...]] = (
    publishers_choose_ids,
    ids_belong_to_topics,
    longest_ids_and_keys_are_taken,
    repeated_keys_are_one_publish,
    keys_belong_to_topics,
)
