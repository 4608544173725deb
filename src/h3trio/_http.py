"""HTTP as plain values: what a handler returns, and what a request says, without a socket in sight.

Answers are made strict: a `Response` that exists can be sent, since its status, headers and body
were checked where they were written. Requests are read strict too, with the client told what is
wrong: every helper that reads what a client sent raises `HTTPError` with a status and a detail,
never a bare ValueError, so a handler may call it unguarded.
"""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, Never, TypeAlias, cast, final
from urllib.parse import unquote_to_bytes

from ._cookies import SetsCookies
from ._errors import HTTPError
from ._headers import MAX_NUM_FIELDS, Headers, MutableHeaders, QueryParams
from ._request_head import is_authority

HeadersLike: TypeAlias = Mapping[str, str] | Iterable[tuple[str, str]]
"""Headers to send: a mapping, or pairs, in which a name may be repeated."""

TEXT: Final = "text/plain; charset=utf-8"
HTML: Final = "text/html; charset=utf-8"
JSON: Final = "application/json"
BYTES: Final = "application/octet-stream"
FORM: Final = "application/x-www-form-urlencoded"

# Made and checked once: most responses hold one of these and nothing else.
_KNOWN_TYPES: Final[Mapping[str | None, MutableHeaders]] = {
    known: MutableHeaders({"Content-Type": known}) for known in (TEXT, HTML, JSON, BYTES)
}
# `json.dumps` makes one for each call that asks for anything special.
_JSON: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)

_LOWEST_FINAL: Final = 200
_HIGHEST: Final = 599
# RFC 9110 §15.3.5, §15.3.6, §15.4.5: these end with the head.
_BODILESS: Final = frozenset({204, 205, 304})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_VISIBLE_ASCII: Final = re.compile(r"[!-~]+")
# Half of a pair, or the pair that any character beyond U+FFFF is escaped as (RFC 8259 §7).
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89A-Fa-f]")
_BAD_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
# RFC 3986 §3: the scheme in any case, an authority, then path or query.
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)


@final
class Response(SetsCookies):
    """A whole answer: status, headers, body.

    A `str` body is sent as UTF-8, as `text/plain` unless `content_type` or the headers say
    otherwise; `bytes` go out as `application/octet-stream`; no body, no content type.
    Middleware may change `headers`; for another status or body, make another response.

    Raises:
        ValueError: a status outside 200 to 599, a body with 204, 205 or 304, a content type given
            twice, or a header that `MutableHeaders` refuses.
        TypeError: a body that is neither `str` nor `bytes`.
    """

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        body: bytes | str = b"",
        *,
        status: int = 200,
        headers: HeadersLike | None = None,
        content_type: str | None = None,
    ) -> None:
        if not _LOWEST_FINAL <= status <= _HIGHEST:
            raise ValueError(f"a response takes a status from 200 to 599, not {status!r}")
        if body and status in _BODILESS:
            raise ValueError(f"a {int(status)} response has no body")
        self.status: Final = int(status)
        """From 200 to 599."""
        if content_type is None and body:
            content_type, is_default = TEXT if isinstance(body, str) else BYTES, True
        else:
            is_default = False
        self.headers: Final = _with_type(headers, content_type, is_default=is_default)
        """What goes out, in this order; it may be changed."""
        self.body: Final = _encode_body(body)
        """The bytes that go out."""

    def _cookie_headers(self) -> MutableHeaders:
        return self.headers

    def __repr__(self) -> str:
        content_type = self.headers.get("content-type", "no content type")
        return f"<Response {self.status}, {content_type}, {len(self.body)} bytes>"

    @classmethod
    def json(
        cls, obj: object, *, status: int = 200, headers: HeadersLike | None = None
    ) -> Response:
        """Answer with compact JSON in UTF-8 (RFC 8259).

        Raises:
            TypeError: JSON has no form for this.
            ValueError: NaN or an infinity, a lone surrogate, or what holds itself or is nested too
                deep.
        """
        try:
            body = _JSON.encode(obj).encode("utf-8")
        except TypeError as exc:
            raise TypeError(f"can't be sent as JSON: {exc}") from exc
        except (ValueError, RecursionError) as exc:
            raise ValueError(f"can't be sent as JSON: {exc}") from exc
        return cls(body, status=status, headers=headers, content_type=JSON)

    @classmethod
    def html(cls, text: str, *, status: int = 200, headers: HeadersLike | None = None) -> Response:
        """Answer with HTML, sent as UTF-8. Nothing is escaped."""
        return cls(text, status=status, headers=headers, content_type=HTML)

    @classmethod
    def redirect(
        cls, location: str, *, status: int = 302, headers: HeadersLike | None = None
    ) -> Response:
        """Send the client to a URI reference, absolute or relative (RFC 9110 §10.2.2).

        Raises:
            ValueError: a status other than 301, 302, 303, 307 and 308, or a location that is empty
                or holds other than visible ASCII: a URI has its spaces and its non-ASCII characters
                percent-encoded (RFC 3986 §2), and browsers differ in how they read one that hasn't.
        """
        if status not in _REDIRECTS:
            raise ValueError(f"a redirect takes status 301, 302, 303, 307 or 308, not {status!r}")
        if not _VISIBLE_ASCII.fullmatch(location):
            raise ValueError(f"redirect location {location!r} is not a URI: percent-encode it")
        response = cls(status=status, headers=headers)
        response.headers.set("Location", location)
        return response


