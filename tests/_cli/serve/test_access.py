"""The hub's options for keys and limits: what they become, and which are refused."""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any

import pytest
from auth_helpers import SECRET, jwk, private_pem, public_pem

from h3trio._cli.options import Options, settings_from
from h3trio._cli.serve import command as _cli_serve
from h3trio._cli.serve.access import access_from
from h3trio._cli.serve.hub import hub_from
from h3trio.hubserver import AccessControl, AnonymousAccess, Limits, Rate

if TYPE_CHECKING:
    from pathlib import Path


def access(*argv: str, **environ: str) -> AccessControl:
    """Make what `serve` would make of its options."""
    parser = Options(prog="h3trio serve")
    _cli_serve.add_arguments(parser)
    arguments = parser.parse_args(argv)
    parser.complete(arguments, environ)
    hub_from(arguments, settings_from(arguments))
    return access_from(arguments, AnonymousAccess())


def refused(capsys: pytest.CaptureFixture[str], *argv: str, **environ: str) -> str:
    """Return the one line that the options end with."""
    with pytest.raises(SystemExit) as caught:
        access(*argv, **environ)
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    return err.removeprefix("h3trio: error: ").rstrip("\n")


def test_nothing_given() -> None:
    """Without options there is no authenticator, and the limits are the default ones."""
    made = access()
    assert not made.has_authenticator
    assert made.limits == Limits()


@pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES256", "EdDSA"])
def test_each_way_to_give_a_key(tmp_path: Path, algorithm: str) -> None:
    """By a file, a set, or the environment; and then the hub may be on any address."""
    key, jwks = tmp_path / "key", tmp_path / "jwks.json"
    key.write_bytes(public_pem(algorithm))
    jwks.write_text(json.dumps({"keys": [jwk(algorithm)]}))
    host = ("--host", "192.0.2.1")
    assert access(*host, "--jwt-key-file", str(key)).has_authenticator
    assert access(*host, "--jwks", str(jwks)).has_authenticator
    assert access(*host, H3TRIO_JWT_KEY=public_pem(algorithm).decode()).has_authenticator
    assert access(*host, H3TRIO_JWT_KEY_FILE=str(key)).has_authenticator


def test_allowed_hosts() -> None:
    """Repeated, by commas, or from the environment; without any there is no rule."""
    assert not access().has_allowed_hosts
    assert access("--allowed-host", "a.example", "--allowed-host", "b,c").has_allowed_hosts
    assert access(H3TRIO_ALLOWED_HOSTS="a.example, b").has_allowed_hosts


def test_no_flag_holds_a_secret(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no flag for the key itself: other users would see it."""
    assert "--jwt-key" in refused(capsys, "--jwt-key", SECRET.decode())


@pytest.mark.parametrize(
    ("argv", "field", "value"),
    [
        (("--publish-rate", "5/s,9"), "publish_rate", Rate(per_second=5, burst=9)),
        (("--max-subject-streams", "7"), "max_subject_streams", 7),
        (("--max-topics-per-subscription", "7"), "max_topics_per_subscription", 7),
        (("--max-topic-length", "7"), "max_topic_length", 7),
        (("--recheck-interval", "7.5"), "recheck_interval", 7.5),
        (("--recheck-interval", "none"), "recheck_interval", math.inf),
    ],
)
def test_limits(argv: tuple[str, ...], field: str, value: object) -> None:
    """Each limit has a flag, and a twin in the environment."""
    changed: dict[str, Any] = {field: value}
    assert access(*argv, H3TRIO_JWT_KEY=SECRET.decode()).limits == Limits(**changed)
    variable = "H3TRIO_" + argv[0].removeprefix("--").replace("-", "_").upper()
    assert access(**{variable: argv[1]}).limits == Limits(**changed)


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (("--jwt-key-file", "/nowhere/x"), "--jwt-key-file: can't read /nowhere/x: No such file"),
        (("--jwks", "/nowhere/x"), "--jwks: can't read /nowhere/x: No such file"),
        (("--jwks", "a", "--jwt-key-file", "b"), "give only one of --jwt-key-file and --jwks"),
        (("--jwt-leeway", "-1"), "is not a time"),
        (("--max-token-bytes", "0"), "is not a size"),
        (("--cookie-name", "a b"), "--cookie-name: cookie name 'a b' is not a token"),
        (("--cookie-name", ""), "cookie name '' is not a token"),
        (("--publish-rate", "many"), "not of the form N/s"),
        (("--recheck-interval", "0"), "is not a time"),
        (("--allowed-host", "hub:80"), "--allowed-host: 'hub:80' is not the name of a host"),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], why: str
) -> None:
    """Wrong options are one line and status 2."""
    assert why in refused(capsys, *argv)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("short", "it has 5 bytes; at least 32 are needed"),
        (private_pem("RS256").decode(), "it holds a private key"),
    ],
)
def test_keys_that_are_refused(capsys: pytest.CaptureFixture[str], key: str, why: str) -> None:
    """A key that is weak or private is refused at start, without a word of it."""
    line = refused(capsys, H3TRIO_JWT_KEY=key)
    assert line.startswith(f"H3TRIO_JWT_KEY: {why}")


def test_a_set_without_a_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The line names the file."""
    path = tmp_path / "jwks.json"
    path.write_text("{}")
    assert refused(capsys, "--jwks", str(path)).startswith(f"--jwks: {path}: it is not a JWK Set")


def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyJWT isn't installed, the line says what to install; without a key it isn't missed."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    assert "pip install '.[auth]'" in refused(capsys, H3TRIO_JWT_KEY=SECRET.decode())
    assert not access().has_authenticator
