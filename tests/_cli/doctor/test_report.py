"""Findings as text, as a table, as JSON, and in the documentation."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import TYPE_CHECKING

from doctor_site import FIELDS, Site, Way
from rich.console import Console

from h3trio._cli.doctor.check_head import Finding, Severity
from h3trio._cli.doctor.check_stream import diagnose
from h3trio._cli.doctor.observe import DoctorPlan, observe
from h3trio._cli.doctor.report import WIDTH, as_json, as_text, draw, show, summary
from h3trio._cli.doctor.seen import Seen

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "doctor.md"
OK, INFO, WARNING, ERROR = Severity

SEEN = Seen(url="http://h/[x]", wait=20)
FINDINGS = [
    Finding("answer", "200", severity=OK),
    Finding("type", "[bold]text/html", "Send another. " * 9, severity=ERROR),
    Finding("ids", "none", "Send them.", severity=WARNING),
]


def test_text() -> None:
    """A line each, the advice below it, and the sum; no line is too long."""
    lines = as_text(SEEN, FINDINGS).splitlines()
    assert lines[:3] == ["http://h/[x]", "ok       answer  200", "error    type    [bold]text/html"]
    assert lines[3].startswith("                 → Send another. Send")
    assert lines[4].startswith("                   another." + "")
    assert lines[-3:-1] == ["warning  ids     none", "                 → Send them."]
    assert lines[-1] == "1 error and 1 warning"
    assert max(map(len, lines)) <= WIDTH


def test_summary() -> None:
    """Errors and warnings are counted."""
    assert summary([]) == summary(FINDINGS[:1]) == "no problems"
    assert summary([FINDINGS[1], FINDINGS[1]]) == "2 errors"


def test_table() -> None:
    """With rich it is the same words, none of them taken for markup."""
    file = io.StringIO()
    draw(Console(file=file, width=200), SEEN, FINDINGS)
    drawn = file.getvalue()
    assert "http://h/[x]" in drawn
    for finding in FINDINGS:
        assert finding.text in drawn
        assert finding.severity.name.lower() in drawn
    assert "→ Send them." in drawn
    assert "1 error and 1 warning" in drawn


def test_what_a_server_says_moves_no_cursor() -> None:
    """Control characters, and line ends too, come to no terminal."""
    findings = [
        Finding("answer", "500: \x1b[2J\x9b2J\nok  all", "Wait \x1b[2J1\n.", severity=ERROR)
    ]
    assert as_text(SEEN, findings).splitlines()[1] == "error    answer  500: ?[2J?2J ok all"
    file = io.StringIO()
    draw(Console(file=file, width=200), SEEN, findings)
    assert "500: ?[2J?2J ok all" in file.getvalue()
    assert "→ Wait ?[2J1 ." in file.getvalue()


def test_no_terminal_means_text(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal it is plain."""
    show(SEEN, FINDINGS)
    assert capsys.readouterr().out == as_text(SEEN, FINDINGS) + "\n"


async def test_json(autojump_clock: MockClock) -> None:
    """Programs get the findings, the figures and the exit status."""
    url = "http://site/events/news"
    plan = DoctorPlan(url=url, wait=20, timeout=10, publish_url=url)
    async with Site().client() as client:
        seen = await observe(client, plan, lambda _: None)
    findings = diagnose(seen)
    told = json.loads(json.dumps(as_json(seen, findings)))
    assert told["url"] == url
    assert told["status"] == 0
    assert told["findings"][0] == {
        "check": "answer",
        "severity": "ok",
        "text": "200 after 0 ms",
        "advice": "",
    }
    figures = told["figures"]
    assert (figures["events"], figures["comments"], figures["published"]) == (5, 2, 5)
    assert figures["delays"] == [0, 0, 0, 0, 0]
    assert (figures["retry"], figures["last_event_id"]) == (2000, "e-5")
    assert autojump_clock.current_time() >= 20


async def test_the_sample_of_the_documentation(autojump_clock: MockClock) -> None:
    """The page shows the lines that are printed for such a deployment."""
    fields = FIELDS | {"Cache-Control": "no-cache"}
    del fields["X-Accel-Buffering"]
    way = Way(fields=fields, encoding="gzip", hold_bytes=100, head_after=0.041, heartbeat=60)
    url = "http://example.com/events/news"
    plan = DoctorPlan(url=url, wait=20, timeout=10, publish_url=url)
    async with Site(way).client() as client:
        seen = await observe(client, plan, lambda _: None)
    printed = as_text(seen, diagnose(seen))
    assert f"```text\n{printed}\n```" in PAGE.read_text(encoding="utf-8")
    assert autojump_clock.current_time() >= 20
