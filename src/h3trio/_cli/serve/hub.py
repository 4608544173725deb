"""The hub that `python -m h3trio serve` runs when no app is named, made of its options."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Final

from h3trio._cli.common import BYTES, SECONDS, counted, one_of, scaled, seconds_or_zero
from h3trio._cli.options import fail, fields_from
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


def add_arguments(parser: Options) -> None:
    """Add the options of the hub."""
    parser.add_option("--store", default="memory", help="hub: memory or sqlite:PATH")
    words, what = one_of("durable", "fast"), "hub, sqlite: durable or fast"
    parser.add_option("--durability", default="durable", type=words, help=what)
    size, period = partial(scaled, units=BYTES), partial(scaled, units=SECONDS)
    parser.add_option("--max-events", type=counted, help="hub: events kept")
    parser.add_option("--max-bytes", type=size, metavar="N[k|m|g]", help="hub: bytes kept")
    what = "hub: age of events kept"
    parser.add_option("--max-age", type=period, metavar="N[s|m|h|d]", help=what)
    parser.add_option("--max-topic-events", type=counted, help="hub: events kept of one topic")
    what = "hub: seconds for which an event waits for others to go with it in one send"
    parser.add_option("--flush-interval", default=0.0, type=seconds_or_zero, help=what)
    what = "hub: let anyone publish, from any machine"
    parser.add_switch("--allow-anonymous-publish", help=what)
    what = "hub: let anyone subscribe, from any machine"
    parser.add_switch("--allow-anonymous-subscribe", help=what)
    what = (
        "hub: show anyone, on any machine, the page, the health, the metrics and the statistics, "
        "which name topics and the addresses of slow clients"
    )
    parser.add_switch("--allow-anonymous-operate", help=what)
    parser.add_option("--allow-origin", default="", help="hub: origins to trust, by commas")
    access_options.add_arguments(parser)
    parser.add_option(
        "--cors-origin",
        default=(),
        type=_origins,
        repeated=True,
        variable="H3TRIO_CORS_ORIGINS",
        metavar="ORIGIN",
        help="hub: origins whose pages may read and publish, by commas or repeated; * for all",
    )


def _origins(text: str) -> list[str]:
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    hub_cors(frozenset(origins))
    return origins


def hub_from(arguments: argparse.Namespace, settings: Settings) -> tuple[App, Settings, str]:
    """Make the hub's app, its settings, and what the ready line says of the store."""
    cors_origins: frozenset[str] = frozenset(arguments.cors_origin)
    try:
        cors = hub_cors(cors_origins)
    except ValueError as exc:
        fail(f"--cors-origin: {exc}")
    trusted: list[str] = [origin.strip() for origin in arguments.allow_origin.split(",")]
    anonymous = AnonymousAccess(
        **fields_from(arguments, AnonymousAccess),
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
    kept, durability = Retention(**fields_from(arguments, Retention)), arguments.durability
    try:
        history = make_history(arguments.store, durability=durability, retention=kept)
    except ValueError as exc:
        fail(str(exc))
    if settings.lease is None:
        settings = dataclasses.replace(settings, lease=LEASE)
    limits = access.limits.hub_settings(
        max_event_bytes=settings.max_event_bytes, flush_interval=arguments.flush_interval
    )
    app = create_app(Hub(history, settings=limits), access=access, cors=cors)
    return app, settings, describe(arguments.store, history)
