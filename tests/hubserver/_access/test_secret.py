"""Secrets: what is taken for one, and every form of a key that is not."""

from __future__ import annotations

import base64
import datetime as dt
import json
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from auth_helpers import SECRET, jwk, pem_of, private_key, sign
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio.hubserver import parse_jwks, parse_key, parse_signing_key

if TYPE_CHECKING:
    from collections.abc import Iterator

PUBLIC_FORMS = [
    (Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
    (Encoding.OpenSSH, PublicFormat.OpenSSH),
]
PRIVATE_FORMS = [
    (PrivateFormat.PKCS8, NoEncryption()),
    (PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
]


@cache
def certificate() -> x509.Certificate:
    """Make a certificate."""
    key: Any = private_key("ES256")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name)
    builder = builder.public_key(key.public_key()).serial_number(7)
    builder = builder.not_valid_before(now).not_valid_after(now + dt.timedelta(days=1))
    return builder.sign(key, hashes.SHA256())


def binary_keys() -> Iterator[bytes]:
    """Give keys and certificates as bytes, public and private, of several kinds."""
    others: list[Any] = [ec.generate_private_key(ec.SECP384R1()), ed448.Ed448PrivateKey.generate()]
    for private in (*map(private_key, ("RS256", "ES256", "EdDSA")), *others):
        yield private.public_key().public_bytes(*PUBLIC_FORMS[0])
        for form, encryption in PRIVATE_FORMS:
            yield private.private_bytes(Encoding.DER, form, encryption)
    rsa, p256 = private_key("RS256"), private_key("ES256")
    yield rsa.public_key().public_bytes(Encoding.DER, PublicFormat.PKCS1)
    for private in (rsa, p256):
        yield private.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        ssh: bytes = private.public_key().public_bytes(*PUBLIC_FORMS[1])
        yield base64.b64decode(ssh.split()[1])
    for key in (p256, others[0]):
        point = PublicFormat.UncompressedPoint
        yield key.public_key().public_bytes(Encoding.X962, point)
    yield certificate().public_bytes(Encoding.DER)
    yield pkcs12.serialize_key_and_certificates(b"x", p256, certificate(), None, NoEncryption())


def text_keys() -> Iterator[bytes]:
    """Give keys and a certificate as text."""
    for algorithm in ("RS256", "ES256", "EdDSA"):
        key = private_key(algorithm)
        pem = pem_of(key.public_key())
        yield b"".join(pem.splitlines()[1:-1])
        yield b"\n".join(pem.splitlines()[1:-1])
        yield pem.replace(b"-----", b"----")
        yield pem.replace(b"-----BEGIN ", b"---- BEGIN ")
        yield pem.decode().encode("utf-16")
        ssh: bytes = key.public_key().public_bytes(*PUBLIC_FORMS[1])
        yield from (ssh, b" " + ssh, b"restrict,command=x " + ssh, ssh.split()[1])
        private: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
        yield from (private, b"".join(private.splitlines()[1:-1]))
        public = json.dumps(jwk(algorithm)).encode()
        yield from (public, b" \n" + public, b'{"keys": [' + public + b"]}", b"[" + public + b"]")
        yield from (b"\xef\xbb\xbf" + public, json.dumps(public.decode()).encode())
        yield from (pem.replace(b" ", b"%20").replace(b"\n", b"%0A"), pem.replace(b" ", b"+"))
        yield from (pem.splitlines()[1], b'"' + pem.replace(b"\n", b"\\n") + b'"')
        der: bytes = key.public_key().public_bytes(*PUBLIC_FORMS[0])
        yield from (b":".join(b"%02X" % byte for byte in der), b"0x" + der.hex().encode())
    yield certificate().public_bytes(Encoding.PEM)
    yield b"sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIA"
    yield b"<RSAKeyValue><Modulus>" + b"A" * 40 + b"</Modulus></RSAKeyValue>"
    yield from (
        sign().encode(),
        b"https://issuer.example.com/.well-known/jwks.json",
        b"data:application/x-pem-file;base64,LS0tLS1CRUdJTiBQVUJMSUMgS0VZLS0tLS0K",
        b"did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
        b"/run/secrets/public-key-of-the-issuer.pem",
    )


def wrapped(data: bytes) -> Iterator[bytes]:
    """Give bytes as they are, and as text in the usual ways, with a line end and without."""
    encoded = base64.b64encode(data)
    yield from (data, data + b"\r\n", encoded + b"\n", base64.encodebytes(data))
    yield from (base64.urlsafe_b64encode(data).rstrip(b"="), data.hex().encode())
    yield base64.b64encode(encoded)


@table("data", [form for key in (*binary_keys(), *text_keys()) for form in wrapped(key)])
def test_a_key_is_no_secret(data: bytes) -> None:
    """A key, a certificate or a token in any form is refused, with advice and no word of itself."""
    with pytest.raises(ValueError, match="not a |private key") as caught:  # noqa: RUF043 - either
        parse_key(data)
    assert data[30:50].decode("latin-1") not in str(caught.value)


def test_advice() -> None:
    """What was given is said, and what to give instead."""
    der: bytes = private_key("ES256").public_key().public_bytes(*PUBLIC_FORMS[0])
    for data, what in [
        (der, "a key or a certificate in DER, not a secret: give the public key in PEM"),
        (base64.b64encode(der), "DER, written in other characters, not a secret"),
        (json.dumps({"keys": [jwk("ES256")]}).encode(), "JSON, not a secret: .* --jwks"),
        (b'{"a": ' * 100_000, "JSON, not a secret"),
        (sign().encode(), "a token, not a secret"),
        (b"two lines, of which neither\nis a secret, perhaps", "it has several lines"),
    ]:
        for parse in (parse_key, parse_signing_key):
            with pytest.raises(ValueError, match=what):
                parse(data)


def test_a_key_in_a_jwk_set_is_no_secret() -> None:
    """A public key that a JWK gives as a secret is refused as well."""
    der: bytes = private_key("ES256").public_key().public_bytes(*PUBLIC_FORMS[0])
    k = base64.urlsafe_b64encode(der).rstrip(b"=").decode()
    with pytest.raises(ValueError, match="key 'a': it is a key or a certificate in DER"):
        parse_jwks(json.dumps({"keys": [{"kty": "oct", "kid": "a", "k": k}]}).encode())


@table(
    "data",
    [
        SECRET,
        b"correct horse battery staple, and some more words",
        base64.b64encode(bytes(range(40, 72))),
        base64.b64encode(b"\x30\x1e" + bytes(range(30))),
        bytes(range(32)).hex().encode(),
        "ein Geheimnis mit Umlauten: \u00e4\u00f6\u00fc\u00df".encode(),
        b"0123456789" * 4,
        b"\x00\x01\nbytes with a line end inside\xff\n\xfe",
        b'"a text in quotation marks, as JSON has it"',
        b"{braces are no JSON by themselves, are they}",
    ],
)
def test_a_secret(data: bytes) -> None:
    """Words, bytes, base64 and hexadecimal digits of bytes are secrets."""
    assert parse_key(data).material == data


@given(st.binary(min_size=32, max_size=64))
def test_random_bytes(data: bytes) -> None:
    """Random bytes in base64, as `head -c 32 /dev/urandom | base64` makes them, are a secret."""
    assert parse_key(base64.b64encode(data)).algorithm == "HS256"
