"""`Seen`: all that was seen of an event stream from outside, as plain values for the checks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, final

from h3trio.client._policy import is_event_stream

if TYPE_CHECKING:
    from .reading import Reading


@final
@dataclass(frozen=True, slots=True)
class Redirect:
    """A redirect that was followed: its status, from where, and to where."""

    status: int
    url: str
    target: str


@final
@dataclass(frozen=True, slots=True)
class Head:
    """The head of an answer."""

    url: str  # what was asked, after redirects; without a user's name and password
    status: int
    version: str  # as in `HTTP/1.1`
    fields: tuple[tuple[str, str], ...]  # the header fields, by name in lower case
    seconds: float  # from the request to the head

    def get(self, name: str) -> str | None:
        """Return a field's value, those of a repeated one joined; `None` if it isn't there."""
        found = [value for key, value in self.fields if key == name]
        return ", ".join(found) if found else None

    @property
    def is_stream(self) -> bool:
        """Whether EventSource takes it for a stream: 200, of the right type."""
        return self.status == 200 and is_event_stream(self.get("content-type") or "")  # noqa: PLR2004 - OK

    def members(self, name: str) -> set[str]:
        """Return the members of a field that is a list, in lower case."""
        return {member.strip().lower() for member in (self.get(name) or "").split(",")} - {""}


@final
@dataclass(slots=True)
class Sent:
    """An event that was published; times are in seconds since the stream's head."""

    mark: str  # the text in its data by which it is known again
    at: float  # when it was sent
    answered: float | None = None  # when the server had taken it, `None` if there was no answer
    problem: str | None = None  # why it wasn't taken, `""` if it was, `None` if no answer


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The answer to a client that came back with an id."""

    asked: str  # the id
    expected: tuple[str, ...]  # the ids of the events that had followed it
    status: int = 0  # that of the answer, 0 if there was none
    problem: str = ""  # why there was no stream, `""` if there was one
    ids: tuple[str, ...] = ()  # those of the first events that came, in order
    unnumbered: bool = False  # whether an event without an id came
    reset: bool = False  # whether the first event was a hub's `reset`
    waited: float = 0.0  # seconds


@final
@dataclass(frozen=True, slots=True)
class Probe:
    """The answer to another request; `problem` says why there is none."""

    head: Head | None
    problem: str = ""


@final
@dataclass(slots=True, kw_only=True)
class Seen:
    """Everything that was seen; `None` is what wasn't looked for, or what looking came not to."""

    url: str  # what was asked for, without a user's name and password
    wait: float  # for how many seconds the stream was to be read
    origin: str | None = None  # the origin whose pages are to read the stream, if one was given
    is_trusting: bool = False  # whether certificates went unchecked
    problem: str = ""  # why there is no answer at all
    is_untrusted: bool = False  # whether it is the certificate
    is_silent: bool = False  # whether it is that no head came in time
    hops: list[Redirect] = field(default_factory=list[Redirect])
    head: Head | None = None  # the answer to the request that a browser would make
    text: str = ""  # the start of an answer that is no stream
    # Asked for anew without compression where that can't be undone here.
    reading: Reading | None = None
    sent: list[Sent] | None = None  # the events that were published, `None` if none were to be
    resumed: Resumed | None = None  # what a client got that came back
    head_probe: Probe | None = None  # the answer to HEAD
    preflight: Probe | None = None  # to OPTIONS, as browsers ask before a request elsewhere
    offered: str | None = None  # what the server chose by ALPN, `""` if it chose nothing
    ran_out: bool = False  # whether the time was over before everything was looked at

    @property
    def is_stream(self) -> bool:
        """Whether the answer is what EventSource takes for a stream."""
        return self.head is not None and self.head.is_stream
