"""What `python -m h3trio serve` runs when no app is named: the hub, from its options."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from h3trio._cli.options import fail
from h3trio.hub import Hub
from h3trio.hubserver import (
    AnonymousAccess,
    Retention,
    create_app,
    describe,
    hub_cors,
    is_loopback,
    make_history,
)

from . import access as access_options

if TYPE_CHECKING:
    import argparse

    from h3trio._app.app import App
    from h3trio._cli.options import Options
    from h3trio._http.settings import Settings

LEASE: Final = 3600.0
"""Seconds a stream of the hub lasts unless told otherwise. A client that is gone
behind a proxy which keeps acknowledging for it is found out by nothing else."""

_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30}
_PERIODS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


def add_arguments(parser: Options) -> None:
    """Add the options of the hub."""
    group = parser
    group.add_option("--store", default="memory", help="hub: memory or sqlite:PATH")
    group.add_option(
        "--durability", default="durable", type=_durability, help="hub, sqlite: durable or fast"
    )
    group.add_option("--max-events", type=_count, metavar="N", help="hub: events kept")
    group.add_option("--max-bytes", type=_size, metavar="N[k|m|g]", help="hub: bytes kept")
    group.add_option(
        "--max-age", type=_period, metavar="N[s|m|h|d]", help="hub: age of events kept"
    )
    group.add_option(
        "--max-topic-events", type=_count, metavar="N", help="hub: events kept of one topic"
    )
    what = "hub: seconds for which an event waits for others to go with it in one send"
    group.add_option("--flush-interval", default=0.0, type=_seconds, metavar="S", help=what)
    group.add_switch("--allow-anonymous-publish", help="hub: let anyone publish, from any machine")
    group.add_switch(
        "--allow-anonymous-subscribe", help="hub: let anyone subscribe, from any machine"
    )
    what = (
        "hub: show anyone, on any machine, the page, the health, the metrics and the statistics, "
        "which name topics and the addresses of slow clients"
    )
    group.add_switch("--allow-anonymous-operate", help=what)
    group.add_option("--allow-origin", default="", help="hub: origins to trust, by commas")
    access_options.add_arguments(group)
    group.add_option(
        "--cors-origin",
        default=(),
        type=_origins,
        repeated=True,
        variable="H3TRIO_CORS_ORIGINS",
        metavar="ORIGIN",
        help="hub: origins whose pages may read and publish, by commas or repeated; * for all",
    )


def _durability(text: str) -> str:
    if text not in ("durable", "fast"):
        raise ValueError(f"{text!r} is neither durable nor fast")
    return text


def _seconds(text: str) -> float:
    if not re.fullmatch(r"[0-9]{1,3}(\.[0-9]{1,6})?", text):
        raise ValueError(f"{text!r} is not a number of seconds from 0 to 999")
    return float(text)


def _origins(text: str) -> list[str]:
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    hub_cors(frozenset(origins))
    return origins


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and int(text)):
        raise ValueError(f"{text!r} is not a positive number")
    return int(text)


def _size(text: str) -> int:
    return _scaled(text, _UNITS)


def _period(text: str) -> int:
    return _scaled(text, _PERIODS)


def _scaled(text: str, units: dict[str, int]) -> int:
    found = re.fullmatch(r"([0-9]{1,15})([a-z]?)", text.lower())
    if found is None or found[2] not in units or not int(found[1]):
        suffixes = ", ".join(filter(None, units))
        raise ValueError(f"{text!r} is not a positive number, with {suffixes} behind it if need be")
    return int(found[1]) * units[found[2]]


def hub_from(arguments: argparse.Namespace, settings: Settings) -> tuple[App, Settings, str]:
    """Make the hub's app, its settings, and what the ready line says of the store."""
    cors_origins: frozenset[str] = frozenset(arguments.cors_origin)
    try:
        cors = hub_cors(cors_origins)
    except ValueError as exc:
        fail(f"--cors-origin: {exc}")
    trusted: list[str] = [origin.strip() for origin in arguments.allow_origin.split(",")]
    anonymous = AnonymousAccess(
        allow_anonymous_publish=arguments.allow_anonymous_publish,
        allow_anonymous_subscribe=arguments.allow_anonymous_subscribe,
        allow_anonymous_operate=arguments.allow_anonymous_operate,
        # Whose pages may read must be let in first; with "*" nobody is named.
        allowed_origins=frozenset(trusted) - {""} | cors_origins - {"*"},
    )
    access = access_options.access_from(arguments, anonymous)
    open_to_all = anonymous.allow_anonymous_publish or anonymous.allow_anonymous_subscribe
    if not is_loopback(arguments.host) and not open_to_all and not access.has_authenticator:
        fail(
            f"--host {arguments.host} is reachable from other machines: give a key for tokens "
            "with --jwt-key-file or --jwks, or say with --allow-anonymous-subscribe or "
            "--allow-anonymous-publish what anyone may do"
        )
    retention = Retention(
        max_events=arguments.max_events,
        max_bytes=arguments.max_bytes,
        max_age=arguments.max_age,
        max_topic_events=arguments.max_topic_events,
    )
    try:
        history = make_history(
            arguments.store, durability=arguments.durability, retention=retention
        )
    except ValueError as exc:
        fail(str(exc))
    if settings.lease is None:
        settings = dataclasses.replace(settings, lease=LEASE)
    limits = access.limits.hub_settings(
        max_event_bytes=settings.max_event_bytes, flush_interval=arguments.flush_interval
    )
    app = create_app(Hub(history, settings=limits), access=access, cors=cors)
    return app, settings, describe(arguments.store, history)
