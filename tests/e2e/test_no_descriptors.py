"""Out of descriptors, with clients at the door: whoever is in is served as if nothing were."""

from __future__ import annotations

import re
import resource
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.process import PATIENCE, connect
from e2e.vitals import complaints, serve_hub, vitals, wait_at_rest

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.process import Connection

STREAMS: Final = 50
WAITING: Final = 200
EVENTS: Final = 200


async def follow(subscribed: Connection) -> None:
    """Read all events, each in its turn."""
    body = await subscribed.until(b"<%d>" % (EVENTS - 1))
    assert [int(number) for number in re.findall(rb"<(\d+)>", body)] == list(range(EVENTS))


@pytest.mark.slow
@pytest.mark.alone
async def test_streams_go_on(nursery: trio.Nursery, tmp_path: Path) -> None:
    """Every event reaches every stream, and those who waited are served when there is room."""
    served = await serve_hub(nursery, tmp_path, "--linger-timeout", "0.2")
    baseline = await vitals(served)
    _soft, hard = resource.prlimit(served.pid, resource.RLIMIT_NOFILE)
    async with AsyncExitStack() as stack:
        publishing = await stack.enter_async_context(await connect(served.port))
        await publishing.ask(target="/healthz/ready")
        await publishing.piece()
        streams = [
            await stack.enter_async_context(await connect(served.port)) for _ in range(STREAMS)
        ]
        for stream in streams:
            await stream.ask(target="/events/a")
            await stream.until(b"retry:")
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (3, hard))
        waiting = [
            await stack.enter_async_context(await connect(served.port)) for _ in range(WAITING)
        ]
        await served.wait_line("can't accept connections for now: Too many open files")
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as following:
                for stream in streams:
                    following.start_soon(follow, stream)
                for number in range(EVENTS):
                    head = await publishing.ask("POST", "/events/a", body=b"<%d>" % number)
                    assert head.status_code == 200
                    await publishing.piece()
        resource.prlimit(served.pid, resource.RLIMIT_NOFILE, (hard, hard))
        for connection in waiting:
            assert (await connection.ask(target="/healthz/ready")).status_code == 200
    await wait_at_rest(served, baseline)
    assert all("can't accept connections for now" in line for line in complaints(served))
    assert await served.stop() == 0
