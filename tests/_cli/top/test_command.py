"""`top` up to the socket: its arguments. As a process: tests/e2e/test_monitoring.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, final

import httpx2
import pytest

from h3trio._cli import http as _cli_http
from h3trio._cli.main import main
from h3trio._cli.top.command import Job, Watching

if TYPE_CHECKING:
    from h3trio._cli.top.view import View


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("ftp://h",), "argument URL: 'ftp://h' is not of the form http://"),
        (("http://h/?a=b",), "has a query or a fragment: give the hub's own address"),
        (("--interval", "0.4"), "argument --interval: '0.4' is not from 0.5 to 60"),
        (("--interval", "61"), "argument --interval: '61' is not from 0.5 to 60"),
        (("--token", "a b"), "a token is visible ASCII"),
    ],
)
def test_wrong_arguments(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    """Arguments that are wrong are one line, and status 2."""
    with pytest.raises(SystemExit) as caught:
        main(["top", *argv], environ={})
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("h3trio: error: ")
    assert message in err


@final
class Shown:
    """A screen that keeps what it is to show beside a view."""

    def __init__(self) -> None:
        self.states: list[str] = []

    def __enter__(self) -> object:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, shown: View, state: str) -> None:
        """Keep it."""
        assert shown.title
        self.states.append(state)


async def test_the_address_is_shown_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others see over a shoulder, or in a screenshot, names the hub and no secret."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["authorization"].startswith("Basic ")
        fields = {"Content-Type": "text/event-stream"}
        return httpx2.Response(200, headers=fields, text='event: statistics\ndata: {"hub":{}}\n\n')

    def open_client(**_: object) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(transport=httpx2.MockTransport(answer))

    monkeypatch.setattr(_cli_http, "open_client", open_client)
    screen = Shown()
    job = Job(url="http://me:secret@hub:3000", token=None, once=True, interval=1)
    await Watching(job, screen).run()
    assert screen.states == ["http://hub:3000"]


def test_without_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it says what to install, and what does without."""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit) as caught:
        main(["top"], environ={})
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "pip install 'h3trio[top]'; or ask with --once" in err
