"""`Chain`: whatever comes, and however often, the log of a hub becomes that of the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio import SSEEvent
from h3trio.hub import Selection, Update
from h3trio.hub._history.retention import Retention
from h3trio.hub._redis import codec
from h3trio.hub._redis.chain import Chain
from h3trio.hub._redis.codec import Change, Header

if TYPE_CHECKING:
    from h3trio._redis.values import Reply

EPOCH = "c2345678"
NEXT = "d2345678"
TAIL = Retention(max_events=100, max_bytes=10**6)


def entry(position: int, topic: str = "a") -> Reply:
    """An entry of the log."""
    update = Update(SSEEvent(str(position)), [topic])
    fields = [b"e", EPOCH.encode(), b"p", b"1.5", b"t", topic.encode(), b"g", b"", b"i", b""]
    return [b"%d-0" % position, [*fields, b"k", b"", b"f", update.encoded]]


def told(serial: int, **others: int) -> Header:
    """A state."""
    return codec.EMPTY._replace(epoch=EPOCH, serial=serial, **others)


def ignore(_position: int) -> None:
    """Nothing is lost in most tests; where something is, they look at the log."""


def chain_at(header: Header) -> Chain:
    """A chain that has taken over everything up to a state."""
    chain = Chain(TAIL)
    chain.learn(header, [(EPOCH, 1)], ignore)
    chain.close(header)
    return chain


def keep(chain: Chain, change: Change) -> None:
    """Take a change over, as the follower and its hub do."""
    for record in chain.take(change):
        chain.log.append(record)
    chain.log.head = max(chain.log.head, change.header.last)


@table(
    "header, place",
    [
        (told(5), "known"),
        (told(4), "known"),
        (told(6), "next"),
        (told(7), "missing"),
        (told(6)._replace(epoch=NEXT), "past"),
    ],
)
def test_a_message_has_its_place(header: Header, place: str) -> None:
    """By its number, and by the epoch that it comes from."""
    assert chain_at(told(5)).place(Change(header, [], [], [])) == place


@table(
    "change",
    [
        Change(told(6, last=10**15), [], [], [entry(10**15)]),
        Change(told(6, last=3), [], [], [entry(1)]),
        Change(told(6, last=1, note=2), [], [("+a", 1)], [entry(1)]),
        Change(told(6, last=1, note=1), [], [("+a", 10**15)], [entry(1)]),
        Change(told(6, last=1), [10**15], [], [entry(1)]),
    ],
)
def test_what_the_store_cannot_have_told_next_is_asked_for(change: Change) -> None:
    """Somebody else may publish: a message goes no further than what it tells."""
    assert chain_at(told(5)).place(change) == "missing"


def test_a_record_is_not_behind_the_head_of_the_store() -> None:
    """Nor is the gap that one leaves which can't be read."""
    chain = chain_at(told(5))
    keep(chain, Change(told(6, last=1), [], [], [entry(1), entry(9), [b"9-0", [b"x"]]]))
    assert ([record.position for record in chain.log], chain.gaps.floor) == ([1], 1)


def test_records_come_in_their_order_and_once() -> None:
    """Whatever somebody else puts into a message: the log takes no other."""
    chain = chain_at(told(5))
    keep(chain, Change(told(6, last=3), [], [], [entry(2), entry(1), entry(2), entry(3)]))
    assert [record.position for record in chain.log] == [2, 3]


def test_what_an_earlier_epoch_told_last_is_known() -> None:
    """It may come behind the connection that found the next epoch, which took it over."""
    chain = chain_at(told(5))
    chain.learn(told(6)._replace(epoch=NEXT), [(EPOCH, 1), (NEXT, 1)], ignore)
    assert chain.place(Change(told(7), [], [], [])) == "known"


