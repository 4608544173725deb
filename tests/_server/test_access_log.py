"""The access log's one line per exchange."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from h3trio import CloseReason, Closing, H3Event
from h3trio._http.headers import Headers
from h3trio._http.request import split_target
from h3trio._server.access_log import log_exchange
from h3trio._server.logs.json_log import JSONFormatter
from h3trio._server.responder import Draft

if TYPE_CHECKING:
    from collections.abc import Generator

    from h3trio._server.body import BodyBuffer
    from h3trio._server.state import ServerState

CLOSING = Closing(
    reason=CloseReason.CLIENT_CLOSED, status=200, duration=1.23456, events=7, bytes_sent=890
)


def request(target: bytes) -> H3Event:
    """Make a request that tells a secret in its headers."""
    return H3Event(
        method="GET",
        target=split_target(target),
        headers=Headers([(b"authorization", b"Bearer secret")]),
        http_version="1.1",
        client="192.0.2.1",
        draft=Draft(),
        # Nothing of these is needed before the body is read or the answer begins.
        body=cast("BodyBuffer", None),
        responder=None,
        server=cast("ServerState", None),
    )


def logged(caplog: pytest.LogCaptureFixture, target: bytes) -> str:
    """Log one exchange; return its line."""
    with caplog.at_level(logging.INFO, "h3trio.access"):
        log_exchange(request(target), CLOSING)
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("h3trio.access", logging.INFO)
    return record.getMessage()


@contextlib.contextmanager
def captured() -> Generator[list[logging.LogRecord]]:
    """Collect the records of the access log; Hypothesis can't use a fixture for it."""
    records: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = records.append  # type: ignore[method-assign,assignment]  # shorter than a class
    logger = logging.getLogger("h3trio.access")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield records
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def test_a_line_tells_who_what_and_how_it_ended(caplog: pytest.LogCaptureFixture) -> None:
    """One line has client, method, path, status, reason, seconds, events and bytes."""
    assert logged(caplog, b"/events/news") == (
        '192.0.2.1 "GET /events/news" 200 client_closed 1.235s 7 events 890 bytes'
    )


def test_secrets_stay_out(caplog: pytest.LogCaptureFixture) -> None:
    """Neither the query nor a header is in the line: they may hold tokens."""
    line = logged(caplog, b"/events;token=secret?topic=a&%74OKEN=secret")
    assert '"GET /events;token=[redacted]" 200' in line
    assert "secret" not in line


def test_the_record_has_the_query(caplog: pytest.LogCaptureFixture) -> None:
    """A formatter can have the query, without the values that may be tokens."""
    for target, query in (
        (b'/events?topic=a"&%74OKEN=secret', r"topic=a\x22&%74OKEN=[redacted]"),
        (b"/events", ""),
    ):
        caplog.clear()
        logged(caplog, target)
        assert vars(caplog.records[0])["query"] == query


def test_the_record_has_each_field(caplog: pytest.LogCaptureFixture) -> None:
    """A formatter needs no parser; whom the application names is there, and only there."""
    event = request(b"/events/news?topic=a")
    event.subject = 'al"ice'
    with caplog.at_level(logging.INFO, "h3trio.access"):
        log_exchange(event, CLOSING)
    (record,) = caplog.records
    line = json.loads(JSONFormatter().format(record))
    assert {name: line[name] for name in line if name not in ("time", "task")} == {
        "level": "INFO",
        "logger": "h3trio.access",
        "message": record.getMessage(),
        "client": "192.0.2.1",
        "method": "GET",
        "path": "/events/news",
        "status": 200,
        "reason": "client_closed",
        "duration": 1.23456,
        "events": 7,
        "bytes": 890,
        "query": "topic=a",
        "subject": r"al\x22ice",
    }
    assert "ice" not in record.getMessage()


@pytest.mark.parametrize("path", [b"/a%0Ab", b"/a%22%20200", b"/%E2%82%AC"])
def test_a_path_cannot_forge_a_line(caplog: pytest.LogCaptureFixture, path: bytes) -> None:
    """A path is logged as it was sent, in ASCII, so it neither ends the line nor its quotes."""
    line = logged(caplog, path)
    assert f'"GET {path.decode()}" 200' in line
    assert line.isprintable()
    assert line.isascii()


@given(
    path=st.binary().map(lambda raw: b"/" + raw),
    query=st.binary(),
    method=st.text(),
    client=st.text(),
)
@example(b'/" 200 ok\n', b"\x1b[2J", 'GET "', "\u2028")
def test_nothing_forges_a_line(path: bytes, query: bytes, method: str, client: str) -> None:
    """Whatever each field holds, a line is one, has its two quotes, and is bounded."""
    event = request(b"/")
    event.method, event.client = method, client
    event._target = event._target._replace(raw_path=path, raw_query=query)  # noqa: SLF001 - what the parser would refuse is tried too
    with captured() as records:
        log_exchange(event, CLOSING)
    (record,) = records
    line, query_shown = record.getMessage(), vars(record)["query"]
    assert (line + query_shown).isascii()
    assert (line + query_shown).isprintable()
    assert '"' not in query_shown
    assert line.count('"') == 2
    assert line.endswith('" 200 client_closed 1.235s 7 events 890 bytes')
    assert len(line) < 1400


def test_nothing_is_logged_when_nobody_listens(caplog: pytest.LogCaptureFixture) -> None:
    """Above its level nothing is formatted, let alone written."""
    with caplog.at_level(logging.WARNING, "h3trio.access"):
        log_exchange(request(b"/"), CLOSING)
    assert caplog.records == []
