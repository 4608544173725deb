"""`Outcome`: the figures of a run of the load generator, its problems, and notes on the figures.

It is written as JSON, as plain lines, or as a table with rich, which comes with an extra.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, final

from .histogram import milliseconds
from .publish import event_data

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rich.console import Console

    from h3trio.hub._fanout.latency import Histogram

    from .job import Published, Received

SATURATED: Final = 0.9  # of a core: beyond it the generator's own queue is in the latencies
CLOCK_SHARE: Final = 0.01
LATE_SHARE: Final = 0.01

EXIT_PROBLEMS: Final = 1
EXIT_UNREACHED: Final = 3


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The sums over all processes."""

    url: str
    received: Received
    published: Published | None = None
    interrupted: bool = False

    @property
    def status(self) -> int:
        """The exit status: 0 fine, 1 something went wrong, 3 there was no stream at all."""
        if not self.received.opened:
            return EXIT_UNREACHED
        return EXIT_PROBLEMS if any(self.problems()) else 0

    def problems(self) -> Iterator[str]:
        """Say what should not have happened."""
        found, published = self.received, self.published
        yield from _counted("not opened", found.refused)
        yield from _counted("broken", found.lost)
        if found.missing:
            yield f"{found.missing:,} events missing: others got them"
        if found.repeated:
            yield f"{found.repeated:,} events twice, or out of order"
        if found.resets:
            yield f"{found.resets:,} resets: the hub said that events are lost"
        if published is not None:
            yield from _counted("not published", published.failed)
            if published.acked and not found.events:
                yield f"{published.acked:,} events were published, none came: another topic?"

    def notes(self) -> Iterator[str]:
        """Say what limits the figures."""
        found, published = self.received, self.published
        yield from _busy("this process", found.busy)
        yield from _times(found)
        yield from _ids(found)
        if found.ended:
            yield f"{found.ended:,} streams were ended by the server"
        if published is not None:
            yield from _busy("the publisher", published.busy)
            # At the end a few wait for answers, whatever the rate.
            if published.unsent > LATE_SHARE * published.sent:
                yield f"{published.unsent:,} events were due and not sent: the rate is too high"
        if self.interrupted:
            yield "interrupted"

    def rows(self) -> Iterator[tuple[str, str]]:
        """Return the table: what, and how much."""
        found, published = self.received, self.published
        seconds = found.seconds
        yield "streams", f"{found.opened:,} of {found.asked:,}"
        if found.opened and found.connect_seconds > 0:
            yield "connects/s", f"{found.opened / found.connect_seconds:,.0f}"
        yield from _quantiles("connect", found.connects)
        if published is not None:
            rate = published.acked / published.seconds if published.seconds else 0.0
            yield "published", f"{published.acked:,}, {rate:,.1f}/s"
            yield from _quantiles("publish", published.latencies)
        yield "events", f"{found.events:,}"
        if seconds > 0:
            yield "events/s", f"{found.events / seconds:,.0f}"
            yield "MB/s", f"{found.bytes / seconds / 1e6:,.2f}"
        if found.reads:
            yield "events a read", f"{found.events / found.reads:.1f}"
        yield "events a stream", f"{found.least:,} to {found.most:,}"
        yield from _quantiles("delivery", found.latencies)
        if found.judged:
            yield "missing, twice", f"{found.missing:,}, {found.repeated:,}"
        yield "own core", f"{found.busy:.0%}"

    def as_json(self) -> dict[str, object]:
        """Return all figures; latencies in milliseconds, times in seconds."""
        return {
            "url": self.url,
            "received": _figures(self.received),
            "published": self.published and _figures(self.published),
            "problems": list(self.problems()),
            "notes": list(self.notes()),
            "status": self.status,
        }

    def as_text(self) -> str:
        """Return the table, the problems and the notes, for people."""
        rows = list(self.rows())
        width = max(len(what) for what, _ in rows)
        lines = [f"  {what.ljust(width)}  {value}" for what, value in rows]
        return "\n".join([self.url, *lines, *self.remarks()])

    def draw(self, console: Console) -> None:
        """Draw the table, and write the problems and the notes below it."""
        from rich.table import Table  # noqa: PLC0415 - the extra, only where it is there
        from rich.text import Text  # noqa: PLC0415 - same

        # As text: the brackets of an IPv6 address would be markup.
        table = Table(title=Text(self.url), show_header=False)
        for row in self.rows():
            table.add_row(*row)
        console.print(table)
        for line in self.remarks():
            console.print(line, style="red" if "PROBLEM" in line else None, markup=False)

    def remarks(self) -> Iterator[str]:
        """Return the problems and the notes, a line each."""
        for problem in self.problems():
            yield f"  PROBLEM: {problem}"
        for note in self.notes():
            yield f"  note: {note}"


def _figures(found: Received | Published) -> dict[str, object]:
    values = {field.name: getattr(found, field.name) for field in fields(found)}
    for name, in_milliseconds in (("connects", "connect_ms"), ("latencies", "latency_ms")):
        if name in values:
            values[in_milliseconds] = milliseconds(values.pop(name))
    return values


def _busy(what: str, busy: float) -> Iterator[str]:
    if busy > SATURATED:
        yield f"{what} was busy {busy:.0%} of the time: it is measured too; see --processes"


def _times(found: Received) -> Iterator[str]:
    if found.events and not found.timed:
        told = event_data(1.7e9, 0, 0).split()[0].decode()
        yield f'no latencies: no event begins with its time, such as {told} or {{"t": {told}}}'
    if found.early > CLOCK_SHARE * found.reads:
        yield "events came before they were sent: the clocks of the two machines differ"


def _ids(found: Received) -> Iterator[str]:
    if found.unnumbered:
        share = found.unnumbered / found.events
        yield f"{share:.0%} of the events have no id that ends in a number: they aren't judged"
    elif found.judged < found.events // 2:
        yield "ids don't count up: most events can't be judged by them"
    if found.bounded:
        yield "more ids than are kept: the missing are counted too low"


def _quantiles(what: str, histogram: Histogram) -> Iterator[tuple[str, str]]:
    found = milliseconds(histogram)
    if found is not None:
        values = ", ".join(f"{name} {value:,.1f}" for name, value in found.items())
        yield f"{what} ms", values


def _counted(what: str, reasons: Mapping[str, int]) -> Iterator[str]:
    for reason, count in reasons.items():
        yield f"{count:,} {what}: {reason}"
