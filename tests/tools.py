"""Outside tools and data that a test needs: present, or the test is skipped, or in CI fails.

A skipped test proves nothing, and in CI nobody reads the reason. So under CI=true, where `.ci/run`
has put every tool in place, one that is missing is a failure; on a contributor's machine the test
is skipped with the reason. Ask inside a test or a fixture, never at import.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

# Distributions disagree about a command's name, and keep servers off the PATH of plain users.
OTHER_NAMES = {
    "chromium": ("chromium-browser", "google-chrome", "chrome"),
    "redis-server": ("valkey-server",),
}
SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"])

# The corpora belong to the project, not to its repository: a folder beside the checkout.
CORPORA = Path(__file__).parents[2] / "shared" / "corpora"


def require_tool(name: str) -> str:
    """Return the path of a command such as `chromium`; skip the test if there is none."""
    candidates = (name, *OTHER_NAMES.get(name, ()))
    found = (shutil.which(candidate, path=SEARCH_PATH) for candidate in candidates)
    path = next(filter(None, found), None)
    if path is None:
        missing(f"{name} is not installed")
    return path


def require_corpus(name: str) -> Path:
    """Return the path of a corpus such as `sse_corpus.json`; skip the test if it is not there."""
    path = CORPORA / name
    if not path.is_file():
        missing(f"the corpus {name} is not in {CORPORA}")
    return path


def missing(reason: str) -> NoReturn:
    """Skip the running test for want of something from outside; in CI, fail it."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{reason}, and in CI every tool and corpus must be there", pytrace=False)
    pytest.skip(reason)
