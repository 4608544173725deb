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
    """The head of an answer.

    Attributes:
        url: what was asked, after redirects; without a user's name and password.
        status: 200 and so on.
        version: as in `HTTP/1.1`.
        fields: the header fields, by name in lower case.
        seconds: from the request to the head.
    """

    url: str
    status: int
    version: str
    fields: tuple[tuple[str, str], ...]
    seconds: float

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
    """An event that was published.

    Attributes:
        mark: the text in its data by which it is known again.
        at: when it was sent, in seconds since the stream's head.
        answered: when the server had taken it, `None` if there was no answer.
        problem: why it wasn't taken, `""` if it was, `None` if there was no answer.
    """

    mark: str
    at: float
    answered: float | None = None
    problem: str | None = None


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The answer to a client that came back with an id.

    Attributes:
        asked: the id.
        expected: the ids of the events that had followed it.
        status: that of the answer, 0 if there was none.
        problem: why there was no stream, `""` if there was one.
        ids: the ids of the first events that came, in order.
        unnumbered: whether events came, all without an id.
        reset: whether the first event was a hub's `reset`.
        waited: seconds.
    """

    asked: str
    expected: tuple[str, ...]
    status: int = 0
    problem: str = ""
    ids: tuple[str, ...] = ()
    unnumbered: bool = False
    reset: bool = False
    waited: float = 0.0


@final
@dataclass(frozen=True, slots=True)
class Probe:
    """The answer to another request; `problem` says why there is none."""

    head: Head | None
    problem: str = ""


@final
@dataclass(slots=True, kw_only=True)
class Seen:
    """Everything that was seen; `None` is what wasn't looked for, or what looking came not to.

    Attributes:
        url: what was asked for, without a user's name and password.
        wait: for how many seconds the stream was to be read.
        origin: the origin whose pages are to read the stream, if one was given.
        is_trusting: whether certificates went unchecked.
        problem: why there is no answer at all.
        is_untrusted: whether it is the certificate.
        is_silent: whether it is that no head came in time.
        hops: the redirects that were followed.
        head: the answer to the request that a browser would make.
        text: the start of an answer that is no stream.
        reading: the stream; asked for anew without compression where that can't be undone here.
        sent: the events that were published, `None` if none were to be.
        resumed: what a client got that came back.
        head_probe: the answer to HEAD.
        preflight: the answer to OPTIONS, as a browser asks before a request of another origin.
        offered: what the server chose by ALPN, `""` if it chose nothing.
        ran_out: whether the time for everything was over before everything was looked at.
    """

    url: str
    wait: float
    origin: str | None = None
    is_trusting: bool = False
    problem: str = ""
    is_untrusted: bool = False
    is_silent: bool = False
    hops: list[Redirect] = field(default_factory=list[Redirect])
    head: Head | None = None
    text: str = ""
    reading: Reading | None = None
    sent: list[Sent] | None = None
    resumed: Resumed | None = None
    head_probe: Probe | None = None
    preflight: Probe | None = None
    offered: str | None = None
    ran_out: bool = False

    @property
    def is_stream(self) -> bool:
        """Whether the answer is what EventSource takes for a stream."""
        return self.head is not None and self.head.is_stream
