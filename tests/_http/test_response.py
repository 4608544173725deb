"""Responses that can be sent, and requests read without trust."""

from __future__ import annotations

import json
import math
import re
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import quote, unquote_to_bytes, urlencode

import pytest
from helpers import count_calls
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._http.errors import HTTPError
from h3trio._http.headers import Headers, MutableHeaders, QueryParams, unescape
from h3trio._http.request import (
    Target,
    has_more_values,
    last_event_id,
    parse_form,
    parse_json,
    parse_query,
    split_target,
)
from h3trio._http.response import Response, error_response, to_response

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

FORM = "application/x-www-form-urlencoded"
TEXT = "text/plain; charset=utf-8"
DEEP = 200_000


def content_type(response: Response) -> str | None:
    """Return the content type of a response."""
    return response.headers.get("content-type")


def read_or_400(read: Callable[[bytes], T], raw: bytes) -> T | None:
    """Return what was read, or None if the client was told 400; any other error is let through."""
    try:
        return read(raw)
    except HTTPError as exc:
        if exc.status != HTTPStatus.BAD_REQUEST:
            raise
        return None


# -- Response


def test_text_is_sent_as_utf_8() -> None:
    """A string is plain text in UTF-8."""
    response = Response("café")
    assert (response.status, response.body) == (200, b"caf\xc3\xa9")
    assert response.headers.raw == [(b"Content-Type", b"text/plain; charset=utf-8")]


def test_bytes_are_sent_as_they_are() -> None:
    """Bytes have no type that we could know."""
    response = Response(b"\0\xff", status=HTTPStatus.CREATED)
    assert (response.status, response.body) == (201, b"\0\xff")
    assert type(response.status) is int
    assert content_type(response) == "application/octet-stream"


@table("status", [200, 204, 205, 304, 404])
def test_no_body_has_no_type(status: int) -> None:
    """A response without content doesn't say of what type it would be."""
    assert Response(status=status).headers.raw == []


def test_the_content_type_can_be_given() -> None:
    """A type given by argument or among the headers takes the place of the default."""
    assert content_type(Response("a", content_type="text/css")) == "text/css"
    assert content_type(Response("a", headers={"content-type": "text/css"})) == "text/css"
    with pytest.raises(ValueError, match="content type is given twice"):
        Response("a", content_type="text/css", headers={"Content-Type": "text/css"})


