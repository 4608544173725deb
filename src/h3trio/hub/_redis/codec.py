"""Updates as arguments of a script; records, headers and messages as they come from Redis.

Messages are JSON: the server writes it fast, and people can read it.

What comes is another process's, and may be a newer version's: names that aren't known are passed
over, and what can't stand where it stands is a `DamagedError`, not an error of whoever works with
it later.
"""

from __future__ import annotations

import json
import math
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple, cast, final

from h3trio.hub._history.damage import DamagedError
from h3trio.hub._history.record import Record

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from h3trio._redis.values import Argument, Reply
    from h3trio.hub._history.record import Update
    from h3trio.hub._history.selection import Selection

MAX_NUMBER: Final = 2**53
"""Up to it, the numbers of scripts are exact."""

_DIGEST_BYTES: Final = 16
"""Of a key or an event: nobody finds two by chance, nor one to another's by trying."""

# The id that stands where the script puts the one that it makes.
_EPOCH: Final = "bbbbbbbb"
_ID_LINE: Final = f"id: {_EPOCH}-0\n".encode()


def arguments_of(update: Update) -> tuple[Argument, ...]:
    """Return what the script that appends takes for one update.

    Topics, flags, the publisher's id, the key, a digest of what a repetition has to be, and the
    frame: whole, or what stands in front of the id and behind it.
    """
    flags = ("p" if update.private else "") + ("l" if update.last else "")
    key = digest = ""
    if (scoped := update.scoped_key) is not None:
        key = _digest(json.dumps(scoped).encode())
        own = "" if update.own_id is None else "i"
        digest = _digest(f"{flags}{own}\n".encode() + update.encoded)
    front, back = update.encoded, b""
    if update.own_id is None and update.event is not None:
        frame = Record.from_update(update, position=0, epoch=_EPOCH, published=0.0).frame
        # At the beginning of a line there is no other: data and comments have something in front.
        cut = 0 if frame.startswith(_ID_LINE) else frame.index(b"\n" + _ID_LINE) + 1
        front, back = frame[:cut], frame[cut + len(_ID_LINE) :]
    return "\n".join(update.topics), flags, update.own_id or "", key, digest, front, back


def _digest(value: bytes) -> str:
    return blake2b(value, digest_size=_DIGEST_BYTES).hexdigest()


def record_of(entry: Reply) -> Record:
    """Make a record of an entry of the log: its id and its fields.

    Raises:
        DamagedError: it can't be read. It names the position, if the id of the entry can be.
    """
    position = None
    try:
        id, values = _listed(entry)
        position = int(text(id).partition("-")[0])
        found = {text(name): value for name, value in pairs(values)}
        epoch, topics, flags, own, published = (text(found[name]) for name in "etgip")
        frame = _bytes(found["f"])
        time = float(published)
        names = tuple(topics.split("\n"))
        is_last = "l" in flags
        if not all(names) or not math.isfinite(time):
            raise ValueError("it has no topic or no time")  # noqa: TRY301 - found below with the rest
        if not (frame.endswith(b"\n\n") or (is_last and not frame)):
            raise ValueError("its frame has no end")  # noqa: TRY301 - as above
        frame.decode()
        return Record(
            position=position,
            id=own or f"{epoch}-{position}",
            topics=names,
            private="p" in flags,
            published=time,
            frame=frame,
            has_own_id=bool(own),
            last=is_last,
        )
    except (TypeError, ValueError, KeyError, RecursionError) as exc:
        raise DamagedError(f"record {position}: {exc!r}", position=position) from exc


@final
class Header(NamedTuple):
    """The state of the store, as each answer and each message brings it."""

    epoch: str
    """The name of the current epoch."""
    serial: int
    """The number of the last message."""
    last: int
    """The last position given."""
    note: int
    """The number of the last mark."""
    removed: int
    """Records removed so far."""
    events: int
    bytes: int
    topics: int
    oldest: int
    """The first position that is kept."""
    closed: int
    """Topics that are closed."""
    floor: int
    """Up to it, something public of any topic may have been removed."""
    private_floor: int
    pinned_topics: int
    pinned_events: int
    pinned_bytes: int

    @classmethod
    def read(cls, reply: Reply) -> Header:
        """Read it out of names and values in turn.

        Raises:
            DamagedError: something is missing.
        """
        try:
            found = {text(name): value for name, value in pairs(reply)}
            epoch = text(found["epoch"])
            numbers = [whole(found[name]) for name in cls._fields[1:]]
            if min(numbers) < 0 or max(numbers) > MAX_NUMBER:
                raise ValueError("a number is out of range")  # noqa: TRY301 - as above
        except (TypeError, ValueError, KeyError) as exc:
            raise DamagedError(f"the state can't be read: {exc!r}") from exc
        return cls(epoch, *numbers)


EMPTY: Final = Header("", *([0] * len(Header._fields[1:])))
"""The state before there is one."""


@final
class Change(NamedTuple):
    """A change of the store, as a message tells it or a hub asks for it."""

    header: Header
    """The state behind it."""
    gone: Sequence[int]
    """Positions of removed records."""
    marks: Sequence[tuple[str, int]]
    """Their marks: `+` and a topic, `-` and several of a private one, or `*` and a purged topic."""
    entries: Sequence[Reply]
    """New entries of the log."""


