"""`serve --reload`, as far as it goes without a process: see tests/e2e/test_reload.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from h3trio._cli.main import main
from h3trio._cli.serve.reload import child_command, watched


@pytest.mark.parametrize(
    "start", [["python", "-X", "dev", "-m", "h3trio"], ["/usr/bin/python3", "/bin/h3trio"]]
)
def test_the_child_has_the_parents_arguments(start: list[str]) -> None:
    """It is started as the parent was, by this interpreter, without the flag, drained quickly."""
    command = child_command([*start, "serve", "--reload", "a.py:app", "--port", "1"])
    assert command == [
        *(sys.executable, *start[1:], "serve", "a.py:app", "--port", "1"),
        *("--drain-soft", "0", "--drain-hard", "1"),
    ]


def test_what_is_watched() -> None:
    """The current folder, and that of the app's file where it is another."""
    here = Path.cwd()
    assert watched("some.module:app") == [here]
    assert watched("app.py:app") == [here]
    assert watched("/elsewhere/app.py:app") == [here, Path("/elsewhere")]


def test_the_hub_is_not_reloaded(capsys: pytest.CaptureFixture[str]) -> None:
    """Without an app there is nothing to watch, and that is said in one line."""
    with pytest.raises(SystemExit) as caught:
        main(["serve", "--reload"], environ={})
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("h3trio: error: --reload needs an app")
