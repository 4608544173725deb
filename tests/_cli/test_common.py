"""What several commands take."""

from __future__ import annotations

import pytest

from h3trio._cli.common import counted, visible
from h3trio._cli.http import open_client
from h3trio._cli.main import main


def test_counts_begin_at_one() -> None:
    """One is the least."""
    assert counted("1") == 1
    for wrong in ("0", "-1", "x"):
        with pytest.raises(ValueError, match=r"at least 1|whole number"):
            counted(wrong)


def test_visible_ascii() -> None:
    """What a header can hold, and not nothing."""
    assert visible("a.b-c") == "a.b-c"
    for wrong in ("", "a b", "é", "a\n"):
        with pytest.raises(ValueError, match="visible ASCII"):
            visible(wrong)


async def test_the_token_is_sent() -> None:
    """As a bearer token, and only if there is one."""
    async with open_client(timeout=1, follow_redirects=False, token="abc") as client:  # noqa: S106 - no secret
        assert client.headers["authorization"] == "Bearer abc"
    async with open_client(timeout=1, follow_redirects=False) as client:
        assert "authorization" not in client.headers


@pytest.mark.parametrize("command", ["publish", "tail"])
def test_a_bad_token_is_not_shown(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The line says what is wrong, but not with what."""
    for argv, environ in ((["--token", "s cret"], {}), ([], {"H3TRIO_TOKEN": "s cret"})):
        with pytest.raises(SystemExit) as caught:
            main([command, "news", *argv], environ=environ)
        err = capsys.readouterr().err
        assert caught.value.code == 2
        assert "visible ASCII" in err
        assert "cret" not in err