def test_headers_are_copied_and_can_change() -> None:
    """Headers come as a mapping or as pairs; changing the response's changes no others."""
    source = MutableHeaders([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    response = Response(headers=source)
    response.headers["X"] = "1"
    assert response.headers.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x" not in source
    assert Response(headers=[("Link", "1"), ("Link", "2")]).headers["link"] == "1, 2"


def test_a_header_that_cannot_be_framed_is_refused() -> None:
    """A response with a bad header can't be made."""
    with pytest.raises(ValueError, match="header 'X': the value holds CR"):
        Response(headers={"X": "1\r\nY: 2"})
    with pytest.raises(ValueError, match="header 'Content-Type': the value holds CR"):
        Response("x", content_type="a\nb")


@table("status", [-1, 0, 100, 101, 199, 600])
def test_a_status_that_is_not_final_is_refused(status: int) -> None:
    """Only 200 to 599 end an exchange."""
    with pytest.raises(ValueError, match=f"200 to 599, not {status}"):
        Response(status=status)


@table("status", [204, 205, 304])
@table("body", ["x", b"x"])
def test_a_body_where_there_is_none_is_refused(status: int, body: str | bytes) -> None:
    """A status that has no body can't be given one."""
    with pytest.raises(ValueError, match=f"a {status} response has no body"):
        Response(body, status=status)
    assert Response(type(body)(), status=status).body == b""


@table("body", [5, None, bytearray(b"x"), ["x"]])
def test_a_body_of_another_type_is_refused(body: object) -> None:
    """A body is a string or bytes; other types are named."""
    with pytest.raises(TypeError, match=f"is str or bytes, not {type(body).__name__}"):
        Response(body)  # type: ignore[arg-type]  # because the error is the point


def test_repr_of_a_response() -> None:
    """The representation has status, type and size, and not the content."""
    assert repr(Response("secret")) == "<Response 200, text/plain; charset=utf-8, 6 bytes>"
    assert repr(Response(status=204)) == "<Response 204, no content type, 0 bytes>"


def test_json_is_compact_utf_8() -> None:
    """JSON has no spaces and no escapes that it doesn't need."""
    response = Response.json({"a": [1, "é", None]}, status=201, headers={"X": "1"})
    assert (response.status, response.body) == (201, '{"a":[1,"é",null]}'.encode())
    assert response.headers.raw == [(b"X", b"1"), (b"Content-Type", b"application/json")]


@table("char", ["\x85", "\u2028", "\u2029"])
def test_json_is_one_line(char: str) -> None:
    """Characters at which Python splits lines are escaped in it, as others are not."""
    body = Response.json({f"é{char}": char}).body.decode()
    assert len(f"{body}.".splitlines()) == 1
    assert (json.loads(body), "é" in body) == ({f"é{char}": char}, True)


def circular() -> list[object]:
    """Make a list that holds itself."""
    items: list[object] = []
    items.append(items)
    return items


def nested(depth: int) -> list[object]:
    """Make a list in a list in a list."""
    items: list[object] = []
    for _ in range(depth):
        items = [items]
    return items


@table(
    "obj, error, message",
    [
        ({1, 2}, TypeError, "set"),
        ({"a": b"x"}, TypeError, "bytes"),
        ({(1, 2): 3}, TypeError, "tuple"),
        (math.nan, ValueError, "JSON compliant"),
        ([math.inf], ValueError, "JSON compliant"),
        ("\ud800", ValueError, "surrogates"),
        (circular(), ValueError, "Circular"),
    ],
)
def test_what_json_cannot_say_is_refused(obj: object, error: type[Exception], message: str) -> None:
    """The error says that JSON was the trouble, and with what."""
    with pytest.raises(error, match=f"can't be sent as JSON: .*{message}"):
        Response.json(obj)


def test_json_nested_too_deep_is_refused() -> None:
    """Running out of stack is an error about the value, not about the interpreter."""
    with pytest.raises(ValueError, match="can't be sent as JSON"):
        Response.json(nested(DEEP // 10))


def test_html_is_sent_as_utf_8() -> None:
    """HTML says what it is."""
    response = Response.html("<p>é", status=404, headers={"X": "1"})
    assert (response.status, response.body) == (404, b"<p>\xc3\xa9")
    assert response.headers.raw == [(b"X", b"1"), (b"Content-Type", b"text/html; charset=utf-8")]


@table("status", [301, 302, 303, 307, 308])
def test_redirect_has_a_location(status: int) -> None:
    """A redirect is a status, a location, and no body."""
    response = Response.redirect("/a?b=%20#c", status=status, headers={"Vary": "Cookie"})
    assert (response.status, response.body) == (status, b"")
    assert response.headers.raw == [(b"Vary", b"Cookie"), (b"Location", b"/a?b=%20#c")]
    assert Response.redirect("https://example.com/").status == 302


@table("status", [200, 300, 304, 305, 404])
def test_redirect_refuses_another_status(status: int) -> None:
    """A status that no browser follows is no redirect."""
    with pytest.raises(ValueError, match=f"303, 307 or 308, not {status}"):
        Response.redirect("/", status=status)


@table("location", ["", "/a b", "/é", "/\r\nX: 1", "/\n", "/a\0", " /", "/\ud800"])
def test_redirect_refuses_what_is_no_uri(location: str) -> None:
    """A location that would have to be encoded is left to the caller to encode."""
    with pytest.raises(ValueError, match="is not a URI: percent-encode it"):
        Response.redirect(location)


# -- to_response


@table(
    "result, status, body, expected_type",
    [
        ("hi", 200, b"hi", TEXT),
        ("", 200, b"", TEXT),
        (b"hi", 200, b"hi", "application/octet-stream"),
        (b"", 200, b"", "application/octet-stream"),
        ({"a": 1}, 200, b'{"a":1}', "application/json"),
        ({}, 200, b"{}", "application/json"),
        ([1, "é"], 200, b'[1,"\xc3\xa9"]', "application/json"),
        (None, 204, b"", None),
    ],
)
def test_what_a_handler_returns(
    result: object, status: int, body: bytes, expected_type: str | None
) -> None:
    """Each kind of result has its status and type."""
    response = to_response(result)
    assert (response.status, response.body, content_type(response)) == (status, body, expected_type)


def test_a_response_is_taken_as_it_is() -> None:
    """A handler's own response isn't copied."""
    response = Response("x", status=418)
    assert to_response(response) is response


@table("result", [5, True, 1.5, ("a",), {"a"}, object(), bytearray(b"x"), Response])
def test_what_no_handler_returns(result: object) -> None:
    """Another type is an error, which names it and says what to return."""
    with pytest.raises(
        TypeError, match="Response or None, or it streams; this one returned"
    ) as caught:
        to_response(result)
    assert str(caught.value).endswith(f"returned {type(result).__name__}")


def test_a_forgotten_await_is_named() -> None:
    """A coroutine for a result gets the hint that it needs."""

    async def helper() -> str:
        return "x"

    coroutine = helper()
    with pytest.raises(TypeError, match=r"returned coroutine \(is an await missing\?\)"):
        to_response(coroutine)
    coroutine.close()


def test_a_result_that_json_cannot_say() -> None:
    """A dict that has no JSON form is an error about JSON."""
    with pytest.raises(ValueError, match="can't be sent as JSON"):
        to_response({"a": math.nan})


# -- error_response


def test_an_error_is_a_line_of_text() -> None:
    """An error becomes its status, its headers, and its detail as a line."""
    response = error_response(HTTPError(405, "POST only: é", headers={"Allow": "POST"}))
    assert (response.status, response.body) == (405, "POST only: é\n".encode())
    assert response.headers.raw == [(b"Allow", b"POST"), (b"Content-Type", TEXT.encode())]
    assert error_response(HTTPError(404)).body == b"Not Found\n"


def test_an_error_may_have_a_type_of_its_own() -> None:
    """A content type among the headers of an error is kept."""
    error = HTTPError(400, '{"a":1}', headers={"content-type": "application/problem+json"})
    response = error_response(error)
    assert response.headers.raw == [(b"content-type", b"application/problem+json")]


def test_the_report_of_an_error_does_not_fail() -> None:
    """A detail that isn't text is sent as far as it is."""
    assert error_response(HTTPError(400, "a\ud800b")).body == b"a?b\n"


def test_an_error_with_a_bad_header_is_refused() -> None:
    """A header that can't be framed isn't sent, whoever set it."""
    with pytest.raises(ValueError, match="header 'X'"):
        error_response(HTTPError(400, headers={"X": "\r\n"}))


# -- split_target


@table(
    "raw, parts",
    [
        (b"/", (b"/", "/", b"", None)),
        (b"/a/b?x=1&y", (b"/a/b", "/a/b", b"x=1&y", None)),
        (b"/a?", (b"/a", "/a", b"", None)),
        (b"/a?b?c", (b"/a", "/a", b"b?c", None)),
        (b"/a%2Fb/caf%C3%A9", (b"/a%2Fb/caf%C3%A9", "/a/b/café", b"", None)),
        (b"/a%3Fb?%3F%zz", (b"/a%3Fb", "/a?b", b"%3F%zz", None)),
        (b"//a//b/../c/.", (b"//a//b/../c/.", "//a//b/../c/.", b"", None)),
        (b"/a+b;c=1", (b"/a+b;c=1", "/a+b;c=1", b"", None)),
        (b"/%2500", (b"/%2500", "/%00", b"", None)),
        (b"*", (b"*", "*", b"", None)),
        (b"http://h:80/a?x", (b"/a", "/a", b"x", b"h:80")),
        (b"HTTPS://h/a%20b", (b"/a%20b", "/a b", b"", b"h")),
        (b"http://h", (b"/", "/", b"", b"h")),
        (b"http://h?x=1/2", (b"/", "/", b"x=1/2", b"h")),
        (b"http://[::1]:3000//a", (b"//a", "//a", b"", b"[::1]:3000")),
        (b"/http://h/a", (b"/http://h/a", "/http://h/a", b"", None)),
    ],
)
def test_split_target(raw: bytes, parts: tuple[bytes, str, bytes, bytes | None]) -> None:
    """A target has a path, raw and decoded, a query, and an authority if it is absolute."""
    target = split_target(raw)
    assert (target.raw_path, target.path, target.raw_query, target.authority) == parts


@table(
    "raw, detail",
    [
        (b"", "neither a path nor an http URI"),
        (b"a", "neither a path nor an http URI"),
        (b"?a", "neither a path nor an http URI"),
        (b"**", "neither a path nor an http URI"),
        (b"example.com:443", "neither a path nor an http URI"),
        (b"ftp://h/a", "neither a path nor an http URI"),
        (b"http:/h/a", "neither a path nor an http URI"),
        (b"http:///a", "neither a path nor an http URI"),
        (b"http://", "neither a path nor an http URI"),
        (b"http://u:p@h/a", "not host:port"),
        (b"http://h#f", "not host:port"),
        (b"http://h/a#f", "fragment"),
        (b"/a#b", "fragment"),
        (b"/a?b#c", "fragment"),
        (b"/%ff", "path is not UTF-8"),
        (b"/\xff", "path is not UTF-8"),
        (b"/%C3/%A9", "path is not UTF-8"),
        (b"/%ed%a0%80", "path is not UTF-8"),
        (b"/a%00b", "NUL"),
        (b"/a\0b", "NUL"),
        (b"/100%", "without two hex digits"),
        (b"/%4", "without two hex digits"),
        (b"/%zz", "without two hex digits"),
        (b"http://h/%zz", "without two hex digits"),
    ],
)
def test_a_target_that_is_none_is_a_400(raw: bytes, detail: str) -> None:
    """A target that can't be read is the client's mistake, and the client is told which."""
    with pytest.raises(HTTPError, match=detail) as caught:
        split_target(raw)
    assert caught.value.status == 400


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=6)))
def test_target_round_trip(segments: list[str]) -> None:
    """Any path that a client encodes is decoded to what it was."""
    raw = ("/" + "/".join(quote(segment, safe="") for segment in segments)).encode("ascii")
    target = split_target(raw + b"?q")
    assert target == Target(raw_path=raw, path="/" + "/".join(segments), raw_query=b"q")


@given(st.binary(max_size=20) | st.binary(max_size=20).map(lambda tail: b"/" + tail))
def test_any_target_is_read_or_refused(raw: bytes) -> None:
    """No bytes are another error than a 400, and what is read loses nothing."""
    target = read_or_400(split_target, raw)
    if target is not None:
        assert "\0" not in target.path
        assert raw in (target.raw_path + b"?" + target.raw_query, target.raw_path)


# -- last_event_id


@table(
    "header, query, expected",
    [
        (None, b"", None),
        (b"1", b"", "1"),
        (b"1", b"last_event_id=2&lastEventID=3&lastEventId=4", "1"),
        (None, b"lastEventId=4&lastEventID=3&last_event_id=2", "2"),
        (None, b"lastEventId=4&lastEventID=3", "3"),
        (None, b"lastEventId=4", "4"),
        (None, b"lasteventid=4", None),
        (b"", b"lastEventId=4", "4"),
        (b"", b"", None),
        (None, b"last_event_id=&lastEventID=3", "3"),
        (None, b"last_event_id=", None),
        ("é€".encode(), b"", "é€"),
        (b"\xff", b"last_event_id=2", "\ufffd"),
        (None, b"last_event_id=%C3%A9", "é"),
        (None, b"last_event_id=%ff", "\ufffd"),
    ],
)
def test_last_event_id(header: bytes | None, query: bytes, expected: str | None) -> None:
    """The header goes first, then the query's three names; empty is absent; all is UTF-8."""
    headers = Headers([] if header is None else [(b"last-event-id", header)])
    assert last_event_id(headers, QueryParams(query)) == expected


def test_a_repeated_last_event_id_is_no_id() -> None:
    """A header that is sent twice gives an id that no hub issued, not one of the two."""
    headers = Headers([(b"last-event-id", b"1"), (b"last-event-id", b"2")])
    assert last_event_id(headers, QueryParams()) == "1, 2"


# -- parse_query, parse_form


def test_parse_query_bounds_its_fields() -> None:
    """Too many fields are the client's mistake."""
    assert parse_query(b"a=1&a=2", max_num_fields=2).get_list("a") == ["1", "2"]
    with pytest.raises(HTTPError, match="The query has more than 2 fields") as caught:
        parse_query(b"a&b&c", max_num_fields=2)
    assert caught.value.status == 400


@table("media_type", [FORM, FORM.upper(), f"{FORM}; charset=utf-8", f" {FORM} ;x"])
def test_parse_form(media_type: str) -> None:
    """A form is decoded like a query, whatever the case and parameters of its type."""
    form = parse_form(b"topic=a&topic=b+c&data=%C3%A9%0A", media_type)
    assert form.get_list("topic") == ["a", "b c"]
    assert form["data"] == "é\n"


@table(
    "media_type", [None, "", "application/json", "multipart/form-data; boundary=x", f"{FORM}x", ";"]
)
def test_a_form_of_another_type_is_a_415(media_type: str | None) -> None:
    """What isn't declared a form isn't read as one, and the client is told what would be."""
    with pytest.raises(HTTPError) as caught:
        parse_form(b"a=1", media_type)
    assert caught.value.status == 415
    assert caught.value.headers == {"Accept": FORM}
    assert FORM in caught.value.detail


@table(
    "body, detail",
    [
        (b"a=%", "without two hex digits"),
        (b"a=%4&b=1", "without two hex digits"),
        (b"%zz=1", "without two hex digits"),
        (b"a=%ff", "form is not UTF-8"),
        (b"a=\xff", "form is not UTF-8"),
        (b"a=%C3&%A9=1", "form is not UTF-8"),
        (b"a&b&c", "form has more than 2 fields"),
    ],
)
def test_a_malformed_form_is_a_400(body: bytes, detail: str) -> None:
    """Data that would be damaged by decoding is refused."""
    with pytest.raises(HTTPError, match=detail) as caught:
        parse_form(body, FORM, max_num_fields=2)
    assert caught.value.status == 400


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), max_size=8))
def test_form_round_trip(fields: list[tuple[str, str]]) -> None:
    """What a client encodes is what the server reads."""
    form = parse_form(urlencode(fields).encode("ascii"), FORM)
    assert [(n, v) for n in form for v in form.get_list(n)] == sorted(
        fields, key=lambda field: [name for name, _ in fields].index(field[0])
    )


