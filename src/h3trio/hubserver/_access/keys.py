"""`KeySet`: the keys that tokens are verified with, from a secret, a PEM file, or a JWK Set.

The algorithm belongs to the key, and follows from the kind of key: a token that names another
algorithm meets no key. So a public key is never taken as the secret of an HMAC, and `none` is no
algorithm at all. PyJWT reads and uses keys; this module decides which of them may be used.

Files are read whole and are bounded. A JWK Set is looked at again when a token is verified, at most
every `REREAD_SECONDS`, in a thread; if it can't be read the last good one stays in force. PyJWT
comes with an extra and is imported where it is used.
"""

from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

from h3trio._extras import install

from .secret import check_secret

if TYPE_CHECKING:
    from collections.abc import Sequence

logger = logging.getLogger("h3trio.hub")

ALGORITHMS: Final = ("HS256", "RS256", "ES256", "EdDSA")
"""The supported algorithms, one for each kind of key: a secret, RSA, P-256 and Ed25519."""

KEY_FILE_BYTES: Final = 64 * 1024
JWKS_BYTES: Final = 256 * 1024
MAX_KEYS: Final = 100
REREAD_SECONDS: Final = 5.0

_ALGORITHM_OF: Final[dict[object, str]] = {
    ("oct", None): "HS256",
    ("RSA", None): "RS256",
    ("EC", "P-256"): "ES256",
    ("OKP", "Ed25519"): "EdDSA",
}
_MAX_SHOWN: Final = 80
_PUBLIC_MEMBERS: Final[tuple[str, ...]] = ("kty", "crv", "k", "n", "e", "x", "y")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One key, with its only algorithm."""

    algorithm: str
    """One of `ALGORITHMS`; a token that names another is refused."""
    kid: str | None = None
    """Its name in a JWK Set, and in the header of tokens."""
    material: Any = field(repr=False)
    """The secret or the public key, as PyJWT takes it; never shown."""


@final
class KeySet:
    """The keys that are in force.

    Raises:
        ValueError: two keys of one algorithm have the same `kid`, or there are none.
    """

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = tuple(keys)
        # RFC 7517 section 4.5: keys of different kinds may have the same.
        named = [(key.algorithm, key.kid) for key in keys if key.kid is not None]
        if len(set(named)) < len(named):
            raise ValueError("two keys have the same kid")
        if not keys:
            raise ValueError("there is no key that could verify a token")

    def __repr__(self) -> str:
        return f"<KeySet: {', '.join(map(repr, self._keys))}>"

    def select(self, algorithm: str, kid: str | None) -> Key | None:
        """Return the key for a token, `None` if there is none or several could be meant.

        A key without a name stands for any name: there is one key file, and issuers name theirs.
        """
        found = [key for key in self._keys if key.algorithm == algorithm]
        if kid is not None:
            named = [key for key in found if key.kid == kid]
            found = named or [key for key in found if key.kid is None]
        return found[0] if len(found) == 1 else None


def require_jwt() -> None:
    """Raise `ValueError` unless the extra is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("jwt", "cryptography")):
        raise ValueError(f"tokens need PyJWT: {install('auth')}")


# -- one key


def parse_key(data: bytes) -> Key:
    """Make a key of a secret or of a public key in PEM.

    A line end behind a secret, as editors leave it, is no part of it. A key in any other form
    (DER, base64, JWK, OpenSSH) is no secret.

    Raises:
        ValueError: it is too weak, of another kind, or private; without a word of the key itself.
    """
    require_jwt()
    if b"-----BEGIN " not in data:
        check_secret(data)  # whole: what looks like a line end may be the last byte of DER
        return _make_key(data.removesuffix(b"\n").removesuffix(b"\r"))
    if b"PRIVATE KEY" in data:
        raise ValueError("it holds a private key: the hub needs, and should have, the public one")
    return _make_key(_load_pem(data, private=False))


