"""`python -m h3trio tail`: print the events of a hub or of any stream, however often it is lost."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Final, final

from h3trio._http.response import escape_line_ends
from h3trio._wire.parser import SSEParser
from h3trio.client import EventLimitError, State, StateChange

from . import common, http
from .options import fail

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    import httpx2

    from h3trio._wire.event import SSEEvent

    from .options import Options

IDLE_TIMEOUT: Final = 60.0  # seconds; four heartbeats of our own server


def add_arguments(parser: Options) -> None:
    """Add the options of `tail`."""
    parser.description = (
        "Print the data of each event of some topics, or of any event stream; to a terminal with "
        "control characters written out."
    )
    parser.epilog = http.STATUSES
    http.add_client(parser)
    what = "topics, * for all; or one http:// URL of a stream, if --url is not given"
    parser.add_argument("topics", metavar="TOPIC|URL", nargs="*", type=common.topic, help=what)
    parser.add_option("--url", type=common.base_url, shown=http.DEFAULT_URL, help="the hub")
    what = "the hub's whole log instead, as JSON; it needs a token made with token --relay"
    parser.add_switch("--relay", help=what)
    parser.add_switch("--json", help="print a JSON object for each event: id, event, data")
    start, last_id = parser.add_mutually_exclusive_group(), common.checked(_last_id)
    start.add_argument("--since", metavar="ID", type=last_id, default="", help="begin behind it")
    what = "begin with the last N events, or the oldest there is; else only new ones"
    start.add_argument("--first", metavar="N|oldest", type=common.checked(_first), help=what)
    what = "end after so many events"
    parser.add_argument("--count", metavar="N", type=common.counted, help=what)
    parser.add_switch("--no-reconnect", help="end with the first stream")
    parser.add_switch("--quiet", help="don't say when the connection is made or lost")
    what = "silence after which the connection counts as lost"
    parser.add_option("--idle-timeout", default=IDLE_TIMEOUT, type=common.duration, help=what)
    what, most = "largest event that is taken", http.MAX_EVENT_BYTES
    parser.add_option("--max-event-size", default=most, type=common.size, help=what)


def _last_id(text: str) -> str:
    """Check a last event id as the parser does."""
    SSEParser(last_event_id=text)
    return text


def _first(text: str) -> str:
    if text == "oldest":
        return text
    try:
        return str(common.whole(text))
    except ValueError:
        raise ValueError(f"{text!r} is neither a whole number nor oldest") from None


def run(arguments: argparse.Namespace) -> int:
    """Print a stream; return the exit status."""
    try:
        url = stream_url(arguments.url, arguments.topics, relay=arguments.relay)
    except ValueError as exc:
        fail(str(exc))
    http.require_client(url)
    return http.run_command(partial(_tail, url, arguments))


# -- requests


def stream_url(base: str | None, topics: Sequence[str], *, relay: bool = False) -> str:
    """Return the URL of the stream asked for.

    Without a `base` a topic that is a URL for HTTP is the stream's own. With one it is a topic
    like any other: IRIs are usual topics.

    Raises:
        ValueError: such a URL is none, or isn't alone; no topic is given, or one for the relay.
    """
    if relay:
        if topics:
            raise ValueError("--relay is about the whole log: give no topic")
        return f"{base or http.DEFAULT_URL}/relay"
    if not topics:
        raise ValueError("give a topic, * for all, or the URL of a stream")
    if base is None and any(map(_is_url, topics)):
        if len(topics) > 1:
            raise ValueError("a URL stands alone; are these topics? then give --url as well")
        return common.absolute_url(topics[0])
    return http.events_url(base or http.DEFAULT_URL, topics)


def _is_url(text: str) -> bool:
    return text.lower().startswith(("http://", "https://"))


# -- events


def format_event(event: SSEEvent, *, as_json: bool, relay: bool = False) -> str:
    """Return what is printed for an event, without the last line end.

    Of the relay a notice is printed with its type, which says what its data is about.
    """
    if not as_json:
        is_notice = relay and event.event != "message"
        return f"{event.event} {event.data}" if is_notice else event.data or ""
    fields = {"id": event.id, "event": event.event, "data": event.data}
    return escape_line_ends(json.dumps(fields, ensure_ascii=False))


def reset_notice(event: SSEEvent) -> str | None:
    """Return the warning for a hub's `reset`, None for any other event.

    Another server's event of that type, without a hub's data, is an event like any other.
    """
    if event.event != "reset":
        return None
    fields = common.json_object(event.data or "")
    reason, asked = fields.get("reason"), fields.get("id")
    if not isinstance(reason, str):
        return None
    return f"reset ({reason}): events{f' after {asked}' if asked else ''} may be missing"


def print_event(event: SSEEvent, *, as_json: bool, relay: bool = False) -> bool:
    """Print an event, or warn of a hub's reset, which is none; return whether it was an event."""
    if (notice := reset_notice(event)) is not None:
        common.say(f"warning: {notice}")
        return False
    common.write_line(format_event(event, as_json=as_json, relay=relay))
    return True


# -- the stream


async def _tail(url: str, arguments: argparse.Namespace) -> None:
    client = http.client_from(arguments, timeout=arguments.idle_timeout)
    async with client, http.while_read():
        await Tail(client, url, arguments).run()


@final
class Tail:
    """One stream over as many connections as it takes."""

    def __init__(self, client: httpx2.AsyncClient, url: str, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._unsaid: list[str] = []
        self._source = http.event_source(
            client,
            url,
            silence=arguments.idle_timeout,
            reconnect=not arguments.no_reconnect,
            on_state_change=self._notice,
            last_event_id=arguments.since,
            params=None if arguments.first is None else {"first": arguments.first},
            max_event_bytes=arguments.max_event_size,
        )

    async def run(self) -> None:
        """Print events until there are enough, or no more will come.

        Raises:
            EventSourceError: the stream was refused, can't be reached, or can't be read further.
            CommandError: an event is larger than the command takes.
        """
        printed = 0
        try:
            async with self._source as source:
                async for event in source:
                    printed += print_event(
                        event, as_json=self._arguments.json, relay=self._arguments.relay
                    )
                    if printed == self._arguments.count:
                        return
                    self._catch_up()
        except EventLimitError as exc:
            raise common.CommandError(f"{exc}; see --max-event-size") from exc
        if not self._arguments.no_reconnect or source.last_error is None:
            self._say("the server answered 204: there is no more")

    def _notice(self, change: StateChange) -> None:
        if change.state is State.OPEN:
            self._say(f"connected to {change.url}")
        elif change.delay is not None:
            self._say(f"{change.error}; again in {change.delay:.1f} s")

    def _say(self, message: str) -> None:
        self._unsaid.append(message)
        self._catch_up()

    def _catch_up(self) -> None:
        """Say what is due: a message comes behind the events that came before it."""
        counts = self._source.statistics()
        while self._unsaid and counts.events_delivered == counts.events_received:
            message = self._unsaid.pop(0)
            if not self._arguments.quiet:
                common.say(message)
