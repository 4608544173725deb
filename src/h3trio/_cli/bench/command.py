"""`python -m h3trio bench`: many streams of one URL, and what came over them.

For any server of event streams over plain HTTP/1.1. With `--publish-url` it feeds the server too,
so that a hub can be measured with nothing else. Exit status: 0 all went well; 1 some streams or
events were lost, 2 the arguments are wrong, 3 no stream could be opened.
"""

from __future__ import annotations

import json
import select
import sys
from functools import partial
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from h3trio._cli import common, http
from h3trio._cli.options import fail, fields_from, refuse
from h3trio.client._errors import without_secret

from .job import Endpoint, PublishJob, SubscribeJob
from .run import BenchPlan, BenchRun, check_limits, resolve

if TYPE_CHECKING:
    import argparse

    from h3trio._cli.options import Options

RATE: Final = 10.0
MAX_SIZE: Final = 1024 * 1024
MAX_RATE: Final = 1_000_000.0


def add_arguments(parser: Options) -> None:
    """Add the options of `bench`."""
    parser.description = "Open many streams of one URL, and measure what comes over them."
    parser.epilog = (
        "exit status: 0 all went well; 1 streams or events were lost, or publishing failed; 2 the "
        "arguments are wrong; 3 no stream could be opened"
    )
    http.add_token(parser)
    parser.add_argument("stream", metavar="URL", type=_url, help="of the streams, http:// only")
    _add_load(parser)
    what = "post events there, to feed the streams"
    parser.add_argument("--publish-url", metavar="URL", type=_url, help=what)
    what = "--publish-url: events a second"
    parser.add_option("--rate", default=RATE, metavar="R", type=_rate, help=what)
    what = "--publish-url: data of an event"
    parser.add_option("--size", default=100, metavar="SIZE", type=_size, help=what)
    what, most = "--publish-url: requests on the way at once at most", common.up_to(1024)
    parser.add_option("--publishers", default=16, metavar="N", type=most, help=what)
    parser.add_switch("--json", help="print the figures as JSON")
    parser.add_switch("--quiet", help="show no progress")


def _add_load(parser: Options) -> None:
    what, most = "streams at once", common.up_to(1_000_000)
    parser.add_option("--connections", "-c", default=100, type=most, metavar="N", help=what)
    what = "how long to measure, once all streams are open"
    parser.add_option("--duration", "-d", default=10.0, type=common.duration, help=what)
    what = "time over which the streams are opened, 0 for as fast as they are answered"
    parser.add_option("--ramp", default=0.0, type=common.duration_or_zero, help=what)
    what = "processes that share the streams; one is enough until it is busy all the time"
    parser.add_option("--processes", default=1, type=common.up_to(64), metavar="N", help=what)
    what = "longest that a stream may take to open"
    parser.add_option("--timeout", default=10.0, type=common.duration, help=what)
    parser.add_header(help="a header to send with each request")


def _rate(text: str) -> float:
    value = common.number(text)
    if not 0 < value <= MAX_RATE:  # which NaN isn't either
        raise ValueError(f"must be above 0, and at most {MAX_RATE:,.0f}")
    return value


def _size(text: str) -> int:
    value = common.size(text)
    if value > MAX_SIZE:
        raise ValueError(f"must be at most {common.scaled_text(MAX_SIZE, common.BYTES)}")
    return value


def _url(text: str) -> str:
    url = common.absolute_url(text)
    if urlsplit(url).scheme != "http":
        raise ValueError(
            "only http:// is measured: put the generator behind the proxy that ends TLS"
        )
    if not url.isascii():
        raise ValueError(f"{text!r} is not ASCII: percent-encode it")
    return url


def run(arguments: argparse.Namespace) -> int:
    """Measure; return the exit status."""
    if arguments.publish_url is None:
        refuse(arguments, ["rate", "size", "publishers"], "needs --publish-url: where to publish")
    if arguments.processes > arguments.connections:
        fail(f"--processes {arguments.processes} are more than the connections")
    http.header_lines(arguments)  # exits if they don't fit together
    if not hasattr(select, "epoll"):
        fail("bench needs epoll, which only Linux has")
    try:
        check_limits(arguments.connections, arguments.processes)
    except common.CommandError as exc:
        fail(str(exc))
    return http.run_command(partial(_bench, arguments))


async def _bench(arguments: argparse.Namespace) -> int:
    plan = await make_plan(arguments)
    is_drawn = not arguments.quiet and common.has_rich(sys.stderr)
    if is_drawn:
        from rich.console import Console  # noqa: PLC0415 - the extra, only where it is there

        # One line that changes, and is gone at the end.
        with Console(stderr=True).status("") as status:
            outcome = await BenchRun(plan, status.update).run()
    else:
        outcome = await BenchRun(
            plan, (lambda _step: None) if arguments.quiet else common.say
        ).run()
    if arguments.json:
        common.write_line(json.dumps(outcome.as_json(), indent=2))
    elif is_drawn:
        from rich.console import Console  # noqa: PLC0415 - the extra, only where it is there

        outcome.draw(Console())
    else:
        common.write_line(outcome.as_text())
    return outcome.status


async def make_plan(arguments: argparse.Namespace) -> BenchPlan:
    """Make the plan of parsed arguments, with addresses at which a server answers.

    Raises:
        UnreachedError: there is none.
    """
    job = None
    if arguments.publish_url is not None:
        job = PublishJob(
            target=await _target(arguments.publish_url, arguments),
            rate=arguments.rate,
            size=arguments.size,
            connections=arguments.publishers,
        )
    target = await _target(arguments.stream, arguments)
    streams = SubscribeJob(target=target, **fields_from(arguments, SubscribeJob))
    given = fields_from(arguments, BenchPlan)
    url = without_secret(arguments.stream)
    return BenchPlan(url=url, subscribe=streams, publish=job, **given)


async def _target(url: str, arguments: argparse.Namespace) -> Endpoint:
    parts = urlsplit(url)
    port = parts.port or 80
    assert parts.hostname, "it was checked"
    family, address = await resolve(parts.hostname, port, arguments.timeout)
    return Endpoint(
        family=family,
        address=address,
        port=port,
        host=parts.netloc.rpartition("@")[2],
        path=(parts.path or "/") + (f"?{parts.query}" if parts.query else ""),
        headers=tuple(http.header_lines(arguments)),
    )
