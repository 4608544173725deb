"""Messages between the processes of the load generator: jobs, and their outcomes.

A process that works for `bench` is started with its job. Through a pipe it gets commands: `GO` to
count from now, `DRAIN` to end as soon as it is quiet, `END` to end at once. It answers with pairs:
`ready` and how many streams are open, `going`, `progress` and some counts, `result` and a
`Received` or `Published`. The end of the pipe means that nobody wants a result any more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, final

from h3trio.hub._fanout.latency import Histogram

from .histogram import delays, merge

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    Pipe = Connection[Any, Any]

GO: Final = "go"
DRAIN: Final = "drain"
END: Final = "end"


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The target of requests: a resolved address, and the words of a request."""

    family: int
    address: str
    port: int
    host: str
    """The value of the Host header."""
    path: str
    """The request's target, query included."""
    headers: tuple[str, ...] = ()
    """Further header lines."""

    def head(self, method: str, *lines: str) -> bytes:
        """Return a request's head without the blank line."""
        rest = [f"{method} {self.path} HTTP/1.1", f"Host: {self.host}", *lines, *self.headers]
        return "".join(f"{line}\r\n" for line in rest).encode("latin-1")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class SubscribeJob:
    """Open so many streams over so many seconds, and count what comes."""

    target: Endpoint
    connections: int
    ramp: float
    timeout: float
    """Seconds a stream may take to open."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class PublishJob:
    """Post events at a rate, until told to stop."""

    target: Endpoint
    rate: float
    size: int
    connections: int


@final
@dataclass(slots=True, kw_only=True)
class Received:
    """The counts of a group of streams. Times are in seconds."""

    asked: int = 0
    opened: int = 0
    refused: Counter[str] = field(default_factory=Counter[str])
    """Why streams didn't open."""
    ended: int = 0
    """The server ended them, as HTTP says."""
    lost: Counter[str] = field(default_factory=Counter[str])
    """They broke, by reason."""
    connect_seconds: float = 0.0
    """From the first attempt to the last stream that opened."""
    connects: Histogram = field(default_factory=delays)
    events: int = 0
    timed: int = 0
    """Events with a time in them."""
    early: int = 0
    """Of the sampled, those that came before they were sent: the clocks differ."""
    bytes: int = 0
    reads: int = 0
    least: int = 0
    most: int = 0
    """Events of the stream that got fewest, and most."""
    latencies: Histogram = field(default_factory=delays)
    judged: int = 0
    unnumbered: int = 0
    repeated: int = 0
    missing: int = 0
    resets: int = 0
    bounded: bool = False
    seconds: float = 0.0
    """From the start of the count to the last event."""
    busy: float = 0.0
    """Share of its core that the process used meanwhile."""

    def add(self, other: Received) -> None:
        """Add the counts of another process."""
        self.least = min(self.least, other.least) if self.asked else other.least
        for name in (each.name for each in fields(self) if each.name != "least"):
            mine, theirs = getattr(self, name), getattr(other, name)
            if isinstance(mine, Histogram):
                merge(mine, theirs)
            elif name == "most" or isinstance(mine, bool | float):
                setattr(self, name, max(mine, theirs))
            else:
                setattr(self, name, mine + theirs)


@final
@dataclass(slots=True, kw_only=True)
class Published:
    """The counts of a publisher. `latencies` run from the time a request was due to its answer."""

    sent: int = 0
    acked: int = 0
    unsent: int = 0
    """Due, and never sent, as all connections were waiting for answers."""
    failed: Counter[str] = field(default_factory=Counter[str])
    latencies: Histogram = field(default_factory=delays)
    seconds: float = 0.0
    busy: float = 0.0
