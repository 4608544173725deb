"""`bench` up to the processes: its arguments; the command as a whole is in e2e/test_bench.py."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from h3trio._cli.bench import command as _cli_bench
from h3trio._cli.bench.command import MAX_SIZE, make_plan
from h3trio._cli.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

URL = "http://127.0.0.1:1/events"


WRONG = [
    ((), "the following arguments are required: URL"),
    (("https://h/",), "argument URL: only http:// is measured"),
    (("h/",), "argument URL: 'h/' is not of the form http://HOST:PORT"),
    (("http://h/é",), "is not ASCII: percent-encode it"),
    ((URL, "-c", "0"), "argument --connections/-c: must be 1 to 1,000,000"),
    ((URL, "-c", "1000001"), "argument --connections/-c: must be 1 to 1,000,000"),
    ((URL, "-c", "1e3"), "argument --connections/-c: '1e3' is not a whole number"),
    ((URL, "-d", "0"), "argument --duration/-d: '0' is not a time"),
    ((URL, "--ramp", "-1"), "argument --ramp: '-1' is not a time"),
    ((URL, "--processes", "65"), "argument --processes: must be 1 to 64"),
    ((URL, "-c", "1", "--processes", "2"), "--processes 2 are more than the connections"),
    ((URL, "--rate", "5"), "--rate needs --publish-url"),
    (
        (URL, "--publish-url", URL, "--rate", "1000001"),
        "--rate: must be above 0, and at most 1,000,000",
    ),
    ((URL, "--publish-url", URL, "--rate", "nan"), "argument --rate: must be above 0"),
    ((URL, "--publish-url", URL, "--rate", "5m"), "argument --rate: '5m' is not a number"),
    ((URL, "--size", "5"), "--size needs --publish-url"),
    ((URL, "--publishers", "5"), "--publishers needs --publish-url"),
    ((URL, "--token", "a", "-H", "authorization: b"), "--token has no effect beside --header"),
    ((URL, "--token", "a b"), "a token is visible ASCII"),
    ((URL, "--size", str(MAX_SIZE + 1)), "argument --size: must be at most 1m"),
    ((URL, "--publishers", "1025"), "argument --publishers: must be 1 to 1,024"),
    ((URL, "-H", "nothing"), "'nothing' is not of the form NAME: VALUE"),
    ((URL, "-H", "É: x"), "'É: x' is not of the form NAME: VALUE"),
    ((URL, "-H", "a: b\r\nc: d"), "holds what no header may"),
]


def test_wrong_arguments_are_one_line(
    refused: Callable[..., str], subtests: pytest.Subtests
) -> None:
    """An argument that is wrong is said in one line, with status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused("bench", *argv)


async def test_plan_of_arguments() -> None:
    """Addresses are resolved, and secrets stay in the headers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        at = f"127.0.0.1:{server.getsockname()[1]}"
        parser = Options(prog="h3trio bench")
        _cli_bench.add_arguments(parser)
        words = [f"http://{at}?topic=a#x", "-c", "5", "--publish-url", f"http://{at}/events/a"]
        arguments = parser.parse_args([*words, "-H", "Authorization:  Bearer x", "--ramp", "0"])
        parser.complete(arguments, {"H3TRIO_DURATION": "3"})
        plan = await make_plan(arguments)
    assert (plan.subscribe.connections, plan.subscribe.ramp) == (5, 0.0)
    assert (plan.processes, plan.duration) == (1, 3.0)
    target = plan.subscribe.target
    assert (target.host, target.path) == (at, "/?topic=a")
    assert target.headers == ("Authorization: Bearer x",)
    assert plan.publish is not None
    assert (plan.publish.rate, plan.publish.size) == (10.0, 100)
    assert plan.publish.target.path == "/events/a"
