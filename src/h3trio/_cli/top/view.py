"""`TopView`: the texts that `top` shows of a hub, from two snapshots of its statistics.

Values in, texts out: the same for a terminal that rich draws on and for plain lines. A snapshot is
anybody's: a field that is missing or of another kind counts as zero, and texts are made fit for a
terminal.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Final, cast, final

from h3trio._cli.common import one_line
from h3trio.hub import LatencyStatistics

if TYPE_CHECKING:
    from collections.abc import Iterator

Snapshot = dict[str, object]
Row = tuple[str, ...]

TOPIC_HEADS: Final = ("topic", "subscribers", "events/s", "published")
SLOW_HEADS: Final = ("client", "behind", "for", "topics")
NODE_HEADS: Final = ("node", "subscribers", "behind", "delivered", "heard", "busiest", "slowest")

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_LARGEST: Final = 1e18
_WIDTH: Final = 12  # of a name in front of its facts
MAX_ROWS: Final = 10
"""Topics, and slow clients, that plain lines show."""
_FEW: Final = 3  # topics of a node
_MOST_ROWS: Final = 200
"""Rows of a snapshot that are looked at: more than a terminal has, and than a hub sends."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TopView:
    """All that is shown, as text."""

    title: str
    facts: list[tuple[str, str]]
    """What, and its figures."""
    topics: list[Row]
    """The busiest topics, under `TOPIC_HEADS`."""
    slow: list[Row]
    """The slow clients, under `SLOW_HEADS`."""
    nodes: list[Row]
    """The hubs that share the history, under `NODE_HEADS`; none if there is but one."""
    problems: list[str]


def view(now: Snapshot, before: Snapshot | None) -> TopView:
    """Put a snapshot into words; rates and latencies are those since the one before, if given."""
    if before is not None and number(now, "uptime") < number(before, "uptime"):
        before = None  # another process: its totals begin anew
    step = Step(now, before)
    return TopView(
        title=f"h3trio {_text(now.get('version'))}, up {duration(number(now, 'uptime'))}",
        facts=list(_facts(step)),
        topics=list(_topics(step)),
        slow=list(_slow(now)),
        nodes=list(_nodes(now)),
        problems=list(_problems(now)),
    )


def plain(shown: TopView) -> str:
    """Return it as lines, which end in nothing but their text."""
    lines = [shown.title, *(f"{name:<{_WIDTH}}{figures}" for name, figures in shown.facts)]
    for name, head, rows in (
        ("topics", TOPIC_HEADS, shown.topics[:MAX_ROWS]),
        ("slow", SLOW_HEADS, shown.slow[:MAX_ROWS]),
        ("nodes", NODE_HEADS, shown.nodes),
    ):
        if rows:
            lines += ["", f"{name}:", *_columns([head, *rows])]
    if shown.problems:
        lines += ["", *(f"PROBLEM: {problem}" for problem in shown.problems)]
    return "\n".join(line.rstrip() for line in lines)


def _columns(rows: list[Row]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True))
        yield "  " + "  ".join(cells)


# -- reading a snapshot


def number(snapshot: Snapshot, *names: str) -> float:
    """Return a number by the names that lead to it, 0 if there is none."""
    return _number(_part(snapshot, *names[:-1]).get(names[-1]))


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    # JSON has numbers that no float can be.
    return value if -_LARGEST <= value <= _LARGEST else 0


def _part(snapshot: Snapshot, *names: str) -> Snapshot:
    """Return an object by the names that lead to it, an empty one if there is none."""
    for name in names:
        value = snapshot.get(name)
        snapshot = cast("Snapshot", value) if isinstance(value, dict) else {}
    return snapshot


def _rows(snapshot: Snapshot, name: str) -> list[Snapshot]:
    rows = _list(snapshot.get(name))[:_MOST_ROWS]
    return [cast("Snapshot", row) for row in rows if isinstance(row, dict)]