def _with_type(
    headers: HeadersLike | None, content_type: str | None, *, is_default: bool
) -> MutableHeaders:
    if not headers and (known := _KNOWN_TYPES.get(content_type)) is not None:
        return MutableHeaders(known)
    fields = MutableHeaders(headers or ())
    if content_type is None:
        return fields
    if "content-type" not in fields:
        fields.set("Content-Type", content_type)
    elif not is_default:
        raise ValueError("the content type is given twice: in content_type and in headers")
    return fields


def _encode_body(body: object) -> bytes:
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode("utf-8")
    raise TypeError(f"a response body is str or bytes, not {type(body).__name__}")


def to_response(result: object) -> Response:
    """Make a response of what a handler returned.

    `str` is sent as `text/plain`, `bytes` as `application/octet-stream`, `dict` and
    `list` as JSON, None as 204, a `Response` as it is.

    Raises:
        TypeError: anything else, named; or what JSON has no form for.
        ValueError: as `Response.json`.
    """
    if isinstance(result, Response):
        return result
    if result is None:
        return Response(status=204)
    if isinstance(result, str):
        return Response(result, content_type=TEXT)
    if isinstance(result, bytes):
        return Response(result, content_type=BYTES)
    if isinstance(result, dict | list):
        return Response.json(cast("object", result))
    hint = " (is an await missing?)" if inspect.isawaitable(result) else ""
    raise TypeError(
        "a handler returns str, bytes, dict, list, Response or None, or it streams; "
        f"this one returned {type(result).__name__}{hint}"
    )


def error_response(error: HTTPError) -> Response:
    """Make the response of an error: status, headers, and the detail as a line of plain text.

    Raises:
        ValueError: the error's headers can't be sent.
    """
    headers = MutableHeaders(error.headers)
    headers.setdefault("Content-Type", TEXT)
    # A lone surrogate is replaced, not refused: failing here would hide the error to be reported.
    body = f"{error.detail}\n".encode("utf-8", "replace")
    return Response(body, status=error.status, headers=headers)


@final
class Target(NamedTuple):
    """The target of a request (RFC 9112 §3.2), taken apart but not normalised.

    `raw_path` is the path as sent, on which routes are matched; `path` is it percent-decoded,
    so there `%2F` and `/` look alike; `raw_query` is what follows the `?`. `authority` is
    that of a target in absolute form: it then takes the place of the `Host` header, which must be
    ignored (RFC 9112 §3.2.2). `*` is a path of its own.
    """

    raw_path: bytes
    path: str
    raw_query: bytes
    authority: bytes | None = None


def split_target(target: bytes) -> Target:
    """Take apart the target of a request: `/path?query`, `http://host/path?query` or `*`.

    Raises:
        HTTPError: 400 for any other form, a fragment, user information in the authority, a `%`
            without two hex digits in the path, or a path that decodes to other than UTF-8 or to a
            NUL.
    """
    authority = None
    if not target.startswith(b"/"):
        if target == b"*":
            return Target(raw_path=target, path="*", raw_query=b"")
        authority, target = _split_absolute(target)
    if b"#" in target:
        raise HTTPError(400, "The request target holds a fragment (#).")
    raw_path, _, raw_query = target.partition(b"?")
    return Target(
        raw_path=raw_path, path=_decode_path(raw_path), raw_query=raw_query, authority=authority
    )


