"""`owned`, `Reserve`, `Identities`: the files beside a database, their modes, and links to them."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

import pytest
from tables import table

from h3trio.hub import HistoryError
from h3trio.hub._sqlite.files import Identities, Reserve, lock_file, make_private, owned, owner_note


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
    with pytest.raises(
        HistoryError, match=r"missing/x\.db can't be made: there is no folder .*missing$"
    ):
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


# -- modes and links


def mode(path: Path) -> int:
    """Return who may do what with a file."""
    return stat.S_IMODE(path.stat().st_mode)


@table("umask", [0o000, 0o022, 0o077])
def test_files_are_for_their_owner_alone(tmp_path: Path, umask: int) -> None:
    """Those that are made and those that were there, whatever the umask."""
    before = os.umask(umask)
    try:
        path = tmp_path / f"{umask}.db"
        (tmp_path / f"{umask}.db.lock").touch(0o644)
        (tmp_path / f"{umask}.db-reserve").touch(0o666)
        make_private(path, create=True)
        with owned(path):
            Reserve(path, 4096).take()
            assert {mode(file) for file in tmp_path.glob(f"{umask}.db*")} == {0o600}
    finally:
        os.umask(before)


def test_a_missing_file_may_stay_missing(tmp_path: Path) -> None:
    """SQLite makes its own files when it needs them."""
    make_private(tmp_path / "x.db-wal")
    assert not (tmp_path / "x.db-wal").exists()


def test_nothing_is_reached_through_a_link(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A lock is refused, and no space held back; the file that the link names stays as it was."""
    victim, path = tmp_path / "victim", tmp_path / "x.db"
    victim.write_bytes(b"precious")
    victim.chmod(0o644)
    for name in ("x.db.lock", "x.db-reserve", "x.db-wal"):
        (tmp_path / name).symlink_to(victim)
    with pytest.raises(HistoryError, match=r"x\.db\.lock is a symbolic link"):
        owned(path).__enter__()
    with pytest.raises(HistoryError, match=r"x\.db-wal is a symbolic link"):
        make_private(tmp_path / "x.db-wal")
    reserve = Reserve(path, 4096)
    with caplog.at_level(logging.WARNING, "h3trio.hub"):
        reserve.take()
    assert reserve.is_wanting
    assert "x.db-reserve is a symbolic link" in caplog.text
    assert (victim.read_bytes(), mode(victim)) == (b"precious", 0o644)


def test_a_link_to_nothing_makes_nothing(tmp_path: Path) -> None:
    """A file that the link would make stays missing."""
    (tmp_path / "x.db-reserve").symlink_to(tmp_path / "new")
    (tmp_path / "x.db").symlink_to(tmp_path / "new")
    Reserve(tmp_path / "x.db", 4096).take()
    with pytest.raises(HistoryError, match="symbolic link"):
        make_private(tmp_path / "x.db", create=True)
    assert not (tmp_path / "new").exists()


def test_a_file_with_another_name_is_no_reserve(tmp_path: Path) -> None:
    """It is somebody's who gave it that name."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    (tmp_path / "x.db-reserve").hardlink_to(victim)
    reserve = Reserve(tmp_path / "x.db", 4096)
    reserve.take()
    assert reserve.is_wanting
    assert victim.read_bytes() == b"precious" * 1000


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A pipe is not waited for."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(HistoryError, match=f"{name} is no file"):
            make_private(tmp_path / name)


def test_a_file_of_another_user_is_called_so(tmp_path: Path) -> None:
    """Where a file can't be used, the reason may be whose it is."""
    mine = tmp_path / "x.db"
    mine.touch()
    assert owner_note(mine) == ""
    assert owner_note(tmp_path / "missing") == ""
    if os.geteuid() == 0:
        os.chown(mine, 12345, 12345)
    other = mine if os.geteuid() == 0 else Path("/")
    assert owner_note(other) == "; it belongs to another user"


# -- whether they are still there


def test_files_that_are_there_are_as_they_were(tmp_path: Path) -> None:
    """Removed, replaced, by a link too, or out of sight is an error that names the file."""
    path, other = tmp_path / "x.db", tmp_path / "other"
    path.write_bytes(b"")
    files = Identities([path])
    files.check()
    path.write_bytes(b"more")
    files.check()
    path.rename(other)
    with pytest.raises(HistoryError, match=r"x\.db was removed while in use: put it back, or save"):
        files.check()
    path.symlink_to(other)
    with pytest.raises(HistoryError, match=r"x\.db was replaced while in use"):
        files.check()
    other.replace(path)
    files.check()
    lock = tmp_path / "x.db.lock"
    lock.write_bytes(b"")
    locked = Identities([lock])
    lock.unlink()
    with pytest.raises(HistoryError, match=r"\.lock was removed while in use: restart the hub"):
        locked.check()
    with pytest.raises(HistoryError, match="missing was removed"):
        Identities([tmp_path / "missing"])
