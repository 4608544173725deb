"""Every flag of `serve` changes what it says: from the parser to the object that uses it.

One row for each flag that is no setting of the server: its value, and what must hold of what
`serve` makes. A flag without a row fails; the settings need none, as all of them have one form.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import socket
from contextlib import closing
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import pytest
from auth_helpers import SECRET, jwk

from h3trio import Settings
from h3trio._cli.main import main
from h3trio._cli.options import Options, env_flag, env_name, settings_from
from h3trio._cli.serve import command
from h3trio._cli.serve.hub import LEASE, HubParts, hub_from
from h3trio._cli.serve.listen import listening_from
from h3trio.hub import HubSettings
from h3trio.hubserver import Rate

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from pathlib import Path

KEY = {"H3TRIO_JWT_KEY": SECRET.decode()}
SECRET_FILE = "secret"  # noqa: S105 - the name of a file
DEFAULTS = {field.name: field.default for field in dataclasses.fields(Settings)}


def parsed(*argv: str, **environ: str) -> argparse.Namespace:
    """Parse as `serve` does."""
    parser = Options(prog="h3trio serve")
    command.add_arguments(parser)
    arguments = parser.parse_args(argv)
    parser.complete(arguments, environ)
    return arguments


def made(*argv: str, **environ: str) -> HubParts:
    """Make the hub of these options."""
    arguments = parsed(*argv, **environ)
    return hub_from(arguments, settings_from(arguments))


def listening(*argv: str) -> dict[str, Any]:
    """Make what `serve` listens with."""
    return listening_from(parsed(*argv), {})


# The flag with its value, what must then be found, and how it is found.
OF_THE_HUB: list[tuple[list[str], object, str]] = [
    (["--max-events", "7"], 7, "hub._history.log._retention.max_events"),
    (["--max-bytes", "7k"], 7168, "hub._history.log._retention.max_bytes"),
    (["--max-age", "7m"], 420.0, "hub._history.max_age"),
    (["--max-topic-events", "7"], 7, "hub._history.log._retention.max_topic_events"),
    (["--flush-interval", "7ms"], 0.007, "hub._settings.flush_interval"),
    (["--follow-timeout", "7s"], 7.0, "hub._settings.follow_timeout"),
    (["--cursor", "off"], "off", "cursor"),
    (["--reconnect-delay", "7"], 7.0, "hub._settings.reconnect_delay"),
    (["--max-event-bytes", "7k"], 7168, "hub._settings.max_event_bytes"),
    (["--max-topic-length", "7"], 7, "hub._settings.max_topic_length"),
    (["--max-topics-per-subscription", "7"], 7, "hub._settings.max_topics"),
    (["--max-topic-length", "7"], 7, "access.limits.max_topic_length"),
    (["--max-topics-per-subscription", "7"], 7, "access.limits.max_topics_per_subscription"),
    (["--max-subject-streams", "7"], 7, "access.limits.max_subject_streams"),
    (["--publish-rate", "7/s"], Rate.parse("7/s"), "access.limits.publish_rate"),
    (["--recheck-interval", "none"], math.inf, "access.limits.recheck_interval"),
    (["--allowed-host", "h"], {"h"}, "access._hosts.names"),
    (["--jwt-audience", "a"], "a", "access._authenticator._rules.audience"),
    (["--jwt-issuer", "i"], "i", "access._authenticator._rules.issuer"),
    (["--jwt-leeway", "7s"], 7.0, "access._authenticator._rules.leeway"),
    (["--jwt-allow-no-exp"], False, "access._authenticator._rules.require_exp"),
    (["--max-token-bytes", "7k"], 7168, "access._authenticator._rules.max_token_bytes"),
    (["--cookie-name", "c"], "c", "access._authenticator._token_sources.cookie_name"),
    (["--allow-query-token"], True, "access._authenticator._token_sources.allow_query"),
    (["--allow-anonymous-publish"], True, "access.anonymous.allow_anonymous_publish"),
    (["--allow-anonymous-subscribe"], True, "access.anonymous.allow_anonymous_subscribe"),
    (["--allow-anonymous-operate"], True, "access.anonymous.allow_anonymous_operate"),
    (["--allow-origin", "http://a"], {"http://a"}, "access.anonymous.allowed_origins"),
]


@pytest.mark.parametrize(("argv", "expected", "where"), OF_THE_HUB)
def test_flags_of_the_hub(argv: list[str], expected: object, where: str) -> None:
    """A flag of the hub reaches the part that obeys it, and that had another value before."""
    find = attrgetter(where)
    assert find(made(*argv, **KEY)) == expected
    assert find(made(**KEY)) != expected


def test_flags_of_cors() -> None:
    """An origin whose pages may read is told to the middleware, and trusted."""
    assert made().cors is None
    parts = made("--cors-origin", "http://a")
    assert attrgetter("cors._origins")(parts) == {"http://a"}
    assert parts.access.anonymous.allowed_origins == {"http://a"}
    headers = attrgetter("cors._preflight")
    name = "Access-Control-Allow-Headers"
    parts = made("--cors-origin", "http://a", "--cors-header", "X-A,X-B", "--cors-header", "X-C")
    assert headers(parts)[name].endswith(", X-A, X-B, X-C")
    assert "X-A" not in headers(made("--cors-origin", "http://a"))[name]
    parts = made("--cors-origin", "*", H3TRIO_CORS_HEADERS="x-a")
    assert headers(parts)[name].endswith(", x-a")


@pytest.mark.parametrize(
    ("argv", "why"),
    [
        (["--cors-header", "X-A"], "--cors-header is for pages of other sites"),
        (["--cors-origin", "*", "--cors-header", "a b"], "--cors-header: 'a b' is not a token"),
        (["--cors-origin", "http://a", "--cors-header", "*"], "list the names"),
        (["--allow-origin", "*"], "list the origins"),
        (["--allow-origin", "http://a,http://localhost:1/"], "'http://localhost:1/' is not an"),
    ],
)
def test_headers_that_no_page_sends(
    argv: list[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without other sites, or with what is no name, the flag is refused in one line."""
    with pytest.raises(SystemExit):
        made(*argv)
    assert why in capsys.readouterr().err