def parse_signing_key(data: bytes) -> tuple[str, object]:
    """Return the algorithm and the key to sign with: a secret or a private key in PEM.

    Raises:
        ValueError: as `parse_key`.
    """
    require_jwt()
    if b"-----BEGIN " not in data:
        secret = parse_key(data)
        return secret.algorithm, secret.material
    if b"PRIVATE KEY" not in data:
        raise ValueError("signing needs the private key, not the public one")
    private = _load_pem(data, private=True)
    return _make_key(private.public_key()).algorithm, private


def _load_pem(data: bytes, *, private: bool) -> Any:  # noqa: ANN401 - each algorithm has its own type
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415 - see this module's docstring
    from cryptography.hazmat.primitives import serialization  # noqa: PLC0415 - same

    try:
        if private:
            return serialization.load_pem_private_key(data, password=None)
        return serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm):  # TypeError: it has a password
        # What the library says may quote the key.
        kind = "private key in PEM without a password" if private else "public key in PEM"
        raise ValueError(f"it is not a {kind}") from None


def _make_key(material: object, kid: str | None = None) -> Key:
    """Make a key of bytes or a public key; `ValueError` if it is weak or of another kind."""
    if isinstance(material, bytes):
        check_secret(material)
    import jwt  # noqa: PLC0415 - see this module's docstring
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: PLC0415 - same

    kinds = (bytes, rsa.RSAPublicKey, ec.EllipticCurvePublicKey, ed25519.Ed25519PublicKey)
    found = [
        name for name, kind in zip(ALGORITHMS, kinds, strict=True) if isinstance(material, kind)
    ]
    if not found:
        raise ValueError("a public key must be RSA, P-256 or Ed25519")
    algorithm = jwt.get_algorithm_by_name(found[0])
    try:
        # Refused are other curves than P-256, and a secret that is the text of a public key.
        prepared = algorithm.prepare_key(material)
    except jwt.InvalidKeyError as exc:
        raise ValueError(str(exc)) from None
    # RFC 7518 sections 3.2 and 3.3: 32 bytes, 2048 bits.
    if (weakness := algorithm.check_key_length(prepared)) is not None:
        if isinstance(material, bytes):
            what = f"it has {len(material)} bytes; at least 32 are needed: openssl rand -hex 32"
            raise ValueError(what)
        raise ValueError(weakness)
    return Key(algorithm=found[0], kid=kid, material=prepared)


# -- a set of keys


def parse_jwks(data: bytes, *, name: str = "JWK Set") -> KeySet:
    """Read a JWK Set (RFC 7517 section 5).

    Keys for encryption are passed over. One that is weak, broken or unknown is left out with a
    warning: issuers add a key of a new kind or withdraw an old one beside good ones, and no token
    of these shall be refused for it. Of two with the same name and algorithm the first is taken.

    Args:
        data: the text of the set.
        name: what the warnings call it.

    Raises:
        ValueError: it is no JWK Set, has too many keys or none that can be used.
    """
    require_jwt()
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    keys = cast("dict[str, object]", value).get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list) or not keys:
        raise ValueError('it is not a JWK Set: it has no list of "keys"')
    listed = cast("list[object]", keys)
    if len(listed) > MAX_KEYS:
        raise ValueError(f"it has more than {MAX_KEYS} keys")
    found: dict[object, Key] = {}
    left_out: list[str] = []
    for place, jwk in enumerate(listed, 1):
        try:
            key = _parse_jwk(jwk)
            if key is not None:
                named = place if key.kid is None else (key.algorithm, key.kid)
                if found.setdefault(named, key) is not key:
                    raise ValueError("a key before it has the same kid")  # noqa: TRY301 - one way out for each key
        except ValueError as exc:
            left_out.append(f"{_call(jwk, place)}: {exc}")
    if not found:
        raise ValueError("; ".join(["there is no key that could verify a token", *left_out]))
    for reason in left_out:
        logger.warning("%s: left out is %s", name, reason)
    return KeySet(list(found.values()))


