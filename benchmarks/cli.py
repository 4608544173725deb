"""The command line: which workloads, how often, and in what form the results come."""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final, TextIO

import trio

from . import (
    bursts,
    connects,
    fanout,
    fanout_fixed,
    gets,
    history_commit,
    idle,
    many_topics,
    one_by_one,
    own_topic,
    publish,
    redis,
    replay,
    runs,
    slow_clients,
    stream,
    streams_50,
    topic_latency,
)
from .bench import Bench, Options
from .document import write
from .load import FailedError, Load, build, complain
from .machine import MissingError, describe, priority, raise_open_file_limit, two_cores
from .servers import Servers

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from .report import Report

WORKLOADS: Final[dict[str, Callable[[Bench], Awaitable[Report]]]] = {
    "stream": stream.run,
    "streams_50": streams_50.run,
    "bursts": bursts.run,
    "idle": idle.run,
    "connects": connects.run,
    "gets": gets.run,
    "publish": publish.run,
    "replay": replay.run,
    "fanout": fanout.run,
    "fanout_5000": fanout.run_large,
    "fanout_fixed": fanout_fixed.run,
    "one_by_one": one_by_one.run,
    "own_topic": own_topic.run,
    "many_topics": many_topics.run,
    "topic_latency": topic_latency.run,
    "runs": runs.run,
    "slow_clients": slow_clients.run,
    "history_commit": history_commit.run,
    "redis": redis.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run workloads and print what came out; return the exit status.

    0; 1 if a workload failed, or if `--check` was given and a target missed; 2 if nothing could be
    measured at all.
    """
    asked = _parser().parse_args(arguments)
    if unknown := [name for name in asked.workloads if name not in WORKLOADS]:
        complain(f"no such workload: {', '.join(unknown)}; there are {', '.join(WORKLOADS)}")
        return 2
    names = asked.workloads or list(WORKLOADS)
    options = Options(rounds=asked.rounds, quick=asked.quick, pause=asked.pause, nice=asked.nice)
    # Where the JSON goes, nothing else does.
    out = sys.stderr if asked.json else sys.stdout
    try:
        with priority(options.nice):
            reports = trio.run(_measure, names, options, out)
    except MissingError as exc:
        complain(f"skipped: {exc}")
        return 2
    if asked.json:
        found = {name: report.as_json() for name, report in reports.items()}
        json.dump({"machine": describe(), "reports": found}, sys.stdout, indent=2)
        print()
    if asked.write and asked.quick:
        complain("not written: the figures of --quick mean nothing")
    elif asked.write:
        try:
            write(reports, " ".join([*names, f"--rounds {asked.rounds}"]))
        except MissingError as exc:
            complain(f"not written: {exc}")
            return 1
    missed = not all(check.met for report in reports.values() for check in report.checks)
    failed = len(reports) < len(names)
    return int(failed or (asked.check and missed))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="benchmarks", description="Measure h3trio beside its peers; see benchmarks/README.md."
    )
    parser.add_argument("workloads", nargs="*", metavar="NAME", help=", ".join(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=3, help="rounds through all peers (3)")
    parser.add_argument("--pause", type=float, default=0, help="seconds of rest between rounds")
    parser.add_argument("--nice", type=int, default=0, help="priority of all that runs (0)")
    parser.add_argument("--quick", action="store_true", help="small and short: does it run at all?")
    parser.add_argument("--json", action="store_true", help="print JSON, and the tables on stderr")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md and plots")
    parser.add_argument("--check", action="store_true", help="exit 1 if a target is missed")
    return parser


async def _measure(names: Sequence[str], options: Options, out: TextIO) -> dict[str, Report]:
    """Run the workloads one after the other; one that fails doesn't stop the next."""
    cores = two_cores()
    raise_open_file_limit()
    # We keep off the server's core too; what we start is put on the one where it belongs.
    os.sched_setaffinity(0, {cores.load})
    reports: dict[str, Report] = {}
    with tempfile.TemporaryDirectory(prefix="h3trio-bench-") as folder:
        scratch = Path(folder)
        await trio.to_thread.run_sync(build, scratch)
        bench = Bench(
            servers=Servers(scratch, cores.server),
            load=Load(scratch, cores.load),
            programs=scratch,
            options=options,
        )
        for name in names:
            complain(f"{name} …")
            began = trio.current_time()
            try:
                reports[name] = await WORKLOADS[name](bench)
            except* (FailedError, MissingError, trio.TooSlowError) as group:
                complain(f"{name} failed: {''.join(traceback.format_exception(group))}")
            else:
                share = bench.servers.take_foreign_share()
                took = trio.current_time() - began
                reports[name].notes.append(
                    f"took {took:.0f} s; other programs took {share:.0%} of the server's core"
                )
                print(reports[name].as_text(), file=out, flush=True)
    return reports
