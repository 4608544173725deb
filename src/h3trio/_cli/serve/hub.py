"""The hub that `python -m h3trio serve` runs when no app is named, made of its options."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, NamedTuple, final

from h3trio._cli.common import counted, duration, duration_or_zero, one_of, size
from h3trio._cli.options import fail, fields_from, refuse
from h3trio.hub import Hub, HubSettings
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
    from collections.abc import Callable

    from h3trio._app.app import App
    from h3trio._app.cors import CORS
    from h3trio._cli.options import Options
    from h3trio._http.settings import Settings
    from h3trio.hub import History
    from h3trio.hubserver import AccessControl

LEASE: Final = 3600.0
"""Seconds a stream of the hub lasts unless told otherwise. A client that is gone
behind a proxy which keeps acknowledging for it is found out by nothing else."""


STORE_PASSWORD: Final = "H3TRIO_STORE_PASSWORD"  # noqa: S105 - the name of a variable
"""The variable with the password of the store's server."""


def add_arguments(parser: Options) -> None:
    """Add the options of the hub."""
    _add_store(parser)
    with parser.group("the hub: who may do what"):
        what = "let anyone publish, from any machine"
        parser.add_switch("--allow-anonymous-publish", help=what)
        what = "let anyone subscribe, from any machine"
        parser.add_switch("--allow-anonymous-subscribe", help=what)
        what = (
            "show anyone, on any machine, the page, the health, the metrics and the statistics, "
            "which name topics and the addresses of slow clients"
        )
        parser.add_switch("--allow-anonymous-operate", help=what)
        what = "origins to trust, as scheme://host or scheme://host:port, by commas"
        parser.add_option("--allow-origin", default=(), type=_trusted, help=what)
        parser.add_option(
            "--cors-origin",
            default=(),
            type=_origins,
            repeated=True,
            variable="H3TRIO_CORS_ORIGINS",
            metavar="ORIGIN",
            help="origins whose pages may read and publish, by commas or repeated; * for all",
        )
        parser.add_option(
            "--cors-header",
            default=(),
            type=_headers,
            repeated=True,
            variable="H3TRIO_CORS_HEADERS",
            metavar="NAME",
            help="more request headers that those pages may send, by commas or repeated",
        )
        access_options.add_arguments(parser)


def _node(text: str) -> str:
    if text:
        HubSettings(node=text)
    return text


def _add_store(parser: Options) -> None:
    with parser.group("the hub: store"):
        what = "memory, sqlite:PATH, or a server's URL: redis://, rediss://, unix://, "
        what += "redis+sentinel:// or rediss+sentinel://"
        parser.add_option("--store", default="memory", help=what)
        parser.add_variable("store_password", STORE_PASSWORD)
        words = one_of("durable", "fast")
        what = (
            "durable or fast: of sqlite, durable unless given; of a server, the least that will do"
        )
        parser.add_option("--durability", type=words, help=what)
        what = "how long to try at the start while the store's server can't be reached"
        parser.add_option("--store-wait", default=30.0, type=duration_or_zero, help=what)
        what = "how long the store's server may take to answer before it counts as away"
        parser.add_option("--store-timeout", default=5.0, type=duration, help=what)
        what = "how long a shared store may fail before the hub says that it isn't ready"
        parser.add_option("--unready-after", default=30.0, type=duration_or_zero, help=what)
        parser.add_option("--max-events", type=counted, help="events kept")
        parser.add_option("--max-bytes", type=size, help="bytes kept")
        parser.add_option("--max-age", type=duration, help="age of events kept")
        parser.add_option("--max-topic-events", type=counted, help="events kept of one topic")
        what = "how long an event waits for others to go with it in one send"
        parser.add_option("--flush-interval", default=0.0, type=duration_or_zero, help=what)
        what = "how long a publish or a new stream waits for the hub to follow a shared store"
        parser.add_option("--follow-timeout", default=5.0, type=duration_or_zero, help=what)
        what = "name of this hub among those that share its store"
        parser.add_option("--node", default="", type=_node, metavar="NAME", help=what)
        what = "open streams with an event that has their cursor: auto, for browsers, on or off"
        parser.add_option("--cursor", default="auto", type=one_of("auto", "on", "off"), help=what)


