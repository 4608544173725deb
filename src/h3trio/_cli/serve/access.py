"""The options of the hub's access control: keys, tokens and limits.

A secret comes by a file or the environment, as other users of a machine see the flags of a process.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Final

from h3trio._cli.common import KEY_VARIABLE, counted, duration, duration_or_zero, size
from h3trio._cli.options import env_flag, fail, fields_from, refuse
from h3trio.hubserver import (
    COOKIE_NAME,
    AccessControl,
    JwksFile,
    KeySet,
    Limits,
    Rate,
    TokenAuthenticator,
    TokenRules,
    TokenSources,
    parse_key,
    read_key_file,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

    from h3trio._cli.options import Options
    from h3trio.hubserver import AnonymousAccess


_RULES: Final = TokenRules()
_LIMITS: Final = Limits()
_COUNTS: Final = {
    "max_subject_streams": "streams at once of one token's subject",
    "max_topics_per_subscription": "topics of one subscription or one event",
    "max_topic_length": "characters of a topic",
}


_FOR_TOKENS: Final = (
    "jwt_audience",
    "jwt_issuer",
    "jwt_leeway",
    "jwt_allow_no_exp",
    "max_token_bytes",
    "cookie_name",
    "allow_query_token",
    "recheck_interval",
    "max_subject_streams",
)


def add_arguments(parser: Options) -> None:
    """Add the options."""
    parser.add_variable("jwt_key", KEY_VARIABLE)
    what = f"secret or public key of tokens; or the key itself in {KEY_VARIABLE}"
    parser.add_option("--jwt-key-file", metavar="FILE", help=what)
    parser.add_option("--jwks", metavar="FILE", help="JWK Set, read again when it changes")
    parser.add_option("--jwt-audience", metavar="TEXT", help="what must be in a token's aud")
    parser.add_option("--jwt-issuer", metavar="TEXT", help="what a token's iss must be")
    what = "how much an issuer's clock may be ahead"
    parser.add_option("--jwt-leeway", default=_RULES.leeway, type=duration_or_zero, help=what)
    parser.add_switch("--jwt-allow-no-exp", help="take tokens that never end")
    what, most = "longest token that is looked at", _RULES.max_token_bytes
    parser.add_option("--max-token-bytes", default=most, type=size, help=what)
    parser.add_option(
        "--cookie-name",
        default=COOKIE_NAME,
        type=_cookie_name,
        metavar="NAME",
        help="cookie that may hold a token",
    )
    parser.add_option(
        "--allowed-host",
        default=(),
        type=_hosts,
        repeated=True,
        variable="H3TRIO_ALLOWED_HOSTS",
        metavar="NAME",
        help="names that may stand in Host, by commas or repeated; any unless given",
    )
    what = "take a token from ?authorization= too, for GET"
    parser.add_switch("--allow-query-token", help=what)
    parser.add_option(
        "--recheck-interval",
        default=_LIMITS.recheck_interval,
        type=_recheck_interval,
        metavar="TIME|none",
        help="time after which a stream's rights are checked again",
    )
    what = "events a second of one publisher, and at once; no limit unless given"
    parser.add_option("--publish-rate", type=Rate.parse, metavar="N/s[,BURST]", help=what)
    for name, what in _COUNTS.items():
        default = getattr(_LIMITS, name)
        parser.add_option(env_flag(name), default=default, type=counted, help=f"{what}")


def _cookie_name(text: str) -> str:
    return TokenSources(cookie_name=text).cookie_name


def _hosts(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    AccessControl(allowed_hosts=names)
    return names


def _recheck_interval(text: str) -> float:
    try:
        return math.inf if text.lower() == "none" else duration(text)
    except ValueError as exc:
        raise ValueError(f"{exc}; none for no end") from None


# -- from arguments to values


def access_from(arguments: argparse.Namespace, anonymous: AnonymousAccess) -> AccessControl:
    """Make the access control of the hub; exit with one line if a key can't be used."""
    keys = _keys_from(arguments)
    if keys is None:
        refuse(arguments, _FOR_TOKENS, "is about tokens: give a key with --jwt-key-file or --jwks")
    rules = TokenRules(
        audience=arguments.jwt_audience,
        issuer=arguments.jwt_issuer,
        require_exp=not arguments.jwt_allow_no_exp,
        leeway=arguments.jwt_leeway,
        max_token_bytes=arguments.max_token_bytes,
    )
    token_sources = TokenSources(
        cookie_name=arguments.cookie_name,
        allow_query=arguments.allow_query_token,
        allowed_origins=anonymous.allowed_origins,
    )
    return AccessControl(
        anonymous=anonymous,
        authenticator=keys and TokenAuthenticator(keys, rules=rules, token_sources=token_sources),
        limits=Limits(**fields_from(arguments, Limits)),
        allowed_hosts=arguments.allowed_host,
    )


def _key_of(text: str) -> KeySet:
    return KeySet([parse_key(os.fsencode(text))])


def _key_in(path: str) -> KeySet:
    return KeySet([parse_key(read_key_file(path))])


_SOURCES: Final[Mapping[str, Callable[[str], KeySet | JwksFile]]] = {
    "jwt_key": _key_of,
    "jwt_key_file": _key_in,
    "jwks": JwksFile,
}


def _keys_from(arguments: argparse.Namespace) -> KeySet | JwksFile | None:
    given = [dest for dest in _SOURCES if getattr(arguments, dest) is not None]
    if not given:
        return None
    if len(given) > 1:
        fail(f"give only one of {' and '.join(arguments.given[dest] for dest in given)}")
    make = _SOURCES[given[0]]
    try:
        return make(getattr(arguments, given[0]))
    except ValueError as exc:
        fail(f"{arguments.given[given[0]]}: {exc}")
