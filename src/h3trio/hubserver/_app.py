"""`create_app`: the routes of the hub server, which put HTTP in front of one `Hub`.

    GET    /events              everything public, or `?topic=a&topic=b`
    GET    /events/TOPIC        one topic
    POST   /events/TOPIC        publish; `/events?topic=a&topic=b` is one event for both
    DELETE /events/TOPIC        purge; as POST
    GET    /relay               the whole log, for who has the right
    GET    /healthz/live, /healthz/ready
    GET    /, /static/NAME      the dashboard, and /dashboard/events for its list
    GET    /statistics          how the hub is doing, once or as a stream
    GET    /metrics             the same for Prometheus

The topic is the rest of the path, percent-decoded: slashes and whole IRIs work. A proxy may rewrite
a path before it comes here, and nothing shows that: in the query all topics stay as they are.
"""

from __future__ import annotations

from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Final, Literal

import trio

from h3trio import CORS, App, CloseReason, H3Event, HTTPError, Response
from h3trio.hub import EndReason, Hub

from ._access.access import ANYONE, AccessControl
from ._access.grant import members
from ._browser import add_browser_safety
from ._errors import hub_errors
from ._monitoring.dashboard import add_dashboard
from ._monitoring.routes import add_monitoring
from ._monitoring.samples import Samples
from ._publish import publish
from ._query import check_query, found_topics, named_topics, topic_parameter
from ._relay import add_relay

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

    from h3trio.hub import Start
    from h3trio.runs import Runs

    from ._access.anonymous import AnonymousAccess
    from ._access.grant import Grant

    Handler = Callable[[H3Event], Awaitable[None]]

_SUBSCRIBE_QUERY = ("cursor", "first", "last_event_id", "lastEventID", "lastEventId")
_EVENT_STREAM = ("text/event-stream", "text/*", "*/*")
_CURSOR: Final = {"auto": None, "on": True, "off": False}


def create_app(
    hub: Hub | None = None,
    *,
    anonymous: AnonymousAccess | None = None,
    access: AccessControl | None = None,
    cors: CORS | None = None,
    cursor: Literal["auto", "on", "off"] = "auto",
    runs: Runs | None = None,
) -> App:
    """Make the app of a hub; serving it runs the hub, and the runs on it if there are any.

    Routes that you add have none of its rights, security headers, CORS or refusals of other sites'
    requests; `allowed_hosts` is for them too.

    Args:
        hub: not yet running; if not given, one in memory with the limits of `access`.
        anonymous: what may be done without a token; nothing beyond this machine if
            not given. Short for `access=AccessControl(anonymous=anonymous)`.
        access: the rights of all requests, and their limits.
        cors: which other sites' pages may read the hub, and publish where they have the right to;
            without tokens they need it as `AnonymousAccess.allowed_origins` too.
        cursor: whether a stream opens with an event of type `cursor`: to whom asks as a browser's
            `EventSource`, to all, or to none. `?cursor=on` and `?cursor=off` decide for one stream.
        runs: runs on this hub, for routes that you add: the statistics, the metrics and the
            dashboard tell of them. Nobody may publish to their topics, or purge them: 403.

    Raises:
        ValueError: both `anonymous` and `access` are given, `cursor` is none of the three, or the
            runs are on another hub.
    """
    if cursor not in _CURSOR:
        raise ValueError(f"cursor is auto, on or off, not {cursor!r}")
    if anonymous is not None and access is not None:
        raise ValueError("give anonymous to AccessControl, not beside it")
    access = access or AccessControl(anonymous=anonymous)
    if hub is None:
        hub = Hub(settings=access.limits.hub_settings()) if runs is None else runs.hub
    elif runs is not None and runs.hub is not hub:
        raise ValueError("the runs are on another hub")
    samples = Samples(hub)

    @asynccontextmanager
    async def lifespan() -> AsyncGenerator[None]:
        async with hub, runs or nullcontext(), trio.open_nursery() as nursery:
            nursery.start_soon(access.run, name="h3trio hub access")
            nursery.start_soon(samples.run, name="h3trio hub samples")
            yield
            nursery.cancel_scope.cancel(reason="the hub server is closed")

    app = App(lifespan=lifespan)
    _add_events(app, hub, access, runs, cursor=_CURSOR[cursor])
    add_relay(app, hub, access)
    _add_health(app, hub, access)
    add_dashboard(app, access.check_operate, takes_tokens=access.has_authenticator)
    add_monitoring(app, hub, access, samples, runs=runs)
    add_browser_safety(app, access, cors=cors)
    return app