def _list(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else []


def _text(value: object) -> str:
    return one_line(value) if isinstance(value, str) else ""


@final
class Step:
    """Two snapshots, and what happened between; without an earlier one, since the start."""

    def __init__(self, now: Snapshot, before: Snapshot | None) -> None:
        self.now = now
        self._before = before or {}
        self.seconds = number(now, "uptime") - number(self._before, "uptime")

    def rate(self, *names: str) -> float:
        """Return the growth of a total in a second."""
        grown = number(self.now, *names) - number(self._before, *names)
        return max(0, grown) / self.seconds if self.seconds > 0 else 0

    def published(self, topic: Snapshot) -> float:
        """Return the events of a topic in a second; 0 if it wasn't among the busiest before."""
        rows = _rows(self._before, "topics")
        known = [row for row in rows if row.get("topic") == topic.get("topic")]
        if (self._before and not known) or self.seconds <= 0:
            return 0
        earlier = number(known[0], "published") if known else 0
        return max(0, number(topic, "published") - earlier) / self.seconds

    def latency(self, name: str) -> LatencyStatistics:
        """Return the latencies that were measured in between."""
        found = self._latency(self.now, name)
        earlier = dict(self._latency(self._before, name))
        buckets = tuple((bound, max(0, count - earlier.get(bound, 0))) for bound, count in found)
        longest = number(self.now, "latency", name, "max")
        return LatencyStatistics(count=buckets[-1][1], sum=0, max=longest, buckets=buckets)

    @staticmethod
    def _latency(snapshot: Snapshot, name: str) -> list[tuple[float, int]]:
        """Upper bounds, each with how many took no longer, whatever their number."""
        table = _part(snapshot, "latency", name)
        pairs = map(_list, _list(table.get("buckets")))
        found = {_number(pair[0]): int(_number(pair[-1])) for pair in pairs if pair}
        return [*sorted(found.items()), (inf, int(number(table, "count")))]


# -- words


def _facts(step: Step) -> Iterator[tuple[str, str]]:
    now = step.now

    def total(*names: str) -> str:
        return f"{number(now, *names):,.0f}"

    for name in ("published", "delivered"):
        yield name, f"{step.rate('hub', name):,.1f}/s, {total('hub', name)} in all"
    size = number(now, "hub", "delivered_bytes")
    yield "bytes", f"{amount(step.rate('hub', 'delivered_bytes'))}/s, {amount(size)} in all"
    yield (
        "requests",
        f"{step.rate('server', 'requests'):,.1f}/s, {total('server', 'requests')} in all",
    )
    # Without those of `top` and of dashboards.
    watching = number(now, "watchers", "streams")
    connections, streams = (
        max(0, number(now, "server", name) - watching) for name in ("connections", "streams")
    )
    yield "connections", f"{connections:,.0f}, {streams:,.0f} of them streams"
    behind = number(now, "hub", "subscribers") - number(now, "hub", "ready")
    found = f"{total('hub', 'replays')} replays, {total('hub', 'resets')} resets"
    yield "subscribers", f"{total('hub', 'subscribers')}, {behind:,.0f} of them behind; {found}"
    kept = f"{total('history', 'events')} events of {total('history', 'topics')} topics"
    kept += f", {amount(number(now, 'history', 'bytes'))}"
    history = _part(now, "history")
    yield "history", f"{kept}, {_text(history.get('durability'))}"
    if history.get("server"):
        state = "" if history.get("connected") else ", away"
        lost = total("history", "reconnects")
        lag = f"{total('history', 'behind')} behind, {lost} connections lost"
        yield "store", f"{_text(history.get('server'))}{state}; {lag}"
    if isinstance(now.get("runs"), dict):
        ended = _part(now, "runs", "ended")
        ends = ", ".join(f"{one_line(how)} {number(ended, how):,.0f}" for how in sorted(ended))
        seen = f"{total('runs', 'running')}, {total('runs', 'unwatched')} of them unwatched"
        yield "runs", f"{seen}; ended: {ends or 'none'}"
    for name in ("publish", "sweep"):
        yield name, _latency_words(step.latency(name))


def _latency_words(found: LatencyStatistics) -> str:
    if not found.count:
        return "none"
    quantiles = ", ".join(
        f"{name} {milliseconds(found.quantile(share))}"
        for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99))
    )
    return f"{quantiles}; longest since the start {milliseconds(found.max)}"


def _topics(step: Step) -> Iterator[Row]:
    for row in _rows(step.now, "topics"):
        yield (
            _text(row.get("topic")),
            f"{number(row, 'subscribers'):,.0f}",
            f"{step.published(row):,.1f}",
            f"{number(row, 'published'):,.0f}",
        )


def _slow(now: Snapshot) -> Iterator[Row]:
    for row in _rows(now, "slow"):
        yield (
            _text(row.get("client")),
            f"{number(row, 'behind'):,.0f}",
            duration(max(0, number(now, "time") - number(row, "since"))),
            one_line(" ".join(map(_text, _list(row.get("topics"))))),
        )


def _nodes(now: Snapshot) -> Iterator[Row]:
    """List the hubs that share the history, and mark this one; none if it is alone."""
    rows = _rows(now, "nodes")
    for row in rows if len(rows) > 1 else ():
        name, subscribers = _text(row.get("name")), number(row, "subscribers")
        topics, slow = _rows(row, "topics")[:_FEW], _rows(row, "slow")[:1]
        late = (f"{_text(one.get('client'))} by {number(one, 'behind'):,.0f}" for one in slow)
        yield (
            f"{name} (this)" if row.get("name") == now.get("node") else name,
            f"{subscribers:,.0f}",
            f"{max(0, subscribers - number(row, 'ready')):,.0f}",
            f"{number(row, 'delivered'):,.0f}",
            f"{duration(number(row, 'heard'))} ago",
            one_line(" ".join(_text(topic.get("topic")) for topic in topics)),
            one_line(" ".join(late)),
        )


def _problems(now: Snapshot) -> Iterator[str]:
    failure, server = _part(now, "hub").get("failure"), _part(now, "server")
    if failure is not None:
        yield f"the history fails: {_text(failure)}"
    if server.get("draining") is True:
        left = number(server, "connections")
        yield f"the server is going away, {left:,.0f} connections are left"
    limits = _part(server, "limits")
    if limits:
        met = ", ".join(f"{one_line(name)} {number(limits, name):,.0f}" for name in sorted(limits))
        yield f"limits met: {met}"


def duration(seconds: float) -> str:
    """Write seconds as people say them."""
    if seconds < _MINUTE:
        return f"{seconds:.0f} s"
    if seconds < _HOUR:
        return f"{seconds // _MINUTE:.0f} min {seconds % _MINUTE:.0f} s"
    if seconds < _DAY:
        return f"{seconds // _HOUR:.0f} h {seconds % _HOUR // _MINUTE:.0f} min"
    return f"{seconds // _DAY:.0f} d {seconds % _DAY // _HOUR:.0f} h"


def milliseconds(seconds: float) -> str:
    """Write a latency, with three digits that count."""
    return f"{seconds * 1000:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def amount(size: float) -> str:
    """Write a number of bytes, in units of 1000."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:  # noqa: PLR2004 - the unit's own step
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"