@given(st.binary(max_size=30))
def test_any_form_is_read_or_refused(body: bytes) -> None:
    """No bytes are another error than a 400, and what is read has no replacement characters."""
    form = read_or_400(lambda raw: parse_form(raw, FORM), body) or QueryParams()
    assert b"\xef\xbf\xbd" in body or not any("\ufffd" in name + form[name] for name in form)


@given(st.text("%\\\\xuN{4a\x00\xe9", max_size=12))
def test_escapes(text: str) -> None:
    """They are undone as Python's own function does it, in a query broken ones too."""
    raw = text.encode("latin-1")
    assert QueryParams(b"a=" + raw)["a"] == unquote_to_bytes(raw).decode("utf-8", "replace")
    if re.search(rb"%(?![0-9A-Fa-f]{2})", raw):
        with pytest.raises(ValueError, match="escape"):
            unescape(raw)
    else:
        assert unescape(raw) == unquote_to_bytes(raw)


def test_a_form_of_escapes_takes_no_steps_of_python() -> None:
    """A form is read in one step, so no escape in it may cost a call: they would add up."""

    def read(count: int) -> None:
        assert len(parse_form(b"a=" + b"%41b%C3%A9" * count, FORM)["a"]) == 3 * count

    assert count_calls(partial(read, 10)) == count_calls(partial(read, 10_000))


