"""What reaches a log: no secrets, no second line, no escape sequence, and not too much."""

from __future__ import annotations

import io
import logging
import time
from functools import partial
from urllib.parse import quote

from helpers import count_calls
from hypothesis import example, given
from hypothesis import strategies as st
from tables import table

from h3trio._server.logs.redaction import (
    MAX_FIELD,
    LogFormatter,
    is_secret,
    printable,
    redact_path,
    redact_query,
    shown_path,
    shown_query,
)

SECRET_NAMES = (
    *("access_token", "token", "authorization", "key", "api_key", "apikey", "secret", "password"),
    *("sig", "signature", "jwt", "code", "auth", "client_secret", "X-Amz-Signature", "sessionid"),
    *("idToken", "refresh-token", "passwd", "mercureAuthorization", "cookie", "user.pass"),
)
PLAIN_NAMES = (
    *("topic", "first", "last_event_id", "lastEventID", "event", "id", "retry", "q", "page"),
    *("monkey", "encoding", "design", "author", "keyboard", "passenger"),
)
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


def every_byte_encoded(text: str) -> str:
    """Percent-encode all of a text."""
    return "".join(f"%{byte:02x}" for byte in text.encode())


@table("name", SECRET_NAMES)
def test_secret_names(name: str) -> None:
    """A name that tells of a secret does so in any case, and encoded once or twice."""
    once = every_byte_encoded(name)
    for spelled in (name, name.upper(), name.title(), once, quote(once), f"x[{name}]"):
        assert is_secret(spelled), spelled
        assert redact_query(f"a=1&{spelled}=s3cr3t&b=2") == f"a=1&{spelled}=[redacted]&b=2"


@table("name", PLAIN_NAMES)
def test_plain_names(name: str) -> None:
    """What tells of no secret is logged: a log that shows nothing helps nobody."""
    assert redact_query(f"{name}=value&{name}") == f"{name}=value&{name}"


@table(
    "query, expected",
    [
        ("", ""),
        ("token", "token"),
        ("token=a=b", "token=[redacted]"),
        ("token=a/b?c;d", "token=[redacted]"),
        ("token=1&token=2", "token=[redacted]&token=[redacted]"),
        ("a=1;token=s3cr3t", "a=[redacted]"),
        ("next=%2Fx%3Fcode%3Ds3cr3t", "next=[redacted]"),
        ("next=/x?code=s3cr3t", "next=[redacted]"),
        (f"a={JWT}", "a=[redacted]"),
        (JWT, "[redacted]"),
        ("a=b=c", "a=b=c"),
        ("%zz=1&%=2&&=3", "%zz=1&%=2&&=3"),
    ],
)
def test_queries(query: str, expected: str) -> None:
    """A value goes as a whole, also one that holds parameters of its own."""
    assert redact_query(query) == expected


@table(
    "path, expected",
    [
        ("/events/token", "/events/token"),
        ("/a;token=s3cr3t/b", "/a;token=[redacted]/b"),
        ("/a;v=1/b", "/a;v=1/b"),
        (f"/share/{JWT}/x", "/share/[redacted]/x"),
    ],
)
def test_paths(path: str, expected: str) -> None:
    """A path can hold parameters and tokens too."""
    assert redact_path(path) == expected


@given(
    name=st.sampled_from(SECRET_NAMES),
    value=st.text("abc%=;/?3D20.", max_size=20).map(lambda text: f"S3CR3T{text}S3CR3T"),
    before=st.text("ab=&;/?%3D", max_size=10),
)
def test_no_secret_remains(name: str, value: str, before: str) -> None:
    """Whatever stands before it, the value of a secret parameter is nowhere in the text."""
    assert "S3CR3T" not in shown_query(f"{before}&{name}={value}&z=1".encode())


@given(st.text(), st.integers(3, 50))
@example('a"b\\c\r\n\x1b[31m\u2028\u202e\ud800\x9b', 1000)
def test_printable(text: str, limit: int) -> None:
    """What comes out is ASCII in one line, without quotes, and no longer than asked for."""
    shown = printable(text, limit)
    assert shown.isascii()
    assert shown.isprintable() or not shown
    assert '"' not in shown
    assert len(shown) <= limit


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters='"\\')))
def test_what_is_harmless_stays(text: str) -> None:
    """Plain text is logged as it is."""
    assert printable(text) == (text if len(text) <= MAX_FIELD else f"{text[: MAX_FIELD - 3]}...")


def test_a_field_is_bounded() -> None:
    """So many characters are shown whole, and one more not."""
    assert printable("x" * MAX_FIELD) == "x" * MAX_FIELD
    assert printable("x" * (MAX_FIELD + 1)) == "x" * (MAX_FIELD - 3) + "..."
    assert len(shown_path(b"/" + b'"' * 9999)) == len(shown_query(b"\0" * 9999)) == MAX_FIELD


@table("piece", ["eyJ", "token=", "%25", "a=%3D;", "key&"])
def test_time_is_linear(piece: str) -> None:
    """A head full of what looks like a secret is dealt with in no time."""
    text = piece * (64 * 1024 // len(piece))
    start = time.perf_counter()
    shown_path(text.encode())
    shown_query(text.encode())
    assert time.perf_counter() - start < 1  # quadratic takes minutes


def test_only_the_beginning_is_read() -> None:
    """What no entry has room for costs nothing: a target has room for thousands of names."""
    shown_query(b"a=%41")  # a table of urllib's is made once
    for show in (shown_query, shown_path):
        calls = [count_calls(partial(show, b"a=%41&" * count)) for count in (200, 20_000)]
        assert calls[0] == calls[1]
        assert show(b"a=%41&" * 200).endswith("...")


# -- the formatter


def logged(message: str, *args: object, error: Exception | None = None) -> str:
    """Return what a logger with our formatter writes."""
    output = io.StringIO()
    handler = logging.StreamHandler(output)
    handler.setFormatter(LogFormatter("ENTRY %(name)s: %(message)s"))
    record = logging.LogRecord(
        "test",
        logging.ERROR,
        __file__,
        1,
        message,
        args,
        (type(error), error, None) if error else None,
    )
    handler.handle(record)
    return output.getvalue()


@given(st.text())
@example("x\nENTRY test: forged")
@example("\x1b[2J\u2028\x85")
def test_an_entry_is_one_line(text: str) -> None:
    """Whatever a message holds, it is one line without control characters."""
    line = logged("%s", text)
    assert line.startswith("ENTRY test: ")
    assert line.endswith("\n")
    assert len(line.splitlines()) == 1
    assert "\x1b" not in line


@given(st.text())
@example("x\nENTRY test: forged")
@example("x\u2028ENTRY\x1b[2J")
def test_a_traceback_forges_no_entry(text: str) -> None:
    """No line of a traceback begins as an entry does, whatever the exception says."""
    first, *rest = logged("boom", error=ValueError(text)).splitlines()
    assert first == "ENTRY test: boom"
    assert rest
    assert all(line.startswith("  ") for line in rest)
    assert "\x1b" not in "".join(rest)
