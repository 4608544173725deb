"""Every flag of the commands beside `serve` changes what it says: from the parser to what uses it.

One row for each flag: its value, what must then be found, and where. A flag without a row fails,
but for those of `IN_A_PROCESS`, which tests/e2e/test_cli_publish_tail.py and its neighbours drive.
"""

from __future__ import annotations

import re
import ssl
from operator import attrgetter
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import trio
import trustme

from h3trio._cli import http
from h3trio._cli.bench.command import make_plan
from h3trio._cli.doctor.command import plan_from
from h3trio._cli.main import COMMANDS, load
from h3trio._cli.options import GRAMMAR, Options, env_flag
from h3trio._cli.publish import Publisher, request_from
from h3trio._cli.tail import Tail, stream_url
from h3trio._cli.token import claims_from
from h3trio._cli.top.command import Watching

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

URL = "http://h/s"
IN_A_PROCESS = {
    "publish": {"key", "lines", "sse", "heartbeat"},
    # --relay: tests/_cli/test_tail.py
    "tail": {"json", "quiet", "count", "no_reconnect", "first", "relay"},
    "top": {"once"},
    "bench": {"json", "quiet"},
    "doctor": {"json", "quiet"},
    # tests/_cli/test_token.py
    "token": {"kid", "key_file", "algorithm"},
}


def options_of(command: str) -> Options:
    """Make the parser of a command."""
    parser = Options(prog=command)
    load(command).add_arguments(parser)
    return parser


def parsed(command: str, *argv: str, **environ: str) -> argparse.Namespace:
    """Parse as a command does."""
    parser = options_of(command)
    arguments = parser.parse_args(argv)
    parser.complete(arguments, environ)
    return arguments


async def made(command: str, *argv: str, **environ: str) -> SimpleNamespace:
    """Make what a command uses."""
    arguments = parsed(command, *argv, **environ)
    found = SimpleNamespace()
    if command == "publish":
        found.url, found.data = request_from(arguments)
        found.client = http.client_from(arguments, timeout=arguments.timeout)
        how = {"quiet": arguments.quiet, "retry": arguments.retry}
        found.user = Publisher(found.client, found.url, **how)
    elif command == "tail":
        found.url = stream_url(arguments.url, arguments.topics)
        found.client = http.client_from(arguments, timeout=arguments.idle_timeout)
        found.user = Tail(found.client, found.url, arguments)
    elif command == "top":
        found.url = arguments.url
        found.client = http.client_from(arguments, timeout=1)
        found.user = Watching(arguments, is_drawn=False)
    elif command == "bench":
        found.plan = await make_plan(arguments)
    elif command == "doctor":
        found.plan, found.lines = plan_from(arguments, None), http.header_lines(arguments)
    else:
        found.claims = claims_from(arguments, now=0)
    if hasattr(found, "client"):
        found.authorization = found.client.headers.get("authorization")
        found.patience = found.client.timeout.read
        await found.client.aclose()
    if hasattr(arguments, "insecure"):
        tls = http.trust_from(arguments)
        found.checks = getattr(tls, "verify_mode", None)
        found.authorities = len(tls.get_ca_certs()) if isinstance(tls, ssl.SSLContext) else None
    return found


CLIENT: list[tuple[list[str], str, object]] = [
    (["--token", "abc"], "authorization", "Bearer abc"),
    (["--insecure"], "checks", ssl.CERT_NONE),
    (["--ca-file", "FILE"], "authorities", 1),
]
# What is always given, then the flag with its value, where it is found, and what is found there.
ROWS: dict[str, tuple[list[str], list[tuple[list[str], str, object]]]] = {
    "publish": (
        ["t", "x"],
        [
            *CLIENT,
            (["--url", "http://h"], "url", "http://h/events?topic=t"),
            (["--topic", "u"], "url", "http://localhost:3000/events?topic=t&topic=u"),
            (["--event", "e"], "url", "http://localhost:3000/events?topic=t&event=e"),
            (["--id", "i"], "url", "http://localhost:3000/events?topic=t&id=i"),
            (["--reconnection-time", "7"], "url", "http://localhost:3000/events?topic=t&retry=7"),
            (
                ["--reconnection-time", "7s"],
                "url",
                "http://localhost:3000/events?topic=t&retry=7000",
            ),
            (["--last"], "url", "http://localhost:3000/events?topic=t&last=on"),
            (["--private"], "url", "http://localhost:3000/events?topic=t&private=on"),
            (["--quiet"], "user._quiet", True),
            (["--retry", "7m"], "user._retry", 420.0),
            (["--timeout", "7m"], "patience", 420.0),
        ],
    ),
    "tail": (
        ["t"],
        [
            *CLIENT,
            (["--url", "http://h"], "url", "http://h/events?topic=t"),
            (["--since", "i"], "user._source.last_event_id", "i"),
            (["--idle-timeout", "7m"], "patience", 420.0),
            (["--max-event-size", "7k"], "user._source._limits.max_event_bytes", 7168),
        ],
    ),
    "top": ([], [*CLIENT, (["--interval", "7s"], "user._silence", 37.0)]),
    "bench": (
        ["URL", "--publish-url", "URL"],
        [
            (["--connections", "7"], "plan.subscribe.connections", 7),
            (["--duration", "7m"], "plan.duration", 420.0),
            (["--ramp", "7m"], "plan.subscribe.ramp", 420.0),
            (["--processes", "7"], "plan.processes", 7),
            (["--timeout", "7m"], "plan.subscribe.timeout", 420.0),
            (["--header", "A: b"], "plan.publish.target.headers", ("A: b",)),
            (["--token", "a"], "plan.subscribe.target.headers", ("Authorization: Bearer a",)),
            (["--rate", "7"], "plan.publish.rate", 7.0),
            (["--size", "7k"], "plan.publish.size", 7168),
            (["--publishers", "7"], "plan.publish.connections", 7),
            (["--publish-url", "URL/p"], "plan.publish.target.path", "/p"),
        ],
    ),
    "doctor": (
        [URL],
        [
            *CLIENT[1:],
            (["--token", "a"], "lines", ["Authorization: Bearer a"]),
            (["--header", "A: b"], "lines", ["A: b"]),
            (["--publish"], "plan.publish_url", f"{URL}?event=h3trio-doctor"),
            (["--publish-url", "http://p/"], "plan.publish_url", "http://p/"),
            (["--wait", "7m"], "plan.wait", 420.0),
            (["--timeout", "7m"], "plan.timeout", 420.0),
            (["--origin", "http://p"], "plan.origin", "http://p"),
            (["--insecure"], "plan.is_trusting", True),
        ],
    ),
    "token": (
        ["--publish", "a"],
        [
            (["--publish", "b"], "claims", {"mercure": {"publish": ["a", "b"]}}),
            (["--subscribe", "b"], "claims", {"mercure": {"publish": ["a"], "subscribe": ["b"]}}),
            (["--subscribe-public"], "claims", {"mercure": {"publish": ["a"], "subscribe": []}}),
            (["--operate"], "claims", {"h3trio": {"operate": True}}),
            (["--relay"], "claims", {"h3trio": {"relay": True}}),
            (["--expires", "7m"], "claims", {"exp": 420}),
            (["--subject", "s"], "claims", {"sub": "s"}),
            (["--audience", "s"], "claims", {"aud": "s"}),
            (["--issuer", "s"], "claims", {"iss": "s"}),
            (["--claims", '{"c": 1}'], "claims", {"c": 1}),
        ],
    ),
}


