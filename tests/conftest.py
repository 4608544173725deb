"""What every test shares: fixtures and settings only; helpers live in helpers.py and tools.py."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import hypothesis
import pytest

E2E = Path(__file__).parent / "e2e"
CONFORMANCE = Path(__file__).parent / "conformance"

# Whom a shell started in the background ignores SIGINT, and so would the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline: it measures the machine. In CI the same examples each time, so that a failure there
# is the change's doing; elsewhere new ones, so that they are found at all.
IN_CI = os.environ.get("CI") == "true"
for name, examples in (("quick", 50), ("thorough", 1000)):
    hypothesis.settings.register_profile(
        name, deadline=None, max_examples=examples, derandomize=IN_CI
    )
hypothesis.settings.load_profile("quick")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything under tests/e2e: no file there can slip into the default run.

    So are the cases of others: each is quick, but together they are a third of all tests.
    """
    for item in items:
        if E2E in item.path.parents:
            item.add_marker("e2e")
        elif CONFORMANCE in item.path.parents:
            item.add_marker("slow")
