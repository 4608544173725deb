"""`Epochs`: which ids are good after restarts, lost tails and restored copies."""

from __future__ import annotations

import pytest
from tables import table

from h3trio.hub._history.epochs import (
    MAX_PUBLISHER_ID_BYTES,
    Epochs,
    check_publisher_id,
    is_own_syntax,
)


def test_an_id_stands_for_its_position() -> None:
    """`resolve` takes back the id that `format` gives for a position in the current epoch."""
    epochs = Epochs()
    epochs.begin(1)
    assert [epochs.resolve(epochs.format(n), head=5) for n in range(6)] == [0, 1, 2, 3, 4, 5]


def test_a_position_beyond_the_head_is_unknown() -> None:
    """An id that wasn't given yet is not good."""
    epochs = Epochs()
    epochs.begin(1)
    assert epochs.resolve(epochs.format(6), head=5) is None


def test_the_cursor_before_an_epochs_first_record_is_good() -> None:
    """A client that connects right after a start gets a cursor it can come back with."""
    epochs = Epochs()
    epochs.begin(1)
    name = epochs.begin(8)
    assert epochs.resolve(f"{name}-7", head=7) == 7
    assert epochs.resolve(f"{name}-7", head=20) == 7
    assert epochs.resolve(f"{name}-6", head=20) is None


def test_a_lost_tail_makes_its_ids_unknown() -> None:
    """Positions given anew after a restart don't answer to the ids of what was lost."""
    epochs = Epochs()
    old = epochs.begin(1)
    assert epochs.resolve(f"{old}-9", head=10) == 9
    new = epochs.begin(8)
    assert epochs.resolve(f"{old}-7", head=10) == 7
    assert epochs.resolve(f"{old}-8", head=10) is None
    assert epochs.resolve(f"{new}-8", head=10) == 8


def test_a_restored_copy_gives_other_ids() -> None:
    """Two lives of one table begin different epochs, and don't know each other's."""
    before = Epochs()
    before.begin(1)
    one, other = Epochs(before), Epochs(before)
    one.begin(5)
    other.begin(5)
    assert one.current != other.current
    assert one.resolve(other.format(5), head=9) is None


def test_a_table_that_was_kept_knows_its_epochs() -> None:
    """Names and first positions, oldest first, are all there is to keep."""
    epochs = Epochs()
    epochs.begin(1)
    epochs.begin(4)
    ids = [epochs.format(n) for n in range(7)]
    again = Epochs(list(epochs))
    again.begin(7)
    assert [again.resolve(id, head=6) for id in ids] == list(range(7))


def test_each_position_is_formatted_with_its_own_epoch() -> None:
    """A cursor that is far behind gets an id that is good, not the current epoch's name."""
    epochs = Epochs()
    names = [epochs.begin(first) for first in (1, 4, 4, 9)]
    found = [epochs.format(n).partition("-")[0] for n in (0, 3, 4, 8, 9, 20)]
    assert found == [names[0], names[0], names[2], names[2], names[3], names[3]]
    assert all(epochs.resolve(epochs.format(n), head=20) == n for n in range(21))


def test_epochs_are_bounded_and_the_oldest_go_first() -> None:
    """With more than the limit, ids of the oldest epoch are unknown."""
    epochs = Epochs(max_epochs=3)
    names = [epochs.begin(first) for first in (1, 3, 5, 7)]
    assert [name for name, _first in epochs] == names[1:]
    assert epochs.resolve(f"{names[0]}-1", head=9) is None
    assert epochs.resolve(f"{names[1]}-3", head=9) == 3


def test_epochs_without_a_record_go_before_older_ones() -> None:
    """A night of restarts doesn't push out the epochs in which something was published."""
    epochs = Epochs(max_epochs=3)
    old = epochs.begin(1)
    for _ in range(50):
        epochs.begin(10)
    assert len(list(epochs)) == 3
    assert epochs.resolve(f"{old}-5", head=9) == 5
    assert epochs.resolve(epochs.format(9), head=9) == 9


def test_a_position_below_every_epoch_has_no_good_id() -> None:
    """A position that no epoch reaches is formatted all the same, and found unknown later."""
    epochs = Epochs([("bcdf2345", 10)])
    assert epochs.resolve(epochs.format(9), head=10) == 9
    assert epochs.resolve(epochs.format(3), head=10) is None


