"""The outcome of a run: its figures, problems, notes and exit status."""

from __future__ import annotations

import io
import json
from collections import Counter
from typing import Any

import pytest
from rich.console import Console

from h3trio._cli.bench.job import Published, Received
from h3trio._cli.bench.outcome import EXIT_PROBLEMS, EXIT_UNREACHED, Outcome

FINE: dict[str, Any] = {
    "asked": 2,
    "opened": 2,
    "connect_seconds": 0.5,
    "events": 100,
    "timed": 100,
    "reads": 50,
    "bytes": 5_000_000,
    "least": 50,
    "most": 50,
    "judged": 98,
    "seconds": 2.0,
    "busy": 0.5,
}


def outcome(published: Published | None = None, **changes: Any) -> Outcome:  # noqa: ANN401 - fields of several types
    """Make the outcome of a fine run, but for these fields."""
    received = Received(**(FINE | changes))
    received.latencies.add(0.004, 100)
    received.connects.add(0.002, 2)
    return Outcome(url="http://h/", received=received, published=published)


def test_a_fine_run_has_nothing_to_say() -> None:
    """Figures only, and status 0."""
    found = outcome()
    assert (list(found.problems()), list(found.notes()), found.status) == ([], [], 0)
    text = found.as_text()
    assert "2 of 2" in text
    assert "connects/s       4\n" in text
    assert "events/s         50\n" in text
    assert "MB/s             2.50\n" in text
    assert "p50 4.0, p90 4.0, p99 4.0, max 4.0" in text


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"refused": Counter({"status 503": 2})}, "2 not opened: status 503"),
        ({"lost": Counter({"Connection reset by peer": 1})}, "1 broken: Connection reset by peer"),
        ({"missing": 3}, "3 events missing: others got them"),
        ({"repeated": 1}, "1 events twice, or out of order"),
        ({"resets": 1}, "1 resets: the hub said that events are lost"),
    ],
)
def test_problems_make_status_1(changes: dict[str, Any], line: str) -> None:
    """Each kind of loss is said, and is an error."""
    found = outcome(**changes)
    assert list(found.problems()) == [line]
    assert found.status == EXIT_PROBLEMS
    assert f"PROBLEM: {line}" in found.as_text()


NOTES: list[tuple[dict[str, Any], str]] = [
    ({"busy": 0.95}, "busy 95% of the time"),
    ({"timed": 0}, "no latencies: no event begins with its time, such as 1700000000.000000"),
    ({"early": 10}, "the clocks of the two machines differ"),
    ({"unnumbered": 50}, "50% of the events have no id that ends in a number"),
    ({"judged": 10}, "ids don't count up"),
    ({"bounded": True}, "more ids than are kept"),
    ({"ended": 1}, "1 streams were ended by the server"),
]


def test_notes_are_no_errors(subtests: pytest.Subtests) -> None:
    """A limit of the figures is noted, and the status stays 0."""
    for changes, words in NOTES:
        with subtests.test(changes=changes, words=words):
            (note,) = outcome(**changes).notes()
            assert words in note
            assert outcome(**changes).status == 0


def test_the_core_is_saturated_above_the_limit_only() -> None:
    """At the limit nothing is said."""
    assert list(outcome(busy=0.9).notes()) == []
    assert list(outcome(published=Published(busy=0.901)).notes())


def test_publisher_that_failed_or_was_late() -> None:
    """Refused publishes are an error, late ones a note, and events that never come an error."""
    found = outcome(Published(sent=100, acked=5, failed=Counter({"status 401": 2}), unsent=3))
    assert list(found.problems()) == ["2 not published: status 401"]
    assert list(found.notes()) == ["3 events were due and not sent: the rate is too high"]
    assert list(outcome(Published(sent=100, acked=99, unsent=1)).notes()) == []
    unheard = outcome(Published(acked=5), events=0, timed=0, judged=0)
    assert list(unheard.problems()) == ["5 events were published, none came: another topic?"]


def test_without_a_stream_nothing_was_reached() -> None:
    """No stream at all is a status of its own, and everything can still be printed."""
    found = Outcome(url="http://h/", received=Received(asked=5, refused=Counter({"status 404": 5})))
    assert found.status == EXIT_UNREACHED
    assert "0 of 5" in found.as_text()
    assert json.loads(json.dumps(found.as_json()))["received"]["latency_ms"] is None


def test_json_has_every_figure() -> None:
    """The JSON can be written, and says the same as the table."""
    found = json.loads(json.dumps(outcome(Published(sent=9, acked=8, seconds=2)).as_json()))
    assert found["received"]["events"] == 100
    assert found["received"]["latency_ms"]["max"] == pytest.approx(4)
    assert found["published"]["acked"] == 8
    assert (found["problems"], found["status"]) == ([], 0)


def test_rich_draws_the_same_figures() -> None:
    """The table has every row, and the problems stand below it; URLs aren't markup."""
    results = io.StringIO()
    received = Received(asked=2, opened=2, missing=1, events=7)
    found = Outcome(url="http://h/[x]", received=received)
    found.draw(Console(file=results, width=80))
    drawn = results.getvalue()
    assert all(what in drawn and value in drawn for what, value in found.rows())
    assert "PROBLEM: 1 events missing" in drawn
    assert "http://h/[x]" in drawn
