"""`kill -9` in the middle of 200 runs with 400 viewers: each ends with all, once, and one end."""

from __future__ import annotations

import json
import signal
from collections import Counter
from pathlib import Path

import h11
import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, connect, fetch

from h3trio import SSEEvent, SSEParser

RUNS = 200
VIEWERS = 2
TOKENS = 10_000
SHORT = 15
"""Tokens of each tenth run, which has ended by the time of the kill."""
ENDS = ("done", "failed", "stopped", "interrupted")
SITE = Path(__file__).with_name("runs_site.py")


class Viewer:
    """A client that comes back with its last id until it has seen an end."""

    def __init__(self, id: str) -> None:
        self.id = id
        self.events: list[SSEEvent] = []
        self.connections = 0
        self.has_many = trio.Event()

    @property
    def last_event_id(self) -> str:
        """The id of the last event."""
        return self.events[-1].id or "" if self.events else ""

    async def run(self, port: int) -> None:
        """Watch to the end, over as many connections as it takes."""
        while not (self.events and self.events[-1].event in ENDS):
            try:
                async with await connect(port) as connection:
                    headers = {"Accept": "text/event-stream"}
                    if self.last_event_id:
                        headers["Last-Event-ID"] = self.last_event_id
                    head = await connection.ask(target=f"/runs/{self.id}", headers=headers)
                    assert head.status_code == 200, head
                    self.connections += 1
                    parser = SSEParser(last_event_id=self.last_event_id)
                    while piece := await connection.piece():
                        self.events += parser.feed(piece)
                        if len(self.events) > SHORT:
                            self.has_many.set()
            except (OSError, h11.RemoteProtocolError, trio.BrokenResourceError):
                await trio.sleep(0.1)  # cut off, or nobody listens


async def start_run(port: int, number: int) -> str:
    """Start a run; return its id."""
    tokens = SHORT if number % 10 == 0 else TOKENS
    headers = {"Idempotency-Key": f"{number}"}
    answer = await fetch(port, "POST", "/runs", headers=headers, body=b"%d" % tokens)
    assert answer.status == 202, answer
    return str(json.loads(answer.body)["id"])


@pytest.mark.slow
@pytest.mark.alone
async def test_a_kill_in_the_middle_of_runs(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Behind the restart each viewer has what was acknowledged, in order, once, and one end."""
    environ = {"RUNS_DB": str(tmp_path / "runs.db"), "RUNS_LOG": str(tmp_path / "acknowledged")}
    site = f"{SITE}:app"
    served = await ServeProcess.start(nursery, site, environ=environ)
    port = served.port
    ids = [await start_run(port, number) for number in range(RUNS)]
    viewers = [Viewer(id) for id in ids for _ in range(VIEWERS)]
    with trio.fail_after(2 * PATIENCE):
        async with trio.open_nursery() as watching:
            for viewer in viewers:
                watching.start_soon(viewer.run, port)
            for viewer in viewers:
                await viewer.has_many.wait()
            served.send_signal(signal.SIGKILL)
            await served.wait()
            again = await ServeProcess.start(nursery, site, "--port", str(port), environ=environ)
            # Who tries again joins what there is.
            for number in range(1, 9):
                assert await start_run_again(port, number) == ids[number]
    acknowledged = Counter[str]()
    for line in (tmp_path / "acknowledged").read_text().splitlines():
        id, token = line.split()
        assert acknowledged[id] == int(token), "sent in order"
        acknowledged[id] += 1
    check(viewers, acknowledged)
    ended = next(viewer for viewer in viewers if viewer.events[-1].event == "interrupted")
    headers = {"Last-Event-ID": ended.last_event_id, "Accept": "text/event-stream"}
    assert (await fetch(port, target=f"/runs/{ended.id}", headers=headers)).status == 204
    assert await again.stop() == 0


async def start_run_again(port: int, number: int) -> str:
    """Start a run that is there, and has ended; return its id."""
    answer = await fetch(
        port, "POST", "/runs", headers={"Idempotency-Key": f"{number}"}, body=b"%d" % TOKENS
    )
    assert answer.status == 200, answer
    told = json.loads(answer.body)
    assert told["status"] == "interrupted"
    return str(told["id"])


def check(viewers: list[Viewer], acknowledged: Counter[str]) -> None:
    """Hold what viewers saw against what was acknowledged."""
    seen: dict[str, list[SSEEvent]] = {}
    for viewer in viewers:
        *tokens, end = viewer.events
        assert [event.data for event in tokens] == [f"{n}" for n in range(len(tokens))]
        assert len(tokens) >= acknowledged[viewer.id]
        assert end.event == ("done" if len(tokens) == SHORT else "interrupted")
        assert viewer.events == seen.setdefault(viewer.id, viewer.events), "all see the same"
    assert Counter(events[-1].event for events in seen.values()) == {
        "done": RUNS // 10,
        "interrupted": RUNS - RUNS // 10,
    }
    assert sum(viewer.connections == 2 for viewer in viewers) == 0.9 * RUNS * VIEWERS
