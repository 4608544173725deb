"""What a service manager passes by the environment; sockets are in tests/e2e/test_systemd.py."""

from __future__ import annotations

import os

import pytest
from tables import table

from h3trio._server.sockets.systemd import inherited_descriptors


def environ(count: str, pid: int | None = None) -> dict[str, str]:
    """Make what a service manager sets."""
    return {
        "LISTEN_PID": str(pid or os.getpid()),
        "LISTEN_FDS": count,
        "LISTEN_FDNAMES": "a:b",
        "HOME": "/",
    }


@table("count, expected", [("0", []), ("1", [3]), ("3", [3, 4, 5]), ("256", [*range(3, 259)])])
def test_descriptors(count: str, expected: list[int]) -> None:
    """They are numbered from three on, and the variables are for nobody else."""
    given = environ(count)
    assert inherited_descriptors(given) == expected
    assert given == {"HOME": "/"}


def test_another_process_is_meant() -> None:
    """What was passed to a parent is left alone, and so is an environment without any."""
    given = environ("2", pid=1)
    assert inherited_descriptors(given) == []
    assert given == environ("2", pid=1)
    assert inherited_descriptors({}) == []


@table("count", ["", "-1", "x", "257", "1_0", "²"])
def test_no_number(count: str) -> None:
    """A number that is none, or one too large, is an error."""
    with pytest.raises(ValueError, match=r"LISTEN_FDS: '.*' is not a number of descriptors"):
        inherited_descriptors(environ(count))
