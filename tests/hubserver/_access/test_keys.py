"""Keys: which are taken, with which algorithm, and what a changed file does."""

from __future__ import annotations

import json
import logging
import re
import sys
from typing import TYPE_CHECKING

import jwt
import pytest
import trio
from auth_helpers import SECRET, b64, jwk, pem_of, private_key, private_pem, public_pem
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from tables import table

from h3trio.hubserver import (
    ALGORITHMS,
    JwksFile,
    KeySet,
    parse_jwks,
    parse_key,
    parse_signing_key,
    read_key_file,
)
from h3trio.hubserver._access.keys import JWKS_BYTES, KEY_FILE_BYTES, MAX_KEYS, REREAD_SECONDS

if TYPE_CHECKING:
    from pathlib import Path

    from trio.testing import MockClock


def jwks(*keys: object) -> bytes:
    """Write a JWK Set."""
    return json.dumps({"keys": keys}).encode()


@table("algorithm", ALGORITHMS)
def test_the_algorithm_is_that_of_the_key(algorithm: str) -> None:
    """The kind of a key gives its algorithm, for both halves and in both forms."""
    assert parse_key(public_pem(algorithm)).algorithm == algorithm
    assert parse_signing_key(private_pem(algorithm))[0] == algorithm
    keys = parse_jwks(jwks(jwk(algorithm)))
    assert keys.select(algorithm, None) is not None
    assert not any(keys.select(other, None) for other in ALGORITHMS if other != algorithm)


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_end_is_no_part_of_a_secret(end: bytes) -> None:
    """A line end behind a secret is left out; other blanks are the secret's own."""
    assert parse_key(SECRET + end).material == SECRET
    assert parse_key(SECRET + b" " + end).material == SECRET + b" "


def test_a_secret_has_thirty_two_bytes() -> None:
    """A shorter one could be guessed."""
    assert parse_key(b"x" * 32).algorithm == "HS256"
    with pytest.raises(ValueError, match="at least 32 are needed"):
        parse_key(b"x" * 31 + b"\n")


BAD_KEYS = [
    (private_pem("RS256"), "private key"),
    (private_pem("ES256"), "private key"),
    (
        pem_of(ec.generate_private_key(ec.SECP384R1()).public_key()),
        "expected curve 'secp256r1'",
    ),
    (pem_of(ed448.Ed448PrivateKey.generate().public_key()), "Ed25519"),
    (pem_of(rsa.generate_private_key(65537, 1024).public_key()), "size of 2048 bits"),  # noqa: S505 - it is to be refused
    (public_pem("ES256")[:-40], "not a public key in PEM"),
    (b"-----BEGIN PUBLIC KEY-----\n", "not a public key in PEM"),
    (b"-----BEGIN CERTIFICATE-----\n", "not a public key in PEM"),
    (b"ssh-rsa " + b"A" * 100, "a key of OpenSSH, not a secret: give the public key in PEM"),
]


def test_keys_that_are_refused(subtests: pytest.Subtests) -> None:
    """A key that is weak, private, of another kind or broken is refused, without a word of it."""
    for data, why in BAD_KEYS:
        with subtests.test(data=data, why=why):
            with pytest.raises(ValueError, match=why) as caught:
                parse_key(data)
            assert data[30:50].decode() not in str(caught.value) or len(data) < 50


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (public_pem("RS256"), "not the public one"),
        (b"short", "at least 32 are needed"),
        (private_pem("ES256")[:-60], "not a private key in PEM"),
    ],
)
def test_signing_keys_that_are_refused(data: bytes, why: str) -> None:
    """Signing takes the private half."""
    with pytest.raises(ValueError, match=why):
        parse_signing_key(data)


@pytest.mark.parametrize("algorithm", [name for name in ALGORITHMS if name != "HS256"])
def test_the_private_half_of_a_set_is_not_taken(algorithm: str) -> None:
    """A set that holds private keys by mistake verifies with their public halves."""
    maker = jwt.get_algorithm_by_name(algorithm)
    private = {**json.loads(maker.to_jwk(private_key(algorithm))), "key_ops": ["verify"]}
    key = parse_jwks(jwks(private)).select(algorithm, None)
    assert "d" in private
    assert key is not None
    assert not hasattr(key.material, "sign")


