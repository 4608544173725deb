"""Tokens: what is taken, and each way to be refused."""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Any

import pytest
from auth_helpers import ALL, NOW, SECRET, b64, claims, jwk, key_set, public_pem, sign
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio.hubserver import ALGORITHMS, Grant, KeySet, TokenRules, parse_jwks, selection_of
from h3trio.hubserver._access.tokens import TokenError, verify

RULES = TokenRules()


def check(
    token: str, keys: KeySet | None = None, rules: TokenRules = RULES, now: float = NOW
) -> Grant:
    """Verify a token, with the secret unless told otherwise."""
    return verify(token, keys or key_set(), rules, now=now)


def refused(
    token: str, keys: KeySet | None = None, rules: TokenRules = RULES, now: float = NOW
) -> str:
    """Return why a token is refused."""
    with pytest.raises(TokenError) as caught:
        check(token, keys, rules, now)
    why = str(caught.value)
    # RFC 6750 section 3: what an error_description may hold.
    assert why.isascii()
    assert not set(why) & set('"\\')
    return why


@table("algorithm", ALGORITHMS)
def test_a_good_token(algorithm: str) -> None:
    """A token of each algorithm grants what it says."""
    made = {"publish": ["a", "b/{x}"], "subscribe": ["c"]}
    token = sign(claims(mercure=made, sub="me", nbf=NOW, iat=NOW), algorithm=algorithm)
    assert check(token, key_set(algorithm)) == Grant(
        publish=selection_of(["a", "b/{x}"]),
        subscribe=selection_of(["c"]),
        expires=NOW + 3600,
        subject="me",
    )


LISTS = [
    (ALL, True, True),
    ({"publish": ["*"]}, True, False),
    ({"subscribe": []}, False, True),
    ({"publish": []}, False, False),
    ({}, False, False),
    (None, False, False),
]


def test_what_is_not_named_is_not_granted(subtests: pytest.Subtests) -> None:
    """A token without a list gives no right of that kind."""
    for rights, publishes, subscribes in LISTS:
        with subtests.test(rights=rights, publishes=publishes, subscribes=subscribes):
            grant = check(sign(claims(mercure=rights)))
            assert grant.publish.matches_topic("x") is publishes
            assert (grant.subscribe is not None) is subscribes


def test_our_own_claim_is_checked(subtests: pytest.Subtests) -> None:
    """A claim of ours that isn't `{"operate": true}` or `false` makes a token bad."""
    wrong: list[object] = [None, [], "x", {"operate": 1}, {"operate": "true"}]
    for claim in wrong:
        with subtests.test(claim=claim):
            payload = json.dumps({**claims(), "h3trio": claim})
            with pytest.raises(TokenError, match="h3trio is malformed"):
                verify(sign(payload), key_set(), TokenRules(), now=NOW)


def test_the_claim_has_a_long_name_too() -> None:
    """Mercure's claim may stand under its whole name, but not under both."""
    both: dict[str, Any] = {"https://mercure.rocks/": ALL}
    assert check(sign(claims(mercure=None, **both))).publish.everything
    assert refused(sign(claims(**both))) == "the claim mercure is malformed"


def test_a_public_key_is_no_secret(subtests: pytest.Subtests) -> None:
    """An HMAC made with the text of a public key is refused."""
    for algorithm in [a for a in ALGORITHMS if a != "HS256"]:
        for strip in [False, True]:
            with subtests.test(algorithm=algorithm, strip=strip):
                pem = public_pem(algorithm)
                head, payload, _ = sign().split(".")
                message = f"{head}.{payload}"
                forged = hmac.digest(
                    pem.strip() if strip else pem, message.encode(), hashlib.sha256
                )
                assert (
                    refused(f"{message}.{b64(forged)}", key_set(algorithm))
                    == "no key is for this token"
                )


def test_no_other_algorithm(subtests: pytest.Subtests) -> None:
    """Unsigned tokens, in any spelling, and algorithms that aren't the key's are refused."""
    for name in ["none", "None", "NONE", "nOnE", "", " none", "hs256", "HS384"]:
        with subtests.test(name=name):
            message = f"{b64(json.dumps({'alg': name}))}.{b64(json.dumps(claims()))}"
            assert refused(f"{message}.") == "the token is not a JWT"
            assert refused(f"{message}.AAAA") == "no key is for this token"
            signed = sign(header={"alg": name})
            assert refused(signed) == "no key is for this token"


