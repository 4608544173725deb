"""The command line as a whole: commands, errors of one line, and where values come from."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

import h3trio
from h3trio._cli.main import COMMANDS, load, main

if TYPE_CHECKING:
    from collections.abc import Callable


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints name and version."""
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0
    assert capsys.readouterr() == (f"h3trio {h3trio.__version__}\n", "")


@pytest.mark.parametrize("command", [(), *((name,) for name in COMMANDS)])
def test_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """`--help` explains itself, whatever the environment holds."""
    with pytest.raises(SystemExit) as caught:
        main([*command, "--help"], environ={"H3TRIO_PORT": "nonsense"})
    assert caught.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: {' '.join(('h3trio', *command))} ")
    assert err == ""


def test_help_imports_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """The list of commands needs none of their modules."""
    modules = [load(name).__name__ for name in COMMANDS]
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(SystemExit):
        main(["--help"])
    assert not sys.modules.keys() & set(modules)


WRONG = [
    (("fly",), "invalid choice: 'fly'"),
    (("serve", "--frobnicate"), "unrecognized arguments: --frobnicate"),
    (("serve", "--port"), "argument --port: expected one argument"),
    (("serve", "--port", "x"), "argument --port: 'x' is not a port (0 to 65535)"),
    (("serve", "--port", "65536"), "argument --port: '65536' is not a port (0 to 65535)"),
    (("serve", "--port", "-1"), "argument --port: '-1' is not a port (0 to 65535)"),
    (("serve", "--log-level", "loud"), "argument --log-level: 'loud' is not a log level"),
    (("serve", "--lease", "0"), "argument --lease: lease must be positive, not 0.0"),
    (("serve", "a:b", "c:d"), "unrecognized arguments: c:d"),
]


def test_bad_arguments(refused: Callable[..., str], subtests: pytest.Subtests) -> None:
    """Wrong arguments are one line that says what is wrong, and status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused(*argv)


def test_no_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    """Without arguments the commands are listed."""
    assert main([]) == 0
    shown = capsys.readouterr().out
    assert all(f"    {name} " in shown for name in COMMANDS)


def test_bad_environment(refused: Callable[..., str]) -> None:
    """A wrong variable is one line that names it, and status 2."""
    line = refused("serve", H3TRIO_PORT="x")
    assert line == "H3TRIO_PORT: 'x' is not a port (0 to 65535)"


def test_the_environment_is_the_given_one(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variables of the process aren't read if others are passed."""
    monkeypatch.setenv("H3TRIO_PORT", "x")
    assert "H3TRIO_PORT" not in refused("serve", "nowhere")