def test_other_keys_of_a_set_are_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    """Keys for encryption and signing are no error; of unknown kinds and algorithms, a warning."""
    keys = parse_jwks(
        jwks(
            jwk("RS256", kid="1", use="enc"),
            jwk("RS256", kid="2", key_ops=["sign"]),
            jwk("RS256", kid="3", alg="RSA-OAEP"),
            jwk("RS256", kid="4", alg="PS256"),
            {"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA", "kid": "5"},
            {"kty": "new", "kid": "6"},
            {},
            "text",
            jwk("ES256", kid="7", use="sig", key_ops=["verify"], alg="ES256"),
        )
    )
    found = [str(n) for n in range(8) if any(keys.select(a, str(n)) for a in ALGORITHMS)]
    assert found == ["7"]
    said = [record.getMessage() for record in caplog.records]
    unknown = "it is of a kind or an algorithm that the hub doesn't know"
    assert said == [
        *(f"JWK Set: left out is key '{n}': {unknown}" for n in (3, 4, 5, 6)),
        f"JWK Set: left out is key number 7: {unknown}",
        "JWK Set: left out is key number 8: it is no JSON object",
    ]


UNUSABLE = [
    ({"kty": "RSA", "kid": "a", "n": "AQAB"}, "key 'a': it is broken"),
    ({"kty": "oct", "kid": "a", "k": 7}, "key 'a': it is broken"),
    ({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, "key number 1: it is broken"),
    ({"kty": ["EC"], "crv": {}}, "key number 1: it is broken"),
    (jwk("RS256", key_ops=7), "key number 1: it is broken"),
    (jwk("HS256", k=b64(b"x" * 31)), "key number 1: .* at least 32 are needed"),
    (jwk("HS256", k=b64(public_pem("RS256"))), "key number 1: "),
    (jwk("HS256", kid=1), "key 1: its kid is not a text"),
    (jwk("HS256", kid={"a": 200 * "x"}), "key {'a': 'x{70,80}: its kid is not a text"),
    ({"kty": "new"}, "key number 1: it is of a kind"),
    ("text", "key number 1: it is no JSON object"),
    (None, "key number 1: it is no JSON object"),
]


def test_a_key_that_cant_be_used_is_left_out(
    subtests: pytest.Subtests, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside a good key it costs a warning that names it; alone, the set is refused for it."""
    for bad, why in UNUSABLE:
        with subtests.test(bad=bad, why=why):
            caplog.clear()
            assert parse_jwks(jwks(bad, jwk("ES256", kid="good"))).select("ES256", "good")
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert re.match(f"JWK Set: left out is {why}", record.getMessage())
            with pytest.raises(ValueError, match=f"no key that could verify a token; {why}"):
                parse_jwks(jwks(bad))


def test_a_name_that_two_keys_have(caplog: pytest.LogCaptureFixture) -> None:
    """Keys of different kinds may have one name; of the same kind the first is taken."""
    keys = parse_jwks(jwks(jwk("HS256", kid="a"), jwk("ES256", kid="a")))
    assert keys.select("HS256", "a")
    assert keys.select("ES256", "a")
    assert caplog.records == []
    second = jwk("HS256", kid="a", k=b64(b"x" * 40))
    keys = parse_jwks(jwks(jwk("HS256", kid="a"), second))
    found = keys.select("HS256", "a")
    assert found is not None
    assert found.material == SECRET
    (record,) = caplog.records
    assert "key 'a': a key before it has the same kid" in record.getMessage()
    with pytest.raises(ValueError, match="the same kid"):
        KeySet([found, found])


BAD_SETS = [
    (b"", "not JSON"),
    (b"[" * 100_000, "not JSON"),
    (b"[]", "not a JWK Set"),
    (b'{"keys": {}}', "not a JWK Set"),
    (b'{"keys": []}', "not a JWK Set"),
    (jwks({"kty": "new"}), "no key that could verify"),
    (jwks(jwk("RS256", use="enc")), "no key that could verify"),
]


def test_sets_that_are_refused(subtests: pytest.Subtests) -> None:
    """A text that is no set, or has no usable key, is refused as a whole."""
    for data, why in BAD_SETS:
        with subtests.test(data=data, why=why), pytest.raises(ValueError, match=why):
            parse_jwks(data)


def test_a_set_has_a_hundred_keys() -> None:
    """At the limit it is taken, one above it isn't."""
    many = [jwk("HS256", kid=str(n)) for n in range(MAX_KEYS + 1)]
    assert parse_jwks(jwks(*many[:-1])).select("HS256", "99")
    with pytest.raises(ValueError, match="more than 100 keys"):
        parse_jwks(jwks(*many))


def test_which_key_is_meant() -> None:
    """By its name, if it has one; without a name only where no two could be meant."""
    one, other = parse_key(SECRET), parse_key(b"x" * 40)
    assert KeySet([one]).select("HS256", "any") is one
    assert KeySet([one, other]).select("HS256", "any") is None
    assert KeySet([one, other]).select("HS256", None) is None
    assert KeySet([one]).select("RS256", None) is None


def test_a_file_has_an_end(tmp_path: Path) -> None:
    """A file above its limit isn't read, nor is one that isn't there."""
    path = tmp_path / "key"
    path.write_bytes(b"x" * KEY_FILE_BYTES)
    assert len(read_key_file(str(path))) == KEY_FILE_BYTES
    path.write_bytes(b"x" * (KEY_FILE_BYTES + 1))
    with pytest.raises(ValueError, match="larger than 65536 bytes"):
        read_key_file(str(path))
    with pytest.raises(ValueError, match=r"can't read .*: No such file"):
        read_key_file(str(tmp_path / "missing"))
    path.write_bytes(jwks(jwk("HS256")) + b" " * JWKS_BYTES)
    with pytest.raises(ValueError, match="larger than"):
        JwksFile(str(path))


def replace(path: Path, data: bytes) -> None:
    """Replace a file as one should: no reader finds half of it."""
    new = path.with_suffix(".new")
    new.write_bytes(data)
    new.replace(path)


async def test_a_changed_set_is_read_again(tmp_path: Path, mock_clock: MockClock) -> None:
    """Its keys are in force after some seconds, and not asked of the disk before."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("HS256", kid="old")))
    file = JwksFile(str(path))
    first = await file.current()
    replace(path, jwks(jwk("HS256", kid="new")))
    mock_clock.jump(REREAD_SECONDS / 2)
    assert await file.current() is first
    mock_clock.jump(REREAD_SECONDS)
    second = await file.current()
    assert (second.select("HS256", "old"), file.failures) == (None, 0)
    assert second.select("HS256", "new")
    mock_clock.jump(REREAD_SECONDS)
    assert await file.current() is second


async def test_a_broken_set_changes_nothing(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The last good one stays in force, and the log says why, once."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("HS256")))
    file = JwksFile(str(path))
    first = await file.current()
    with caplog.at_level(logging.ERROR, "h3trio.hub"):
        for broken in (b"{", jwks()):
            replace(path, broken)
            for _ in range(2):
                mock_clock.jump(REREAD_SECONDS)
                assert await file.current() is first
        path.unlink()
        mock_clock.jump(REREAD_SECONDS)
        assert await file.current() is first
    assert file.failures == len(caplog.records) == 3
    replace(path, jwks(jwk("HS256", kid="again")))
    mock_clock.jump(REREAD_SECONDS)
    assert await file.current() is not first


async def test_a_changed_set_with_a_bad_key(
    tmp_path: Path, mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Its good keys are in force, and the log names the file and the bad one, once."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("HS256", kid="old")))
    file = JwksFile(str(path))
    keys = await file.current()
    replace(path, jwks(jwk("HS256", kid="new"), {"kty": "oct", "kid": "bad", "k": 7}))
    for _ in range(3):
        mock_clock.jump(REREAD_SECONDS)
        keys = await file.current()
    assert keys.select("HS256", "new")
    (record,) = caplog.records
    assert record.getMessage() == f"{path}: left out is key 'bad': it is broken"
    assert (record.levelno, file.failures) == (logging.WARNING, 0)


async def test_only_one_task_looks(tmp_path: Path) -> None:
    """While one waits for the disk, the others go on with the keys there are."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("HS256")))
    file = JwksFile(str(path))
    found: list[KeySet] = []

    async def look() -> None:
        found.append(await file.current())

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(look)
    assert len(set(map(id, found))) == 1


async def test_it_needs_none_of_the_programs_threads(tmp_path: Path) -> None:
    """A program whose slow work has taken all that Trio gives it can still check tokens."""
    path = tmp_path / "jwks.json"
    path.write_bytes(jwks(jwk("HS256")))
    limiter = trio.to_thread.current_default_thread_limiter()
    tokens, limiter.total_tokens = limiter.total_tokens, 1
    limiter.acquire_on_behalf_of_nowait(path)
    try:
        with trio.fail_after(30):
            assert (await JwksFile(str(path)).current()).select("HS256", None)
    finally:
        limiter.release_on_behalf_of(path)
        limiter.total_tokens = tokens


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without PyJWT the error says what to install."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    for parse in (parse_key, parse_signing_key, parse_jwks):
        with pytest.raises(ValueError, match=r"pip install '\.\[auth\]'"):
            parse(SECRET)
