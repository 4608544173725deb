"""The command line as a whole: commands, errors of one line, and where values come from."""

from __future__ import annotations

import pytest

import h3trio
from h3trio._cli.main import main


def run(
    capsys: pytest.CaptureFixture[str], *argv: str, **environ: str
) -> tuple[object, str, list[str]]:
    """Run a command that ends at once; return its status, output, and lines of errors."""
    with pytest.raises(SystemExit) as caught:
        main(argv, environ=environ)
    out, err = capsys.readouterr()
    return caught.value.code, out, err.splitlines()


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    """`--version` prints name and version."""
    assert run(capsys, "--version") == (0, f"h3trio {h3trio.__version__}\n", [])


@pytest.mark.parametrize("command", [(), ("serve",)])
def test_help(capsys: pytest.CaptureFixture[str], command: tuple[str, ...]) -> None:
    """`--help` explains itself, whatever the environment holds."""
    code, out, err = run(capsys, *command, "--help", H3TRIO_PORT="nonsense")
    assert (code, err) == (0, [])
    assert out.startswith(f"usage: {' '.join(('h3trio', *command))} ")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ((), "the following arguments are required: COMMAND"),
        (("fly",), "invalid choice: 'fly'"),
        (("serve", "--frobnicate"), "unrecognized arguments: --frobnicate"),
        (("serve", "--port"), "argument --port: expected one argument"),
        (("serve", "--port", "x"), "argument --port: 'x' is not a port (0 to 65535)"),
        (("serve", "--port", "65536"), "argument --port: '65536' is not a port (0 to 65535)"),
        (("serve", "--port", "-1"), "argument --port: '-1' is not a port (0 to 65535)"),
        (("serve", "--log-level", "loud"), "argument --log-level: 'loud' is not a log level"),
        (("serve", "--lease", "0"), "argument --lease: lease must be positive, not 0.0"),
        (("serve", "a:b", "c:d"), "unrecognized arguments: c:d"),
    ],
)
def test_bad_arguments(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], message: str
) -> None:
    """Wrong arguments are one line that says what is wrong, and status 2."""
    code, out, (line,) = run(capsys, *argv)
    assert (code, out) == (2, "")
    assert line.startswith("h3trio: error: ")
    assert message in line


def test_bad_environment(capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong variable is one line that names it, and status 2."""
    assert run(capsys, "serve", H3TRIO_PORT="x") == (
        2,
        "",
        ["h3trio: error: H3TRIO_PORT: 'x' is not a port (0 to 65535)"],
    )


def test_the_environment_is_the_given_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an environment is passed, that of the process isn't read."""
    monkeypatch.setenv("H3TRIO_PORT", "x")
    code, _, (line,) = run(capsys, "serve", "nowhere")
    assert (code, "H3TRIO_PORT" in line) == (2, False)
