"""The door of the hub server: who may do what, how often, and until when.

Every route asks here first. Who asks is told by an `Authenticator`, if there is
one; what those may do who don't say who they are is up to `Rights`. With an
authenticator, being on this machine gives no right to publish, to subscribe, or
to see names of topics: a proxy on the same host may look like that, and whoever
set a key relies on it.
"""

from __future__ import annotations

import ipaddress
import math
import random
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio import HTTPError

from .anonymous import Rights
from .grant import ALL_TOPICS, NO_TOPICS, Grant
from .limits import Limits
from .rate_limit import Buckets
from .recheck import Watch
from .token_sources import forbidden, unauthorized

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from h3trio import H3Event

    from .grant import Authenticator

ANYONE: Final = Grant(publish=ALL_TOPICS, subscribe=NO_TOPICS)
"""What those get whom `Rights` lets in: private events aren't for anyone."""

_OPERATOR_NEEDED: Final = (
    "a token that allows operating is needed (token --operate makes one);"
    " see --allow-anonymous-operate"
)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class AccessStatistics:
    """A snapshot; totals count since the hub server was made."""

    unauthorized: int
    """Requests answered 401: no token, or one that isn't good."""
    forbidden: int
    """Requests answered 403: not allowed to whoever asked."""
    too_many_topics: int
    """Subscriptions above `Limits.max_topics_per_subscription`."""
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
class Access:
    """The rights and limits of one hub server.

    Args:
        rights: what may be done without a token; nothing beyond this machine if
            not given.
        authenticator: tells what a request may do.
        limits: how much of it.
        clock: Unix time in seconds.
    """

    def __init__(
        self,
        *,
        rights: Rights | None = None,
        authenticator: Authenticator | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.rights: Rights = rights or Rights()
        """What may be done without a token."""
        self.limits: Limits = limits or Limits()
        """How much of it."""
        self._authenticator = authenticator
        self._clock = clock
        self._random = random.Random()  # noqa: S311 - it spreads load, it guards nothing
        self._streams: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        rate = self.limits.publish_rate
        most = self.limits.max_rate_buckets
        self._buckets = None if rate is None else Buckets(rate, max_buckets=most)
        self._watch = None if authenticator is None else self._make_watch(authenticator)

    def _make_watch(self, authenticator: Authenticator) -> Watch:
        return Watch(
            authenticator,
            interval=self.limits.recheck_interval,
            timeout=self.limits.recheck_timeout,
            clock=self._clock,
        )

    def __repr__(self) -> str:
        return f"<Access: {self._authenticator!r}, {self.rights!r}>"

    @property
    def has_authenticator(self) -> bool:
        """Whether anybody can say who asks."""
        return self._authenticator is not None

    async def run(self) -> None:
        """End streams whose rights are over, until cancelled."""
        if self._watch is not None:
            await self._watch.run()

    # -- rights

    async def check_publish(self, event: H3Event, topic: str) -> Grant:
        """Return the grant of a request that may publish to a topic, or purge it.

        Raises:
            HTTPError: 401 or 403.
        """
        grant = await self._grant(event)
        rights = self.rights
        if grant is None:
            self._admit(event, rights.check_publish, allowed=rights.allow_anonymous_publish)
            return ANYONE
        if not (rights.allow_anonymous_publish or grant.publish.matches_topic(topic)):
            raise self._counted(forbidden("the token doesn't allow publishing to this topic"))
        return grant

    def check_still(self, grant: Grant) -> None:
        """See that a publisher's grant hasn't ended while its body comes.

        Raises:
            HTTPError: 401.
        """
        if self.rights.allow_anonymous_publish or grant.expires is None:
            return
        if grant.expires <= self._clock():
            raise self._counted(unauthorized("the token has expired"))

    async def check_subscribe(self, event: H3Event) -> Grant:
        """Return the grant of a request that may subscribe.

        Raises:
            HTTPError: 401 or 403.
        """
        grant = await self._grant(event)
        rights = self.rights
        if grant is None:
            self._admit(event, rights.check_subscribe, allowed=rights.allow_anonymous_subscribe)
            return ANYONE
        if not (rights.allow_anonymous_subscribe or grant.subscribe is not None):
            raise self._counted(forbidden("the token doesn't allow subscribing"))
        return grant

    async def check_operate(self, event: H3Event) -> Grant:
        """Return the grant of a request that may see how the hub is doing, without any names.

        Being on this machine is enough: health checks and scrapers there have no token. From
        elsewhere a token may allow it.

        Raises:
            HTTPError: 401 or 403.
        """
        try:
            self.rights.check_operate(event)
        except HTTPError as exc:
            refusal = exc
        else:
            return ANYONE
        return self._operator(await self._grant(event), refusal)

    async def check_statistics(self, event: H3Event) -> Grant:
        """Return the grant of a request that may see topics by name, and who is slow.

        With an authenticator, being on this machine isn't enough: those are names of private
        topics and addresses of clients.

        Raises:
            HTTPError: 401 or 403.
        """
        if self._authenticator is None or self.rights.allow_anonymous_operate:
            return await self.check_operate(event)
        return self._operator(await self._grant(event), unauthorized(needed=_OPERATOR_NEEDED))

    def _operator(self, grant: Grant | None, refusal: HTTPError) -> Grant:
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
        except HTTPError as exc:
            raise self._counted(exc) from None
        if grant is not None:
            if grant.expires is not None and grant.expires <= self._clock():
                raise self._counted(unauthorized("the token has expired"))
            event.subject = grant.subject
        return grant

    def _admit(self, event: H3Event, check: Callable[[H3Event], None], *, allowed: bool) -> None:
        """Let in who doesn't say who it is, or raise."""
        if allowed:
            return
        if self._authenticator is not None:
            raise self._counted(unauthorized())
        try:
            check(event)
        except HTTPError as exc:
            raise self._counted(exc) from None

    def _counted(self, error: HTTPError) -> HTTPError:
        self._refused[{401: "unauthorized", 403: "forbidden"}.get(error.status, "other")] += 1
        return error

    # -- limits

    def check_topics(self, topics: Sequence[str]) -> None:
        """Raise HTTPError 400 for too many topics, or one that is too long."""
        limits = self.limits
        if len(topics) > limits.max_topics_per_subscription:
            self._refused["too_many_topics"] += 1
            most = limits.max_topics_per_subscription
            raise HTTPError(400, f"at most {most} topics, not {len(topics)}")
        if (longest := max(map(len, topics), default=0)) > limits.max_topic_length:
            self._refused["topics_too_long"] += 1
            most = limits.max_topic_length
            raise HTTPError(400, f"a topic may have {most} characters, not {longest}")

    def pace(self, event: H3Event, grant: Grant) -> Pace | None:
        """Return what holds a publisher to its rate, `None` if nothing does."""
        if self._buckets is None:
            return None
        key = f"subject {grant.subject}" if grant.subject else f"address {_network(event.client)}"
        return Pace(self._buckets, key, self._refused, self._random)

    @contextmanager
    def stream(self, event: H3Event, grant: Grant) -> Generator[None]:
        """Hold a place for a stream, and end it when its grant does.

        Raises:
            HTTPError: 429, its subject has too many.
        """
        subject = grant.subject
        if subject and self._streams[subject] >= self.limits.max_subject_streams:
            self._refused["too_many_streams"] += 1
            most = self.limits.max_subject_streams
            raise HTTPError(429, f"at most {most} streams at once")
        watched = None
        if subject:
            self._streams[subject] += 1
        try:
            if self._watch is not None and grant is not ANYONE:
                watched = self._watch.add(event, grant)
            yield
        finally:
            if self._watch is not None and watched is not None:
                self._watch.discard(watched)
            self._leave(subject)

    def _leave(self, subject: str) -> None:
        if subject:
            self._streams[subject] -= 1
            if not self._streams[subject]:
                del self._streams[subject]

    def statistics(self) -> AccessStatistics:
        """A snapshot."""
        refused, watch = self._refused, self._watch
        return AccessStatistics(
            unauthorized=refused["unauthorized"],
            forbidden=refused["forbidden"],
            too_many_topics=refused["too_many_topics"],
            topics_too_long=refused["topics_too_long"],
            too_many_streams=refused["too_many_streams"],
            rate_limited=refused["rate_limited"],
            slowed=refused["slowed"],
            rate_buckets=0 if self._buckets is None else len(self._buckets),
            subjects=len(self._streams),
            expired=0 if watch is None else watch.expired,
            revoked=0 if watch is None else watch.revoked,
            recheck_failures=0 if watch is None else watch.failures,
        )


@final
class Pace:
    """Holds one publisher to its rate."""

    __slots__ = ("_buckets", "_counts", "_key", "_random")

    def __init__(
        self, buckets: Buckets, key: str, counts: Counter[str], spread: random.Random
    ) -> None:
        self._buckets = buckets
        self._key = key
        self._counts = counts
        self._random = spread

    def check(self) -> None:
        """Take one event; HTTPError 429 if there is none."""
        if wait := self._buckets.try_take(self._key, trio.current_time()):
            self._counts["rate_limited"] += 1
            raise too_many(f"at most {self._buckets.rate.per_second:g}/s", wait, self._random)

    @property
    def most(self) -> int:
        """How many events to take in one step, so that a body flows and doesn't gush."""
        return self._buckets.rate.burst

    async def wait(self, count: int) -> None:
        """Take some events, waiting until they are there: a body of events is slowed by this."""
        if wait := self._buckets.take(self._key, count, trio.current_time()):
            self._counts["slowed"] += 1
            await trio.sleep(wait)


def too_many(why: str, wait: float, spread: random.Random) -> HTTPError:
    """429 with a `Retry-After` that isn't the same for all (RFC 6585 section 4)."""
    seconds = math.ceil(max(1.0, wait) * spread.uniform(1, 2))
    return HTTPError(429, why, headers={"Retry-After": str(seconds)})


def _network(client: str) -> str:
    """Return what an address counts as: of IPv6 its /64, all of which one host may have."""
    if ":" not in client or client.startswith("::ffff:"):
        return client
    return str(ipaddress.ip_network((client.partition("%")[0], 64), strict=False))
