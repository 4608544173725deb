"""`Store`: its sums, the gaps of topics that are gone, and epochs in the file."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from h3trio import SSEEvent
from h3trio.hub import HistoryError, Selection, Update
from h3trio.hub._history.gaps import MAX_TOPICS
from h3trio.hub._history.retention import Retention
from h3trio.hub._sqlite.db import Database
from h3trio.hub._sqlite.schema import connect
from h3trio.hub._sqlite.store import Store

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def open_store(path: Path, *, max_events: int = 10**6, max_empty_topics: int = MAX_TOPICS) -> Store:
    """Open a store that keeps so many events, or everything."""
    database = Database(path, durability="fast", max_bytes=None, reserve_bytes=0)
    retention = Retention(max_events=max_events, max_bytes=10**9)
    return Store(database, retention=retention, max_empty_topics=max_empty_topics)


def gaps_of(store: Store, *topics: str) -> list[int]:
    """Return the newest removed position of each topic."""
    gaps = store.load_gaps()
    return [gaps.newest(Selection([topic])) for topic in topics]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Open a store that keeps two events and the gaps of three empty topics."""
    store = open_store(tmp_path / "x.db", max_events=2, max_empty_topics=3)
    with closing(store):
        yield store


def put(store: Store, *topics: str) -> None:
    """Append one update for each topic, one after the other."""
    for topic in topics:
        store.append([Update(event=SSEEvent("x"), topics=(topic,))], 0.0)


def counted(path: Path) -> tuple[int, ...]:
    """Count in the file the rows that the sums stand for."""
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
    again = open_store(tmp_path / "x.db")
    with closing(again):
        assert summed(again) == before


def test_the_gaps_of_empty_topics_are_bounded(store: Store, tmp_path: Path) -> None:
    """Topics come and go without end; the oldest positions become the floor."""
    put(store, *(f"t{n}" for n in range(1, 11)))
    assert counted(tmp_path / "x.db")[2:4] == (2, 3)
    store.close()
    again = open_store(tmp_path / "x.db")
    with closing(again):
        assert again.load_gaps().floor == 5
        assert gaps_of(again, *(f"t{n}" for n in range(4, 11))) == [5, 5, 6, 7, 8, 5, 5]


def test_a_topic_that_comes_back_keeps_its_mark(store: Store, tmp_path: Path) -> None:
    """Its row is used again, and doesn't count as empty."""
    put(store, *"abca")
    assert counted(tmp_path / "x.db")[2:4] == (2, 1)
    store.close()
    again = open_store(tmp_path / "x.db")
    with closing(again):
        assert gaps_of(again, *"abc") == [1, 2, 0]


def test_a_failed_append_leaves_the_sums(store: Store, tmp_path: Path) -> None:
    """Records that were rolled back aren't counted."""
    put(store, "a", "b")
    before = summed(store)
    with closing(connect(tmp_path / "x.db", mode="rw")) as db:
        refuse = "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        db.execute(f"CREATE TRIGGER refuse BEFORE INSERT ON placed WHEN NEW.position = 4 {refuse}")
    with pytest.raises(HistoryError, match="refused"):
        store.append([Update(event=SSEEvent("x"), topics=(topic,)) for topic in "cd"], 0.0)
    assert summed(store) == before == counted(tmp_path / "x.db")
    put(store, "c")
    assert summed(store) == counted(tmp_path / "x.db")


def test_epochs_that_are_forgotten_leave_the_file(tmp_path: Path) -> None:
    """The table in the file is the one in memory."""
    names = []
    for _ in range(3):
        store = open_store(tmp_path / "x.db")
        names.append(store.epochs.current)
        store.close()
    with closing(connect(tmp_path / "x.db", mode="rw")) as db:
        rows = db.execute("SELECT name, first FROM epochs ORDER BY number").fetchall()
        assert rows == [(name, 1) for name in names]
        filler = ((f"bcdf{n:04}", 1) for n in range(1000))
        db.execute("BEGIN")
        db.executemany("INSERT INTO epochs (name, first) VALUES (?, ?)", filler)
        db.execute("COMMIT")
    store = open_store(tmp_path / "x.db")
    store.close()
    assert len(list(store.epochs)) == 1000
    with closing(connect(tmp_path / "x.db", mode="ro")) as db:
        rows = db.execute("SELECT name, first FROM epochs ORDER BY number").fetchall()
    assert rows == list(store.epochs)


def test_private_removals_are_kept_apart_and_bounded(store: Store, tmp_path: Path) -> None:
    """They outlive the process, and their oldest become a floor for who has rights."""
    for number in range(6):
        secret = Update(event=SSEEvent("x"), topics=(f"s{number}", "all"), private=True)
        store.append([secret], 0.0)
    put(store, "public", "public", "public")
    store.close()
    with closing(open_store(tmp_path / "x.db", max_empty_topics=3)) as again:
        gaps = again.load_gaps()
        everyone = [gaps.newest(Selection([f"s{n}"])) for n in range(6)]
        allowed = [gaps.newest(Selection([f"s{n}"]), Selection(["all"])) for n in range(6)]
        others = [gaps.newest(Selection([f"s{n}"]), Selection(["other"])) for n in range(6)]
        assert again.sums.private_marks <= 3
    assert everyone == [0] * 6
    assert allowed == [4, 4, 4, 4, 5, 6]
    assert others == [4] * 6
