"""`Record` and the values around it."""

from __future__ import annotations

from h3trio.hub._history.record import Record


def test_a_records_batch_is_made_once() -> None:
    """However many feeds a record lands in, its frame is wrapped, and later chunked, once."""
    record = Record(
        position=7, id="x", topics=("a", "b"), private=False, published=0.0, frame=b"data: 1\n\n"
    )
    assert record.batch is record.batch
    assert (record.batch.payload, record.batch.count) == (b"data: 1\n\n", 1)


def test_a_record_shows_place_id_and_topics() -> None:
    """Its repr is enough to tell what a failing test saw."""
    record = Record(position=7, id="x", topics=("a", "b"), private=False, published=0.0, frame=b"")
    assert repr(record) == "<Record 7: x on a, b>"
