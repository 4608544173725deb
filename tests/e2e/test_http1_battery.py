"""The battery of conformance/http1_battery.py over real sockets, against a live server.

One process serves all rows, each on a connection of its own and with a request behind it in the
same write, as a proxy that was deceived would send it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import trio
from conformance.http1_battery import CANARY, ROWS, Row
from e2e.process import PATIENCE, ServeProcess

if TYPE_CHECKING:
    from pathlib import Path

APP = """
import logging
log = logging.getLogger("app").info

async def app(event):
    log("handles %s", event.path)
    await event.body()
    return event.path
"""


async def exchange(port: int, sent: bytes) -> tuple[tuple[int, ...], bytes]:
    """Send bytes on a new connection; return the statuses, and all that came until EOF."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    received = b""
    async with stream:
        with trio.fail_after(PATIENCE):
            await stream.send_all(sent)
            while data := await stream.receive_some():
                received += data
    found = re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)
    return tuple(map(int, found)), received


def expected(row: Row) -> tuple[int, ...]:
    """Return the statuses that a row is answered with, and the request behind it."""
    return row.statuses if row.closes else (*row.statuses, 200)


async def test_every_row(nursery: trio.Nursery, tmp_path: Path) -> None:
    """A row is answered as it says and then closed; what is behind a bad one reaches no handler."""
    (tmp_path / "some_app.py").write_text(APP)
    served = await ServeProcess.start(nursery, f"{tmp_path}/some_app.py:app")
    offences = []
    for row in ROWS:
        # Behind what has no end, a request would only be more of it.
        behind = b"" if row.name.endswith("without end") else CANARY
        statuses, received = await exchange(served.port, row.sent + behind)
        if statuses != expected(row) or (b"/canary" in received) == row.closes:
            offences.append((row.name, row.rule, statuses, received[-200:]))
    assert offences == []
    assert await served.stop() == 0
    handled = sum("handles /canary" in line for line in served.log)
    assert handled == sum(not row.closes for row in ROWS)
    assert not any("handles /evil" in line for line in served.log)
