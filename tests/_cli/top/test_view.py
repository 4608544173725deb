"""The words and rates that `top` makes of snapshots, whatever a server sends."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from h3trio._cli.top.screen import draw
from h3trio._cli.top.view import Snapshot, amount, duration, milliseconds, plain, view


def snapshot(uptime: float, published: int, **others: Any) -> Snapshot:  # noqa: ANN401 - what JSON may hold
    """Return the snapshot of a hub with so many events, half of them of one topic."""
    buckets = [[0.001, published], [0.01, published]]
    return {
        "time": 1000.0 + uptime,
        "uptime": uptime,
        "version": "1.2",
        "server": {"connections": 3, "streams": 2, "requests": 10, "limits": {}},
        "hub": {
            "published": published,
            "delivered": 2 * published,
            "delivered_bytes": 1000 * published,
            "subscribers": 2,
            "ready": 1,
            "failure": None,
        },
        "history": {"events": 5, "bytes": 2500, "topics": 1, "durability": "fast"},
        "topics": [{"topic": "news", "subscribers": 1, "published": published}],
        "slow": [],
        "latency": {"publish": {"max": 0.5, "count": published, "buckets": buckets}},
        **others,
    }


def test_one_snapshot_in_lines() -> None:
    """Rates are those since the start; an empty table isn't shown."""
    assert plain(view(snapshot(60, 120), None)).splitlines() == [
        "h3trio 1.2, up 1 min 0 s",
        "published   2.0/s, 120 in all",
        "delivered   4.0/s, 240 in all",
        "bytes       2 kB/s, 120 kB in all",
        "requests    0.2/s, 10 in all",
        "connections 3, 2 of them streams",
        "subscribers 2, 1 of them behind; 0 replays, 0 resets",
        "history     5 events of 1 topics, 2.5 kB, fast",
        "publish     p50 0.5 ms, p90 0.9 ms, p99 0.99 ms; longest since the start 500 ms",
        "sweep       none",
        "",
        "topics:",
        "  topic  subscribers  events/s  published",
        "  news   1            2.0       120",
    ]


def test_a_store_on_a_server_has_a_line() -> None:
    """It says what the server is, whether it is away, and how far behind it the hub is."""
    history = {"server": "redis 7", "connected": False, "reconnects": 2, "behind": 1000}
    facts = dict(view(snapshot(60, 120, history=history), None).facts)
    assert facts["store"] == "redis 7, away; 1,000 behind, 2 connections lost"


def test_runs_are_told_where_there_are_any() -> None:
    """How many are under way, how many nobody watches, and how others ended."""
    runs = {"running": 12, "unwatched": 3, "ended": {"done": 200, "failed": 1}}
    facts = dict(view(snapshot(60, 120, runs=runs), None).facts)
    assert facts["runs"] == "12, 3 of them unwatched; ended: done 200, failed 1"
    assert "runs" not in dict(view(snapshot(60, 120, runs=None), None).facts)


def test_who_watches_is_not_counted() -> None:
    """Connections and streams are without those of `top` and of dashboards."""
    watched = snapshot(60, 120, watchers={"streams": 2})
    assert dict(view(watched, None).facts)["connections"] == "1, 0 of them streams"


def test_rates_are_those_between_two() -> None:
    """Of a hub started anew, those since then; of a topic new among the busiest, none is known."""
    facts = dict(view(snapshot(62, 130), snapshot(60, 120)).facts)
    assert facts["published"] == "5.0/s, 130 in all"
    shown = view(snapshot(62, 130), snapshot(60, 120))
    assert shown.topics[0][2] == "5.0"
    assert view(snapshot(62, 130), snapshot(60, 120, topics=[])).topics[0][2] == "0.0"
    assert dict(view(snapshot(2, 4), snapshot(60, 120)).facts)["published"] == "2.0/s, 4 in all"


def test_latencies_are_those_between_two() -> None:
    """Latencies that were measured before don't count."""
    before, now = snapshot(60, 0), snapshot(61, 0)
    before["latency"] = {"sweep": {"max": 9, "count": 1000, "buckets": [[0.1, 1000], [1, 1000]]}}
    now["latency"] = {"sweep": {"max": 9, "count": 1002, "buckets": [[0.1, 1000], [1, 1002]]}}
    sweep = dict(view(now, before).facts)["sweep"]
    assert sweep.startswith("p50 550 ms, p90 910 ms, p99 991 ms;")


def test_slow_clients_and_problems() -> None:
    """A client that is behind is listed with its time; problems stand at the end."""
    slow = {"client": "192.0.2.1", "behind": 1234, "since": 940, "topics": ["a", "b"]}
    server = {"connections": 3, "draining": True, "limits": {"max_connections": 4}}
    hub = {"failure": "disk full"}
    shown = view(snapshot(60, 1, slow=[slow], server=server, hub=hub), None)
    assert plain(shown).splitlines()[-7:] == [
        "slow:",
        "  client     behind  for        topics",
        "  192.0.2.1  1,234   2 min 0 s  a b",
        "",
        "PROBLEM: the history fails: disk full",
        "PROBLEM: the server is going away, 3 connections are left",
        "PROBLEM: limits met: max_connections 4",
    ]