def _origins(text: str) -> list[str]:
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    hub_cors(frozenset(origins))
    return origins


def _trusted(text: str) -> list[str]:
    origins = [origin.strip() for origin in text.split(",") if origin.strip()]
    AnonymousAccess(allowed_origins=frozenset(origins))
    return origins


def _headers(text: str) -> list[str]:
    headers = [name.strip() for name in text.split(",") if name.strip()]
    # What it may be isn't the same for all origins: that is seen where both are known.
    hub_cors(frozenset({"*"}), headers=headers)
    return headers


@final
class HubParts(NamedTuple):
    """The hub that the options describe."""

    hub: Hub
    access: AccessControl
    cors: CORS | None
    settings: Settings
    store: Callable[[], str]
    """Says what the ready line says of its store, once that is open."""
    cursor: Literal["auto", "on", "off"]
    """Who gets the cursor of a stream as an event; see `create_app`."""

    def app(self) -> App:
        """Make the app that serves it."""
        return create_app(self.hub, access=self.access, cors=self.cors, cursor=self.cursor)


def hub_from(arguments: argparse.Namespace, settings: Settings) -> HubParts:
    """Make the hub; exit with one line if the options don't fit together."""
    cors_origins: frozenset[str] = frozenset(arguments.cors_origin)
    if not cors_origins:
        refuse(arguments, ["cors_header"], "is for pages of other sites: give --cors-origin")
    try:
        cors = hub_cors(cors_origins, headers=arguments.cors_header)
    except ValueError as exc:
        fail(f"--cors-origin, --cors-header: {exc}")
    anonymous = AnonymousAccess(
        **fields_from(arguments, AnonymousAccess),
        # Whose pages may read must be let in first; with "*" nobody is named.
        allowed_origins=frozenset(arguments.allow_origin) | cors_origins - {"*"},
    )
    access = access_options.access_from(arguments, anonymous)
    open_to_all = anonymous.allow_anonymous_publish or anonymous.allow_anonymous_subscribe
    if not is_loopback(arguments.host) and not open_to_all and not access.has_authenticator:
        fail(
            f"--host {arguments.host} is reachable from other machines: give a key for tokens "
            "with --jwt-key-file or --jwks, or say with --allow-anonymous-subscribe or "
            "--allow-anonymous-publish what anyone may do"
        )
    history = _history_from(arguments)
    if "lease" not in arguments.given:
        settings = dataclasses.replace(settings, lease=LEASE)
    limits = access.limits.hub_settings(
        max_event_bytes=settings.max_event_bytes,
        flush_interval=arguments.flush_interval,
        follow_timeout=arguments.follow_timeout,
        unready_after=arguments.unready_after,
        reconnect_delay=settings.reconnect_delay,
        node=arguments.node,
    )
    hub = Hub(history, settings=limits)
    store = partial(describe, arguments.store, history)
    return HubParts(hub, access, cors, settings, store, arguments.cursor)


def _history_from(arguments: argparse.Namespace) -> History:
    """Make the history; exit with one line if it can't be."""
    store: str = arguments.store
    if store == "memory":
        refuse(arguments, ["durability"], "is about a store that lasts: give one with --store")
    is_server = "://" in store
    if not is_server:
        of_server = ["store_wait", "store_timeout", "unready_after"]
        refuse(arguments, of_server, "is about a store on a server: give one with --store")
        refuse(arguments, ["node"], "is for a store that several hubs share: give one with --store")
    elif arguments.given.get("store") == "--store" and _has_password(store):
        fail(
            "--store has a password, which any user of this machine sees in the list of processes: "
            f"name a file with ?password-file=, or set {STORE_PASSWORD}, or all in H3TRIO_STORE"
        )
    try:
        return make_history(
            store,
            durability=arguments.durability,
            retention=Retention(**fields_from(arguments, Retention)),
            password=arguments.store_password if is_server else None,
            timeout=arguments.store_timeout,
            open_wait=arguments.store_wait,
        )
    except (ValueError, ImportError) as exc:
        fail(str(exc))


def _has_password(url: str) -> bool:
    """Whether a URL has a password, as far as can be told from any text."""
    before_host, at, _ = url.partition("://")[2].partition("?")[0].rpartition("@")
    return bool(at) and ":" in before_host
