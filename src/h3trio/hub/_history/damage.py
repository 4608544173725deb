"""`DamagedError`: a record that can't be read, with those in front of it that can.

It stands apart from the other errors, as it knows pages of records, whose file knows those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .errors import HistoryError

if TYPE_CHECKING:
    from .record import Page


class DamagedError(HistoryError):
    """A record, or what belongs to it, can't be read.

    Args:
        message: what is damaged.
        position: the record's, `None` if that isn't known.
        page: the records in front of it, if some were read.
    """

    def __init__(
        self, message: str, *, position: int | None = None, page: Page | None = None
    ) -> None:
        super().__init__(message)
        self.position = position
        self.page = page