def test_flags_of_the_store(tmp_path: Path) -> None:
    """The store is the one that is named, at the durability that is asked for."""
    path = f"sqlite:{tmp_path / 'hub.db'}"
    durability = attrgetter("hub._history.durability")
    assert durability(made()) == "memory"
    assert durability(made("--store", path)) == "durable"
    assert durability(made("--store", path, "--durability", "fast")) == "fast"


# The flag with its value, what must then be found in the hub, and where.
OF_A_SERVER: list[tuple[list[str], object, str]] = [
    (["--durability", "fast"], "fast", "_history._follower._wanted"),
    (["--max-events", "7"], 7, "_history._retention.max_events"),
    (["--store-wait", "7s"], 7.0, "_history._open_wait"),
    (["--store-timeout", "7s"], 7.0, "_history._follower._limits.timeout"),
    (["--unready-after", "7s"], 7.0, "_settings.unready_after"),
]


@pytest.mark.parametrize(("argv", "expected", "where"), OF_A_SERVER)
def test_flags_of_a_server(argv: list[str], expected: object, where: str) -> None:
    """A flag of a store on a server reaches what obeys it, and that had another value before."""
    store = ("--store", "redis://localhost")
    assert attrgetter(where)(made(*store, *argv).hub) == expected
    assert attrgetter(where)(made(*store).hub) != expected


def test_the_password_of_a_server() -> None:
    """It comes by a variable of its own, or in that of the store."""
    password = attrgetter("hub._history._address.login.password")
    given = {"H3TRIO_STORE_PASSWORD": "p"}
    assert password(made("--store", "redis://h", **given)) == "p"
    assert password(made(H3TRIO_STORE="redis://:p@h")) == "p"
    # It may be there for another day.
    assert made(**given).store() == made().store()


