"""`top` up to the socket: its arguments. As a process: tests/e2e/test_monitoring.py."""

from __future__ import annotations

import sys

import pytest

from h3trio._cli import main


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


def test_without_rich(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal it says what to install, and what does without."""
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with pytest.raises(SystemExit) as caught:
        main(["top"], environ={})
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert "pip install 'h3trio[top]'; or ask with --once" in err
