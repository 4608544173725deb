"""Losses and repeats, told by ids."""

from __future__ import annotations

import pytest

from h3trio._cli.bench.count import analyse
from h3trio._cli.bench.ids import Ids, Position


def blocks(*ids: str, data: bool = True) -> bytes:
    """Make a block for each id."""
    return "".join(f"id: {i}\n{'data: x' if data else 'retry: 1'}\n\n" for i in ids).encode()


def take(ids: Ids, *streams: list[str]) -> None:
    """Let streams get events with these ids, one by one."""
    for stream in streams:
        position = Position()
        for event_id in stream:
            ids.take(position, analyse(blocks(event_id)))


def test_ids_that_count_up_are_fine() -> None:
    """All but each stream's first event are judged, and nothing is amiss."""
    ids = Ids()
    take(ids, ["a-1", "a-2", "a-3"], ["a-2", "a-3"])
    assert (ids.judged, ids.missing(), ids.repeated, ids.unnumbered) == (3, 0, 0, 0)


def test_batches_are_judged_as_their_events() -> None:
    """A run in one read goes on where the last one ended, or it doesn't."""
    ids, position = Ids(), Position()
    ids.take(position, analyse(blocks("4", data=False)))
    ids.take(position, analyse(blocks("5", "6")))
    ids.take(position, analyse(blocks("7", "8", "9")))
    assert (ids.judged, ids.repeated) == (5, 0)
    ids.take(position, analyse(blocks("8", "9")))
    assert ids.repeated == 2


def test_what_others_got_is_missing() -> None:
    """A jump over events that another stream got is a loss of each."""
    ids = Ids()
    take(ids, ["1", "2", "3", "4", "5"], ["1", "2", "5"])
    assert ids.missing() == 2


def test_what_nobody_got_is_not_missing() -> None:
    """Numbers that no stream got belong to others: all jump over them."""
    ids = Ids()
    take(ids, ["1", "4", "9"], ["1", "4", "9"])
    assert (ids.missing(), ids.judged) == (0, 4)


def test_repeats_and_disorder_are_repeats() -> None:
    """A number that isn't above the one before is counted, and the stream goes on from the top."""
    ids = Ids()
    take(ids, ["1", "2", "2", "1", "3"])
    assert (ids.repeated, ids.missing()) == (2, 0)


def test_a_new_head_starts_anew() -> None:
    """A restarted hub counts from somewhere else, and that is no loss."""
    ids = Ids()
    take(ids, ["a-8", "a-9", "b-1", "b-2"])
    assert (ids.judged, ids.repeated, ids.missing()) == (2, 0, 0)


def test_ids_without_a_number_are_counted() -> None:
    """Ids that can't be judged are counted."""
    ids = Ids()
    take(ids, ["x", "y"])
    ids.take(Position(), analyse(b"data: none\n\n"))
    assert (ids.judged, ids.unnumbered) == (0, 3)


def test_jumps_are_bounded() -> None:
    """One more kind of jump than is kept is said, not kept."""
    ids = Ids(max_jumps=3)
    take(ids, ["0", "10", "20", "30"], [str(number) for number in range(31)])
    assert (ids.is_bounded, ids.missing()) == (False, 27)
    take(ids, ["0", "30"])
    assert ids.is_bounded


def test_numbers_are_bounded() -> None:
    """More numbers than are kept are said, not kept."""
    ids = Ids(max_numbers=3)
    take(ids, ["1", "2", "3"])
    assert not ids.is_bounded
    take(ids, ["4"])
    assert ids.is_bounded


@pytest.mark.parametrize("heads", [("a-", "b-")])
def test_heads_are_kept_apart(heads: tuple[str, str]) -> None:
    """Ids that another stream got under another head aren't missing here."""
    ids, (one, other) = Ids(), heads
    take(ids, [f"{one}1", f"{one}5"], [f"{other}1", f"{other}2", f"{other}3"])
    assert ids.missing() == 0
