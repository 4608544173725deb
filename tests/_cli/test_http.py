"""The run of a command to its status, and the client that commands ask with.

The commands as processes, with a hub: tests/e2e/test_cli_publish_tail.py.
"""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from h3trio._cli import http
from h3trio._cli.common import CommandError
from h3trio._cli.main import main
from h3trio.client import LostError, StatusError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    Fail = Callable[[BaseException], Awaitable[None]]


# -- the client


async def test_the_token_is_sent() -> None:
    """As a bearer token, and only if there is one."""
    async with http.open_client(timeout=1, token="abc") as client:  # noqa: S106 - no secret
        assert client.headers["authorization"] == "Bearer abc"
    async with http.open_client(timeout=1) as client:
        assert "authorization" not in client.headers


@pytest.mark.parametrize("command", ["publish", "tail", "top", "doctor"])
def test_a_bad_token_is_not_shown(refused: Callable[..., str], command: str) -> None:
    """The line says what is wrong, but not with what."""
    for argv, environ in ((["--token", "s cret"], {}), ([], {"H3TRIO_TOKEN": "s cret"})):
        line = refused(command, "http://h", *argv, **environ)
        assert "visible ASCII" in line
        assert "cret" not in line


async def test_ends_when_nobody_reads(nursery: trio.Nursery) -> None:
    """A pipe whose reader leaves is noticed though nothing is written."""
    reader, writer = os.pipe()
    broken = trio.Event()

    async def watch() -> None:
        with pytest.raises(BrokenPipeError):
            await http.end_with_reader(writer)
        broken.set()

    nursery.start_soon(watch)
    await wait_all_tasks_blocked(0.01)
    assert not broken.is_set()
    os.close(reader)
    await broken.wait()
    os.close(writer)


async def test_files_have_no_reader(tmp_path: Path) -> None:
    """A file that is no pipe can't be left by its reader."""
    fd = os.open(tmp_path / "output", os.O_CREAT | os.O_WRONLY)
    await http.end_with_reader(fd)
    os.close(fd)


# -- statuses


@pytest.mark.parametrize("command", ["publish", "tail", "top"])
def test_help_says_what_statuses_mean(capsys: pytest.CaptureFixture[str], command: str) -> None:
    """The help of these commands lists the exit statuses."""
    with pytest.raises(SystemExit):
        main([command, "--help"], environ={})
    text = " ".join(capsys.readouterr().out.split())
    assert "exit status: 0 done; 1 the server refused" in text
    assert "2 the arguments are wrong; 130 interrupted" in text


SELF_SIGNED = "can't reach x: certificate verify failed: self-signed certificate"


async def raising(error: BaseException) -> None:
    """Fail."""
    await trio.lowlevel.checkpoint()
    raise error


async def raising_in_nursery(error: BaseException) -> None:
    """Fail in a task."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raising, error)


@pytest.mark.parametrize("fail", [raising, raising_in_nursery])
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (CommandError("a\nb"), (1, "h3trio: error: a b\n")),
        (LostError("lost"), (1, "h3trio: error: lost\n")),
        (ExceptionGroup("", [CommandError("x"), CommandError("y")]), (1, "h3trio: error: x\n")),
        (BrokenPipeError(), (141, "")),
        (LostError(SELF_SIGNED), (1, f"h3trio: error: {SELF_SIGNED}; --ca-file FILE trusts it\n")),
        (
            StatusError(502, headers={"content-type": "text/html"}, text="<html>"),
            (1, "h3trio: error: the server answered 502: Bad Gateway\n"),
        ),
    ],
)
def test_statuses(
    capsys: pytest.CaptureFixture[str],
    fail: Fail,
    error: BaseException,
    expected: tuple[int, str],
) -> None:
    """The end of a command is its status and at most one line, from tasks too."""
    status = http.run_command(partial(fail, error))
    assert (status, capsys.readouterr().err) == expected


@pytest.mark.parametrize("fail", [raising, raising_in_nursery])
def test_bugs_are_not_hidden(fail: Fail) -> None:
    """An error of any other kind isn't turned into a status."""
    with pytest.RaisesGroup(RuntimeError, allow_unwrapped=True, flatten_subgroups=True):
        http.run_command(partial(fail, RuntimeError("bug")))


def test_success_is_status_zero() -> None:
    """A command that returns has done its work."""
    assert http.run_command(trio.lowlevel.checkpoint) == 0
