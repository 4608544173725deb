"""What the head of every response holds, whoever set which part of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    Fields = Sequence[tuple[bytes, bytes]]

_ADDED: Final = frozenset({b"set-cookie", b"vary"})
"""Headers of which each setter's are sent; of others those of the first who set them."""


def join_fields(
    own: Fields, *others: Fields, date: bytes, closes: bool
) -> list[tuple[bytes, bytes]]:
    """Join headers, the first to name one wins, with those that every response has.

    Args:
        own: the headers that count first.
        others: those that fill what is missing.
        date: the value of `Date`, if nobody set one (RFC 9110 section 6.6.1).
        closes: whether no request is taken after this one.
    """
    headers = [*own]
    names = {name.lower() for name, _ in headers}
    for fields in filter(None, others):
        taken = names - _ADDED
        headers += [field for field in fields if field[0].lower() not in taken]
        names.update([name.lower() for name, _ in fields])
    if b"date" not in names:
        headers.insert(0, (b"Date", date))
    if closes:
        headers.append((b"Connection", b"close"))
    return headers
