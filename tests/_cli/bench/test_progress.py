"""The display of a run, with rich and without."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from rich.console import Console

from h3trio._cli.bench.job import Received
from h3trio._cli.bench.outcome import Outcome
from h3trio._cli.bench.progress import PlainDisplay, RichDisplay, display

if TYPE_CHECKING:
    import pytest

OUTCOME = Outcome(url="http://h/[x]", received=Received(asked=2, opened=2, missing=1, events=7))


def test_no_terminal_means_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, progress is a line each, and the outcome is text."""
    shown = display(quiet=False, stream=io.StringIO())
    assert isinstance(shown, PlainDisplay)
    shown.step("a step")
    shown.end(OUTCOME)
    out, err = capsys.readouterr()
    assert err == "h3trio: a step\n"
    assert out == OUTCOME.as_text() + "\n"


def test_quiet_shows_the_outcome_only(capsys: pytest.CaptureFixture[str]) -> None:
    """No progress, but the outcome; and where that goes elsewhere, nothing."""
    shown = display(quiet=True, stream=io.StringIO())
    shown.step("a step")
    shown.end(None)
    assert capsys.readouterr() == ("", "")


def test_rich_draws_the_same_figures() -> None:
    """The table has every row, and the problems stand below it; URLs aren't markup."""
    progress, results = io.StringIO(), io.StringIO()
    shown = RichDisplay(Console(file=progress), Console(file=results, width=80))
    shown.step("a step")
    shown.end(OUTCOME)
    drawn = results.getvalue()
    assert all(what in drawn and value in drawn for what, value in OUTCOME.rows())
    assert "PROBLEM: 1 events missing" in drawn
    assert "http://h/[x]" in drawn


def test_rich_shows_no_outcome_where_there_is_none() -> None:
    """A run that failed leaves nothing on standard output."""
    results = io.StringIO()
    shown = RichDisplay(Console(file=io.StringIO()), Console(file=results))
    shown.end(None)
    assert results.getvalue() == ""
