"""`top` up to the socket: its arguments. As a process: tests/e2e/test_monitoring.py."""

from __future__ import annotations

import sys
from argparse import Namespace
from typing import TYPE_CHECKING

import httpx2

from h3trio._cli.top.command import Watching

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


WRONG = [
    (("ftp://h",), "argument URL: 'ftp://h' is not of the form http://"),
    (("http://h/?a=b",), "has a query or a fragment: give the hub's own address"),
    (("--once", "--interval", "2"), "--interval is the time between two snapshots: --once prin"),
    (("--interval", "0.4"), "argument --interval: '0.4' is not from 0.5s to 60s"),
    (("--interval", "61"), "argument --interval: '61' is not from 0.5s to 60s"),
]


def test_wrong_arguments(refused: Callable[..., str], subtests: pytest.Subtests) -> None:
    """Arguments that are wrong are one line, and status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused("top", *argv)


async def test_the_address_is_shown_without_its_password() -> None:
    """A glance over a shoulder, or a screenshot, shows the name of the hub and no secret."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"].startswith("Basic ")
        fields = {"Content-Type": "text/event-stream"}
        return httpx2.Response(200, headers=fields, text='event: statistics\ndata: {"hub":{}}\n\n')

    states: list[str] = []
    url = "http://me:secret@hub:3000"
    arguments = Namespace(url=url, token=None, once=True, interval=1.0)
    watching = Watching(arguments, is_drawn=True)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        await watching.watch(client, lambda _shown, state: states.append(state))
    assert states == ["http://hub:3000"]


def test_without_rich(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it says what to install, and what does without."""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "pip install '.[top]'; or ask with --once" in refused("top")
