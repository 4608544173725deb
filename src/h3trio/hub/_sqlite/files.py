"""`owned` and `Reserve`: the two files beside a database.

The owner's lock is on a file of its own. Were it on the database, closing any
descriptor of that would drop the locks that SQLite itself holds there (POSIX
record locks belong to the process). It is never deleted: whoever deletes a lock
file may delete one that another just took.

The reserve is disk space held back. On a full disk SQLite can't even delete: what
a transaction changes is first written to the write-ahead log, and that is emptied
into the database file, which may have to grow. Giving the reserve up makes room
for both.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, final

from h3trio.hub._history.errors import HistoryError

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path


def lock_file(path: Path) -> Path:
    """Name the file with the lock of a database; it exists if that ever had an owner."""
    return path.with_name(f"{path.name}.lock")


@contextmanager
def owned(path: Path) -> Generator[None]:
    """Be the one owner of a database during the block; there is none in any other process.

    The kernel drops the lock when the process ends, however it does.

    Raises:
        HistoryError: there is another.
    """
    file = lock_file(path)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as exc:
        raise HistoryError(f"{file} can't be opened: {exc.strerror}") from exc
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            problem = "is in use by another process, or by another hub of this one"
            raise HistoryError(f"{path} {problem}") from exc
        except OSError as exc:
            raise HistoryError(f"{file} can't be locked: {exc.strerror}") from exc
        yield
    finally:
        os.close(descriptor)


@final
class Reserve:
    """Disk space held back in a file that can be given up.

    Args:
        path: the database's; the reserve is `<path>-reserve`.
        size: bytes; 0 for none.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._file = path.with_name(f"{path.name}-reserve")
        self._size = size
        self._is_held = False

    @property
    def is_wanting(self) -> bool:
        """Whether there should be space held back, and isn't."""
        return self._size > 0 and not self._is_held

    def take(self) -> None:
        """Hold the space back, if there is enough; it doesn't matter if there isn't."""
        try:
            descriptor = os.open(self._file, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError:
            return
        try:
            os.posix_fallocate(descriptor, 0, self._size)
            os.ftruncate(descriptor, self._size)
            self._is_held = True
        except OSError:
            self._file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)

    def give_up(self) -> None:
        """Make the space free."""
        self._file.unlink(missing_ok=True)
        self._is_held = False
