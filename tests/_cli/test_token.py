"""`token`: a token on standard output, or one line that says why there is none."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

import pytest
from auth_helpers import SECRET, b64, key_set, private_pem, public_pem

from h3trio._cli.main import main
from h3trio.hub import Selection
from h3trio.hubserver import ALGORITHMS, Grant, TokenRules, selection_of
from h3trio.hubserver._access.tokens import verify

if TYPE_CHECKING:
    from pathlib import Path

KEY = {"H3TRIO_JWT_KEY": SECRET.decode()}


def mint(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Run the command, with the secret unless a file is named; return all that it prints."""
    assert main(["token", *argv], environ={} if "--key-file" in argv else KEY) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return out.rstrip("\n")


def refused(capsys: pytest.CaptureFixture[str], *argv: str, **environ: str) -> str:
    """Run the command; return the one line of its refusal."""
    with pytest.raises(SystemExit) as caught:
        main(["token", *argv], environ=environ)
    out, err = capsys.readouterr()
    assert (caught.value.code, out, err.count("\n")) == (2, "", 1)
    return err.removeprefix("h3trio: error: ").rstrip("\n")


def granted(token: str, algorithm: str = "HS256", **rules: str) -> Grant:
    """Verify a token as the hub does."""
    return verify(token, key_set(algorithm), TokenRules(**rules), now=time.time())  # type: ignore[arg-type]  # texts only


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_key_file(capsys: pytest.CaptureFixture[str], tmp_path: Path, algorithm: str) -> None:
    """A token of each algorithm is what the hub takes."""
    path = tmp_path / "key"
    path.write_bytes(private_pem(algorithm))
    token = mint(capsys, "--key-file", str(path), "--publish", "a", "--algorithm", algorithm)
    assert granted(token, algorithm).publish == selection_of(["a"])


def test_the_hubs_own_key(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The variable that tells the hub its key is enough; a flag goes before it."""
    path = tmp_path / "key"
    path.write_bytes(SECRET)
    for argv, name in ((), path), (("--key-file", str(path)), "/nowhere"):
        environ = {"H3TRIO_JWT_KEY_FILE": str(name)}
        assert main(["token", "--publish", "a", *argv], environ=environ) == 0
        assert granted(capsys.readouterr().out.strip()).publish == selection_of(["a"])


def test_all_that_can_be_said(capsys: pytest.CaptureFixture[str]) -> None:
    """Topics may be several; subject, audience, issuer and other claims are in it."""
    token = mint(
        capsys,
        *("--publish", "a", "--publish", "b/{x}", "--subscribe", "*", "--expires", "2m"),
        *("--subject", "me", "--audience", "hub", "--issuer", "us", "--kid", "k"),
        *("--claims", '{"note": 1}'),
    )
    grant = granted(token, audience="hub", issuer="us")
    assert grant.publish == selection_of(["a", "b/{x}"])
    assert grant.subscribe == Selection(["*"])
    assert grant.subject == "me"
    assert grant.expires is not None
    assert 110 < grant.expires - time.time() <= 120
    assert token.startswith(b64('{"alg":"HS256","kid":"k"')[:-2])


def test_public_events_only(capsys: pytest.CaptureFixture[str]) -> None:
    """A token may subscribe without seeing anything private."""
    assert granted(mint(capsys, "--subscribe-public")).subscribe == Selection()


def test_operating(capsys: pytest.CaptureFixture[str]) -> None:
    """`--operate` alone is enough for a token, and allows nothing else."""
    grant = granted(mint(capsys, "--operate"))
    assert (grant.operate, grant.publish, grant.subscribe) == (True, Selection(), None)
    assert not granted(mint(capsys, "--publish", "*")).operate


def test_claims_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Rights may come as a claim."""
    token = mint(capsys, "--claims", json.dumps({"mercure": {"publish": ["a"]}}))
    assert granted(token).publish == selection_of(["a"])


def test_no_end(capsys: pytest.CaptureFixture[str]) -> None:
    """`--expires none` leaves the end out."""
    token = mint(capsys, "--publish", "a", "--expires", "none")
    assert verify(token, key_set(), TokenRules(require_exp=False), now=time.time()).expires is None


@pytest.mark.parametrize(
    ("argv", "environ", "why"),
    [
        ((), KEY, "give --publish, --subscribe, --operate or such"),
        (("--publish", ""), KEY, "a topic is not empty"),
        (("--publish", "a"), {}, "--key-file, H3TRIO_JWT_KEY_FILE or H3TRIO_JWT_KEY"),
        (("--publish", "a", "--key-file", "x"), KEY, "one of them"),
        (("--publish", "a", "--key-file", "/nowhere/x"), {}, "can't read /nowhere/x: No such"),
        (
            ("--publish", "a"),
            {"H3TRIO_JWT_KEY": "short"},
            "it has 5 bytes; at least 32 are needed",
        ),
        (("--publish", "a"), {"H3TRIO_JWT_KEY_FILE": "/no"}, "H3TRIO_JWT_KEY_FILE: can't read /no"),
        (("--publish", "a", "--algorithm", "ES256"), KEY, "but the key is for HS256"),
        (("--publish", "a", "--algorithm", "none"), KEY, "invalid choice: 'none'"),
        (("--publish", "a", "--expires", "0"), KEY, "positive number"),
        (("--subscribe", "a", "--subscribe-public"), KEY, "--subscribe-public has no effect"),
        (("--publish", "a", "--expires", "1y"), KEY, "positive number"),
        (("--publish", "a", "--claims", "{"), KEY, "it is not JSON"),
        (("--publish", "a", "--claims", "[]"), KEY, "it is not a JSON object"),
        (("--publish", "a", "--claims", '{"exp": 1}'), KEY, "--claims has exp"),
        (("--publish", "a", "--claims", '{"mercure": 1}'), KEY, "--claims has mercure"),
    ],
)
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str], argv: tuple[str, ...], environ: dict[str, str], why: str
) -> None:
    """Wrong arguments and keys are one line, without the key, and status 2."""
    line = refused(capsys, *argv, **environ)
    assert why in line
    assert SECRET.decode() not in line


def test_a_public_key_signs_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The line says which half is needed."""
    line = refused(capsys, "--publish", "a", H3TRIO_JWT_KEY=public_pem("ES256").decode())
    assert line == "H3TRIO_JWT_KEY: signing needs the private key, not the public one"


def test_without_the_extra(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where PyJWT isn't installed, the line says what to install."""
    monkeypatch.setitem(sys.modules, "jwt", None)
    line = refused(capsys, "--publish", "a", **KEY)
    assert "pip install '.[auth]'" in line
