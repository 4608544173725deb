"""What a topic may be, and what an update may hold: checked where it comes in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from h3trio._wire.event import SSEEvent
from h3trio._wire.parser import EventTooLargeError

from ._history.epochs import check_publisher_id
from ._history.placing import check_dedup
from ._history.record import Update
from ._history.selection import EVERYTHING, Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ._history.selection import TopicMatcher
    from ._settings import HubSettings

# C0, DEL, C1 and surrogates.
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

RESET: Final = "reset"
"""The type of the event that tells a subscriber of a gap."""


def check_topic(topic: str, settings: HubSettings) -> None:
    """Raise `ValueError` unless a topic is non-empty, printable and not too long."""
    if not topic:
        msg = "a topic may not be empty"
        raise ValueError(msg)
    if len(topic) > settings.max_topic_length:
        msg = f"a topic may have {settings.max_topic_length} characters, not {len(topic)}"
        raise ValueError(msg)
    if _FORBIDDEN.search(topic):
        msg = f"a topic may not hold control characters or surrogates: {topic!r}"
        raise ValueError(msg)


def selection_of(topics: Iterable[str | TopicMatcher], settings: HubSettings) -> Selection:
    """Check and gather what a subscriber selects.

    Raises:
        ValueError: a topic is invalid, or there are none or too many.
        TypeError: a single string instead of several.
    """
    selection = Selection(topics)
    if not selection:
        msg = "a subscription needs at least one topic"
        raise ValueError(msg)
    _check_count(len(selection.topics) + len(selection.matchers), settings)
    for topic in selection.topics:
        check_topic(topic, settings)
    return selection


def make_updates(
    events: Sequence[SSEEvent | str],
    *,
    topics: Iterable[str],
    private: bool,
    dedup: str | None,
    settings: HubSettings,
) -> list[Update]:
    """Check and gather what a publisher brings: events of the same topics.

    Raises:
        ValueError: a topic, an id, a type, a size or the `dedup` key isn't allowed.
        TypeError: topics is a single string.
    """
    if isinstance(topics, str):
        msg = f"topics must be several, not the string {topics!r}"
        raise TypeError(msg)
    names = tuple(dict.fromkeys(topics))
    if not names:
        msg = "an update needs at least one topic"
        raise ValueError(msg)
    _check_count(len(names), settings)
    for name in names:
        check_topic(name, settings)
        if name == EVERYTHING:
            msg = "the topic * means every topic; it can be subscribed to, not published to"
            raise ValueError(msg)
    if dedup is not None:
        check_dedup(dedup)
        if len(events) > 1:
            msg = f"dedup is for one event, not {len(events)}: publish each with its own key"
            raise ValueError(msg)
    made = [SSEEvent(event) if isinstance(event, str) else event for event in events]
    for event in made:
        _check_event(event, settings)
    return [Update(event=event, topics=names, private=private, dedup=dedup) for event in made]


def _check_count(count: int, settings: HubSettings) -> None:
    if count > settings.max_topics:
        msg = f"at most {settings.max_topics} topics, not {count}"
        raise ValueError(msg)


def _check_event(event: SSEEvent, settings: HubSettings) -> None:
    if event.event == RESET:
        msg = "the type reset is the hub's own: it tells subscribers of a gap"
        raise ValueError(msg)
    if event.data is None and event.retry is None and event.id is None:
        msg = "an event needs data, an id or a retry to be published"
        raise ValueError(msg)
    if event.id is not None:
        check_publisher_id(event.id)
    size = len(event.encode())
    if size > settings.max_event_bytes:
        msg = f"an event may have {settings.max_event_bytes} bytes, this one has {size}"
        raise EventTooLargeError(msg, limit=settings.max_event_bytes)