def _split_absolute(target: bytes) -> tuple[bytes, bytes]:
    found = _ABSOLUTE.fullmatch(target)
    if found is None:
        raise HTTPError(400, "The request target is neither a path nor an http URI.")
    authority, rest = found.groups()
    # RFC 9110 §4.2.4: a recipient "SHOULD parse for userinfo and treat its presence as an error".
    # An http URI with an empty host is to be rejected (section 4.2.1).
    if authority.startswith(b":") or not is_authority(authority):
        raise HTTPError(400, "The request target has an authority that is not host:port.")
    # RFC 9112 §3.2.1: an empty path is the same as "/".
    return authority, rest if rest.startswith(b"/") else b"/" + rest


def _decode_path(raw_path: bytes) -> str:
    path = _decode_strictly(raw_path, "request path")
    if "\0" in path:
        raise HTTPError(400, "The request path holds a NUL.")
    return path


def _decode_strictly(raw: bytes, what: str) -> str:
    if _BAD_ESCAPE.search(raw):
        raise HTTPError(400, f"The {what} has a % without two hex digits behind it.")
    try:
        return unquote_to_bytes(raw).decode("utf-8")
    except UnicodeDecodeError:
        raise HTTPError(400, f"The {what} is not UTF-8.") from None


def last_event_id(headers: Headers, query: QueryParams) -> str | None:
    """Return the id from which a client asks to go on, or None if it asks for none.

    The header `Last-Event-ID` comes first, then the query parameters `last_event_id`,
    `lastEventID` and `lastEventId`; an empty one counts as absent. The header is UTF-8 (WHATWG
    HTML §9.2.4). What is not UTF-8 becomes U+FFFD, as in the query: None would put a client that
    asked for a replay on the live stream, and tell it nothing; an id that nobody issued gets it the
    answer for unknown ids. So does a header that is sent twice.
    """
    header = headers.get("last-event-id")
    if header:
        return header.encode("latin-1").decode("utf-8", "replace")
    return next(filter(None, map(query.get, ("last_event_id", "lastEventID", "lastEventId"))), None)


def parse_query(raw: bytes, *, max_num_fields: int = MAX_NUM_FIELDS) -> QueryParams:
    """Return the fields of a query string, without its `?`.

    Raises:
        HTTPError: 400 for more than `max_num_fields`.
    """
    try:
        return QueryParams(raw, max_num_fields=max_num_fields)
    except ValueError as exc:
        raise HTTPError(400, f"The query has {exc}.") from exc


def parse_form(
    body: bytes, content_type: str | None, *, max_num_fields: int = MAX_NUM_FIELDS
) -> QueryParams:
    """Return the fields of an `application/x-www-form-urlencoded` body, which always is UTF-8.

    Raises:
        HTTPError: 415 for another content type or none; 400 for a `%` without two hex digits, for
            what does not decode to UTF-8, and for more than `max_num_fields` fields.
    """
    media_type = (content_type or "").partition(";")[0].strip().lower()
    if media_type != FORM:
        raise HTTPError(415, f"The body must be of type {FORM}.", headers={"Accept": FORM})
    # Decoded in one go for the check: the separators are ASCII, so the whole is UTF-8 only if each
    # field is.
    _decode_strictly(body, "form")
    try:
        return QueryParams(body, max_num_fields=max_num_fields)
    except ValueError as exc:
        raise HTTPError(400, f"The form has {exc}.") from exc


def parse_json(body: bytes) -> object:
    """Return the value of a JSON body (RFC 8259).

    Raises:
        HTTPError: 400, with line and column where there is one, for what is not JSON in UTF-8, for
            `NaN` and `Infinity`, for numbers out of range, for what is nested too deep, and for
            strings with a lone surrogate, which no response and no event can hold.
    """
    try:
        text = body.decode("utf-8")
        value: object = json.loads(text, parse_constant=_refuse_number, parse_float=_finite)
        if _SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as exc:
        detail = f"{exc.msg} at line {exc.lineno}, column {exc.colno}"
    except UnicodeDecodeError as exc:
        detail = f"byte {exc.start} is not UTF-8"
    except UnicodeEncodeError:
        detail = "a string holds a lone surrogate"
    except RecursionError:
        detail = "it is nested too deep"
    except ValueError:  # Python's bound on the digits of an int: reading them is quadratic
        detail = "a number has too many digits"
    else:
        return value
    raise _not_json(detail)


def _not_json(detail: str) -> HTTPError:
    return HTTPError(400, f"The body is not JSON: {detail}.")


def _refuse_number(text: str) -> Never:
    raise _not_json(f"{text} is not a number")


def _finite(text: str) -> float:
    # `1e999` is JSON by its grammar, but would become an infinity, which can't be sent back as
    # JSON.
    number = float(text)
    if math.isinf(number):
        raise _not_json("a number is out of range")
    return number
