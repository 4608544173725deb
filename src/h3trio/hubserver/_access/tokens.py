"""`verify`: is a text a JWT that one of our keys signed, and what does it grant; without I/O.

PyJWT verifies. What is added refuses whatever is odd, before anything of it is believed: first the
length, then the shape, the header, the signature, and only then the claims. A header says which key
is meant and nothing else; keys and addresses that it brings along (`jwk`, `jku`, `x5c`, `x5u`) are
never looked at. No error quotes the token.
"""

from __future__ import annotations

import base64
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast, final

from .grant import NO_TOPICS, Grant, selection_of

if TYPE_CHECKING:
    from h3trio.hub import Selection

    from .keys import KeySet

    Object = dict[str, Any]

MAX_TOKEN_BYTES: Final = 8 * 1024
"""Longest token: half of what a request's head may have, and room for hundreds of topics."""

LEEWAY: Final = 10.0
"""Seconds that an issuer's clock may be ahead of ours, for `nbf` and `iat`."""

# RFC 7515 section 3.1, the compact form; no part may be empty, so nothing is unsigned.
_SHAPE: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+", re.ASCII)
# RFC 8725 section 3.11: a token for another purpose says so. The second is that of RFC 9068.
_TYPES: Final = ("jwt", "at+jwt")
_LATEST: Final = 253_402_300_799  # the end of the year 9999; beyond it, no calendar has a date
_CLAIMS: Final = ("mercure", "https://mercure.rocks/")
_REASONS: Final = {
    "InvalidSignatureError": "the signature is wrong",
    "InvalidAudienceError": "the token is for another audience",
    "InvalidIssuerError": "the token is from another issuer",
    "InvalidSubjectError": "sub is not a text",
}
_NO_JWT: Final = "the token is not a JWT"


@final
class TokenError(Exception):
    """A token isn't good; the text says why, for `error_description`."""


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRules:
    """Rules that a token must meet, beside being signed.

    Raises:
        ValueError: a number is negative.
    """

    audience: str | None = None
    """Must be in `aud`. Where it isn't set, a token that names an audience is refused
    (RFC 7519 section 4.1.3)."""
    issuer: str | None = None
    """Must be `iss`; not looked at where it isn't set."""
    require_exp: bool = True
    """Whether a token without an end is refused: nothing would ever take it back."""
    leeway: float = LEEWAY
    """Seconds that an issuer's clock may be ahead of ours. `exp` has none: the issuer
    chose it with room, and a stream must end by it."""
    max_token_bytes: int = MAX_TOKEN_BYTES
    """Longest token that is looked at."""

    def __post_init__(self) -> None:
        if not (0 <= self.leeway < math.inf and self.max_token_bytes > 0):
            raise ValueError("leeway may not be negative, and max_token_bytes must be positive")


def verify(token: str, keys: KeySet, rules: TokenRules, *, now: float) -> Grant:
    """Return what a token allows, at a Unix time in seconds.

    Raises:
        TokenError: it isn't good.
    """
    claims = _signed_claims(token, keys, rules)
    if rules.audience is None and claims.get("aud") is not None:
        # PyJWT would take an empty list.
        raise TokenError("the token is for another audience")
    expires = _time(claims, "exp")
    if expires is not None and expires <= now:
        raise TokenError("the token has expired")
    for name in ("nbf", "iat"):
        if (_time(claims, name) or 0) > now + rules.leeway:
            raise TokenError(f"{name} is in the future")
    rights = _rights(claims)
    return Grant(
        publish=_selection(rights, "publish") or NO_TOPICS,
        subscribe=_selection(rights, "subscribe"),
        operate=_own_right(claims, "operate"),
        relay=_own_right(claims, "relay"),
        expires=expires,
        subject=claims.get("sub", ""),
    )


def _signed_claims(token: str, keys: KeySet, rules: TokenRules) -> Object:
    """Check the signature and the claims that need no clock; return all claims."""
    import jwt  # noqa: PLC0415 - it comes with an extra

    if len(token) > rules.max_token_bytes:
        raise TokenError("the token is too long")
    if not _SHAPE.fullmatch(token):
        raise TokenError(_NO_JWT)
    head, payload, _ = token.split(".")
    algorithm, kid = _check_header(_object(head))
    key = keys.select(algorithm, kid)
    if key is None:
        raise TokenError("no key is for this token")
    try:
        jwt.decode_complete(
            token,
            key.material,
            [key.algorithm],
            {
                "require": ["exp"] if rules.require_exp else [],
                # Times are checked here: PyJWT has a clock of its own, and one leeway for all.
                "verify_exp": False,
                "verify_nbf": False,
                "verify_iat": False,
                "verify_jti": False,  # it is unused, and so may be anything
            },
            audience=rules.audience,
            issuer=rules.issuer,
        )
    except jwt.MissingRequiredClaimError as exc:
        raise TokenError(f"the token has no {exc.claim}") from None
    except (jwt.PyJWTError, RecursionError) as exc:
        raise TokenError(_REASONS.get(type(exc).__name__, _NO_JWT)) from None
    return _object(payload)


def _check_header(header: Object) -> tuple[str, str | None]:
    # RFC 7515 section 4.1.11: extensions that may not be ignored. We have none.
    if "crit" in header or "b64" in header:
        raise TokenError("the token needs an extension")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in _TYPES:
        raise TokenError("the token is for something else")
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or not (kid is None or isinstance(kid, str)):
        raise TokenError("the token's header is malformed")
    return algorithm, kid


def _object(part: str) -> Object:
    """Decode the header or the claims, more strictly than PyJWT does."""
    try:
        data = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
        value = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise TokenError(_NO_JWT) from None
    if not isinstance(value, dict):
        raise TokenError(_NO_JWT)
    return cast("Object", value)


def _unique(pairs: list[tuple[str, object]]) -> Object:
    """Refuse a name that comes twice: another parser may have believed the other one."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name comes twice")
    return found


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


# -- the claims


def _time(claims: Object, name: str) -> float | None:
    """Read a NumericDate: seconds, which may have a fraction (RFC 7519 section 2)."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST:
        raise TokenError(f"{name} is not a time")
    return float(value)


def _rights(claims: Object) -> Object:
    """Return Mercure's claim, under its short name or its whole one; empty if there is none."""
    named = [claims[name] for name in _CLAIMS if name in claims] or [{}]
    if len(named) > 1 or not isinstance(named[0], dict):
        raise TokenError("the claim mercure is malformed")
    return cast("Object", named[0])


def _selection(rights: Object, name: str) -> Selection | None:
    if name not in rights:
        return None
    topics = rights[name]
    if not isinstance(topics, list) or not all(
        isinstance(topic, str) and topic for topic in cast("list[object]", topics)
    ):
        raise TokenError(f"mercure.{name} is not a list of topics")
    return selection_of(cast("list[str]", topics))


def _own_right(claims: Object, name: str) -> bool:
    """Read our own claim: `"h3trio": {"operate": true}`; Mercure's has nothing for that."""
    own = claims.get("h3trio", {})
    right = cast("Object", own).get(name, False) if isinstance(own, dict) else None
    if not isinstance(right, bool):
        raise TokenError("the claim h3trio is malformed")
    return right
