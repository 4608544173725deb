"""`Epochs`: the table that tells whether an id of the hub's own is still good.

Such an id is `<epoch>-<position>`. A new epoch, with a random name, begins when the past of a
store may differ from what was seen of it: each time a file is opened, as nobody may have watched
it; for a store that several hubs share when that says so, as it was started again, or another
server took its place. The table keeps the position at which each began. An id is good only if its
position lies in its epoch's range. So no id is given twice, even if the newest records were lost
or an old copy of the store was put back: what comes then is of another epoch. Ids of positions
that the old epoch no longer reaches are of records that were lost; the table tells where what is
left of them ends.

The range of an epoch starts one below its first record. That position is the cursor of a client
which connected before anything was published in it.

Every other id belongs to the publisher who chose it, and may not look like ours.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from itertools import pairwise
from operator import itemgetter
from typing import TYPE_CHECKING, Final, final

from .selection import FORBIDDEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_EPOCHS: Final = 1000
"""Epochs kept: a start every eight hours for a year. Ids of forgotten ones are unknown."""

MAX_PUBLISHER_ID_BYTES: Final = 512
"""Bytes in UTF-8 of an id that a publisher chose: a URN or a URL fits, and a header takes it."""

# Without vowels, and with a letter in front: a publisher's "customer-42" or "20270101-1"
# isn't taken for one of ours.
_LETTERS: Final = "bcdfghjkmnpqrstvwxz"
_ALPHABET: Final = _LETTERS + "23456789"
_NAME_LENGTH: Final = 8

# Eighteen digits stay below 2**63, which is where SQLite's integers end.
_OWN: Final = re.compile(rf"([{_LETTERS}][{_ALPHABET}]{{7}})-(0|[1-9][0-9]{{0,17}})")


def is_own_syntax(id: str) -> bool:
    """Whether an id looks like one of the hub's own."""
    return _OWN.fullmatch(id) is not None


def check_publisher_id(id: str) -> None:
    """Check an id that a publisher chose.

    Raises:
        ValueError: it isn't 1 to 512 bytes of UTF-8, holds a control character, begins or ends
            with a space, or looks like one of the hub's own.
    """
    if FORBIDDEN.search(id):
        raise ValueError("id must not hold control characters or surrogates")
    if not 0 < len(id.encode()) <= MAX_PUBLISHER_ID_BYTES:
        raise ValueError(f"id must have 1 to {MAX_PUBLISHER_ID_BYTES} bytes in UTF-8")
    # No header brings it back: whitespace there is none of the value (RFC 9110 section 5.5).
    if id != id.strip():
        raise ValueError("id must not begin or end with a space")
    if is_own_syntax(id):
        raise ValueError(f"id must not look like one of the hub's own, as {id} does")


@final
class Epochs:
    """The table of epochs, oldest first.

    Args:
        known: name and first position of each epoch there was, oldest first.
        max_epochs: how many are kept, the current one among them.
    """

    def __init__(
        self, known: Iterable[tuple[str, int]] = (), *, max_epochs: int = MAX_EPOCHS
    ) -> None:
        self._max_epochs = max_epochs
        self._set(list(known))

    def _set(self, known: list[tuple[str, int]]) -> None:
        self._known = known
        self._number = {name: number for number, (name, _first) in enumerate(known)}

    def __repr__(self) -> str:
        current = "{} from {}".format(*self._known[-1]) if self._known else "none begun"
        return f"<Epochs: {len(self._known)}, {current}>"

    def __iter__(self) -> Iterator[tuple[str, int]]:
        return iter(self._known)

    @property
    def current(self) -> str:
        """The name of the epoch in which records get their ids now."""
        return self._known[-1][0]

    @property
    def oldest(self) -> int:
        """The lowest position whose id is good: ids of forgotten epochs are not."""
        return max(self._known[0][1] - 1, 0)

    def begin(self, first: int) -> str:
        """Begin an epoch with the next record's position; return its random name."""
        assert not self._known or first >= self._known[-1][1], "positions never go back"
        while (name := new_name()) in self._number:
            pass
        known = [*self, (name, first)]
        while len(known) > self._max_epochs:
            # Those without a record go first: a hub that was restarted in vain all night
            # shall not have forgotten yesterday's ids. It moves nobody else's range.
            empty = (n for n, (one, next_) in enumerate(pairwise(known)) if one[1] == next_[1])
            del known[next(empty, 0)]
        self._set(known)
        return name

    def learn(self, known: Iterable[tuple[str, int]]) -> int | None:
        """Take over the table of a store that several hubs share.

        Return the position up to which the past is what it was; `None` if all of it is.
        """
        theirs, ours = list(known), self._known
        first = dict(theirs)
        # Both tables may have forgotten some. An epoch has its name from nobody else, so the last
        # that both know is one and the same, up to where the next begins in either.
        common = next((name for name, _first in reversed(ours) if name in first), None)
        ends = [following for table in (ours, theirs) for following in _behind(table, common)]
        self._set(theirs)
        if not ends or not ours:
            return None
        return min(ends) - 1

    def last_kept(self, id: str) -> int | None:
        """Return the last position that is kept of an id's epoch, if that ends before the id.

        Such an id was given, and its record lost: whoever has it has all up to there.
        """
        found = _OWN.fullmatch(id)
        number = None if found is None else self._number.get(found[1])
        if found is None or number is None or number + 1 == len(self._known):
            return None
        last = self._known[number + 1][1] - 1
        return last if int(found[2]) > last else None

    def format(self, position: int) -> str:
        """Return the id of a position, or of the cursor at it: good for `resolve` later."""
        # Below the first epoch that is known no id is good, and this one is as bad as any.
        number = max(bisect_right(self._known, position, key=itemgetter(1)) - 1, 0)
        return f"{self._known[number][0]}-{position}"

    def resolve(self, id: str, head: int) -> int | None:
        """Return the position that an id of the hub's own stands for, if it is still good."""
        found = _OWN.fullmatch(id)
        number = None if found is None else self._number.get(found[1])
        if found is None or number is None:
            return None
        position = int(found[2])
        following = self._known[number + 1 : number + 2]
        last = following[0][1] - 1 if following else head
        return position if self._known[number][1] - 1 <= position <= last else None


def new_name() -> str:
    """Return a random name for an epoch."""
    rest = "".join(secrets.choice(_ALPHABET) for _ in range(_NAME_LENGTH - 1))
    return secrets.choice(_LETTERS) + rest


def _behind(table: list[tuple[str, int]], name: str | None) -> list[int]:
    """Return the first position of the epoch that follows a named one, if there is one."""
    names = [one for one, _first in table]
    index = 0 if name is None else names.index(name) + 1
    return [first for _name, first in table[index : index + 1]]
