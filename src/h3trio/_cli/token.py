"""`python -m h3trio token`: mint a token for a hub.

For development, for services, and to see what one looks like; an application
mints its users' tokens itself, with any JWT library. On standard output is the
token alone, so that `H3TRIO_TOKEN=$(python -m h3trio token ...)` works.
"""

from __future__ import annotations

import json
import math
import os
import time
from typing import TYPE_CHECKING, Any, Final, cast

from h3trio.hubserver import ALGORITHMS, parse_signing_key, read_key_file

from . import common
from .common import KEY_VARIABLE
from .options import fail

if TYPE_CHECKING:
    import argparse

    from .options import Options

EXPIRES: Final = "1h"
_HUBS_FILE: Final = "H3TRIO_JWT_KEY_FILE"
"""The variable that tells the hub its key; with a secret there it is the one to sign with too."""


def add_arguments(parser: Options) -> None:
    """Add the options of `token`."""
    parser.description = "Print a token that allows publishing and subscribing to some topics."
    parser.epilog = "exit status: 0 done; 2 the arguments or the key are wrong"
    topic, period, claims = map(common.checked, (common.topic, _period, _claims))
    topics: dict[str, Any] = {"metavar": "TOPIC", "action": "append", "type": topic}
    what = "topic it may publish to: a topic, a URI template, or * for all; may be repeated"
    parser.add_argument("--publish", help=what, **topics)
    what = "topic whose private events it may see; as --publish"
    parser.add_argument("--subscribe", help=what, **topics)
    what = "it may subscribe, to public events only"
    parser.add_argument("--subscribe-public", action="store_true", help=what)
    what = "it may see the page, the statistics and the metrics"
    parser.add_argument("--operate", action="store_true", help=what)
    what = "it may read the whole log, private events too: GET /relay"
    parser.add_argument("--relay", action="store_true", help=what)
    what, default = "how long it is good, from now", _period(EXPIRES)
    parser.add_argument("--expires", metavar="TIME|none", type=period, default=default, help=what)
    parser.add_argument("--subject", metavar="TEXT", help="who it is for")
    parser.add_argument("--audience", metavar="TEXT", help="the hub it is for")
    parser.add_argument("--issuer", metavar="TEXT", help="who it is from")
    parser.add_argument("--kid", metavar="TEXT", help="name of the key, for a JWK Set")
    what = "other claims, a JSON object"
    parser.add_argument("--claims", metavar="JSON", type=claims, default={}, help=what)
    what = (
        f"secret or private key to sign with; {_HUBS_FILE} too, or the key itself in {KEY_VARIABLE}"
    )
    parser.add_option("--key-file", metavar="FILE", help=what)
    parser.add_variable("jwt_key", KEY_VARIABLE)
    parser.add_variable("jwt_key_file", _HUBS_FILE)
    what = "what the key's algorithm should be; it is known from the key"
    parser.add_argument("--algorithm", choices=ALGORITHMS, help=what)


def _period(text: str) -> int | None:
    if text == "none":
        return None
    try:
        return math.ceil(common.duration(text))
    except ValueError as exc:
        raise ValueError(f"{exc}; none for no end") from None


def _claims(text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ValueError(f"it is not JSON: {exc}") from None
    if isinstance(value, dict):
        return cast("dict[str, object]", value)
    raise ValueError("it is not a JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Print a token; return the exit status."""
    if arguments.subscribe and arguments.subscribe_public:
        fail("--subscribe-public has no effect beside --subscribe, which allows more")
    claims = claims_from(arguments, now=int(time.time()))
    algorithm, key = _key_from(arguments)
    if arguments.algorithm not in (None, algorithm):
        fail(f"--algorithm is {arguments.algorithm}, but the key is for {algorithm}")
    import jwt  # noqa: PLC0415 - an extra, and there: the key was read with it

    headers = None if arguments.kid is None else {"kid": arguments.kid}
    common.write_line(jwt.encode(claims, key, algorithm=algorithm, headers=headers))  # type: ignore[arg-type]  # a key of that algorithm
    return 0


def claims_from(arguments: argparse.Namespace, *, now: int) -> dict[str, object]:
    """Return the claims of a token minted at a Unix time; exit with one line if they clash."""
    rights: dict[str, object] = {}
    if arguments.publish:
        rights["publish"] = arguments.publish
    if arguments.subscribe or arguments.subscribe_public:
        rights["subscribe"] = arguments.subscribe or []
    own = {name: True for name in ("operate", "relay") if getattr(arguments, name)}
    if not (rights or own or arguments.claims.keys() & {"mercure", "h3trio"}):
        fail("a token allows something: give --publish, --subscribe, --operate or such")
    made = {
        "mercure": rights or None,
        "h3trio": own or None,
        "sub": arguments.subject,
        "aud": arguments.audience,
        "iss": arguments.issuer,
        "iat": now,
        "exp": None if arguments.expires is None else now + arguments.expires,
    }
    claims = {name: value for name, value in made.items() if value is not None}
    if clash := sorted(claims.keys() & arguments.claims.keys() - {"iat"}):
        fail(f"--claims has {', '.join(clash)}, which the other options set")
    return {**claims, **arguments.claims}


def _key_from(arguments: argparse.Namespace) -> tuple[str, object]:
    path, secret = arguments.key_file or arguments.jwt_key_file, arguments.jwt_key
    if (path is None) == (secret is None):
        fail(f"give a key: --key-file, {_HUBS_FILE} or {KEY_VARIABLE}, one of them")
    dest = "jwt_key" if path is None else "key_file" if arguments.key_file else "jwt_key_file"
    try:
        return parse_signing_key(os.fsencode(secret) if path is None else read_key_file(path))
    except ValueError as exc:
        fail(f"{KEY_VARIABLE if path is None else arguments.given[dest]}: {exc}")
