"""Headers and query parameters: read in any case, checked when set, decoded by the standards."""

from __future__ import annotations

import re
import string
from urllib.parse import parse_qs, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio._http.errors import ResponseStateError
from h3trio._http.headers import MAX_NUM_FIELDS, Headers, MutableHeaders, QueryParams

RAW = [
    (b"host", b"localhost"),
    (b"accept", b"text/event-stream"),
    (b"x-tag", b"a"),
    (b"accept", b"*/*"),
    (b"set-cookie", b"a=1"),
    (b"set-cookie", b"b=2"),
    (b"x-latin", b"caf\xe9"),
]
TOKEN = string.ascii_letters + string.digits + "!#$%&'*+-.^_`|~"
tokens = st.text(TOKEN, min_size=1, max_size=8)


# -- Headers


def test_headers_are_read_in_any_case() -> None:
    """A field is found whatever the case of the name asked for."""
    headers = Headers(RAW)
    assert headers["Host"] == headers["host"] == headers["HOST"] == "localhost"
    assert "hOsT" in headers
    assert "origin" not in headers
    assert headers.get("Origin") is None


def test_missing_header_is_a_key_error() -> None:
    """A field that isn't there is a KeyError that names it as asked for."""
    with pytest.raises(KeyError, match="X-None"):
        Headers(RAW)["X-None"]


def test_get_has_a_default() -> None:
    """As of any mapping: `None`, or what is given, by position or by name."""
    for headers in (Headers([(b"a", b"b")]), MutableHeaders({"a": "b"})):
        assert headers.get("A", "c") == "b"
        assert headers.get("x") is None
        assert headers.get("x", "c") == headers.get("x", default="c") == "c"
        assert headers.get("x", 1) == 1


def test_repeated_header_is_joined() -> None:
    """The values of a repeated field read as one list, and one by one through `get_list`."""
    headers = Headers(RAW)
    assert headers["Accept"] == "text/event-stream, */*"
    assert headers.get_list("Accept") == ["text/event-stream", "*/*"]
    assert headers.get_list("x-none") == []


def test_set_cookie_is_not_joined() -> None:
    """Cookies hold commas, so Set-Cookie reads as its first value."""
    headers = Headers(RAW)
    assert headers["Set-Cookie"] == "a=1"
    assert headers.get_list("Set-Cookie") == ["a=1", "b=2"]


def test_header_values_are_latin_1() -> None:
    """Every byte of a value survives decoding."""
    value = bytes(range(256))
    assert Headers([(b"x", value)])["X"].encode("latin-1") == value


@table("name", ["coo\N{KELVIN SIGN}ie", "ключ", "", "\0", "?"])
def test_a_name_that_is_not_ascii_matches_nothing(name: str) -> None:
    """A look-up with an odd name finds nothing, and is no error."""
    headers = Headers([(b"cookie", b"x"), (b"host", b"y")])
    assert name not in headers
    assert headers.get_list(name) == []


def test_a_name_that_is_no_string_is_not_in_headers() -> None:
    """`in` answers for any object, as for a dict."""
    names: list[object] = [b"host", None, 1]
    assert not any(name in Headers(RAW) for name in names)


def test_headers_iterate_each_name_once() -> None:
    """Names come in lower case and in the order of the message, a repeated one once."""
    headers = Headers(RAW)
    assert list(headers) == ["host", "accept", "x-tag", "set-cookie", "x-latin"]
    assert len(headers) == 5
    assert dict(headers)["accept"] == "text/event-stream, */*"


def test_iterating_changes_no_look_up() -> None:
    """What a look-up finds is the same before and after an iteration."""
    headers = Headers(RAW)
    before = {name: headers.get_list(name) for name in ("host", "accept", "x-none")}
    list(headers)
    assert {name: headers.get_list(name) for name in before} == before


def test_headers_keep_the_raw_list() -> None:
    """The pairs are kept as they are, without a copy."""
    assert Headers(RAW).raw is RAW
    assert not Headers()


