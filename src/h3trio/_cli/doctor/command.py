"""`python -m h3trio doctor`: a deployed event stream looked at from outside, and what is wrong.

Looking is `observe`, judging `check_head` and `check_stream`, showing `report`; here are the
arguments. Exit status, as of `bench`: 0 nothing to do, 1 warnings, 2 the arguments are wrong, 3
errors, which includes that there is no stream at all.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final

from h3trio._cli import common, http
from h3trio._cli.options import fields_from

from .check_stream import diagnose, exit_status
from .observe import DoctorPlan, observe
from .report import as_json, show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from h3trio._cli.options import Options
    from h3trio.client._environment import Trust

WAIT: Final = 20.0  # a heartbeat of 15 s, as our own servers', and some
EVENT_TYPE: Final = "h3trio-doctor"  # so that pages that listen to others don't see it


def add_arguments(parser: Options) -> None:
    """Add the options of `doctor`."""
    parser.description = "Look at an event stream from outside, and say what to do about it."
    parser.epilog = (
        "exit status: 0 nothing to do; 1 warnings; 2 the arguments are wrong; 3 errors, or no "
        "stream"
    )
    http.add_client(parser)
    parser.add_argument("stream", metavar="URL", type=common.absolute_url, help="of the stream")
    where, url = parser.add_mutually_exclusive_group(), common.checked(common.absolute_url)
    what = "publish five small events to the same URL, as a h3trio hub takes them, and time them"
    where.add_argument("--publish", action="store_true", help=what)
    what = "publish them there instead: POST, text/plain"
    where.add_argument("--publish-url", metavar="URL", type=url, help=what)
    what = "how long to read the stream; more than its heartbeat"
    parser.add_option("--wait", default=WAIT, type=common.duration, help=what)
    what = "longest that an answer may take"
    parser.add_option("--timeout", default=10.0, type=common.duration, help=what)
    parser.add_header(help="a header to send with each request")
    what = "see whether pages of this origin, https://HOST, can read it"
    parser.add_option("--origin", type=_origin, metavar="ORIGIN", help=what)
    parser.add_switch("--json", help="print the findings as JSON")
    parser.add_switch("--quiet", help="don't say what is being done")


def _origin(text: str) -> str:
    common.absolute_url(text)
    if text.count("/") != 2:  # noqa: PLR2004 - those before the host
        raise ValueError(f"{text!r} is no origin: scheme, host and port only")
    return text


def run(arguments: argparse.Namespace) -> int:
    """Look, judge, show; return the exit status."""
    http.require_client(arguments.stream)
    lines, tls, tls_of_lookup = http.header_lines(arguments), *map(http.trust_from, [arguments] * 2)
    plan = plan_from(arguments, tls_of_lookup)
    return http.run_command(partial(_doctor, arguments, plan, lines, tls))


async def _doctor(
    arguments: argparse.Namespace, plan: DoctorPlan, lines: Sequence[str], tls: Trust
) -> int:

    def say(message: str) -> None:
        if not arguments.quiet:
            common.say(message)

    async with http.open_client(timeout=plan.longest, tls=tls) as client:
        for line in lines:
            name, _, value = line.partition(": ")
            client.headers[name] = value
        seen = await observe(client, plan, say)
    findings = diagnose(seen)
    if arguments.json:
        common.write_line(json.dumps(as_json(seen, findings), indent=2))
    else:
        show(seen, findings)
    return exit_status(findings)


def plan_from(arguments: argparse.Namespace, tls: Trust | None) -> DoctorPlan:
    """Make the plan of parsed arguments."""
    if arguments.publish:
        joint = "&" if "?" in arguments.stream else "?"
        arguments.publish_url = f"{arguments.stream}{joint}event={EVENT_TYPE}"
    given = fields_from(arguments, DoctorPlan)
    return DoctorPlan(url=arguments.stream, is_trusting=arguments.insecure, tls=tls, **given)