# -- parse_json


@table(
    "body, values",
    [
        (b"", 1),
        (b"1", 1),
        (b"[]", 2),
        (b"[1,2]", 3),
        (b'{"a": 1, "b": [[2]]}', 5),
        (rb'["a,b", "[{,", "\"[[", "\\", "\\\",,"]', 6),
        (b'{"a,[": "," }', 2),
        (b'["' + b"," * 1000 + b'"]', 2),
    ],
)
def test_values_of_json(body: bytes, values: int) -> None:
    """What stands in strings isn't counted."""
    assert not has_more_values(body, values)
    assert has_more_values(body, values - 1)


def test_more_strings_than_values_may_have() -> None:
    """A text with so many strings isn't taken apart to be counted."""
    assert has_more_values(b'"' * 100 + b"," * 3, 3)


@table(
    "body, value",
    [
        (b'{"a": [1, 2.5, null, true, "\xc3\xa9"]}', {"a": [1, 2.5, None, True, "é"]}),
        (b" 1 \n", 1),
        (b'"x"', "x"),
        (b"-1.5e3", -1500.0),
        (b"[]", []),
        (rb'"\ud83d\uDE00"', "\N{GRINNING FACE}"),
        (rb'"\\ud800"', r"\ud800"),
    ],
)
def test_parse_json(body: bytes, value: object) -> None:
    """Any JSON value is a body."""
    assert parse_json(body) == value