@pytest.mark.parametrize("url", ["redis://:p@h", "redis://u:p@h/1?prefix=a", "redis://:a/p@h"])
def test_a_password_that_everybody_sees(refused: Callable[..., str], url: str) -> None:
    """In a flag it is refused, and not repeated."""
    said = refused("serve", "--store", url)
    assert "H3TRIO_STORE_PASSWORD" in said
    assert "p@h" not in said


def test_flags_of_keys(tmp_path: Path) -> None:
    """A key makes the hub take tokens."""
    path = tmp_path / SECRET_FILE
    path.write_bytes(SECRET)
    assert not made().access.has_authenticator
    assert made("--jwt-key-file", str(path)).access.has_authenticator
    path.write_text(json.dumps({"keys": [jwk("HS256")]}))
    assert made("--jwks", str(path)).access.has_authenticator


OF_LISTENING = [
    (["--host", "::1"], "host", "::1"),
    (["--port", "7"], "port", 7),
    (["--unix", "/run/x"], "unix", "/run/x"),
    (["--unix", "/run/x", "--unix-mode", "660"], "unix_mode", 0o660),
]


@pytest.mark.parametrize(("argv", "name", "expected"), OF_LISTENING)
def test_flags_of_listening(argv: list[str], name: str, expected: object) -> None:
    """A flag that says where to listen becomes an argument of the server."""
    assert listening(*argv)[name] == expected
    assert listening()[name] != expected


def test_flags_of_proxies() -> None:
    """The proxies to believe are told to the server, and whether they speak first."""
    assert listening()["proxies"] is None
    assert listening("--forwarded-allow-ips", "unix")["proxies"] is not None
    assert not listening("--forwarded-allow-ips", "unix")["proxies"].proxy_protocol
    proxies = listening("--forwarded-allow-ips", "unix", "--proxy-protocol")["proxies"]
    assert proxies.proxy_protocol


def test_flags_of_inherited_sockets() -> None:
    """A descriptor becomes a listener."""
    with closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        (listener,) = listening("--fd", str(os.dup(sock.fileno())))["listeners"]
        with closing(listener):
            assert listener.getsockname() == sock.getsockname()


@pytest.mark.parametrize("name", DEFAULTS)
def test_flags_of_settings(name: str) -> None:
    """Each setting of the server has a flag, which changes that setting alone, of the hub too."""
    default = DEFAULTS[name]
    number = default if isinstance(default, int | float) else 100
    value = 0.7 if name == "lease_jitter" else number + 1
    settings = made(env_flag(name), f"{value}").settings
    assert getattr(settings, name) == value
    changed: dict[str, Any] = {"lease": LEASE, name: value}
    assert settings == dataclasses.replace(Settings(), **changed)


def test_a_lease_without_end() -> None:
    """`--lease none` is none, by the flag or the variable; the hub's default is an hour."""
    assert made().settings.lease == LEASE == 3600
    assert made("--lease", "none").settings.lease is None
    assert made(H3TRIO_LEASE="none").settings.lease is None


def test_the_address_of_a_service_is_no_setting(refused: Callable[..., str]) -> None:
    """What Kubernetes says of a service that is called h3trio isn't taken for the port."""
    assert parsed(H3TRIO_PORT="tcp://10.96.0.7:80").port == 3000
    assert parsed(H3TRIO_PORT="udp://[fd00::7]:80").port == 3000
    assert refused("serve", H3TRIO_PORT="tcp").startswith("H3TRIO_PORT: 'tcp' is not a port")


# What these do takes a process: tests/e2e has them.
IN_A_PROCESS = {
    *("tls_cert", "tls_key", "reload", "factory"),
    *("log_level", "log_format", "no_access_log"),
}


def test_the_name_of_a_node(refused: Callable[..., str]) -> None:
    """It is the hub's, and checked where it enters."""
    name = attrgetter("hub._settings.node")
    assert name(made()) == name(made(H3TRIO_NODE="")) == ""
    assert name(made(H3TRIO_NODE="web1")) == "web1"
    assert refused("serve", "--node", "a b").startswith(
        "argument --node: the name of a node has 1 to 64"
    )