def test_headers_cannot_be_changed() -> None:
    """There is no way to set a field of a request."""
    with pytest.raises(TypeError, match="item assignment"):
        Headers(RAW)["host"] = "evil"  # type: ignore[index]  # because the error is the point


def test_repr_keeps_secrets() -> None:
    """The representation shows fields, but not those that log people in."""
    headers = Headers([(b"host", b"a"), (b"authorization", b"Bearer xyz"), (b"cookie", b"xyz")])
    assert repr(headers) == (
        "Headers({'host': 'a', 'authorization': '[secret]', 'cookie': '[secret]'})"
    )
    assert "xyz" not in repr(MutableHeaders({"Set-Cookie": "xyz", "X": "y"}))


# -- MutableHeaders


def test_set_replaces_every_field_of_the_name() -> None:
    """Setting a field leaves one, in the case given."""
    headers = MutableHeaders([("vary", "Origin"), ("X", "1"), ("Vary", "Accept")])
    headers["VARY"] = "*"
    assert headers.raw == [(b"X", b"1"), (b"VARY", b"*")]
    headers.set("x", "2")
    assert headers.raw == [(b"VARY", b"*"), (b"x", b"2")]


def test_add_keeps_earlier_fields() -> None:
    """Adding repeats a field."""
    headers = MutableHeaders()
    headers.add("Set-Cookie", "a=1")
    headers.add("set-cookie", "b=2")
    assert headers.raw == [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2")]
    assert headers.get_list("SET-COOKIE") == ["a=1", "b=2"]
    assert list(headers) == ["set-cookie"]
    assert len(headers) == 1


def test_setdefault_sets_only_what_is_missing() -> None:
    """A field that is there, in any case, stays."""
    headers = MutableHeaders({"Cache-Control": "no-store"})
    assert headers.setdefault("cache-control", "no-cache") == "no-store"
    assert headers.setdefault("Vary", "Origin") == "Origin"
    assert dict(headers) == {"cache-control": "no-store", "vary": "Origin"}


def test_delete_needs_no_field() -> None:
    """`delete` removes all fields of a name, and is content with none; `del` isn't."""
    headers = MutableHeaders([("X", "1"), ("x", "2"), ("Y", "3")])
    headers.delete("X")
    headers.delete("X")
    assert headers.raw == [(b"Y", b"3")]
    del headers["y"]
    assert headers.raw == []
    with pytest.raises(KeyError, match="y"):
        del headers["y"]


def test_headers_are_copied_from_headers() -> None:
    """A copy has repeated fields too, and is independent."""
    source = MutableHeaders([("Set-Cookie", "a=1"), ("Set-Cookie", "b=2")])
    source.freeze()
    twin = MutableHeaders(source)
    twin.add("X", "1")
    assert source.get_list("set-cookie") == twin.get_list("set-cookie") == ["a=1", "b=2"]
    assert "x" not in source


def test_raw_is_a_copy() -> None:
    """Changing the list that was handed out changes no header."""
    headers = MutableHeaders({"X": "1"})
    headers.raw.append((b"Evil", b"\r\n"))
    assert headers.raw == [(b"X", b"1")]


@table("name", ["", "X Y", "X:", "X\r\nY", "Ä", "X\0", " X", "X\n", "(x)", "coo\N{KELVIN SIGN}ie"])
def test_a_name_that_is_no_token_is_refused(name: str) -> None:
    """What is not a token can't be the name of a field."""
    headers = MutableHeaders()
    for change in (headers.set, headers.add, headers.setdefault):
        with pytest.raises(ValueError, match=f"header name {re.escape(repr(name))} is not a token"):
            change(name, "x")
    assert headers.raw == []


@table(
    "value, message",
    [
        ("a\r\nEvil: 1", "control character"),
        ("a\n", "control character"),
        ("\r", "control character"),
        ("a\0b", "control character"),
        ("a\x7f", "control character"),
        ("a\x0bb", "control character"),
        (" a", "whitespace at its start or end"),
        ("a\t", "whitespace at its start or end"),
        (" ", "whitespace at its start or end"),
        ("5 €", "'€' is not in latin-1"),
    ],
)
def test_a_value_that_cannot_be_framed_is_refused(value: str, message: str) -> None:
    """A bad value is refused when it is set, the header is named, and the old value stays."""
    headers = MutableHeaders({"X-Tag": "old"})
    for change in (headers.set, headers.add):
        with pytest.raises(ValueError, match=f"header 'X-Tag': .*{message}"):
            change("X-Tag", value)
    assert headers.raw == [(b"X-Tag", b"old")]


@table("value", ["", "a b", "a\tb", "é", "\x85", "\xa0", '"x"; y=1', "a  b"])
def test_a_value_that_can_be_framed_is_sent_as_it_is(value: str) -> None:
    """Nothing is stripped or replaced."""
    assert MutableHeaders({"X": value}).raw == [(b"X", value.encode("latin-1"))]


@table("value", [5, None, b"x", ["x"]])
def test_a_value_that_is_no_string_is_a_type_error(value: object) -> None:
    """A number isn't turned into text in silence."""
    with pytest.raises(TypeError, match="header 'Retry-After': the value is a str, not"):
        MutableHeaders()["Retry-After"] = value  # type: ignore[assignment]  # because the error is the point


def test_a_name_that_is_no_string_is_a_type_error() -> None:
    """Bytes aren't decoded in silence."""
    with pytest.raises(TypeError, match="a header name is a str, not bytes"):
        MutableHeaders().set(b"X", "1")  # type: ignore[arg-type]  # because the error is the point


def test_frozen_headers_refuse_every_change() -> None:
    """Once the head went out, a change is an error, since it would have no effect."""
    headers = MutableHeaders({"X": "1"})
    headers.freeze()
    with pytest.raises(ResponseStateError, match="head has been sent"):
        headers["X"] = "2"
    with pytest.raises(ResponseStateError):
        headers.add("Y", "2")
    with pytest.raises(ResponseStateError):
        headers.setdefault("Y", "2")
    with pytest.raises(ResponseStateError):
        headers.delete("X")
    with pytest.raises(ResponseStateError):
        del headers["X"]
    with pytest.raises(ResponseStateError):
        headers.clear()
    assert headers.raw == [(b"X", b"1")]


near_tokens = st.text(st.sampled_from(TOKEN + " \r\n\0:é\u212a"), max_size=5)
near_values = st.text(st.sampled_from("ab \t\r\n\0\x7f\x0b\x85é€\ud800"), max_size=5)


@given(st.lists(st.tuples(near_tokens | st.text(max_size=4), near_values | st.text(max_size=6))))
def test_what_is_accepted_can_be_framed(fields: list[tuple[str, str]]) -> None:
    """Whatever is set, no CR, LF or NUL ever reaches the wire, and each field parses back."""
    headers = MutableHeaders()
    for name, value in fields:
        try:
            headers.add(name, value)
        except ValueError:
            continue
        assert headers.raw[-1] == (name.encode("ascii"), value.encode("latin-1"))
    for raw_name, raw_value in headers.raw:
        assert not set(b"\r\n\0") & {*raw_name, *raw_value}
        sent_name, _, sent_value = (raw_name + b": " + raw_value).partition(b":")
        assert (sent_name, sent_value.strip(b" \t")) == (raw_name, raw_value)


@given(tokens, st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=9))
def test_what_is_well_formed_is_accepted(name: str, value: str) -> None:
    """Every token is a name, and all visible ASCII a value, found in any case."""
    headers = MutableHeaders({name: value})
    assert headers[name.swapcase()] == value
    assert headers.raw == [(name.encode(), value.encode())]


