"""Readers of a request's parts: its target, query, form, JSON and last event id.

All are strict. A fault of the client is an `HTTPError` with a status and a detail, never a bare
`ValueError`, so a handler needn't catch anything.
"""

from __future__ import annotations

import json
import math
import re
from typing import Final, NamedTuple, Never, final

from .errors import HTTPError
from .headers import MAX_NUM_FIELDS, Headers, QueryParams, unescape
from .strict import is_authority

FORM: Final = "application/x-www-form-urlencoded"
# Half of a pair, or the pair that any character beyond U+FFFF is escaped as (RFC 8259 §7).
_SURROGATE_ESCAPE: Final = re.compile(r"\\u[dD][89A-Fa-f]")
# RFC 3986 §3: the scheme in any case, an authority, then path or query.
_ABSOLUTE: Final = re.compile(rb"https?://([^/?]+)(.*)", re.IGNORECASE)


@final
class Target(NamedTuple):
    """The target of a request (RFC 9112 §3.2), taken apart but not normalised.

    `raw_path` is the path as sent, on which routes are matched; `path` is it percent-decoded, so
    there `%2F` and `/` look alike; `raw_query` follows the `?`. `authority` is that of a target in
    absolute form: it takes the place of the `Host` header (RFC 9112 §3.2.2). `*` is a path.
    """

    raw_path: bytes
    path: str
    raw_query: bytes
    authority: bytes | None = None


def split_target(target: bytes) -> Target:
    """Take apart the target of a request: `/path?query`, `http://host/path?query` or `*`.

    Raises:
        HTTPError: 400 for any other form, a fragment, user information in the authority, or a path
            with a `%` without two hex digits, or that decodes to other than UTF-8 or to a NUL.
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
    # RFC 9110 §4.2.4: a recipient "SHOULD parse for userinfo and treat its presence as an error";
    # §4.2.1: an http URI with an empty host is to be rejected.
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
    try:
        return unescape(raw).decode("utf-8")
    except UnicodeDecodeError as exc:
        is_text = exc.encoding != "utf-8"
    # Raised out here: an error in its context would hold the frames of whoever called.
    is_wrong = "has a % without two hex digits behind it" if is_text else "is not UTF-8"
    raise HTTPError(400, f"The {what} {is_wrong}.")


def last_event_id(headers: Headers, query: QueryParams) -> str | None:
    """Return the id from which a client asks to go on, or None if it asks for none.

    The header `Last-Event-ID` comes first, then the query parameters `last_event_id`,
    `lastEventID` and `lastEventId`; an empty one counts as absent. The header is UTF-8 (WHATWG
    HTML §9.2.4). Bytes that are not UTF-8 become U+FFFD, as in the query: such a client, and one
    that sends the header twice, gets the answer for unknown ids, and not the live stream.
    """
    header = headers.get("last-event-id")
    if header:
        return header.encode("latin-1").decode("utf-8", "replace")
    return next(filter(None, map(query.get, ("last_event_id", "lastEventID", "lastEventId"))), None)


def is_event_source(method: str, headers: Headers) -> bool:
    """Whether a request is as a browser's `EventSource` makes it.

    WHATWG HTML section 9.2.2: `Accept` is `text/event-stream` and the cache mode "no-store", for
    which WHATWG Fetch (HTTP-network-or-cache fetch) says `Cache-Control: no-cache`. Libraries that
    read event streams send both as well, so the name that all browsers have decides.
    """
    return (
        method == "GET"
        and headers.get("accept") == "text/event-stream"
        and headers.get("cache-control") == "no-cache"
        and headers.get("user-agent", "").startswith("Mozilla/")
    )


def parse_query(raw: bytes, *, max_num_fields: int = MAX_NUM_FIELDS) -> QueryParams:
    """Return the fields of a query string, without its `?`.

    Raises:
        HTTPError: 400 for more than `max_num_fields`.
    """
    return _parse_fields(raw, "query", max_num_fields)


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
    # The separators are ASCII, so the whole is UTF-8 only if each field is.
    _decode_strictly(body, "form")
    return _parse_fields(body, "form", max_num_fields)


def _parse_fields(raw: bytes, what: str, max_num_fields: int) -> QueryParams:
    try:
        return QueryParams(raw, max_num_fields=max_num_fields)
    except ValueError as exc:
        raise HTTPError(400, f"The {what} has {exc}.") from exc


def parse_text(body: bytes) -> str:
    """Return the text of a UTF-8 body.

    Raises:
        HTTPError: 400 for what is not UTF-8.
    """
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise HTTPError(400, f"The body is not text: byte {exc.start} is not UTF-8.") from None


def has_more_values(body: bytes, limit: int) -> bool:
    """Whether a JSON text has more values than that; arrays and objects count, and what is in them.

    Names don't count. An empty array or object counts as one value, or as two.
    """
    if _count_values(body) <= limit:
        return False
    # It may be what stands in strings.
    bare = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    if bare.count(b'"') > 4 * limit:  # a value is one string at most, with a name two
        return True
    return _count_values(b"".join(bare.split(b'"')[::2])) > limit


def _count_values(text: bytes) -> int:
    return 1 + len(text) - len(text.translate(None, b",[{"))


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
    # `1e999` is JSON, but becomes an infinity, which isn't.
    number = float(text)
    if math.isinf(number):
        raise _not_json("a number is out of range")
    return number
