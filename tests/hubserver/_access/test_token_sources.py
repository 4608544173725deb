"""`TokenSources`: the places of a token, and the pages that may have a browser send one."""

from __future__ import annotations

import pytest
from auth_helpers import foreign_request as request

from h3trio import H3Event, HTTPError
from h3trio.hubserver import TokenSources
from h3trio.hubserver._access.token_sources import forbidden, unauthorized

COOKIE = ("Cookie", "mercureAuthorization=t")
OWN = ("Origin", "https://hub.example")


def found(event: H3Event, token_sources: TokenSources | None = None) -> str | None:
    """Return the token of a request."""
    return (token_sources or TokenSources()).find(event)


def refused(event: H3Event, token_sources: TokenSources | None = None) -> HTTPError:
    """Return what a request is answered."""
    with pytest.raises(HTTPError) as caught:
        found(event, token_sources)
    return caught.value


PLACES = [
    ([], None),
    ([("Authorization", "Bearer abc")], "abc"),
    ([("Authorization", "bearer   abc ")], "abc"),
    ([("Authorization", "BEARER a b")], "a b"),
    ([("Authorization", "Basic abc")], None),
    ([("Authorization", "Bearerabc")], None),
    ([("Authorization", "Basic x"), ("Authorization", "Bearer abc")], "abc"),
    ([("Cookie", "mercureAuthorization=abc")], "abc"),
    ([("Cookie", 'a=b; mercureAuthorization="abc" ; c=d')], "abc"),
    ([("Cookie", "a=b"), ("Cookie", "mercureAuthorization=abc=")], "abc="),
    ([("Cookie", "mercureAuthorization=; a=b")], None),
    ([("Cookie", "MercureAuthorization=abc; xmercureAuthorization=d; mercure")], None),
    ([("Cookie", ";;=;=x")], None),
]


def test_where_a_token_is(subtests: pytest.Subtests) -> None:
    """In the header or the cookie; what is in neither is no token."""
    for fields, token in PLACES:
        with subtests.test(fields=fields):
            assert found(request(*fields)) == token


def test_the_query_counts_where_it_may() -> None:
    """For GET and HEAD only, and only if it is allowed."""
    target, allowed = "/events?authorization=abc", TokenSources(allow_query=True)
    assert found(request(target=target)) is None
    assert found(request(target=target), allowed) == "abc"
    assert found(request(target=target, method="HEAD"), allowed) == "abc"
    assert found(request(target=target, method="POST"), allowed) is None


BEARER = ("Authorization", "Bearer a")


TWO_TOKENS = [
    request(BEARER, COOKIE),
    request(BEARER, BEARER),
    request(COOKIE, COOKIE),
    request(("Cookie", "mercureAuthorization=a; mercureAuthorization=b")),
    request(BEARER, target="/?authorization=a"),
    request(COOKIE, target="/?authorization=a"),
    request(target="/?authorization=a&authorization=b"),
    request(("Authorization", "Bearer"), COOKIE),
]


def test_two_tokens_are_one_too_many(subtests: pytest.Subtests) -> None:
    """RFC 6750 section 2: clients must not use more than one method."""
    for event in TWO_TOKENS:
        with subtests.test(event=event):
            error = refused(event, TokenSources(allow_query=True))
            assert error.status == 400
            assert 'error="invalid_request"' in error.headers["WWW-Authenticate"]


def test_an_empty_token() -> None:
    """A scheme without a token is malformed, and doesn't pass as anonymous."""
    for value in ("Bearer", "Bearer ", "bearer  "):
        assert refused(request(("Authorization", value))).status == 400
    assert refused(request(target="/?authorization="), TokenSources(allow_query=True)).status == 400


def test_the_cookie_may_have_another_name() -> None:
    """One that only our own host can set, say."""
    token_sources = TokenSources(cookie_name="__Host-hub")
    assert found(request(("Cookie", "__Host-hub=abc")), token_sources) == "abc"
    assert found(request(COOKIE), token_sources) is None


ORIGINS = [
    (None, False),
    ("", False),
    ("null", False),
    ("https://hub.example", True),
    ("http://hub.example", True),
    ("https://HUB.example", True),
    ("https://hub.example:444", False),
    ("https://hub.example.evil", False),
    ("https://evil.example", False),
    ("https://app.example", True),
    ("http://app.example", False),
]


def test_a_cookie_needs_an_origin(subtests: pytest.Subtests) -> None:
    """A change by a cookie must come from a page of ours, or one that is allowed."""
    for method in ["POST", "DELETE", "PUT", "PATCH", "X"]:
        for origin, ok in ORIGINS:
            with subtests.test(method=method, origin=origin):
                token_sources = TokenSources(allowed_origins=frozenset({"https://app.example"}))
                fields = [COOKIE] if origin is None else [COOKIE, ("Origin", origin)]
                if ok:
                    assert found(request(*fields, method=method), token_sources) == "t"
                else:
                    assert refused(request(*fields, method=method), token_sources).status == 403


def test_other_ways_need_no_origin() -> None:
    """Reading changes nothing, and no page can set the header for a browser's user."""
    evil = ("Origin", "https://evil.example")
    assert found(request(COOKIE, evil)) == "t"
    assert found(request(BEARER, evil, method="POST")) == "a"


def test_answers_are_those_of_the_rfc() -> None:
    """RFC 6750 section 3: the challenge names the error, unless there was no token."""
    assert unauthorized().headers == {"WWW-Authenticate": 'Bearer realm="h3trio"'}
    for error, status, name in (
        (unauthorized("why"), 401, "invalid_token"),
        (forbidden("why"), 403, "insufficient_scope"),
        (refused(request(("Authorization", "Bearer "))), 400, "invalid_request"),
    ):
        challenge = f'Bearer realm="h3trio", error="{name}", error_description="{error.detail}"'
        assert error.detail
        assert (error.status, error.headers) == (status, {"WWW-Authenticate": challenge})


def test_the_cookie_has_a_name_that_cookies_may_have(subtests: pytest.Subtests) -> None:
    """A name that no cookie can have is refused where it is given."""
    for name in ["", "a b", "a;b", "a=b", "é", "a\n"]:
        with subtests.test(name=name), pytest.raises(ValueError, match="cookie name"):
            TokenSources(cookie_name=name)
