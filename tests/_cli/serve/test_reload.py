"""`serve --reload`, as far as it goes without a process: see tests/e2e/test_reload.py."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from h3trio._cli.serve.reload import child_arguments, watched

if TYPE_CHECKING:
    from collections.abc import Callable


def test_the_child_has_the_parents_arguments() -> None:
    """All of them but the flag, and it is drained quickly."""
    assert child_arguments(["serve", "--reload", "a.py:app", "--port", "1"]) == [
        *("serve", "a.py:app", "--port", "1"),
        *("--drain-soft", "0", "--drain-hard", "1", "--drain-finish", "0"),
    ]


def test_what_is_watched() -> None:
    """The current folder, and that of the app's file where it is another."""
    here = Path.cwd()
    assert watched("some.module:app") == [here]
    assert watched("app.py:app") == [here]
    assert watched("/elsewhere/app.py:app") == [here, Path("/elsewhere")]


def test_the_hub_is_not_reloaded(refused: Callable[..., str]) -> None:
    """Without an app there is nothing to watch, and that is said in one line."""
    assert refused("serve", "--reload").startswith("--reload needs an app")