def node(name: str, **others: Any) -> Snapshot:  # noqa: ANN401 - as above
    """Return one node of a snapshot."""
    return {"name": name, "subscribers": 5, "ready": 4, "delivered": 1234, "heard": 2.5, **others}


def test_nodes_have_a_line_each() -> None:
    """With their busiest topics and the slowest client; a hub alone has none."""
    topics = [{"topic": name} for name in ("a", "b", "c", "d")]
    slow = [{"client": "192.0.2.1", "behind": 30}, {"client": "192.0.2.2", "behind": 20}]
    rows = [node("web1", topics=topics, slow=slow), node("web2", heard=61)]
    lines = plain(view(snapshot(60, 120, node="web2", nodes=rows), None)).splitlines()
    assert lines[-4:] == [
        "nodes:",
        "  node         subscribers  behind  delivered  heard          busiest  slowest",
        "  web1         5            1       1,234      2 s ago        a b c    192.0.2.1 by 30",
        "  web2 (this)  5            1       1,234      1 min 1 s ago",
    ]
    assert "nodes:" not in plain(view(snapshot(60, 120, nodes=rows[:1]), None))


def test_a_terminal_is_not_steered() -> None:
    """Nothing that a client chose reaches it but printable characters, drawn or not."""
    evil = "\x1b[2J[red]\n"
    rows = [{"topic": evil, "subscribers": 1, "published": 1}]
    slow = [{"client": evil, "topics": [evil], "behind": 1, "since": 0}]
    nodes = [node(evil, topics=rows, slow=slow), node("b")]
    shown = view(snapshot(1, 1, topics=rows, slow=slow, nodes=nodes), None)
    console = Console(file=io.StringIO(), width=150, force_terminal=False)
    console.print(draw(shown, evil.replace("\n", "").replace("\x1b", ""), height=40))
    for text in (plain(shown), console.file.getvalue()):  # type: ignore[attr-defined]  # it is a StringIO
        assert "\x1b" not in text
        assert text.count("?[2J[red]") == 6


def test_rows_have_a_limit() -> None:
    """A server that isn't a hub may send any number of rows; each costs a look at all of them."""
    rows = [{"topic": str(n), "published": 1, "client": str(n)} for n in range(10_000)]
    now: Snapshot = {"uptime": 2, "topics": rows, "slow": rows}
    shown = view(now, {**now, "uptime": 1})
    assert (len(shown.topics), len(shown.slow)) == (200, 200)


@pytest.mark.parametrize("height", [1, 20, 40])
def test_tables_fit_the_terminal(height: int) -> None:
    """No more rows are drawn than there is room for, but one of each table."""
    rows = [{"topic": f"t{n}", "subscribers": n, "published": n} for n in range(50)]
    slow = [{"client": f"c{n}", "topics": [], "behind": n, "since": 0} for n in range(50)]
    nodes = [node(f"n{n}") for n in range(50)]
    shown = view(snapshot(1, 1, topics=rows, slow=slow, nodes=nodes), None)
    console = Console(file=io.StringIO(), width=100)
    console.print(draw(shown, "http://localhost:3000", height=height))
    text: str = console.file.getvalue()  # type: ignore[attr-defined]  # it is a StringIO
    assert len(text.splitlines()) <= max(height, 17)
    assert "n0" in text
    assert "t0" in text
    assert "c0" in text
    assert "h3trio 1.2, up 1 s, http://localhost:3000" in text


values: st.SearchStrategy[object] = st.sampled_from(
    [None, True, -1, 0, 2.5, 10**400, 1e300, float("nan"), "\n", [], [[]], [[1]], [[1, 2]], {}]
)
NAMES = sorted(
    {*snapshot(1, 1), "published", "limits", "failure", "publish", "buckets", "count", "nodes"}
)
objects = st.dictionaries(st.sampled_from(NAMES), values, max_size=4)
snapshots = st.dictionaries(
    st.sampled_from(NAMES),
    values | objects | st.lists(objects, max_size=2) | st.fixed_dictionaries({"publish": objects}),
)


@given(snapshots, snapshots)
def test_any_object_is_shown(now: Snapshot, before: Snapshot) -> None:
    """A snapshot that no hub of ours sends is no reason to fail."""
    assert plain(view(now, before)).startswith("h3trio ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (90_000, "1 d 1 h")],
)
def test_durations(seconds: float, text: str) -> None:
    """In the two largest units."""
    assert duration(seconds) == text


def test_amounts() -> None:
    """Bytes in units of 1000, latencies with three digits."""
    assert [amount(size) for size in (0, 999, 1500, 2e6, 3e9, 4e15)] == [
        *("0 B", "999 B", "1.5 kB", "2 MB", "3 GB", "4,000.0 TB")
    ]
    assert [milliseconds(found) for found in (0.00001234, 0.5, 2.5)] == [
        *("0.0123 ms", "500 ms", "2.5 s")
    ]
