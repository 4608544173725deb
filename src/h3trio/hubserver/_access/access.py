"""`AccessControl`: the rights and limits of a hub server, which every route asks first.

An `Authenticator`, if there is one, says who sent a request and what that allows; requests that
don't say it have the rights of `AnonymousAccess`. With an authenticator, being on this machine
gives no right to publish, to subscribe, or to see names of topics: a proxy on the same host may
look like that, and whoever set a key relies on it.
"""

from __future__ import annotations

import ipaddress
import time
from collections import Counter, OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio import HTTPError

from .anonymous import AnonymousAccess, is_on_this_machine
from .grant import ALL_TOPICS, NO_TOPICS, Grant
from .hosts import AllowedHosts
from .limits import Limits
from .rate_limit import Bucket
from .recheck import HeldStream, Revalidator
from .token_sources import forbidden, unauthorized

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from contextlib import AbstractContextManager

    from h3trio import H3Event

    from .grant import Authenticator

ANYONE: Final = Grant(publish=ALL_TOPICS, subscribe=NO_TOPICS)
"""The grant of requests that `AnonymousAccess` lets in: private events aren't for anyone."""

_COUNTED: Final = {401: "unauthorized", 403: "forbidden", 421: "misdirected"}
# One for all: what an idle subscriber holds is held ten thousand times.
_UNLIMITED: Final = nullcontext()
_OPERATOR_NEEDED: Final = (
    "a token that allows operating is needed (token --operate makes one);"
    " see --allow-anonymous-operate"
)