def _add_events(
    app: App, hub: Hub, access: AccessControl, runs: Runs | None, *, cursor: bool | None
) -> None:
    subscribe = _make_subscribe(hub, access, cursor=cursor)
    app.get("/events")(subscribe)
    app.get("/events/*")(subscribe)

    @app.post("/events")
    @app.post("/events/*")
    async def publish_event(event: H3Event) -> Response:
        topics = named_topics(event)
        grant = await access.check_publish(event, *topics)
        _check_runs(runs, topics)
        access.check_topics(topics)
        pace = access.pace(event, grant)
        still = partial(access.check_still, grant)
        return await publish(hub, event, topics, pace=pace, still=still)

    @app.delete("/events")
    @app.delete("/events/*")
    async def purge(event: H3Event) -> dict[str, int]:
        topics = named_topics(event)
        grant = await access.check_publish(event, *topics)
        _check_runs(runs, topics)
        check_query(event, *topic_parameter(event))
        access.check_topics(topics)
        if (pace := access.pace(event, grant)) is not None:
            pace.check()
        with hub_errors(event):
            return {"purged": sum([await hub.purge(topic) for topic in topics])}


def _make_subscribe(hub: Hub, access: AccessControl, *, cursor: bool | None) -> Handler:
    async def subscribe(event: H3Event) -> None:
        # One function: each more would keep a frame for as long as the stream lasts.
        grant = await access.check_subscribe(event)
        with access.stream(event, grant):
            start = await _locate(hub, event, access, grant)
            if start.complete:  # 204: an EventSource doesn't come back
                event.response_headers["Cache-Control"] = "no-store"
                return
            asked = _cursor(event.query.get("cursor"))
            async with event.start_sse() as writer:
                reason = await hub.subscribe(
                    writer,
                    start,
                    info=_info(event, grant),
                    cursor=cursor if asked is None else asked,
                )
                if reason is EndReason.KICKED:
                    event.end(CloseReason.KICKED)

    return subscribe


async def _locate(hub: Hub, event: H3Event, access: AccessControl, grant: Grant) -> Start:
    """Check what a subscriber asks for; find where its stream begins, and put it into the head."""
    _check_accept(event)
    check_query(event, *topic_parameter(event), *_SUBSCRIBE_QUERY)
    topics = found_topics(event) or ["*"]
    access.check_topics(topics)
    with hub_errors(event):
        start = await hub.locate(
            topics,
            last_event_id=event.last_event_id,
            first=event.query.get("first"),
            allow=members(grant.subscribe) if grant.subscribe else (),
        )
    event.response_headers.update(start.headers)
    return start


def _check_runs(runs: Runs | None, topics: Iterable[str]) -> None:
    """Raise 403 for topics of runs: whoever published there, or purged, could forge how they end.

    No grant is enough, as what `publish=("*",)` is given for is everything else.
    """
    if runs is not None and any(topic.startswith(runs.prefix) for topic in topics):
        raise HTTPError(403, f"topics that begin with {runs.prefix} are for runs alone")


def _cursor(text: str | None) -> bool | None:
    if text not in (None, "on", "off"):
        raise HTTPError(400, f"cursor is on, off or not given, not {text!r}")
    return None if text is None else text == "on"


def _check_accept(event: H3Event) -> None:
    """Raise 406 for a client that says it can't take an event stream (RFC 9110 section 12.5.1)."""
    accept = event.headers.get("accept", "*/*")
    accepted = (part.partition(";")[0].strip().lower() for part in accept.split(","))
    if accept.strip() and not any(part in _EVENT_STREAM for part in accepted):
        raise HTTPError(406, "this is a text/event-stream")


def _info(event: H3Event, grant: Grant) -> dict[str, object]:
    """Return what `Hub.kick` sees of a subscription."""
    info: dict[str, object] = {"client": event.client}
    if grant is not ANYONE:
        info["subject"] = grant.subject
    return info


def _add_health(app: App, hub: Hub, access: AccessControl) -> None:
    @app.get("/healthz/live")
    async def live(event: H3Event) -> Response:
        await access.check_health(event)
        return _health("ok")

    @app.get("/healthz/ready")
    async def ready(event: H3Event) -> Response:
        tells_reasons = await access.check_health(event)
        if event.draining.is_set():
            return _health("draining", status=503)
        if (failure := await hub.check_history()) is not None:
            return _health(f"history: {failure}" if tells_reasons else "unready", status=503)
        return _health("ready")


def _health(text: str, *, status: int = 200) -> Response:
    return Response(f"{text}\n", status=status, headers={"Cache-Control": "no-store"})
