"""`make_history`: the histories that `--store` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from h3trio.hub import MemoryHistory, SQLiteHistory
from h3trio.hubserver import Retention, describe, make_history

if TYPE_CHECKING:
    from pathlib import Path


def test_memory_says_that_events_are_lost() -> None:
    """The ready line is honest about the default."""
    history = make_history("memory")
    assert isinstance(history, MemoryHistory)
    assert describe("memory", history) == "store: memory: events are lost at exit"


@pytest.mark.parametrize("durability", ["durable", "fast"])
def test_sqlite_takes_the_path_and_the_durability(
    tmp_path: Path, durability: Literal["durable", "fast"]
) -> None:
    """The level is the one that was asked for, and the file isn't touched yet."""
    path = tmp_path / "hub.db"
    history = make_history(
        f"sqlite:{path}", durability="durable" if durability == "durable" else "fast"
    )
    assert isinstance(history, SQLiteHistory)
    assert history.durability == durability
    assert not path.exists()


def test_an_unknown_store_is_refused(subtests: pytest.Subtests) -> None:
    """The message says what there is."""
    for store in ["", "sqlite", "sqlite:", "redis://localhost", "memory:x", "hub.db"]:
        with subtests.test(store=store), pytest.raises(ValueError, match="memory or sqlite:PATH"):
            make_history(store)


def test_retention_reaches_the_history() -> None:
    """Bounds that are set are passed on, the others are the store's own."""
    assert dict(Retention(max_events=5, max_age=1.5).given()) == {"max_events": 5, "max_age": 1.5}
    with pytest.raises(ValueError, match="max_events"):
        make_history("memory", retention=Retention(max_events=0))
