"""The writer's sums, the marks of topics that are gone, and epochs in the file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from h3trio import SSEEvent
from h3trio.hub import Update
from h3trio.hub._history.retention import Retention
from h3trio.hub._sqlite.schema import connect
from h3trio.hub._sqlite.store import Loaded, Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_store(path: Path, **options: int) -> tuple[Store, Loaded]:
    """Open a store that keeps so many events, or everything."""
    retention = Retention(max_events=options.pop("max_events", 10**6), max_bytes=10**9)
    store = Store(path, durability="fast", retention=retention, reserve_bytes=0, **options)
    return store, store.open(tail_events=100, tail_bytes=10**6)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store that keeps two events and the marks of three empty topics."""
    store, _loaded = open_store(tmp_path / "x.db", max_events=2, max_empty_topics=3)
    with closing(store):
        yield store


def put(store: Store, *topics: str) -> None:
    """Append one update for each topic, one after the other."""
    for topic in topics:
        store.append([Update(event=SSEEvent("x"), topics=(topic,))], 0.0)


def counted(path: Path) -> tuple[int, ...]:
    """Count in the file what the sums stand for."""
    with closing(connect(path, mode="ro")) as db:
        queries = (
            "SELECT count(*) FROM records",
            "SELECT coalesce(sum(length(frame)), 0) FROM records",
            "SELECT count(*) FROM topics WHERE events > 0",
            "SELECT count(*) FROM topics WHERE events = 0",
            "SELECT coalesce(min(position), 0) FROM records",
            "SELECT count(*) FROM placed",
        )
        return tuple(db.execute(query).fetchone()[0] for query in queries)


def summed(store: Store) -> tuple[int, ...]:
    """Return the sums, in the same order; each record has one topic."""
    sums = store.sums
    return (sums.events, sums.bytes, sums.topics, sums.empty_topics, sums.oldest, sums.events)


def test_sums_are_what_is_there(store: Store, tmp_path: Path) -> None:
    """After whatever was done, and after opening again, the sums are those of the file."""
    put(store, *"abcab")
    assert summed(store) == counted(tmp_path / "x.db")
    store.purge("b", before=99)
    assert summed(store) == counted(tmp_path / "x.db")
    put(store, *"ddd")
    before = summed(store)
    assert before == counted(tmp_path / "x.db")
    store.close()
    again, _loaded = open_store(tmp_path / "x.db")
    with closing(again):
        assert summed(again) == before


def test_the_marks_of_empty_topics_are_bounded(store: Store, tmp_path: Path) -> None:
    """Topics come and go without end; the oldest marks become the floor."""
    put(store, *(f"t{n}" for n in range(1, 11)))
    assert counted(tmp_path / "x.db")[2:4] == (2, 3)
    store.close()
    again, loaded = open_store(tmp_path / "x.db")
    with closing(again):
        assert loaded.marks == [("t6", 6), ("t7", 7), ("t8", 8)]
        assert loaded.marks_floor == 5


def test_a_topic_that_comes_back_keeps_its_mark(store: Store, tmp_path: Path) -> None:
    """Its row is used again, and doesn't count as empty."""
    put(store, *"abca")
    assert counted(tmp_path / "x.db")[2:4] == (2, 1)
    store.close()
    again, loaded = open_store(tmp_path / "x.db")
    with closing(again):
        assert loaded.marks == [("a", 1), ("b", 2)]


def test_a_failed_append_leaves_the_sums(store: Store, tmp_path: Path) -> None:
    """What was rolled back isn't counted."""
    put(store, "a", "b")
    before = summed(store)
    bad = Update(event=SSEEvent("x"), topics=("c", "\ud800"))
    with pytest.raises(UnicodeEncodeError):
        store.append([Update(event=SSEEvent("x"), topics=("c",)), bad], 0.0)
    assert summed(store) == before == counted(tmp_path / "x.db")
    put(store, "c")
    assert summed(store) == counted(tmp_path / "x.db")


def test_epochs_that_are_forgotten_leave_the_file(tmp_path: Path) -> None:
    """The table in the file is the one in memory."""
    names = []
    for _ in range(3):
        store, loaded = open_store(tmp_path / "x.db")
        names.append(loaded.epochs.current)
        store.close()
    with closing(connect(tmp_path / "x.db", mode="rw")) as db:
        rows = db.execute("SELECT name, first FROM epochs ORDER BY number").fetchall()
        assert rows == [(name, 1) for name in names]
        filler = ((f"bcdf{n:04}", 1) for n in range(1000))
        db.execute("BEGIN")
        db.executemany("INSERT INTO epochs (name, first) VALUES (?, ?)", filler)
        db.execute("COMMIT")
    store, loaded = open_store(tmp_path / "x.db")
    store.close()
    assert len(loaded.epochs) == 1000
    with closing(connect(tmp_path / "x.db", mode="ro")) as db:
        rows = db.execute("SELECT name, first FROM epochs ORDER BY number").fetchall()
    assert rows == list(loaded.epochs)
