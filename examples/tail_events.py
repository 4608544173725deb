"""A client that reads a stream for ever, and goes on where it was when it is started again.

    python -m h3trio serve examples/sse_counter.py:app
    python examples/tail_events.py http://localhost:3000/events

The id of the last event is kept in last_event_id.txt. A hub has what was missed as long as it keeps
it (10,000 events by default), and says by an event of type `reset` if that is too late.
Needs httpx2: pip install '.[client]'.
"""

from __future__ import annotations

import sys
from functools import partial

import trio

from h3trio.client import EventSource, StateChange


def report(change: StateChange) -> None:
    """Say what became of the connection."""
    if change.delay is None:
        print(f"{change.state}: {change.url}", file=sys.stderr)
    else:
        print(f"{change.error}; again in {change.delay:.1f} s", file=sys.stderr)


async def tail(url: str, cursor: trio.Path) -> None:
    """Print each event, and keep its id once that is done."""
    last_id = await cursor.read_text(encoding="utf-8") if await cursor.exists() else None
    async with EventSource(url, last_event_id=last_id, on_state_change=report) as source:
        async for event in source:
            print(event.data, flush=True)
            await cursor.write_text(source.last_event_id, encoding="utf-8")


async def ask(url: str, prompt: bytes, token: str) -> None:
    """Print a language model's answer: one POST, one stream, no second attempt."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with EventSource(
        url, method="POST", content=prompt, headers=headers, reconnect=False, read_timeout=120
    ) as source:
        async for event in source:
            print(event.data)


if __name__ == "__main__":
    trio.run(partial(tail, sys.argv[1], trio.Path("last_event_id.txt")))