@pytest.mark.parametrize("command", ROWS)
async def test_each_flag_changes_what_it_says(command: str, tmp_path: Path) -> None:
    """A flag reaches the part that obeys it, and that had another value before."""
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    given, rows = ROWS[command]
    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, _hang_up, [listener])
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}"
        words = {"URL": url, "URL/p": f"{url}/p", "FILE": str(tmp_path / "ca.pem")}
        before = await made(command, *(words.get(word, word) for word in given))
        for argv, where, expected in rows:
            line = [words.get(word, word) for word in (*given, *argv)]
            found, old = (attrgetter(where)(one) for one in (await made(command, *line), before))
            if isinstance(expected, dict):  # claims: those of the flag, among others
                assert found | expected == found, argv
                assert old | expected != old, argv
            else:
                assert found == expected, argv
                assert old != expected, argv
        nursery.cancel_scope.cancel()


async def _hang_up(_stream: trio.SocketStream) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("command", ROWS)
def test_every_flag_has_a_row(command: str) -> None:
    """No flag of these commands is forgotten here."""
    _, rows = ROWS[command]
    tried = {argv[0] for argv, *_ in rows}
    flags = {
        next(flag for flag in action.option_strings if flag.startswith("--"))
        for action in options_of(command)._actions  # noqa: SLF001 - argparse lists them nowhere else
        if action.option_strings and action.dest != "help"
    }
    assert flags - {env_flag(dest) for dest in IN_A_PROCESS[command]} == tried - {
        env_flag(dest) for dest in IN_A_PROCESS[command]
    }


def test_every_command_is_here() -> None:
    """`serve` and `health`, which has its flags, have a file of their own."""
    assert ROWS.keys() == IN_A_PROCESS.keys() == COMMANDS.keys() - {"serve", "health"}


def test_variables() -> None:
    """The hub's address and the token come from the environment, wherever they are needed."""
    environ = {"H3TRIO_URL": "http://h", "H3TRIO_TOKEN": "abc"}
    for command, argv in (("publish", ["t"]), ("tail", ["t"]), ("top", [])):
        arguments = parsed(command, *argv, **environ)
        assert (arguments.url, arguments.token) == ("http://h", "abc")
    for command in ("bench", "doctor"):
        arguments = parsed(command, URL, **environ)
        assert http.header_lines(arguments) == ["Authorization: Bearer abc"]
        arguments = parsed(command, URL, "-H", "authorization: x", **environ)
        assert http.header_lines(arguments) == ["authorization: x"]
    assert parsed("top", "http://other", **environ).url == "http://other"
    assert parsed("top").url == http.DEFAULT_URL


# -- help


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_shows_defaults(command: str) -> None:
    """Each default is in the help, in words that the option takes; and so is what those mean."""
    parser = options_of(command)
    values = set()
    for action in parser._actions:  # noqa: SLF001 - as above
        values |= {*str(action.metavar or "").split("|")}
        shown = re.search(r"[\[ ]default ([^\]]+)\]$", (action.help or "").replace("%%", "%"))
        if action.default and not isinstance(action.default, (bool, dict, list)):
            assert shown or action.default == "==SUPPRESS==", action.dest
        if shown and action.type and action.dest not in ("retry", "lease"):
            assert callable(action.type)
            action.type(shown[1])
    text = " ".join(parser.format_help().split())
    for unit, meaning in GRAMMAR.items():
        assert (meaning in text) == (unit in values), unit
    assert not re.search(r"\d+\w? unless given|in bytes|\bseconds (to|of|over|a|an)\b", text)