def test_kid_is_a_name_and_nothing_else(subtests: pytest.Subtests) -> None:
    """A key that isn't in the set isn't looked for elsewhere."""
    for kid in ["../../dev/null", "other", "", "a' OR 1=1", "/etc/passwd\0"]:
        with subtests.test(kid=kid):
            keys = parse_jwks(json.dumps({"keys": [jwk("HS256", kid="mine")]}).encode())
            assert check(sign(header={"kid": "mine"}), keys).subscribe
            assert refused(sign(header={"kid": kid}), keys) == "no key is for this token"


def test_the_key_of_another_kid_is_not_tried() -> None:
    """A good signature under the name of another key is refused."""
    others = jwk("HS256", kid="b", k=b64(b"x" * 32))
    keys = parse_jwks(json.dumps({"keys": [jwk("HS256", kid="a"), others]}).encode())
    assert check(sign(header={"kid": "a"}), keys).subscribe
    assert refused(sign(header={"kid": "b"}), keys) == "the signature is wrong"
    assert refused(sign(), keys) == "no key is for this token"


def test_keys_that_a_token_brings_along(subtests: pytest.Subtests) -> None:
    """A header's own key or address is ignored: it neither helps a forger nor hurts an issuer."""
    for name in ["jwk", "jku", "x5u", "x5c", "x5t"]:
        with subtests.test(name=name):
            brought: Any = jwk("RS256") if name == "jwk" else "https://evil.example/key"
            header = {name: brought}
            assert check(sign(header=header)).subscribe
            assert refused(sign(header=header, key=b"y" * 40)) == "the signature is wrong"
            assert refused(sign(header=header, algorithm="RS256")) == "no key is for this token"


HEADERS: dict[str, tuple[dict[str, object], str]] = {
    "an extension": ({"crit": ["exp"]}, "needs an extension"),
    "an empty crit": ({"crit": []}, "needs an extension"),
    "an unencoded payload": ({"b64": False, "crit": ["b64"]}, "needs an extension"),
    "an ID token's kin": ({"typ": "logout+jwt"}, "for something else"),
    "a type that is none": ({"typ": 1}, "for something else"),
    "a kid that is none": ({"kid": 7}, "header is malformed"),
    "a kid that is a list": ({"kid": ["a"]}, "header is malformed"),
    "an alg that is none": ({"alg": None}, "header is malformed"),
    "several algs": ({"alg": ["HS256"]}, "header is malformed"),
}


def test_headers_that_are_refused(subtests: pytest.Subtests) -> None:
    """A header that asks for more, or is malformed, is refused whatever the signature."""
    for name, (header, why) in HEADERS.items():
        with subtests.test(name):
            assert why in refused(sign(header=header))


def test_types_that_are_taken(subtests: pytest.Subtests) -> None:
    """Plain tokens and access tokens say so in any case."""
    for kind in ["JWT", "jwt", "at+jwt", "application/at+JWT"]:
        with subtests.test(kind=kind):
            assert check(sign(header={"typ": kind})).subscribe


CLAIMS: dict[str, tuple[dict[str, object], str]] = {
    "expired": ({"exp": NOW - 1}, "expired"),
    "expires now": ({"exp": NOW}, "expired"),
    "long expired": ({"exp": 0}, "expired"),
    "no exp": ({"exp": None}, "no exp"),
    "a text": ({"exp": "1900000000"}, "exp is not a time"),
    "true": ({"exp": True}, "exp is not a time"),
    "negative": ({"exp": -1}, "exp is not a time"),
    "huge": ({"exp": 10**30}, "exp is not a time"),
    "beyond calendars": ({"exp": 253_402_300_800}, "exp is not a time"),
    "a list": ({"exp": [NOW + 1]}, "exp is not a time"),
    "not yet": ({"nbf": NOW + 11}, "nbf is in the future"),
    "nbf as text": ({"nbf": "0"}, "nbf is not a time"),
    "from the future": ({"iat": NOW + 11}, "iat is in the future"),
    "iat as text": ({"iat": "0"}, "iat is not a time"),
    "an audience": ({"aud": "other"}, "another audience"),
    "a subject that is none": ({"sub": 7}, "sub is not a text"),
    "rights as a list": ({"mercure": ["*"]}, "mercure is malformed"),
    "rights as text": ({"mercure": "*"}, "mercure is malformed"),
    "publish as text": ({"mercure": {"publish": "*"}}, "mercure.publish is not a list"),
    "publish is null": ({"mercure": {"publish": None}}, "mercure.publish is not a list"),
    "subscribe as an object": ({"mercure": {"subscribe": {"*": 1}}}, "mercure.subscribe is not"),
    "a topic that is none": ({"mercure": {"publish": ["a", 1]}}, "mercure.publish is not a list"),
    "an empty topic": ({"mercure": {"publish": [""]}}, "mercure.publish is not a list"),
}