# -- QueryParams


def test_query_has_first_value_and_all_values() -> None:
    """The first value of a repeated field is the one by name; `get_list` has all, in order."""
    query = QueryParams(b"topic=a&x=1&topic=b")
    assert query["topic"] == "a"
    assert query.get_list("topic") == ["a", "b"]
    assert query.get_list("none") == []
    assert query.get("none") is None
    assert dict(query) == {"topic": "a", "x": "1"}
    assert len(query) == 2
    assert query.raw == b"topic=a&x=1&topic=b"


@table(
    "raw, fields",
    [
        (b"", {}),
        (b"&&", {}),
        (b"a", {"a": [""]}),
        (b"a=", {"a": [""]}),
        (b"=a", {"": ["a"]}),
        (b"=", {"": [""]}),
        (b"a=b=c", {"a": ["b=c"]}),
        (b"a=1&&a=2&", {"a": ["1", "2"]}),
        (b"a+b=c+d", {"a b": ["c d"]}),
        (b"a=%2B%26%3D%25", {"a": ["+&=%"]}),
        (b"caf%C3%A9=%e2%82%ac", {"café": ["€"]}),
        (b"a=%ff", {"a": ["\ufffd"]}),
        (b"a=\xc3\xa9", {"a": ["é"]}),
        (b"a=100%&b=%zz&c=%4", {"a": ["100%"], "b": ["%zz"], "c": ["%4"]}),
        (b"a=1;b=2", {"a": ["1;b=2"]}),
    ],
)
def test_query_decoding(raw: bytes, fields: dict[str, list[str]]) -> None:
    """Fields are split, then decoded: + is a space, %XX is UTF-8, a bad escape stays."""
    query = QueryParams(raw)
    assert {name: query.get_list(name) for name in query} == fields


