"""`tail` up to the socket: what it asks for, and what it prints.

The command as a process, with servers that restart and break: tests/e2e/test_cli_publish_tail.py.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import httpx2
import pytest

from h3trio import SSEEvent, SSEParser
from h3trio._cli.tail import format_event, print_event, reset_notice, stream_url

if TYPE_CHECKING:
    from collections.abc import Callable

IRI = "https://example.com/a?b#c"


WRONG = [
    ((), "give a topic, * for all, or the URL of a stream"),
    (("t", "--relay"), "--relay is about the whole log: give no topic"),
    (("",), "argument TOPIC|URL: a topic is not empty"),
    (("t", "--since", "a\nb"), "argument --since: last_event_id must not contain LF: index 1"),
    (("t", "--first", "-1"), "argument --first: '-1' is neither a whole number nor oldest"),
    (("t", "--first", "new"), "argument --first: 'new' is neither a whole number nor oldest"),
    (("t", "--since", "1", "--first", "1"), "--first: not allowed with argument --since"),
    (("t", "--count", "0"), "argument --count: must be at least 1"),
    (("t", "--idle-timeout", "0"), "argument --idle-timeout: '0' is not a time"),
    (("t", "--max-event-size", "x"), "argument --max-event-size: 'x' is not a size"),
    (("t", "--url", "ftp://h"), "argument --url: 'ftp://h' is not of the form http://"),
    (("http://h/", "t"), "a URL stands alone; are these topics? then give --url as well"),
    (("http://",), "'http://' is not of the form http://HOST:PORT"),
    (("http://h:x/",), "Port could not be cast"),
]


def test_wrong_arguments(refused: Callable[..., str], subtests: pytest.Subtests) -> None:
    """Arguments that are wrong or don't fit together are one line, and status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused("tail", *argv)


# -- requests


URLS: list[tuple[str | None, list[str], str]] = [
    (None, ["news"], "http://localhost:3000/events?topic=news"),
    ("http://h/hub", ["a", "b/c"], "http://h/hub/events?topic=a&topic=b%2Fc"),
    (None, ["*"], "http://localhost:3000/events?topic=%2A"),
    (None, ["http://h:1/stream?x=1#part"], "http://h:1/stream?x=1"),
    (None, ["HTTPS://h/"], "HTTPS://h/"),
    (
        "http://h",
        [IRI],
        "http://h/events?topic=https%3A%2F%2Fexample.com%2Fa%3Fb%23c",
    ),
    ("http://h", [IRI, "&="], f"http://h/events?topic={quote(IRI, safe='')}&topic=%26%3D"),
]


def test_stream_url(subtests: pytest.Subtests) -> None:
    """Topics go to the hub's address; a URL is a stream's own unless that address is given."""
    for base, topics, url in URLS:
        with subtests.test(base=base, topics=topics):
            assert stream_url(base, topics) == url
            assert str(httpx2.URL(url)).lower() == url.lower()


# -- events


def test_format_of_data() -> None:
    """The data is printed as it is, over as many lines as it has."""
    assert format_event(SSEEvent("a\nb", event="e", id="1"), as_json=False) == "a\nb"
    assert format_event(SSEEvent(""), as_json=False) == ""


def test_the_relay_has_one_address() -> None:
    """It is beside the events, of whatever hub."""
    assert stream_url(None, [], relay=True) == "http://localhost:3000/relay"
    assert stream_url("https://h/hub", [], relay=True) == "https://h/hub/relay"


def test_notices_of_the_relay_have_their_type_in_front() -> None:
    """A record is its data alone."""
    record, notice = SSEParser().feed(b'data: {"topics":[]}\n\nevent: purged\ndata: {}\n\n')
    assert format_event(record, as_json=False, relay=True) == '{"topics":[]}'
    assert format_event(notice, as_json=False, relay=True) == "purged {}"
    assert format_event(notice, as_json=False) == "{}"


def test_json_is_one_line() -> None:
    """An event is one line, for readers too that split at other characters than LF."""
    line = format_event(SSEEvent("a\x85b\u2028c\u2029d"), as_json=True)
    assert len(f"{line}.".splitlines()) == 1
    assert json.loads(line)["data"] == "a\x85b\u2028c\u2029d"


def test_format_as_json() -> None:
    """JSON is one line an event, with id, type and data."""
    (event,) = SSEParser().feed('id: 1\nevent: e\ndata: é\ndata: "b"\n\n'.encode())
    line = format_event(event, as_json=True)
    assert line == '{"id": "1", "event": "e", "data": "é\\n\\"b\\""}'
    (event,) = SSEParser().feed(b"data:\n\n")
    assert json.loads(format_event(event, as_json=True)) == {
        "id": "",
        "event": "message",
        "data": "",
    }


@pytest.mark.parametrize(
    ("data", "notice"),
    [
        ('{"reason":"unknown","id":"a-1"}', "reset (unknown): events after a-1 may be missing"),
        ('{"reason":"lagged","id":null}', "reset (lagged): events may be missing"),
        ('{"reason":1}', None),
        ("[]", None),
        ("reset!", None),
        ("[" * 100_000, None),
    ],
)
def test_reset_notices(data: str, notice: str | None) -> None:
    """A hub's reset is a warning; what others call reset is an event."""
    assert reset_notice(SSEEvent(data, event="reset")) == notice
    assert reset_notice(SSEEvent(data)) is None


def test_events_are_printed_and_resets_reported(capsys: pytest.CaptureFixture[str]) -> None:
    """Events go to standard output; a reset goes to standard error, and is no event."""
    stream = b'id: 1\ndata: one\n\nevent: reset\ndata: {"reason":"x","id":null}\n\ndata: two\n\n'
    events = SSEParser().feed(stream)
    assert [print_event(event, as_json=False) for event in events] == [True, False, True]
    assert capsys.readouterr() == (
        "one\ntwo\n",
        "h3trio: warning: reset (x): events may be missing\n",
    )


def test_json_is_printed_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON each event is one line."""
    for n in range(3):
        assert print_event(SSEEvent("a\nb", event="e", id=str(n)), as_json=True)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [{"id": str(n), "event": "e", "data": "a\nb"} for n in range(3)]
