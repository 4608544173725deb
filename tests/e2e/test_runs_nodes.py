"""Runs of two processes that share a Redis: one that is stopped beyond its lease, and wakes."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio
from e2e.process import PATIENCE, ServeProcess, fetch
from e2e.redis_server import redis_server

from h3trio import SSEParser

if TYPE_CHECKING:
    from h3trio import SSEEvent

SITE = Path(__file__).with_name("runs_site.py")
LEASE = 2.0
WATCHING = {"Accept": "text/event-stream"}


async def all_of(served: ServeProcess, id: str) -> list[SSEEvent]:
    """Watch a run to its end."""
    with trio.fail_after(PATIENCE):
        answer = await fetch(served.port, target=f"/runs/{id}", headers=WATCHING)
    assert (answer.status, answer.is_whole) == (200, True)
    return SSEParser().feed(answer.body)


@pytest.mark.slow
async def test_a_node_that_is_stopped_beyond_its_lease(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """Its run is interrupted by the other node; awake again, it publishes nothing more of it."""
    async with redis_server(tmp_path / "redis") as redis:
        nodes: list[ServeProcess] = []
        for name in ("one", "other"):
            environ = {
                "RUNS_DB": redis.url,
                "RUNS_LOG": str(tmp_path / name),
                "RUNS_LEASE": str(LEASE),
            }
            nodes.append(await ServeProcess.start(nursery, f"{SITE}:app", environ=environ))
        one, other = nodes
        key = {"Idempotency-Key": "k"}
        answer = await fetch(one.port, "POST", "/runs", headers=key, body=b"100000")
        assert answer.status == 202, answer
        id = json.loads(answer.body)["id"]
        # The key is known on the other node at once, and the run is watched there.
        joined = await fetch(other.port, "POST", "/runs", headers=key, body=b"100000")
        assert json.loads(joined.body)["id"] == id
        await trio.sleep(1)
        one.send_signal(signal.SIGSTOP)
        seen = await all_of(other, id)
        assert seen[-1].event == "interrupted"
        one.send_signal(signal.SIGCONT)
        await trio.sleep(2 * LEASE)
        assert await all_of(other, id) == seen
        assert await all_of(one, id) == seen
        numbers = [event.data for event in seen[:-1]]
        assert numbers == [f"{n}" for n in range(len(numbers))]
        acknowledged = (tmp_path / "one").read_text().splitlines()
        assert len(acknowledged) <= len(numbers)
        # The process that woke works on.
        again = await fetch(one.port, "POST", "/runs", headers={"Idempotency-Key": "l"}, body=b"3")
        assert [e.data for e in await all_of(other, json.loads(again.body)["id"])][:3] == [
            *("0", "1", "2")
        ]
        for node in nodes:
            assert await node.stop() == 0
