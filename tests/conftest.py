"""Settings of every test, and the marker that its place gives it; helpers live in helpers.py."""

from __future__ import annotations

import functools
import os
import signal
from pathlib import Path

import hypothesis
import pytest

HERE = Path(__file__).parent

# A test's place gives it its marker, so none slips into a run where it doesn't belong. What is
# marked here is left out of the default run; nox has a session for each.
PLACES = {
    "e2e": "e2e",
    # The cases of others: each is quick, but together they are a third of all tests.
    "conformance": "slow",
    # The command line, and what holds pages, files and sources against the rules for them.
    "_cli": "tools",
    "test_coming_from.py": "tools",
    "test_deploy.py": "tools",
    "test_docs.py": "tools",
    "test_examples.py": "tools",
    "test_layering.py": "tools",
    "test_reference.py": "tools",
    "test_words.py": "tools",
    "hubserver/_monitoring/test_dashboard_scripts.py": "tools",
}
MARKERS = {HERE / place: marker for place, marker in PLACES.items()}

# Background jobs of a shell ignore SIGINT, and so would the programs that their tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: it measures the machine. The default run tries the same few examples each time, and
# `nox -s fuzz` many new ones. In CI `package` and `e2e` try many, but the same each time, so that a
# failure there is the change's doing.
IN_CI = os.environ.get("CI") == "true"
for name, examples, same in (("quick", 10, True), ("ci", 50, IN_CI), ("thorough", 1000, IN_CI)):
    hypothesis.settings.register_profile(
        name, deadline=None, max_examples=examples, derandomize=same
    )
hypothesis.settings.load_profile("quick")


@functools.cache
def marker_of(path: Path) -> str | None:
    """Return the marker that a file or folder has by its place."""
    return next((MARKERS[place] for place in (path, *path.parents) if place in MARKERS), None)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Don't import what would be left out: that is half of the time to collect."""
    marker = marker_of(collection_path)
    return True if marker and f"not {marker}" in config.option.markexpr else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test the marker of its place."""
    for item in items:
        if marker := marker_of(item.path):
            item.add_marker(marker)
