"""`TokenAuthenticator`: requests in, grants out, and what it remembers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from auth_helpers import NOW, claims, jwk, key_set, sign
from auth_helpers import foreign_request as request

from h3trio import HTTPError
from h3trio.hubserver import Grant, JwksFile, TokenAuthenticator, TokenRules, TokenSources
from h3trio.hubserver._access.bearer import MAX_REMEMBERED
from h3trio.hubserver._access.keys import REREAD_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock

    from h3trio import H3Event
    from h3trio.hubserver import KeySet


class Now:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = NOW

    def __call__(self) -> float:
        """Tell the time."""
        return self.time


def asked(token: str) -> H3Event:
    """Make a request with a token."""
    return request(("Authorization", f"Bearer {token}"))


async def test_requests_get_what_their_token_allows() -> None:
    """No token is nobody, a good one a grant, a bad one 401."""
    authenticator = TokenAuthenticator(key_set(), clock=Now())
    assert await authenticator(request()) is None
    grant = await authenticator(asked(sign(claims(sub="me"))))
    assert isinstance(grant, Grant)
    assert grant.subject == "me"
    with pytest.raises(HTTPError) as caught:
        await authenticator(asked("x.y.z"))
    assert caught.value.status == 401
    assert caught.value.headers["WWW-Authenticate"] == (
        'Bearer realm="h3trio", error="invalid_token", error_description="the token is not a JWT"'
    )


async def test_rules_and_token_sources_are_used() -> None:
    """The caller chooses the rules of tokens, and the places where they may be."""
    authenticator = TokenAuthenticator(
        key_set(),
        rules=TokenRules(audience="hub"),
        token_sources=TokenSources(cookie_name="c"),
        clock=Now(),
    )
    assert await authenticator(request(("Cookie", f"c={sign(claims(aud='hub'))}")))
    with pytest.raises(HTTPError, match="no aud"):
        await authenticator(request(("Cookie", f"c={sign()}")))


async def test_a_remembered_token_still_ends() -> None:
    """A token is verified once, but ends when it ends."""
    now = Now()
    authenticator = TokenAuthenticator(key_set(), clock=now)
    event = asked(sign(claims(exp=NOW + 5)))
    first = await authenticator(event)
    assert await authenticator(event) is first
    now.time += 5
    with pytest.raises(HTTPError, match="expired"):
        await authenticator(event)


@pytest.mark.slow
async def test_the_memory_has_an_end() -> None:
    """One token above the limit forgets the one unused for longest."""
    keys = key_set()
    authenticator = TokenAuthenticator(keys, clock=Now())
    tokens = [sign(claims(sub=str(n))) for n in range(MAX_REMEMBERED + 1)]
    first, second = (authenticator.grant(token, keys) for token in tokens[:2])
    for token in tokens[2:-1]:
        authenticator.grant(token, keys)
    assert authenticator.grant(tokens[0], keys) is first
    authenticator.grant(tokens[-1], keys)
    assert authenticator.grant(tokens[0], keys) is first
    assert authenticator.grant(tokens[1], keys) is not second


async def test_a_longer_token_is_not_the_remembered_one() -> None:
    """A text that begins like a good token and is too long is refused."""
    keys = key_set()
    token = sign()
    authenticator = TokenAuthenticator(
        keys, rules=TokenRules(max_token_bytes=len(token)), clock=Now()
    )
    assert authenticator.grant(token, keys).subscribe
    for more in ("A", "AAAA"):
        with pytest.raises(HTTPError, match="too long"):
            authenticator.grant(token + more, keys)


async def test_a_key_that_is_gone_forgets_its_tokens(tmp_path: Path, mock_clock: MockClock) -> None:
    """Once the JWK Set is without a key, tokens signed with it are refused."""

    def write(kid: str) -> None:
        (tmp_path / "jwks.json").write_text(json.dumps({"keys": [jwk("HS256", kid=kid)]}))

    write("old")
    file = JwksFile(str(tmp_path / "jwks.json"))
    authenticator = TokenAuthenticator(file, clock=Now())
    event = asked(sign(header={"kid": "old"}))
    assert await authenticator(event)
    write("another")
    mock_clock.jump(REREAD_SECONDS)
    with pytest.raises(HTTPError, match="no key"):
        await authenticator(event)


async def test_any_key_set_is_current() -> None:
    """Keys that are given as such never change."""
    keys: KeySet = key_set("ES256")
    authenticator = TokenAuthenticator(keys, clock=Now())
    assert await authenticator(asked(sign(algorithm="ES256")))
    with pytest.raises(HTTPError, match="no key"):
        await authenticator(asked(sign()))
