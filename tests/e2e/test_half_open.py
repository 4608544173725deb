"""Clients whose network is gone: no FIN, no reset, nothing; the server finds out in time.

The client stands in a network namespace of its own, at the other end of a virtual cable that is
then unplugged.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Final

import pytest
import trio
from e2e.cable import ip, plugged_cable
from e2e.process import PATIENCE, ServeProcess, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from e2e.cable import Cable

HEARTBEAT: Final = 1.0
WRITE_TIMEOUT: Final = 2.0
# The kernel looks at a timeout when it would send once more, each time after twice as long.
SLACK: Final = 4.0

APP: Final = """
import logging
import trio
from h3trio import App

app = App()
log = logging.getLogger("app").info

@app.get("/:kind")
async def events(event):
    event.on_close(lambda closing: log("closed: %s %s", event.params["kind"], closing.reason))
    async with event.start_sse() as writer:
        while event.params["kind"] != "idle":
            await writer.send("x" * 1000)
            await trio.sleep(0 if event.params["kind"] == "flood" else 0.1)
        await trio.sleep_forever()
"""

# Reads what comes, and says so once.
CLIENT: Final = """
import socket, sys
stream = socket.create_connection((sys.argv[1], int(sys.argv[2])))
stream.send(b"GET /%s HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n" % sys.argv[3].encode())
print(stream.recv(100), flush=True)
while stream.recv(10000):
    pass
"""


@pytest.fixture
def cable() -> Iterator[Cable]:
    """Make a namespace and a cable into it."""
    with plugged_cable() as found:
        yield found


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.parametrize("end", ["here", "there"])
async def test_a_cable_is_unplugged(
    nursery: trio.Nursery, tmp_path: Path, cable: Cable, end: str
) -> None:
    """Busy, flooded and idle streams end within heartbeat and write timeout, others go on."""
    (tmp_path / "app.py").write_text(APP)
    options = ("--host", cable.address, "--heartbeat", str(HEARTBEAT))
    served = await ServeProcess.start(
        nursery, "app:app", *options, "--write-timeout", str(WRITE_TIMEOUT), folder=tmp_path
    )
    kinds = ("busy", "flood", "idle")
    for kind in kinds:
        await start_client(nursery, cable, served, kind)
    if end == "here":
        cable.unplug()
    else:
        ip("-n", cable.namespace, "link", "set", f"{cable.namespace}b", "down")
    since = trio.current_time()
    for kind in kinds:
        line = await served.wait_line(f"closed: {kind} ")
        assert re.search(r"(connection_lost|slow)$", line), line
    assert trio.current_time() - since < HEARTBEAT + WRITE_TIMEOUT + SLACK
    answer = await fetch(served.port, host=cable.address, target="/nowhere/else")
    assert answer.status == 404
    assert await served.stop() == 0
    nursery.cancel_scope.cancel()  # the clients hear nothing of all this


async def start_client(
    nursery: trio.Nursery, cable: Cable, served: ServeProcess, kind: str
) -> None:
    """Start a client in the namespace; return when it has read the beginning of its stream."""
    inside = [*cable.inside, sys.executable, "-c", CLIENT]
    command = [*inside, cable.address, str(served.port), kind]
    run = partial(trio.run_process, command, stdout=subprocess.PIPE, check=False)
    process = await nursery.start(run)
    with trio.fail_after(PATIENCE):
        assert b"200 OK" in await process.stdout.receive_some()