def test_names_are_random() -> None:
    """No two of many epochs have the same name."""
    names = set()
    for _ in range(100):
        epochs = Epochs()
        names.add(epochs.begin(1))
    assert len(names) == 100
    assert all(is_own_syntax(f"{name}-0") for name in names)


OTHER_IDS = (
    "",
    "bcdf2345",
    "bcdf2345-",
    "bcdf2345-01",
    "bcdf2345--1",
    "bcdf2345-1\n",
    "bcdf2345-\N{ARABIC-INDIC DIGIT ONE}",
    "bcdf2345-1234567890123456789",
    "Bcdf2345-1",
    "bcdf234-1",
    "customer-42",
    "20270101-1",
    "\ud800",
)


def test_other_ids_are_not_the_hubs(subtests: pytest.Subtests) -> None:
    """Only the one way in which the hub writes an id counts as its syntax."""
    epochs = Epochs([("bcdf2345", 1)])
    for id in OTHER_IDS:
        with subtests.test(id=ascii(id)):
            assert not is_own_syntax(id)
            assert epochs.resolve(id, head=10**18) is None


def test_a_position_may_have_eighteen_digits() -> None:
    """The largest that a store can hold is still taken apart."""
    epochs = Epochs([("bcdf2345", 1)])
    assert epochs.resolve("bcdf2345-" + "9" * 18, head=10**18) == 10**18 - 1


def test_publishers_may_choose() -> None:
    """Up to 512 bytes of any text on one line are a publisher's to choose."""
    urn = "urn:uuid:f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
    longest = "é" * (MAX_PUBLISHER_ID_BYTES // 2)
    for id in ("a", longest, "~", "customer-42", "a\\b", urn, "a b", "é", "\N{SNOWMAN}", "à"):
        check_publisher_id(id)


REFUSED = (
    ("", "1 to 512 bytes"),
    ("é" * (MAX_PUBLISHER_ID_BYTES // 2) + "a", "1 to 512 bytes"),
    (" a", "begin or end with a space"),
    ("a\N{NO-BREAK SPACE}", "begin or end with a space"),
    ("a\x7f", "control characters"),
    ("a\n", "control characters"),
    ("a\tb", "control characters"),
    ("a\x85b", "control characters"),
    ("\ud800", "surrogates"),
    ("bcdf2345-1", "hub's own"),
)


def test_publishers_may_not_choose(subtests: pytest.Subtests) -> None:
    """An id that clashes with a header or with the hub's own syntax is refused, with the reason."""
    for id, problem in REFUSED:
        with subtests.test(id=id), pytest.raises(ValueError, match=problem):
            check_publisher_id(id)


OURS = [("a", 1), ("b", 5), ("c", 9)]


@table(
    "ours, theirs, same",
    [
        (OURS, OURS, None),
        (OURS, [*OURS, ("d", 20)], 19),
        (OURS, [*OURS, ("d", 20), ("e", 30)], 19),
        (OURS, [*OURS[:2], ("d", 7)], 6),
        (OURS, [*OURS[:2], ("d", 20)], 8),
        (OURS, OURS[:2], 8),
        (OURS, [*OURS[1:], ("d", 12)], 11),
        (OURS, [("x", 1)], 0),
        ([], OURS, None),
    ],
)
def test_a_table_is_taken_over(
    ours: list[tuple[str, int]], theirs: list[tuple[str, int]], same: int | None
) -> None:
    """It is told up to where the past is the same: to the end of the last epoch that both know."""
    epochs = Epochs(ours)
    assert epochs.learn(theirs) == same
    assert list(epochs) == theirs
    assert epochs.current == theirs[-1][0]


@table(
    "id, left",
    [
        ("bcdfghjk-4", None),
        ("bcdfghjk-5", 4),
        ("bcdfghjk-90", 4),
        ("kjhgfdcb-90", None),
        ("xxxxxxxx-5", None),
        ("own", None),
        ("", None),
    ],
)
def test_an_id_beyond_its_epoch_is_of_a_lost_record(id: str, left: int | None) -> None:
    """It is told what is left of it; not of an epoch that goes on, or that nobody knows."""
    assert Epochs([("bcdfghjk", 1), ("kjhgfdcb", 5)]).last_kept(id) == left
