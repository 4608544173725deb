"""`check_query`: refuses a query parameter that an endpoint doesn't know, or has twice.

A misspelt one would be overlooked: `?evnt=note` would publish an event of no type, and
`?last_event_ld=7` would lose what was missed. So would the second of two: of these only topics are
read. The names stand beside each endpoint.

A name that begins with an underscore is free, and read by nobody: proxies and client libraries add
such (`?_=1718`) to get past a cache. Any other name would do for that too, but then each typing
error would look like one. Datastar can't be told to leave its parameter out, so that is free too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_to_bytes

from h3trio import HTTPError

from ._access.token_sources import QUERY_NAME

if TYPE_CHECKING:
    from h3trio import H3Event

# A token in the query, by our name and by that of RFC 6750 section 2.3. Whether it counts is up to
# `TokenSources`: one that doesn't is answered 401, which says more than 400.
_TOKENS: Final = frozenset({QUERY_NAME, "access_token"})
# The signals of a page, in each GET and DELETE of https://data-star.dev/reference/actions.
_UNREAD: Final = "datastar"
_MAX_SHOWN: Final = 40
_TOPIC: Final = "topic"


def check_query(event: H3Event, *known: str) -> None:
    """See that the query has known names only, each once; those of tokens are known everywhere.

    Raises:
        HTTPError: 400, it has another, or one twice that isn't `topic`, or too many fields.
    """
    for name in event.query:
        if not (name in known or name in _TOKENS or name == _UNREAD or name.startswith("_")):
            names = ", ".join(known) or "none"
            shown = repr(name[:_MAX_SHOWN])
            raise HTTPError(400, f"{shown} is no query parameter here; there is: {names}")
        if name in known and name != _TOPIC and len(event.query.get_list(name)) > 1:
            raise HTTPError(400, f"{name!r} is there twice, and one would be overlooked")


def topic_parameter(event: H3Event) -> tuple[str, ...]:
    """Return the name `topic` for a request whose path names no topic, else nothing.

    Beside a path the parameter would be overlooked.
    """
    return () if "*" in event.params else (_TOPIC,)


def found_topics(event: H3Event) -> list[str]:
    """Return the topics of a request: the rest of its path, or each `topic` of its query, once.

    Raises:
        HTTPError: 400, the query isn't UTF-8: topics of other bytes would become the same one.
    """
    if "*" in event.params:
        return [event.params["*"]]
    topics = list(dict.fromkeys(event.query.get_list(_TOPIC)))
    check_utf8(event, *topics)
    return topics


def check_utf8(event: H3Event, *values: str | None) -> None:
    """See that some values of the query were UTF-8.

    Raises:
        HTTPError: 400, the query isn't.
    """
    # `query` has this character for all other bytes.
    if any("\ufffd" in value for value in values if value is not None):
        try:
            unquote_to_bytes(event.raw_query).decode()
        except UnicodeDecodeError:
            raise HTTPError(400, "The query is not UTF-8.") from None


def named_topics(event: H3Event) -> list[str]:
    """Return the topics of a request that has to name some, as `found_topics`.

    Raises:
        HTTPError: 400, it names none.
    """
    if not (topics := found_topics(event)):
        raise HTTPError(400, "name a topic: by ?topic=, which may be repeated, or as /events/TOPIC")
    return topics
