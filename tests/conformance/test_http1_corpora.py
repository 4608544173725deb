"""The corpora of requests: those of llhttp's tests and of gunicorn's, each with our verdict.

Each case is sent whole, byte by byte and in small pieces, and with a request or junk behind it:
what came out is always the same, and nothing behind a refused request is looked at. The verdicts
stand in http1_verdicts.txt; they lie within what the corpus expects, and where it leaves a choice,
a refusal names the sentence that makes us strict.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple, NotRequired, TypedDict

import pytest
import tools
from conformance.http1_driver import CANARY, JUNK, Outcome, drive, splits

NAMES = ("http1_llhttp.json", "http1_gunicorn.json")
CASE_COUNT = 119 + 113

RULES = {
    "line": 'RFC 9112 section 3: "request-line = method SP request-target SP HTTP-version"; a '
    'recipient of an invalid one "SHOULD respond with either a 400 (Bad Request) error or a 301"',
    "ends": 'RFC 9112 section 2.2: "a recipient MAY recognize a single LF as a line terminator"; '
    "here none does, since then nobody in front can have read the line otherwise",
    "fold": 'RFC 9112 section 5.2: a server "MUST either reject the message [...] or replace" it',
    "name": 'RFC 9112 section 5: "field-line = field-name ":" OWS field-value OWS"; section 5.1: '
    '"No whitespace is allowed between the field name and colon"',
    "both": 'RFC 9112 section 6.3: such a message "ought to be handled as an error"',
    "old": 'RFC 9112 section 6.1: who receives Transfer-Encoding in HTTP/1.0 "MUST treat the '
    'message as if the framing is faulty"',
    "coding": "RFC 9112 section 6.1: a server that does not understand a transfer coding "
    '"SHOULD respond with 501 (Not Implemented)"',
    "last": 'RFC 9112 section 6.3: where "the chunked transfer coding is not the final encoding '
    "[...] the server MUST respond with the 400 (Bad Request) status code and then close the "
    'connection"; section 7.2: identity is no coding; two lines of it are one in some readers',
    "chunk": 'RFC 9112 section 7.1: "chunk = chunk-size [ chunk-ext ] CRLF chunk-data CRLF", where '
    "an extension has a name, and whitespace stands only around its semicolon and equals sign",
    "trailer": 'RFC 9110 section 6.5.1: fields "that describe message framing, routing" can\'t be '
    "processed outside the header section",
    "length": "RFC 9110 section 8.6: a list of equal lengths may be rejected as invalid",
    "target": 'RFC 9112 section 3.2: "request-target = origin-form / absolute-form / '
    'authority-form / asterisk-form", none of which has a fragment',
    "userinfo": 'RFC 9110 section 4.2.4: a recipient "SHOULD parse for userinfo and treat its '
    'presence as an error"',
    "connect": 'RFC 9110 section 9.3.6: "most origin servers do not implement CONNECT"',
    "asterisk": 'RFC 9112 section 3.2.4: the asterisk-form "is only used for a server-wide OPTIONS '
    'request"',
    "version": "RFC 9110 section 15.6.6: 505 for a major version that is not supported",
    "size": "RFC 6585 section 5: 431 for a head that is too large",
}


class Case(TypedDict):
    """One case of a corpus."""

    id: str
    send: str
    expect: str
    n: int
    must_close: NotRequired[bool]


class Verdict(NamedTuple):
    """A line of http1_verdicts.txt."""

    requests: int
    end: str
    rule: str | None
    id: str


def load() -> list[Case]:
    """Read the corpora, or nothing if they aren't there: the first test says so then."""
    cases: list[Case] = []
    for name in NAMES:
        if (path := tools.CORPORA / name).is_file():
            cases += json.loads(path.read_text(encoding="utf-8"))["cases"]
    return cases


def load_verdicts() -> list[Verdict]:
    """Read our verdicts, in the order of the corpora."""
    text = Path(__file__).with_name("http1_verdicts.txt").read_text(encoding="utf-8")
    verdicts = []
    for line in text.splitlines():
        if not line.startswith("#"):
            verdict, _, name = line.partition("| ")
            requests, end, *rule = verdict.split()
            verdicts.append(Verdict(int(requests), end, rule[0] if rule else None, name))
    return verdicts


CASES = load()
VERDICTS = load_verdicts()
ROWS = list(zip(CASES, VERDICTS, strict=bool(CASES)))
IDS = [case["id"] for case in CASES]

each_case = pytest.mark.parametrize(("case", "verdict"), ROWS, ids=IDS)


def is_refusal(end: str) -> bool:
    """Whether this is a status."""
    return end.isdigit()


def outcome(case: Case) -> Outcome:
    """Send a case whole."""
    return drive([case["send"].encode("latin-1")])


def test_the_corpora_are_there() -> None:
    """All cases of both corpora are found, each with a verdict, or this is skipped."""
    for name in NAMES:
        tools.require_corpus(name)
    assert len(CASES) == CASE_COUNT
    assert [verdict.id for verdict in VERDICTS] == IDS


@each_case
def test_the_verdict_is_what_the_corpus_expects(case: Case, verdict: Verdict) -> None:
    """No verdict leaves what a corpus expects, and one that it leaves to us has its sentence."""
    expected = case["expect"].split("|")
    if is_refusal(verdict.end):
        assert "reject" in expected
        assert (verdict.rule in RULES) == ("accept" in expected)
        return
    assert not case.get("must_close") or verdict.end == "closes"
    if verdict.requests == case["n"] and "accept" in expected:
        return  # what is behind them is the start of another
    assert {"waits": "wait", "open": "accept", "closes": "accept"}[verdict.end] in expected


@each_case
def test_a_case(case: Case, verdict: Verdict) -> None:
    """A case is answered as its verdict says, however its bytes are cut."""
    seen, end = outcome(case)
    assert (len(seen), end) == verdict[:2]
    for name, pieces in splits(case["send"].encode("latin-1")):
        assert drive(pieces) == (seen, end), name


@pytest.mark.slow  # five hundred of them
@each_case
@pytest.mark.parametrize("behind", [CANARY, JUNK], ids=["request", "junk"])
def test_a_case_with_something_behind(case: Case, verdict: Verdict, behind: bytes) -> None:
    """Bytes behind a case change nothing in it, and are read only where a request may begin."""
    sent = case["send"].encode("latin-1")
    seen, end = drive([sent + behind])
    assert drive([sent, behind]) == (seen, end)
    assert seen[: verdict.requests] == outcome(case).requests
    if is_refusal(verdict.end) or verdict.end == "closes":
        assert (len(seen), end) == verdict[:2]
    elif verdict.end == "open":
        assert (len(seen) - verdict.requests, end) == (
            (1, "open") if behind == CANARY else (0, "400")
        )
