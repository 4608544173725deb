"""The parts of a run, and its line of progress."""

from __future__ import annotations

import resource
from collections import Counter

import pytest

from h3trio._cli.bench.run import SPARE_FILES, check_limits, shares, step_line
from h3trio._cli.common import CommandError


def test_connections_are_shared_evenly() -> None:
    """No process has more than one connection more than another."""
    assert shares(10, 3) == [4, 3, 3]
    assert shares(3, 3) == [1, 1, 1]
    assert sum(shares(12345, 7)) == 12345


def test_open_files_bound_the_connections() -> None:
    """As many as a process may have open are fine, one more is an error that says what helps."""
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        check_limits(10**9, 1)
        return
    check_limits(hard - SPARE_FILES, 1)
    check_limits(2 * (hard - SPARE_FILES), 2)
    with pytest.raises(CommandError, match="--processes"):
        check_limits(hard - SPARE_FILES + 1, 1)


def test_progress_sums_the_processes() -> None:
    """The line has the sums, and the rate since the line before."""
    progress = [
        Counter(opened=2, events=100, bytes=1_000_000),
        Counter(opened=1, gone=1),
        Counter(),
    ]
    assert step_line(progress, 40) == ("3 opened, 1 gone; 100 events, 60/s, 1.0 MB", 100)
    assert step_line([], 0) == ("0 opened; 0 events, 0/s, 0.0 MB", 0)