def test_claims_that_are_refused(subtests: pytest.Subtests) -> None:
    """Claims that are wrong, over, not yet, or for somebody else are refused."""
    for name, (changes, why) in CLAIMS.items():
        with subtests.test(name):
            assert why in refused(sign(claims(**changes)))


PAYLOADS = [
    *(f'{{"exp":{text}}}' for text in ("NaN", "Infinity", "-Infinity", "1e999", "9" * 5000)),
    '{"exp":1900000000,"note":NaN}',
    '{"exp":1900000000,"exp":1900000000}',
    '{"exp":1900000000,"mercure":{"publish":[],"publish":["*"]}}',
    '{"exp":1900000000',
    "[]",
    "null",
    '"text"',
    "",
    "\ufeff{}",
    "[" * 3000,
    '{"a":' * 1000,
]


def test_payloads_that_are_refused(subtests: pytest.Subtests) -> None:
    """A payload that is no object, has a name twice, or has a number that is none, is refused."""
    for payload in PAYLOADS:
        with subtests.test(payload=payload):
            refused(sign(payload))


def test_headers_that_are_no_objects(subtests: pytest.Subtests) -> None:
    """The header is as strict as the payload."""
    for header in ["", "[]", "null", '{"alg":"HS256","alg":"HS256"}', "{", "\xff"]:
        with subtests.test(header=header):
            assert refused(sign(header=header)) == "the token is not a JWT"


def test_shapes_that_are_refused() -> None:
    """A token has three parts of base64url, each with something in it."""
    good = sign()
    head, payload, signature = good.split(".")
    wrong = [
        "",
        ".",
        "..",
        head,
        f"{head}.{payload}",
        f"{head}.{payload}.",
        f".{payload}.{signature}",
        f"{head}..{signature}",
        f"{good}.",
        f".{good}",
        f"{good}.{signature}",
        f"{good}.a.b",
        f"{good}=",
        f"{good}\n",
        f" {good}",
        good.replace(".", "\u2024"),
        f"{head}.{payload}.\u0661{signature[1:]}",
        f"{head}.{payload}.{signature[:-1]}é",
        f"{head}.{payload}.{signature}/",
        f"{head}.{payload}.A",
    ]
    for token in wrong:
        assert refused(token) == "the token is not a JWT", token


@table("algorithm", ALGORITHMS)
def test_signatures_that_are_refused(algorithm: str) -> None:
    """A signature that is cut, longer, another's or of another payload is refused."""
    keys = key_set(algorithm)
    good = sign(algorithm=algorithm)
    head, payload, signature = good.split(".")
    other = sign(claims(sub="x"), algorithm=algorithm).split(".")
    wrong = [signature[:-4], signature[4:], signature + "AAAA", "AAAA", "A" * len(signature)]
    for forged in wrong:
        # Where it is cut, base64url may have bits too many.
        assert refused(f"{head}.{payload}.{forged}", keys) in (
            "the signature is wrong",
            "the token is not a JWT",
        )
    assert refused(f"{head}.{payload}.{other[2]}", keys) == "the signature is wrong"
    assert refused(f"{head}.{other[1]}.{signature}", keys) == "the signature is wrong"


def test_length_at_the_limit() -> None:
    """A token of just the limit is taken, one byte more isn't looked at."""
    token = sign()
    assert check(token, rules=TokenRules(max_token_bytes=len(token))).subscribe
    assert refused(token, rules=TokenRules(max_token_bytes=len(token) - 1)) == (
        "the token is too long"
    )
    assert refused("a" * 10_000_000) == "the token is too long"