@table(
    "body, detail",
    [
        (b"", "Expecting value at line 1, column 1"),
        (b'{"a": 1,\n "b" 2}', "Expecting ':' delimiter at line 2, column 6"),
        (b"{} junk", "Extra data at line 1, column 4"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b'"\xff"', "byte 1 is not UTF-8"),
        ('"é"'.encode("utf-16"), "byte 0 is not UTF-8"),
        (b"NaN", "NaN is not a number"),
        (b"[-Infinity]", "-Infinity is not a number"),
        (b"1e999", "a number is out of range"),
        (b"[-1e999]", "a number is out of range"),
        (b"[" * DEEP, "nested too deep"),
        (b'{"a":' * DEEP, "nested too deep"),
        (b"9" * 5000, "a number has too many digits"),
        (b'"\x01"', "control character"),
        (rb'"\ud800"', "lone surrogate"),
        (rb'{"\uDFFF": 1}', "lone surrogate"),
        (rb'["\ude00\ud83d"]', "lone surrogate"),
    ],
)
def test_what_is_no_json_is_a_400(body: bytes, detail: str) -> None:
    """A body that can't be read is the client's mistake, and the client is told where."""
    with pytest.raises(HTTPError) as caught:
        parse_json(body)
    assert caught.value.status == 400
    assert caught.value.detail.startswith("The body is not JSON: ")
    assert detail in caught.value.detail


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3)
    ),
    max_leaves=8,
)


@given(json_values)
def test_json_round_trip(value: object) -> None:
    """What we send as JSON we can read, and so can the standard library."""
    body = Response.json(value).body
    assert parse_json(body) == json.loads(body) == value


@given(
    st.binary(max_size=20)
    | st.text(st.sampled_from('[]{}",:1e-.NaI\\u '), max_size=20).map(str.encode)
)
def test_any_body_is_json_or_refused(body: bytes) -> None:
    """No bytes are another error than a 400, and what is read can be sent back."""
    Response.json(read_or_400(parse_json, body))
