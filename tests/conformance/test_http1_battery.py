"""The battery of http1_battery.py against a connection in memory, and its framing in any pieces."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import pytest
from conformance.http1_battery import CANARY, ROWS, Row
from conformance.http1_driver import JUNK, drive, splits
from helpers import connect
from trio.testing import wait_all_tasks_blocked

if TYPE_CHECKING:
    import trio

    from h3trio import H3Event

NAMES = [row.name for row in ROWS]

# Two ways to cut 60,000 bytes bytewise would be most of the run.
MAX_CUT = 3000

each_row = pytest.mark.parametrize("row", ROWS, ids=NAMES)


def test_names_are_unique() -> None:
    """Each row has a name of its own and a rule."""
    assert [name for name, count in Counter(NAMES).items() if count > 1] == []
    assert all(row.rule for row in ROWS)


@each_row
async def test_row(nursery: trio.Nursery, row: Row) -> None:
    """A row is answered as it says, and a request behind it only if the connection stays open."""
    handled = []

    async def handler(event: H3Event) -> str:
        handled.append(event.path)
        await event.body()
        return event.path

    client = connect(nursery, handler)
    await client.send(row.sent)
    await wait_all_tasks_blocked()
    await client.send(CANARY)
    answers = [await client.response() for _ in row.statuses]
    last = answers[-1][0].headers.get("connection")
    assert tuple(head.status for head, _ in answers) == row.statuses, answers
    assert last == ("close" if row.closes else None)
    if not row.closes:
        canary, body = await client.response()
        assert (canary.status, body) == (200, b"/canary")
    assert await client.rest() == b""
    assert "/evil" not in handled
    assert ("/canary" in handled) == (not row.closes)
    refused = [status for status in row.statuses if status != 200]
    assert list(client.state.counts.refusals.elements()) == refused


@pytest.mark.slow
@pytest.mark.parametrize("behind", [b"", CANARY, JUNK], ids=["alone", "request", "junk"])
def test_rows_in_any_pieces(behind: bytes) -> None:
    """A row means the same however its bytes are cut, and whatever comes behind."""
    for row in ROWS:
        sent = row.sent + behind
        expected = drive([sent])
        answered = row.statuses.count(200)
        if row.closes:
            assert len(expected.requests) == answered, row.name
        assert len(expected.requests) >= answered, row.name
        for name, pieces in splits(sent) if len(sent) < MAX_CUT else ():
            assert drive(pieces) == expected, (row.name, name)
