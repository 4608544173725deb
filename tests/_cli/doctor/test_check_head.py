"""Findings about an answer's head, each from plain values."""

from __future__ import annotations

import pytest

from h3trio._cli.doctor.check_head import Severity
from h3trio._cli.doctor.check_stream import diagnose
from h3trio._cli.doctor.seen import Head, Probe, Redirect, Seen

OK, INFO, WARNING, ERROR = Severity
GOOD = {"content-type": "text/event-stream", "cache-control": "no-cache, no-transform"}


def seen_of(status: int = 200, url: str = "http://h/events", **fields: str) -> Seen:
    """Make what was seen of an answer; `_` in a field's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in fields.items()}
    items = tuple((GOOD | named).items())
    return Seen(url=url, wait=20, head=Head(url, status, "HTTP/1.1", items, 0.01))


def found(seen: Seen, check: str) -> tuple[Severity, str]:
    """Return the worst finding of a check."""
    return max((f.severity, f.text) for f in diagnose(seen) if f.check == check)


FIELDS = [
    (seen_of(), "answer", OK, "200 after 10 ms"),
    (seen_of(500), "answer", ERROR, "500"),
    (seen_of(), "type", OK, "text/event-stream"),
    (seen_of(content_type='Text/Event-Stream; charset="UTF-8"'), "type", OK, "Text/Event-St"),
    (seen_of(content_type="text/event-stream;charset=latin-1"), "type", WARNING, "text/event"),
    (seen_of(content_type=""), "type", ERROR, "no Content-Type"),
    (seen_of(), "caching", OK, "no-cache, no-transform"),
    (seen_of(cache_control="No-Store"), "caching", INFO, "No-Store"),
    (seen_of(cache_control="max-age=60"), "caching", WARNING, "max-age=60"),
    (seen_of(cache_control=""), "caching", WARNING, "no Cache-Control"),
    (seen_of(age="3"), "caching", ERROR, "Age: 3"),
    (seen_of(age="0"), "caching", OK, "no-cache"),
    (seen_of(x_cache="Hit from cdn"), "caching", ERROR, "x-cache: Hit from cdn"),
    (seen_of(x_cache="MISS"), "caching", OK, "no-cache"),
    (seen_of(), "proxy buffers", INFO, "no X-Accel-Buffering"),
    (seen_of(x_accel_buffering="no"), "proxy buffers", OK, "X-Accel-Buffering: no"),
    (seen_of(x_accel_buffering="yes"), "proxy buffers", WARNING, "X-Accel-Buffering: yes"),
    (seen_of(), "framing", INFO, "HTTP/1.1, until the connection closes"),
    (seen_of(transfer_encoding="Chunked"), "framing", OK, "HTTP/1.1, chunked"),
    (seen_of(content_length="7"), "framing", ERROR, "Content-Length: 7"),
    (seen_of(), "compression", OK, "none"),
    (seen_of(content_encoding="identity"), "compression", OK, "none"),
    (seen_of(content_encoding="br"), "compression", WARNING, "Content-Encoding: br"),
    (seen_of(), "origins", INFO, "only pages of its own origin"),
    (seen_of(access_control_allow_origin="*"), "origins", OK, "any, without cookies"),
    (seen_of(access_control_allow_origin="http://p"), "origins", WARNING, "http://p, but no"),
    (
        seen_of(access_control_allow_origin="http://p", vary="Accept, Origin"),
        "origins",
        OK,
        "http://p, without cookies",
    ),
    (
        seen_of(access_control_allow_origin="*", access_control_allow_credentials="true"),
        "origins",
        ERROR,
        "any origin, with credentials",
    ),
    (seen_of(), "connections", INFO, "browsers open at most six"),
]


def test_fields(subtests: pytest.Subtests) -> None:
    """Each field of a head is judged by what it does to a stream."""
    for seen, check, severity, text in FIELDS:
        with subtests.test(seen=seen, check=check):
            assert found(seen, check)[0] is severity
            assert found(seen, check)[1].startswith(text)


@pytest.mark.parametrize(
    ("hop", "severity"),
    [
        (Redirect(307, "http://h/a", "http://h/b"), INFO),
        (Redirect(301, "http://h/a", "https://h/a"), INFO),
        (Redirect(301, "http://h/a", "http://other/a"), WARNING),
        (Redirect(301, "https://h/a", "http://h/a"), ERROR),
    ],
)
def test_redirects(hop: Redirect, severity: Severity) -> None:
    """A redirect costs a step, one to another origin secrets, one to plain HTTP everything."""
    seen = seen_of()
    seen.hops.append(hop)
    assert found(seen, "redirect")[0] is severity


def test_who_refuses_may_say_when_to_come_back() -> None:
    """A refusal is an error with what its status and its body mean."""
    seen = seen_of(503, retry_after="30")
    seen.text = "full"
    (finding,) = diagnose(seen)
    assert finding.text == "503: full"
    assert finding.advice.endswith("It asks to wait: Retry-After 30.")


def test_certificates() -> None:
    """A certificate that isn't trusted is the one finding; unchecked, it is a warning."""
    seen = Seen(url="https://h/", wait=20, problem="self-signed", is_untrusted=True)
    assert [(f.check, f.severity) for f in diagnose(seen)] == [("certificate", ERROR)]
    seen = seen_of(url="https://h/")
    seen.is_trusting = True
    assert found(seen, "certificate") == (WARNING, "not checked")


