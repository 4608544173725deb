"""Read a hub that other processes share, and end somebody's streams on all of them; without HTTP.

    redis-server --port 6380 &
    python examples/shared_hub.py read &
    python examples/shared_hub.py publish hello
    python examples/shared_hub.py kick alice

It needs `pip install '.[redis]'` and a Redis. Each command is a process with a hub of its own, and
so are the nodes that `python -m h3trio serve --store redis://localhost:6380` starts: all have the
same events. `read` ends when it is kicked. Redis keeps the newest 100,000 events; who wants older
ones is told by `reset`. The variable `H3TRIO_STORE` names another Redis.
"""

from __future__ import annotations

import os
import sys

import trio

from h3trio.hub import Hub, RedisHistory

STORE = os.environ.get("H3TRIO_STORE", "redis://localhost:6380")


async def read(hub: Hub) -> None:
    """Print what comes, until somebody ends it."""
    async with hub.subscription(["news"], info={"subject": "alice"}) as events:
        print("reading", flush=True)
        async for event in events:
            print(event.id, event.data, flush=True)


async def publish(hub: Hub, data: str) -> None:
    """Publish one event."""
    print(await hub.publish(data, topics=["news"]))


async def kick(hub: Hub, subject: str) -> None:
    """End the streams of one user on all hubs."""
    kicked = await hub.kick_where(subject=subject)
    print(f"ended: {kicked.count}; nodes that didn't answer: {len(kicked.silent)}")


async def main() -> None:
    """Run a hub on the store for one command."""
    async with Hub(RedisHistory(STORE, open_wait=30)) as hub:
        match sys.argv[1:]:
            case ["read"]:
                await read(hub)
            case ["publish", data]:
                await publish(hub, data)
            case ["kick", subject]:
                await kick(hub, subject)
            case _:
                sys.exit(__doc__)


if __name__ == "__main__":
    trio.run(main)
