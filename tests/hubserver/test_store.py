"""`make_history`: the histories that `--store` names."""

from __future__ import annotations

import sys
from operator import attrgetter
from typing import TYPE_CHECKING, Literal

import pytest

from h3trio.hub import MemoryHistory, RedisHistory, SQLiteHistory
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
    for store in ["", "sqlite", "sqlite:", "redis:localhost", "memory:x", "hub.db"]:
        wanted = f"memory, sqlite:PATH or redis://HOST, not {store!r}"
        with subtests.test(store=store), pytest.raises(ValueError, match=wanted):
            make_history(store)


def test_a_server_takes_what_is_its_own() -> None:
    """The bounds, the password and the times reach the history; its name shows no password."""
    history = make_history(
        "redis://me@localhost/3",
        durability="fast",
        retention=Retention(max_events=5),
        password="secret",  # noqa: S106 - one for a test
        timeout=7.0,
        open_wait=9.0,
    )
    assert isinstance(history, RedisHistory)
    assert history.address == "redis://me@localhost:6379/3"
    assert "secret" not in f"{history!r}{history.address}"
    for where, expected in {
        "_retention.max_events": 5,
        "_address.login.password": "secret",
        "_follower._limits.timeout": 7.0,
        "_follower._wanted": "fast",
        "_open_wait": 9.0,
    }.items():
        assert attrgetter(where)(history) == expected


def test_no_error_shows_a_password(subtests: pytest.Subtests) -> None:
    """Whatever is wrong with a store that was given, its password isn't in the message."""
    for store in [
        "redi://:secret@localhost",
        "redis:/:secret@localhost",
        ":secret@localhost:6379",
        "redis://:secret@",
        "redis://:secret@localhost/x",
        "redis://:secret@localhost:x",
        "redis://:secret@localhost?what=1",
        "redis://:sec?secret@localhost",
    ]:
        with subtests.test(store=store), pytest.raises(ValueError, match=r"Redis|store") as caught:
            make_history(store)
        assert "secret" not in str(caught.value)


def test_a_server_without_its_extra_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install, before anything is opened."""
    monkeypatch.setitem(sys.modules, "hiredis", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[redis\]'"):
        make_history("redis://localhost")


def test_retention_reaches_the_history() -> None:
    """Bounds that are set are passed on, the others are the store's own."""
    assert dict(Retention(max_events=5, max_age=1.5).given()) == {"max_events": 5, "max_age": 1.5}
    with pytest.raises(ValueError, match="max_events"):
        make_history("memory", retention=Retention(max_events=0))