@pytest.mark.parametrize(("offered", "severity"), [("h2", OK), ("http/1.1", INFO), ("", INFO)])
def test_connections(offered: str, severity: Severity) -> None:
    """With HTTP/2 there is no limit of six."""
    seen = seen_of(url="https://h/")
    seen.offered = offered
    assert found(seen, "connections")[0] is severity


def test_other_requests() -> None:
    """A header that isn't allowed is named, and so is a server that doesn't answer."""
    seen = seen_of()
    head = Head("http://h/", 204, "HTTP/1.1", (("access-control-allow-headers", "X"),), 0)
    seen.preflight = Probe(head)
    assert found(seen, "preflight") == (WARNING, "it doesn't allow authorization and last-event-id")
    seen.preflight = Probe(None, "lost")
    assert found(seen, "preflight") == (WARNING, "lost")
    seen.head_probe = Probe(None, "HEAD isn't answered")
    assert found(seen, "HEAD") == (WARNING, "HEAD isn't answered")


def test_a_page_is_not_shown_and_is_no_stream() -> None:
    """HTML isn't printed; where no path was given, the advice is to give that of a stream."""
    seen = seen_of(502, content_type="text/html; charset=utf-8")
    seen.text = "<html>"
    assert found(seen, "answer") == (ERROR, "502")
    for status, check in (200, "type"), (401, "answer"):
        for url, is_front in (("http://h", True), ("http://h/", True), ("http://h/x", False)):
            judged = diagnose(seen_of(status, url, content_type="text/html"))
            (advice,) = (f.advice for f in judged if f.check == check)
            assert ("/events/TOPIC" in advice) is is_front


@pytest.mark.parametrize(
    ("problem", "named"),
    [
        ("SSL_CERT_FILE: can't load '/no'", "Correct SSL_CERT_FILE in"),
        ("ALL_PROXY: 'ftp' is no scheme", "Correct ALL_PROXY in"),
        ("can't reach http://h/: refused (https_proxy names a proxy)", "Correct https_proxy in"),
        ("can't reach http://h/: refused", "See whether it runs"),
    ],
)
def test_a_fault_of_the_environment(problem: str, named: str) -> None:
    """Where a variable is wrong, the advice is about that and not about the server."""
    seen = Seen(url="http://h/", wait=20, problem=problem)
    (advice,) = (f.advice for f in diagnose(seen) if f.check == "answer")
    assert advice.startswith(named)


def test_a_head_that_is_held() -> None:
    """No head where HEAD gets one is a buffer; where HEAD gets none it is a server that is down."""
    seen = Seen(url="http://h/", wait=20, problem="no head within 10 s", is_silent=True)
    seen.head_probe = Probe(seen_of().head)
    assert "is held back" in found(seen, "answer")[1]
    seen.head_probe = Probe(None, "lost")
    assert found(seen, "answer") == (ERROR, "no head within 10 s")
