"""`owned` and `Reserve`: the two files beside a database."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from h3trio.hub import HistoryError
from h3trio.hub._sqlite.files import Reserve, lock_file, owned

if TYPE_CHECKING:
    from pathlib import Path


def test_there_is_one_owner_at_a_time(tmp_path: Path) -> None:
    """The second is refused with the file's name until the first lets go."""
    path = tmp_path / "x.db"
    with owned(path), pytest.raises(HistoryError, match=r"x\.db is in use by another process"):
        owned(path).__enter__()
    with owned(path):
        pass


def test_the_lock_file_stays(tmp_path: Path) -> None:
    """It says that the database had an owner; deleting it would let two in."""
    path = tmp_path / "x.db"
    assert not lock_file(path).exists()
    with owned(path):
        pass
    assert lock_file(path).exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The error is the system's, with the path."""
    lock = owned(tmp_path / "missing" / "x.db")
    with pytest.raises(HistoryError, match=r"missing/x\.db\.lock can't be opened: No such file"):
        lock.__enter__()


def test_a_reserve_takes_up_space(tmp_path: Path) -> None:
    """The space is allocated, not only claimed, and free again when it is given up."""
    reserve, file = Reserve(tmp_path / "x.db", 65536), tmp_path / "x.db-reserve"
    assert reserve.is_wanting
    reserve.take()
    assert not reserve.is_wanting
    assert file.stat().st_size == 65536
    assert file.stat().st_blocks * 512 >= 65536
    reserve.give_up()
    assert reserve.is_wanting
    assert not file.exists()
    reserve.give_up()


def test_a_smaller_reserve_shrinks_the_file(tmp_path: Path) -> None:
    """The size is what is asked for now."""
    Reserve(tmp_path / "x.db", 65536).take()
    Reserve(tmp_path / "x.db", 4096).take()
    assert (tmp_path / "x.db-reserve").stat().st_size == 4096


def test_no_reserve_wants_nothing(tmp_path: Path) -> None:
    """Of size 0 there is no file."""
    assert not Reserve(tmp_path / "x.db", 0).is_wanting


def test_a_reserve_that_cant_be_taken_is_no_error(tmp_path: Path) -> None:
    """Without space, or without a folder, there is no reserve."""
    for reserve in (Reserve(tmp_path / "x.db", 2**62), Reserve(tmp_path / "no" / "x.db", 1)):
        reserve.take()
        assert reserve.is_wanting
    assert not (tmp_path / "x.db-reserve").exists()