_RELAY_NEEDED: Final = (
    "a token that allows the relay is needed (token --relay makes one), of a hub with a key"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AccessStatistics:
    """A snapshot; totals count since the hub server was made."""

    unauthorized: int
    """Requests answered 401: no token, or one that isn't good."""
    forbidden: int
    """Requests answered 403: not allowed to whoever asked."""
    misdirected: int
    """Requests answered 421: they asked for a name that isn't of the allowed ones."""
    too_many_topics: int
    """Requests with more topics than `Limits.max_topics_per_subscription`."""
    topics_too_long: int
    """Requests with a topic above `Limits.max_topic_length`."""
    too_many_streams: int
    """Subscriptions above `Limits.max_subject_streams`."""
    rate_limited: int
    """Publishes answered 429, above `Limits.publish_rate`."""
    slowed: int
    """Times a body of events had to wait for `Limits.publish_rate`."""
    rate_buckets: int
    """Publishers whose rate is remembered now."""
    subjects: int
    """Subjects that have a stream now."""
    expired: int
    """Streams ended as their grant did."""
    revoked: int
    """Streams ended as their grant, asked for again, was gone or another."""
    recheck_failures: int
    """Times that a grant could not be asked for again."""


@final
class AccessControl:
    """The rights and limits of one hub server.

    Args:
        anonymous: the rights of requests without a token; none beyond this machine if
            not given.
        authenticator: says what a request may do.
        limits: the limits on what one client may ask for.
        allowed_hosts: names that may stand in `Host`, without a port; any if none is given.
            Loopback names and addresses may always.
        clock: Unix time in seconds.

    Raises:
        ValueError: a host is no name.
    """

    def __init__(
        self,
        *,
        anonymous: AnonymousAccess | None = None,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        allowed_hosts: Iterable[str] = (),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.anonymous: AnonymousAccess = anonymous or AnonymousAccess()
        """The rights of requests without a token."""
        self.limits: Limits = limits or Limits()
        """The limits on what one client may ask for."""
        self._authenticator = authenticator
        self._hosts = AllowedHosts(allowed_hosts)
        self._clock = clock
        self._counts: Counter[str] = Counter()
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()
        self._revalidator = Revalidator(
            interval=self.limits.recheck_interval,
            timeout=self.limits.recheck_timeout,
            counts=self._counts,
            clock=clock,
        )

    def __repr__(self) -> str:
        return f"<AccessControl: {self._authenticator!r}, {self.anonymous!r}>"

    @property
    def has_authenticator(self) -> bool:
        """Whether requests can say who sent them."""
        return self._authenticator is not None

    @property
    def has_allowed_hosts(self) -> bool:
        """Whether `Host` must be one of some names."""
        return bool(self._hosts.names)

    async def run(self) -> None:
        """End streams whose grant is gone, until cancelled."""
        if self._authenticator is not None:
            await self._revalidator.run(self._authenticator)

    # -- rights

    def check_host(self, event: H3Event) -> None:
        """Check that a request asks for a name of this server, before its route does.

        Raises:
            HTTPError: 421.
        """
        try:
            self._hosts.check(event)
        except HTTPError as exc:
            raise self._counted(exc) from None

    async def check_publish(self, event: H3Event, topic: str, *more: str) -> Grant:
        """Return the grant of a request that may publish to each of some topics, or purge them.

        Raises:
            HTTPError: 401 or 403.
        """
        grant, is_open = await self._grant(event), self.anonymous.allow_anonymous_publish
        if grant is None:
            return self._admit(event, self.anonymous.check_publish, is_open=is_open)
        for number, each in enumerate(() if is_open else (topic, *more)):
            if number and grant.publish.matchers:
                # A grant may have many templates: others run between two topics.
                await trio.lowlevel.checkpoint()
            if not grant.publish.matches_topic(each):
                which = "each of these topics" if more else "this topic"
                raise self._counted(forbidden(f"the token doesn't allow publishing to {which}"))
        return grant

    def check_still(self, grant: Grant) -> None:
        """Check that a publisher's grant hasn't ended while its body comes.

        Raises:
            HTTPError: 401.
        """
        if not self.anonymous.allow_anonymous_publish:
            self._check_end(grant)

    async def check_subscribe(self, event: H3Event) -> Grant:
        """Return the grant of a request that may subscribe.

        Raises:
            HTTPError: 401 or 403.
        """
        grant, is_open = await self._grant(event), self.anonymous.allow_anonymous_subscribe
        if grant is None:
            return self._admit(event, self.anonymous.check_subscribe, is_open=is_open)
        if not is_open and grant.subscribe is None:
            raise self._counted(forbidden("the token doesn't allow subscribing"))
        return grant

    async def check_relay(self, event: H3Event) -> Grant:
        """Return the grant of a request that may read the whole log: only by a token.

        Raises:
            HTTPError: 401 or 403.
        """
        grant = await self._grant(event)
        if grant is None:
            raise self._counted(unauthorized(needed=_RELAY_NEEDED))
        if not grant.relay:
            raise self._counted(forbidden("the token doesn't allow the relay (token --relay)"))
        return grant

    async def check_operate(self, event: H3Event) -> Grant:
        """Return the grant of a request that may see how the hub is doing, without any names.

        Being a program of our own user on this machine is enough: scrapers there have no token.
        From elsewhere a token may allow it.

        Raises:
            HTTPError: 401 or 403.
        """
        try:
            self.anonymous.check_operate(event)
        except HTTPError as refusal:
            return await self._check_operator(event, refusal)
        return ANYONE

    async def check_health(self, event: H3Event) -> bool:
        """Whether a request that may ask for the health may be told the reasons too.

        Any client on this machine may ask, whoever runs it: a proxy's health check has no token,
        often no `Host`, and a user of its own. It is told in a word, as whoever comes through such
        a proxy may ask the same.

        Raises:
            HTTPError: 401 or 403: it is from elsewhere, and may not see how the hub is doing.
        """
        try:
            self.anonymous.check_operate(event)
        except HTTPError as refusal:
            if not is_on_this_machine(event.client):
                await self._check_operator(event, refusal)
                return True
            grant = await self._grant(event)
            return grant is not None and grant.operate
        return True

    async def check_statistics(self, event: H3Event) -> Grant:
        """Return the grant of a request that may see topics by name, and who is slow.

        With an authenticator, being on this machine isn't enough: those are names of private
        topics and addresses of clients.

        Raises:
            HTTPError: 401 or 403.
        """
        if self._authenticator is None or self.anonymous.allow_anonymous_operate:
            return await self.check_operate(event)
        return await self._check_operator(event, unauthorized(needed=_OPERATOR_NEEDED))

    async def _check_operator(self, event: H3Event, refusal: HTTPError) -> Grant:
        grant = await self._grant(event)
        if grant is None:
            raise self._counted(refusal)
        if not grant.operate:
            raise self._counted(forbidden("the token doesn't allow operating (token --operate)"))
        return grant

    async def _grant(self, event: H3Event) -> Grant | None:
        if self._authenticator is None:
            return None
        try:
            grant = await self._authenticator(event)
        except Exception as exc:
            refusal = HTTPError.of(exc)
            if refusal is None:
                raise
            raise self._counted(refusal) from None
        if grant is not None:
            self._check_end(grant)
            event.subject = grant.subject
        return grant

    def _check_end(self, grant: Grant) -> None:
        if grant.expires is not None and grant.expires <= self._clock():
            raise self._counted(unauthorized("the token has expired"))

    def _admit(self, event: H3Event, check: Callable[[H3Event], None], *, is_open: bool) -> Grant:
        """Let a request in that doesn't say who sent it, or raise."""
        if not is_open and self._authenticator is not None:
            raise self._counted(unauthorized())
        try:
            check(event)
        except HTTPError as exc:
            raise self._counted(exc) from None
        return ANYONE

    def _counted(self, error: HTTPError) -> HTTPError:
        self._counts[_COUNTED.get(error.status, "other")] += 1
        return error

    # -- limits

    def check_topics(self, topics: Sequence[str]) -> None:
        """Raise HTTPError 400 for too many topics, or one that is too long."""
        most = self.limits.max_topics_per_subscription
        if len(topics) > most:
            self._counts["too_many_topics"] += 1
            raise HTTPError(400, f"at most {most} topics, not {len(topics)}")
        most = self.limits.max_topic_length
        if (longest := max(map(len, topics), default=0)) > most:
            self._counts["topics_too_long"] += 1
            raise HTTPError(400, f"a topic may have {most} characters, not {longest}")

    def pace(self, event: H3Event, grant: Grant) -> Bucket | None:
        """Return what holds a publisher to its rate, `None` if nothing does."""
        if (rate := self.limits.publish_rate) is None:
            return None
        key = f"subject {grant.subject}" if grant.subject else f"address {_network(event.client)}"
        bucket = self._buckets.setdefault(key, Bucket(rate, self._counts))
        self._buckets.move_to_end(key)
        # The one unused for longest is most likely full, and a full bucket needs no memory.
        if len(self._buckets) > self.limits.max_rate_buckets:
            self._buckets.popitem(last=False)
        return bucket

    def stream(self, event: H3Event, grant: Grant) -> AbstractContextManager[None]:
        """Return what counts a stream and ends it with its grant, for a `with` around `start_sse`.

        Raises:
            HTTPError: 429, its subject has too many.
        """
        if grant is ANYONE:
            return _UNLIMITED
        most = self.limits.max_subject_streams
        if grant.subject and self._revalidator.subjects[grant.subject] >= most:
            self._counts["too_many_streams"] += 1
            raise HTTPError(429, f"at most {most} streams at once")
        return HeldStream(self._revalidator, event, grant)

    def statistics(self) -> AccessStatistics:
        """A snapshot."""
        subjects = self._revalidator.subjects
        found = {
            **{field.name: self._counts[field.name] for field in fields(AccessStatistics)},
            "rate_buckets": len(self._buckets),
            "subjects": len(subjects) - ("" in subjects),
        }
        return AccessStatistics(**found)


def _network(client: str) -> str:
    """Return what an address counts as: of IPv6 its /64, all of which one host may have."""
    if ":" not in client or client.startswith("::ffff:"):
        return client
    return str(ipaddress.ip_network((client.partition("%")[0], 64), strict=False))
