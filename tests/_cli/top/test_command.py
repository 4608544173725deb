"""`top` up to the socket: its arguments. As a process: tests/e2e/test_monitoring.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, final

import httpx2

from h3trio._cli.top.command import Watching

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from h3trio._cli.top.view import TopView


WRONG = [
    (("ftp://h",), "argument URL: 'ftp://h' is not of the form http://"),
    (("http://h/?a=b",), "has a query or a fragment: give the hub's own address"),
    (("--interval", "0.4"), "argument --interval: '0.4' is not from 0.5 to 60"),
    (("--interval", "61"), "argument --interval: '61' is not from 0.5 to 60"),
]


def test_wrong_arguments(refused: Callable[..., str], subtests: pytest.Subtests) -> None:
    """Arguments that are wrong are one line, and status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused("top", *argv)


@final
class Shown:
    """A screen that keeps what it is to show beside a view."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, shown: TopView, state: str) -> None:
        """Keep it."""
        assert shown.title
        self.states.append(state)


async def test_the_address_is_shown_without_its_password() -> None:
    """A glance over a shoulder, or a screenshot, shows the name of the hub and no secret."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"].startswith("Basic ")
        fields = {"Content-Type": "text/event-stream"}
        return httpx2.Response(200, headers=fields, text='event: statistics\ndata: {"hub":{}}\n\n')

    screen = Shown()
    watching = Watching("http://me:secret@hub:3000", screen, token=None, once=True, interval=1)
    async with httpx2.AsyncClient(transport=httpx2.MockTransport(answer)) as client:
        await watching.watch(client)
    assert screen.states == ["http://hub:3000"]


def test_without_rich(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it says what to install, and what does without."""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "pip install 'h3trio[top]'; or ask with --once" in refused("top")
