"""Fixtures for the tests of the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from h3trio._cli.main import main

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command with arguments that are wrong: `refused("tail", "t", H3TRIO_URL="x")`.

    Returns its one line on standard error; its status is 2.
    """

    def run(*argv: str, **environ: str) -> str:
        with pytest.raises(SystemExit) as caught:
            main(argv, environ=environ)
        out, err = capsys.readouterr()
        assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
        assert err.startswith("h3trio: error: ")
        return err.removeprefix("h3trio: error: ").rstrip("\n")

    return run