def test_get_list_is_a_copy() -> None:
    """Changing a list that was handed out changes no parameter."""
    query = QueryParams(b"a=1")
    query.get_list("a").append("2")
    assert query.get_list("a") == ["1"]


def test_query_has_a_bound_on_its_fields() -> None:
    """One field above the bound is refused at once; the bound itself is allowed."""
    QueryParams(b"a=1&b=2", max_num_fields=2)
    with pytest.raises(ValueError, match="more than 2 fields"):
        QueryParams(b"a=1&b=2&c=3", max_num_fields=2)
    with pytest.raises(ValueError, match="more than 1000 fields"):
        QueryParams(b"&" * MAX_NUM_FIELDS)
    assert len(QueryParams(b"", max_num_fields=0)) == 0


def test_repr_of_a_query_has_names_only() -> None:
    """Tokens travel in query strings, so values aren't shown."""
    assert repr(QueryParams(b"ticket=secret&topic=a")) == "<QueryParams ticket, topic>"
    assert repr(QueryParams()) == "<QueryParams empty>"


query_text = st.text(st.sampled_from("ab&=+%;2fFcC3A9g ?/#"), max_size=30)


@given(query_text | st.text(st.characters(max_codepoint=0x7E, min_codepoint=0x20)))
def test_query_agrees_with_the_standard_library(text: str) -> None:
    """Any ASCII query reads as `urllib.parse` reads it."""
    query = QueryParams(text.encode("ascii"))
    assert {name: query.get_list(name) for name in query} == parse_qs(text, keep_blank_values=True)


@given(st.dictionaries(st.text(max_size=5), st.lists(st.text(max_size=5), min_size=1, max_size=3)))
def test_query_round_trip(fields: dict[str, list[str]]) -> None:
    """What a client encodes is what the server reads."""
    query = QueryParams(urlencode(fields, doseq=True).encode("ascii"))
    assert {name: query.get_list(name) for name in query} == fields


@given(st.binary(max_size=40))
def test_query_reads_any_bytes(raw: bytes) -> None:
    """No bytes are an error, and every field can be looked up."""
    query = QueryParams(raw)
    for name in query:
        assert query[name] == query.get_list(name)[0]


@given(
    st.lists(
        st.tuples(
            st.from_regex(rb"[a-z-]{1,9}", fullmatch=True),
            st.from_regex(rb"[ -~]{0,9}", fullmatch=True),
        )
    )
)
def test_packed_fields_are_the_same(raw: list[tuple[bytes, bytes]]) -> None:
    """Packing changes no answer, however often it is done."""
    plain, packed = Headers(raw), Headers(raw)
    for _ in range(2):
        packed.pack()
        assert list(packed.raw) == raw
        assert dict(packed) == dict(plain)
        assert {name: packed.get_list(name) for name in packed} == {
            name: plain.get_list(name) for name in plain
        }
