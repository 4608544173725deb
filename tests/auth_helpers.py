"""Keys and tokens for tests: good ones, and such as only an attacker makes."""

from __future__ import annotations

import base64
import functools
import json
import os
from typing import TYPE_CHECKING, Any, Self, cast, final

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from h3trio import H3Event
from h3trio._http.headers import Headers
from h3trio._http.request import split_target
from h3trio._server.responder import Draft
from h3trio.hubserver import KeySet, parse_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from h3trio._server.body import BodyBuffer
    from h3trio._server.responder import Responder
    from h3trio._server.state import ServerState

NOW = 1_700_000_000.0
SECRET = b"a secret of more than thirty-two bytes"
OWN_USER = os.geteuid()
OTHER_USER = OWN_USER + 1
LOCAL = {"host": "localhost:3000"}
ALL = {"publish": ["*"], "subscribe": ["*"]}


@functools.cache
def private_key(algorithm: str) -> Any:  # noqa: ANN401 - each algorithm has its own type
    """Make a key to sign with, the same at each call."""
    if algorithm == "RS256":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    if algorithm == "ES256":
        return ec.generate_private_key(ec.SECP256R1())
    return ed25519.Ed25519PrivateKey.generate() if algorithm == "EdDSA" else SECRET


def private_pem(algorithm: str) -> bytes:
    """Return what a file has to sign with."""
    if algorithm == "HS256":
        return SECRET
    pem: bytes = private_key(algorithm).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return pem


def public_pem(algorithm: str) -> bytes:
    """Return what a file has to verify with."""
    return SECRET if algorithm == "HS256" else pem_of(private_key(algorithm).public_key())


def pem_of(public: Any) -> bytes:  # noqa: ANN401 - as above
    """Write a public key as PEM."""
    pem: bytes = public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


def key_set(algorithm: str = "HS256") -> KeySet:
    """Return the one key of an algorithm."""
    return KeySet([parse_key(public_pem(algorithm))])


def jwk(algorithm: str, **members: object) -> dict[str, object]:
    """Return a public key as a JWK."""
    maker = jwt.get_algorithm_by_name(algorithm)
    material = SECRET if algorithm == "HS256" else private_key(algorithm).public_key()
    made: Any = maker.to_jwk(material)
    return {**json.loads(made), **members}


def b64(data: bytes | str) -> str:
    """Encode for a token (RFC 7515 section 2)."""
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(**changes: object) -> dict[str, object]:
    """Return claims that allow everything for an hour from `NOW`; None leaves one out."""
    made = {"mercure": ALL, "exp": int(NOW) + 3600, **changes}
    return {name: value for name, value in made.items() if value is not None}


def sign(
    payload: Mapping[str, object] | str | None = None,
    *,
    algorithm: str = "HS256",
    header: Mapping[str, object] | str | None = None,
    key: Any = None,  # noqa: ANN401 - each algorithm has its own type
) -> str:
    """Sign anything at all: a payload and a header that are what they are, texts verbatim."""
    head: Mapping[str, object] | str = (
        {"alg": algorithm, "typ": "JWT", **(header or {})}
        if not isinstance(header, str)
        else header
    )
    texts = [text if isinstance(text, str) else json.dumps(text) for text in (head, payload)]
    if payload is None:
        texts[1] = json.dumps(claims())
    message = ".".join(map(b64, texts))
    signer = jwt.get_algorithm_by_name(algorithm)
    material = private_key(algorithm) if key is None else key
    return f"{message}.{b64(signer.sign(message.encode(), material))}"


@final
class KnownPeer:
    """A responder, as far as an event asks one whose program the client is."""

    def __init__(self, user: int | None) -> None:
        self.user = user

    @property
    def peer(self) -> Self:
        """The peer, which is this one too."""
        return self


def local_request(
    headers: dict[str, str] | None = None,
    *,
    client: str = "127.0.0.1",
    target: bytes = b"/",
    user: int | None = OWN_USER,
) -> H3Event:
    """Make a request; from our own user's program on this machine unless said otherwise."""
    fields = LOCAL if headers is None else headers
    # In lower case, as the framing hands them over.
    raw = [(name.lower().encode(), value.encode()) for name, value in fields.items()]
    return H3Event(
        method="GET",
        target=split_target(target),
        headers=Headers(raw),
        http_version="1.1",
        client=client,
        draft=Draft(),
        # Nothing of these is needed before the body is read or the answer begins.
        body=cast("BodyBuffer", None),
        responder=cast("Responder", KnownPeer(user)),
        server=cast("ServerState", None),
    )


def foreign_request(
    *fields: tuple[str, str],
    method: str = "GET",
    target: str = "/events",
    host: str = "hub.example",
) -> H3Event:
    """Make a request."""
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return H3Event(
        method=method,
        target=split_target(target.encode()),
        headers=Headers([(b"host", host.encode()), *raw]),
        http_version="1.1",
        client="192.0.2.1",
        draft=Draft(),
        # Nothing of these is needed before the body is read or the answer begins.
        body=cast("BodyBuffer", None),
        responder=None,
        server=cast("ServerState", None),
    )