def test_leeway() -> None:
    """An issuer's clock may be ahead by the leeway and not more; it prolongs nothing."""
    rules = TokenRules(leeway=5)
    for name in ("nbf", "iat"):
        made: dict[str, Any] = {name: NOW + 5}
        assert check(sign(claims(**made)), rules=rules).subscribe
        assert "future" in refused(sign(claims(**made)), rules=rules, now=NOW - 1)
    assert refused(sign(claims(exp=NOW)), rules=TokenRules(leeway=100)) == "the token has expired"


def test_tokens_without_an_end() -> None:
    """They are taken only where a rule says so."""
    grant = check(sign(claims(exp=None)), rules=TokenRules(require_exp=False))
    assert grant.expires is None


def test_other_claims_may_be_anything() -> None:
    """Claims that nothing here reads make no token bad."""
    others: dict[str, Any] = {"jti": 7, "iss": ["x"], "azp": None, "https://x.example/": [{}]}
    assert check(sign(claims(**others))).subscribe


def test_exp_may_have_a_fraction() -> None:
    """RFC 7519 section 2: a NumericDate may be no integer."""
    assert check(sign(claims(exp=NOW + 0.5))).expires == NOW + 0.5


AUDIENCES = [("hub", True), (["x", "hub"], True), ("hub2", False), (["x"], False), (None, False)]


def test_audience(subtests: pytest.Subtests) -> None:
    """An audience that is set must be named, alone or among others."""
    for audience, ok in AUDIENCES:
        with subtests.test(audience=audience, ok=ok):
            token = sign(claims(aud=audience))
            rules = TokenRules(audience="hub")
            if ok:
                check(token, rules=rules)
            else:
                assert "aud" in refused(token, rules=rules)


def test_an_audience_that_nobody_set(subtests: pytest.Subtests) -> None:
    """RFC 7519 section 4.1.3: who isn't named by `aud` must refuse, and here nobody has a name."""
    for audience in ["hub", ["hub"], [None], []]:
        with subtests.test(audience=audience):
            assert "audience" in refused(sign(claims(aud=audience)))


def test_issuer(subtests: pytest.Subtests) -> None:
    """An issuer that is set must be the token's."""
    for issuer, ok in [("me", True), ("you", False), (None, False)]:
        with subtests.test(issuer=issuer, ok=ok):
            token = sign(claims(iss=issuer))
            rules = TokenRules(issuer="me")
            if ok:
                check(token, rules=rules)
            else:
                assert "iss" in refused(token, rules=rules)


def test_rules_are_checked() -> None:
    """A leeway isn't negative or endless, and a token may have some length."""
    for leeway, size in ((-1.0, 1), (float("inf"), 1), (0.0, 0)):
        with pytest.raises(ValueError, match="leeway"):
            TokenRules(leeway=leeway, max_token_bytes=size)


GOOD = sign()
PARTS = GOOD.split(".")
PIECES = st.sampled_from([*PARTS, ".", "..", "=", b64('{"alg":"none"}'), b64("{}"), "é", "\0"])


@given(
    st.text(max_size=60)
    | st.binary(max_size=60).map(lambda raw: raw.decode("latin-1"))
    | st.lists(PIECES, max_size=6).map("".join)
    | st.tuples(st.binary(max_size=30), st.binary(max_size=30), st.binary(max_size=40)).map(
        lambda parts: ".".join(map(b64, parts))
    )
)
def test_anything_else_is_refused(token: str) -> None:
    """Whatever isn't the one good token is refused, and in no other way than that."""
    if token != GOOD:
        refused(token)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("AQgw_-.9"))
def test_a_changed_token_is_refused(at: int, char: str) -> None:
    """No character can be another one, but for bits of the last that are no part of it."""
    changed = GOOD[:at] + char + GOOD[at + 1 :]
    if changed != GOOD and at < len(GOOD) - 1:
        refused(changed)


def test_no_error_tells_of_the_key() -> None:
    """A refusal doesn't tell the secret, not even if the error is shown in full."""
    with pytest.raises(TokenError) as caught:
        check(sign(key=b"z" * 40))
    shown = repr(caught.value) + repr(caught.value.__cause__) + repr(key_set())
    assert SECRET.decode() not in shown