def _call(jwk: object, place: int) -> str:
    kid = cast("dict[str, object]", jwk).get("kid") if isinstance(jwk, dict) else None
    return f"key number {place}" if kid is None else f"key {repr(kid)[:_MAX_SHOWN]}"


def _parse_jwk(value: object) -> Key | None:
    """Make a key of a JWK, `None` if it is for something else than to verify.

    RFC 7517 section 5: what isn't understood, lacks members or is out of range is to be ignored.
    `jwt.PyJWKSet` would do that without a word, and take the private half where that is given too.

    Raises:
        ValueError: it can't be used.
    """
    import jwt as pyjwt  # noqa: PLC0415 - see this module's docstring

    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")  # noqa: TRY004 - every key that can't be used is one kind of error
    jwk = cast("dict[str, Any]", value)
    if jwk.get("use", "sig") != "sig":
        return None
    try:
        if "verify" not in jwk.get("key_ops", ["verify"]):
            return None
        algorithm = _ALGORITHM_OF.get((jwk.get("kty"), jwk.get("crv")))
        if algorithm is None or jwk.get("alg", algorithm) != algorithm:
            raise ValueError("it is of a kind or an algorithm that the hub doesn't know")
        public = {name: jwk[name] for name in _PUBLIC_MEMBERS if name in jwk}
    except TypeError:
        raise ValueError("it is broken") from None
    try:
        material = pyjwt.PyJWK(public, algorithm).key
    except (pyjwt.PyJWTError, ValueError, KeyError, TypeError):
        # What the library says may quote the key.
        raise ValueError("it is broken") from None
    kid = jwk.get("kid")
    if not (kid is None or isinstance(kid, str)):
        raise ValueError("its kid is not a text")
    return _make_key(material, kid)


# -- files


def read_key_file(path: str, limit: int = KEY_FILE_BYTES) -> bytes:
    """Read a file of keys.

    Raises:
        ValueError: it can't be read, or is larger than any of its kind.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(limit + 1)
    except OSError as exc:
        raise ValueError(f"can't read {path}: {exc.strerror or exc}") from exc
    if len(data) > limit:
        raise ValueError(f"{path} is larger than {limit} bytes")
    return data


@final
class JwksFile:
    """A JWK Set in a file, read again when the file changes.

    It changes keys without a restart: add the new key, sign with it, and take the old one out when
    its tokens are over. Replace the file by a rename: then there is no moment at which half of it
    can be read.

    Raises:
        ValueError: the file can't be read, or is no JWK Set.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._seen: object = None
        self._next_look = 0.0
        # Not Trio's, which is for the program's own: a request would wait for its slow work.
        self._threads = trio.CapacityLimiter(1)
        self._keys = self._read()
        self.failures: int = 0
        """How often a changed file could not be used."""

    def __repr__(self) -> str:
        return f"<JwksFile: {self._path}>"

    async def current(self) -> KeySet:
        """Return the keys in force, after a look at the file if the last is some seconds ago."""
        if (now := trio.current_time()) >= self._next_look:
            # Set before the wait: one task looks, the others take what there is.
            self._next_look = now + REREAD_SECONDS
            try:
                self._keys = await trio.to_thread.run_sync(
                    self._read_if_changed, limiter=self._threads
                )
            except ValueError as exc:
                self.failures += 1
                logger.error("the keys stay as they are: %s", exc)  # noqa: TRY400 - it says all there is
        return self._keys

    def _read_if_changed(self) -> KeySet:
        return self._keys if self._state() == self._seen else self._read()

    def _read(self) -> KeySet:
        # First the state: what is changed while it is read looks changed the next time.
        self._seen = self._state()
        data = read_key_file(self._path, JWKS_BYTES)
        try:
            return parse_jwks(data, name=self._path)
        except ValueError as exc:
            raise ValueError(f"{self._path}: {exc}") from exc

    def _state(self) -> object:
        try:
            found = Path(self._path).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