def test_every_flag_has_a_row() -> None:
    """No flag of `serve` is forgotten here."""
    argv = [argv for argv, *_ in OF_THE_HUB] + [argv for argv, *_ in OF_LISTENING]
    tried = {word for words in argv for word in words if word.startswith("--")}
    tried |= {words[0] for words, *_ in OF_A_SERVER}
    tried |= {
        "--store",
        "--store-password",
        "--durability",
        "--jwt-key-file",
        "--jwks",
        "--fd",
        "--cors-origin",
    }
    tried |= {"--cors-header", "--node"}
    tried |= {"--forwarded-allow-ips", "--proxy-protocol"}
    parser = Options(prog="h3trio serve")
    command.add_arguments(parser)
    flags = {env_flag(dest) for dest in parser.dests - IN_A_PROCESS - DEFAULTS.keys()}
    assert flags - {"--jwt-key"} == tried - {env_flag(name) for name in DEFAULTS}


def test_hub_settings_have_flags() -> None:
    """What the hub shares with the server is one setting: no two values for one word."""
    ours = {field.name for field in dataclasses.fields(HubSettings)}
    assert ours & DEFAULTS.keys() == {"max_event_bytes", "reconnect_delay"}


IDLE = [
    (("--store", "memory", "app:app"), "--store is the hub's, and app:app is served"),
    (("app:app", "--jwt-audience", "a"), "--jwt-audience is the hub's, and app:app is served"),
    (("--durability", "fast"), "--durability is about a store that lasts: give one with --store"),
    (("--store-wait", "7s"), "--store-wait is about a store on a server: give one with --store"),
    (("--store-timeout", "7s"), "--store-timeout is about a store on a server"),
    (("--unready-after", "7s"), "--unready-after is about a store on a server"),
    (("--node", "web1"), "--node is for a store that several hubs share: give one with"),
    (("--jwt-issuer", "i"), "--jwt-issuer is about tokens: give a key with"),
    (("--max-subject-streams", "7"), "--max-subject-streams is about tokens: give a key with"),
    (("--unix-mode", "660"), "--unix-mode needs --unix"),
    (("--fd", "7", "--unix", "/run/x"), "give only one of --unix and --fd"),
    (("--tls-key", "k"), "--tls-key needs --tls-cert"),
    (("--proxy-protocol",), "--proxy-protocol needs --forwarded-allow-ips"),
    (("--reload",), "--reload needs an app"),
    (("--factory",), "--factory needs an app"),
]


@pytest.mark.parametrize(("argv", "why"), IDLE)
def test_flags_without_effect(
    refused: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    argv: tuple[str, ...],
    why: str,
) -> None:
    """A flag that would have no effect beside the others is refused."""
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # it would last for other tests
    assert refused("serve", *argv).startswith(why)


def test_variables_without_effect() -> None:
    """A variable that has no effect may be another command's, and is passed over."""
    assert made(H3TRIO_DURABILITY="fast", H3TRIO_UNIX_MODE="660").store() == made().store()


def test_the_help_has_groups_and_examples(capsys: pytest.CaptureFixture[str]) -> None:
    """`serve --help` begins with its usage in a line, has titles, and ends with three examples."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    assert shown.startswith("usage: h3trio serve [app] [option...]\n")
    titles = ["where it listens", "what it logs", "the hub: store", "limits", "times"]
    places = [shown.index(f"\n{title}:\n") for title in titles]
    assert places == sorted(places)
    assert shown[places[-1] :].count("\n  h3trio serve ") == 3


@pytest.mark.parametrize("dest", sorted(DEFAULTS))
def test_the_help_shows_defaults(dest: str) -> None:
    """The help of each option shows its default, in the words that the option takes."""
    parser = Options(prog="h3trio serve")
    command.add_arguments(parser)
    page = " ".join(parser.format_help().split())
    behind = page.partition(f"[{env_name(env_flag(dest))}, default ")[2]
    shown = behind.partition("]")[0]
    if dest == "lease":
        assert shown == "none, 1h for the hub"
    else:
        assert getattr(settings_from(parsed(env_flag(dest), shown)), dest) == DEFAULTS[dest]