def test_numbers_begin_anew_with_another_past() -> None:
    """A store that lost something gives numbers of messages again: none of them is known."""
    chain = chain_at(told(9, note=9, removed=2))
    chain.learn(told(3, removed=2)._replace(epoch=NEXT), [(EPOCH, 1), (NEXT, 1)], ignore)
    chain.close(chain.header)
    assert (chain.serial, chain.note) == (3, 0)
    assert chain.place(Change(told(4)._replace(epoch=NEXT), [], [], [])) == "next"


def test_a_hub_whose_store_lost_removals_forgets_its_newest_part() -> None:
    """The store may have again what went, between records that are here."""
    chain = chain_at(told(1))
    keep(chain, Change(told(2, last=3), [], [], [entry(1), entry(2), entry(3)]))
    keep(chain, Change(told(3, last=3, removed=1), [2], [("+a", 2)], []))
    chain.close(told(3, last=3, removed=1))
    chain.learn(told(2, last=3)._replace(epoch=NEXT), [(EPOCH, 1), (NEXT, 4)], ignore)
    assert (list(chain.log), chain.log.floor, chain.log.head) == ([], 3, 3)


def test_the_end_of_the_common_past_is_told() -> None:
    """Behind the table of epochs, whose names were made from then on."""
    lost: list[int] = []
    chain = chain_at(told(1))
    keep(chain, Change(told(2, last=3), [], [], [entry(1), entry(2), entry(3)]))
    chain.learn(told(2)._replace(epoch=NEXT), [(EPOCH, 1), (NEXT, 2)], lost.append)
    assert (lost, chain.epochs.current) == ([1], NEXT)


def test_removals_are_noted_for_whom_they_concern() -> None:
    """Public ones for all, private ones for those who may see them, purges by their name too."""
    chain = chain_at(told(1))
    marks = [("+a", 1), ("-b\nc", 2), ("*d", 3), ("?new", 4)]
    keep(chain, Change(told(2, last=9, floor=1, private_floor=1), [], marks, []))
    a, b = Selection(["a"]), Selection(["b"])
    assert chain.gaps.newest(a) == 1
    assert (chain.gaps.newest(b), chain.gaps.newest(b, Selection(["c"]))) == (1, 2)
    assert chain.gaps.purges_since(0) == [("d", 3)]
    assert (chain.gaps.floor, chain.gaps.private_floor) == (1, 1)


def test_a_damaged_entry_is_a_gap() -> None:
    """Nobody knows who wanted it."""
    chain = chain_at(told(1))
    keep(chain, Change(told(2, last=2), [], [], [[b"1-0", [b"x"]], entry(2)]))
    assert [record.position for record in chain.log] == [2]
    assert chain.gaps.has_gap(Selection(["anything"]), 0)


steps = st.lists(
    st.tuples(st.integers(0, 3), st.lists(st.integers(1, 30), max_size=2)), max_size=12
)


@given(steps, st.lists(st.integers(0, 11), max_size=30))
def test_any_messages_and_a_repair_make_the_same_log(
    script: list[tuple[int, list[int]]], heard: list[int]
) -> None:
    """Messages are lost, and come twice; what is missing is asked for; the log is the store's."""
    changes: list[Change] = []
    last, kept = 0, list[int]()
    for serial, (count, gone) in enumerate(script, start=1):
        new = list(range(last + 1, last + 1 + count))
        last += count
        removed = [position for position in dict.fromkeys(gone) if position in kept]
        kept = [position for position in kept if position not in removed] + new
        marks = [("+a", position) for position in removed]
        changes.append(Change(told(serial, last=last), removed, marks, [entry(one) for one in new]))
    chain = chain_at(told(0))

    def catch_up(goal: Header) -> None:
        # As the store answers, and more: all that there was from the beginning.
        for change in changes[: goal.serial]:
            keep(chain, change)
        chain.close(goal)

    for number in [*heard, len(changes) - 1]:
        if not 0 <= number < len(changes):
            continue
        change = changes[number]
        place = chain.place(change)
        if place == "next":
            keep(chain, change)
            chain.close(change.header)
        elif place == "missing":
            catch_up(change.header)
    assert [record.position for record in chain.log] == kept