@final
class Place(NamedTuple):
    """A record as the server finds it for a search."""

    topic: str
    """One of its topics: that by which it was found."""
    position: int
    secret: tuple[str, ...]
    """All of its topics if it is private."""

    def is_visible(self, allow: Selection) -> bool:
        """Whether a subscriber that is allowed the private events of some topics may see it."""
        return not self.secret or allow.matches(self.secret)


@final
class Look(NamedTuple):
    """A record that a search goes over."""

    position: int
    topics: tuple[str, ...]
    private: bool
    has_event: bool


@final
class Entries(NamedTuple):
    """Entries of the log that were read."""

    note: int
    """The number of the last mark at that time."""
    entries: Sequence[Reply]
    reached: int
    """The position up to which they are all."""
    more: bool
    """Whether there are more."""


def message_of(data: Reply) -> Change | bytes:
    """Read a message of the channel: a change, or the word of a probe; `b""` of a newer version.

    Raises:
        DamagedError: it is none of ours.
    """
    try:
        kind, *parts = _listed(json.loads(_bytes(data)))
        match kind, parts:
            case "log", [header, gone, marks, entries, *_]:
                return _change_of(header, gone, marks, entries)
            case "probe", [word, *_]:
                return _bytes(word)
            case _:
                return b""
    except (TypeError, ValueError, RecursionError) as exc:
        raise DamagedError(f"a message is none of a hub's: {data!r:.80}") from exc


def _change_of(header: Reply, gone: Reply, marks: Reply, entries: Reply) -> Change:
    return Change(
        Header.read(header),
        [whole(position) for position in _listed(gone)],
        [(text(name), whole(position)) for name, position in pairs(marks)],
        _listed(entries),
    )


def followed_of(reply: Reply) -> tuple[Change, int, int]:
    """Read the answer to a hub that asks for what it hasn't followed.

    Returns:
        What it is, the number of the last mark in it, and the head up to which it goes.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        _ok, header, marks, note, gone, entries, head, *_ = _listed(reply)
        return _change_of(header, gone, marks, entries), whole(note), whole(head)
    except (TypeError, ValueError) as exc:
        raise _strange(reply) from exc


def page_of(reply: Reply) -> Entries:
    """Read a page.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        _ok, note, entries, reached, more, *_ = _listed(reply)
        return Entries(whole(note), _listed(entries), whole(reached), bool(more))
    except (TypeError, ValueError) as exc:
        raise _strange(reply) from exc


def merged(one: Entries, other: Entries, *, forward: bool) -> Entries:
    """Merge a page with one of other topics that was read only as far as the first one came.

    Raises:
        DamagedError: an entry has no position.
    """
    reached = other.reached
    try:
        found = {_position_of(entry): entry for entry in (*one.entries, *other.entries)}
    except (TypeError, ValueError, IndexError) as exc:
        raise _strange(other.entries) from exc
    kept = [p for p in found if (p <= reached if forward else p >= reached)]
    kept.sort(reverse=not forward)
    more = one.more or other.more
    return Entries(max(one.note, other.note), [found[p] for p in kept], reached, more)


def _position_of(entry: Reply) -> int:
    return int(text(_listed(entry)[0]).partition("-")[0])


def places_of(reply: Reply) -> tuple[list[Place], str]:
    """Read what was found, and where to go on; `""` if that is all.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        _ok, places, behind, *_ = _listed(reply)
        found = [
            Place(text(topic), whole(position), _names(_bytes(secret)[1:]))
            for topic, position, secret in map(_listed, _listed(places))
        ]
        return found, text(behind)
    except (TypeError, ValueError) as exc:
        raise _strange(reply) from exc


def looks_of(entries: Sequence[Reply]) -> list[Look]:
    """Read what a search goes over.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        return [
            Look(
                whole(position),
                _names(_bytes(topics)),
                b"p" in _bytes(flags),
                b"e" in _bytes(flags),
            )
            for position, flags, topics in map(_listed, entries)
        ]
    except (TypeError, ValueError) as exc:
        raise _strange(entries) from exc


def _names(value: bytes) -> tuple[str, ...]:
    return tuple(value.decode().split("\n")) if value else ()


def _strange(reply: object) -> DamagedError:
    return DamagedError(f"the store answers {reply!r:.80}")


def epochs_of(reply: Reply) -> list[tuple[str, int]]:
    """Read the table of epochs.

    Raises:
        DamagedError: it can't be read.
    """
    try:
        lines = [_bytes(line).decode().split(" ") for line in _listed(reply)]
        return [(name, int(first)) for name, first in lines]
    except (TypeError, ValueError) as exc:
        raise DamagedError(f"the table of epochs can't be read: {exc!r}") from exc


def pairs(reply: Reply | Iterable[Reply]) -> Iterator[tuple[Reply, Reply]]:
    """Give names and values that stand in turn."""
    values = iter(_listed(reply))
    return zip(values, values, strict=True)


def whole(reply: Reply) -> int:
    """Return a whole number."""
    return int(text(reply))


def text(reply: Reply) -> str:
    """Return a text."""
    if not isinstance(reply, str):
        return _bytes(reply).decode()
    # Messages are JSON, which may hold half of a surrogate pair.
    return reply if reply.isascii() else reply.encode().decode()


def _bytes(reply: object) -> bytes:
    if isinstance(reply, str):
        return reply.encode()
    if not isinstance(reply, bytes):
        raise TypeError(f"{reply!r} is no text")
    return reply


def _listed(reply: object) -> Sequence[Reply]:
    if not isinstance(reply, list):
        raise TypeError(f"{reply!r} is no list")
    return cast("list[Reply]", reply)
