"""`doctor` up to the network: its arguments; the command as a whole is in e2e/test_doctor.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from h3trio._cli.doctor import command as _cli_doctor
from h3trio._cli.doctor.command import plan_from
from h3trio._cli.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable

    from h3trio._cli.doctor.observe import DoctorPlan

URL = "http://h/events/news"


WRONG = [
    ((), "the following arguments are required: URL"),
    (("h/",), "argument URL: 'h/' is not of the form http://HOST:PORT"),
    ((URL, "--wait", "0"), "argument --wait: '0' is not a time"),
    ((URL, "--timeout", "x"), "argument --timeout: 'x' is not a time"),
    ((URL, "--publish", "--publish-url", URL), "not allowed with argument --publish"),
    ((URL, "-H", "nothing"), "'nothing' is not of the form NAME: VALUE"),
    ((URL, "-H", "É: x"), "'É: x' is not of the form NAME: VALUE"),
    ((URL, "--origin", "page"), "argument --origin: 'page' is not of the form http://"),
    ((URL, "--origin", "https://page/a"), "'https://page/a' is no origin: scheme, host"),
    ((URL, "--ca-file", "/no/such"), "--ca-file: can't load /no/such: No such file or dir"),
    ((URL, "--ca-file", "x", "--insecure"), "--ca-file has no effect where no certificate is"),
    ((URL, "--token", "a", "-H", "Authorization: b"), "--token has no effect beside --header"),
    ((URL, "--token", "a b"), "argument --token: a token is visible ASCII, without spaces"),
]


def test_wrong_arguments_are_one_line(
    refused: Callable[..., str], subtests: pytest.Subtests
) -> None:
    """An argument that is wrong is said in one line, with status 2."""
    for argv, message in WRONG:
        with subtests.test(argv=argv):
            assert message in refused("doctor", *argv)


def plan_of(*argv: str) -> DoctorPlan:
    """Make the plan of a command line."""
    parser = Options(prog="h3trio doctor")
    _cli_doctor.add_arguments(parser)
    arguments = parser.parse_args(argv)
    parser.complete(arguments, {"H3TRIO_WAIT": "7"})
    return plan_from(arguments, None)


def test_plan_of_arguments() -> None:
    """An option that isn't given is the default; a variable counts where there is no flag."""
    plan = plan_of(f"{URL}#part", "--origin", "https://page")
    assert (plan.url, plan.wait, plan.timeout) == (URL, 7, 10)
    assert (plan.publish_url, plan.origin, plan.is_trusting) == (None, "https://page", False)
    assert plan.longest == 40


@pytest.mark.parametrize(
    ("argv", "url"),
    [
        ((URL, "--publish"), f"{URL}?event=h3trio-doctor"),
        ((f"{URL}?a=b", "--publish"), f"{URL}?a=b&event=h3trio-doctor"),
        ((URL, "--publish-url", "http://p/"), "http://p/"),
    ],
)
def test_where_to_publish(argv: tuple[str, ...], url: str) -> None:
    """To the hub's own URL, with a type of the events' own, or wherever one says."""
    assert plan_of(*argv).publish_url == url
