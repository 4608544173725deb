"""`make_updates` and `select`: values that enter a hub, checked and held against its limits.

Whatever is wrong is an error before anything is stored or subscribed. What an `Update` and a
`Selection` check by themselves holds for every hub; here are the limits of one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from h3trio._wire.event import SSEEvent
from h3trio._wire.parser import EventTooLargeError

from ._fanout.subscription import Start
from ._history.record import Update
from ._history.selection import NOTHING, Selection, check_topic

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from ._history.selection import TopicMatcher
    from ._settings import HubSettings

_DIGITS: Final = 9  # of a number of events: more than any history holds


def make_updates(
    limits: HubSettings,
    events: Sequence[SSEEvent | str | None],
    topics: Iterable[str],
    *,
    private: bool,
    dedup: str | None,
    last: bool = False,
) -> list[Update]:
    """Make the updates of one publish; with `last`, the last of them closes the topics.

    Raises:
        ValueError, TypeError: as of `Hub.publish` and `Hub.publish_all`.
    """
    if dedup is not None and len(events) > 1:
        raise ValueError(
            f"dedup is for one event, not {len(events)}: publish each with its own key"
        )
    # Once: it may be an iterator. A string is refused by `Update`.
    names = topics if isinstance(topics, str) else tuple(topics)
    made = [SSEEvent(event) if isinstance(event, str) else event for event in events]
    for event in made:
        if event is not None:
            _check_size(limits, _least_size(event, limits.max_event_bytes))
    if last and not made:
        raise ValueError("there is no event to be the last")
    closing = made.pop() if last else None
    updates = [Update(event, names, private=private, dedup=dedup) for event in made]
    if last:
        updates.append(Update(closing, names, private=private, dedup=dedup, last=True))
    for update in updates:
        _check_size(limits, len(update.encoded))
    if updates:
        _check_topics(limits, len(updates[0].topics), updates[0].topics)
    return updates


def select(
    limits: HubSettings,
    topics: Iterable[str | TopicMatcher] | Start,
    allow: Iterable[str | TopicMatcher] = (),
) -> tuple[Selection, Selection]:
    """Return the topics of a subscription, and those whose private events it may see.

    Raises:
        ValueError: a topic isn't valid, or there are none or too many.
        TypeError: topics is a single string.
    """
    if isinstance(topics, Start):
        return topics.topics, topics.allow
    selection = Selection(topics)
    if not selection:
        raise ValueError("a subscription needs at least one topic")
    count = len(selection.topics) + len(selection.matchers)
    _check_topics(limits, count, selection.topics)
    for topic in selection.topics:
        check_topic(topic)
    return selection, Selection(allow) if allow else NOTHING


def check_first(first: int | str | None) -> int | str | None:
    """Return where a stream without an id begins; digits, such as a query's, as a number.

    Raises:
        ValueError: it is no number of events, nor `"oldest"` or `"newest"`.
    """
    if first is None or first in ("oldest", "newest"):
        return first
    text = str(first)
    if text.isascii() and text.isdigit() and len(text) <= _DIGITS:
        return int(text)
    most = "9" * _DIGITS
    raise ValueError(f'first is a number from 0 to {most}, "oldest" or "newest", not {first!r}')


def _check_topics(limits: HubSettings, count: int, topics: Collection[str]) -> None:
    if count > limits.max_topics:
        raise ValueError(f"at most {limits.max_topics} topics, not {count}")
    size = len("".join(topics).encode(errors="surrogatepass"))
    if size > limits.max_topics_bytes:
        raise ValueError(f"topics may have {limits.max_topics_bytes} bytes together, not {size}")
    for topic in topics:
        if len(topic) > limits.max_topic_length:
            raise ValueError(
                f"a topic may have {limits.max_topic_length} characters, not {len(topic)}"
            )


def _check_size(limits: HubSettings, size: int) -> None:
    if size > (most := limits.max_event_bytes):
        raise EventTooLargeError(f"an event may have {most} bytes, this one has {size}", limit=most)


def _least_size(event: SSEEvent, enough: int) -> int:
    """Return a size that the encoded event has at least; 0 if it has `enough` at most.

    A megabyte of line ends would be encoded to seven before it is refused, while all others wait.
    """
    data = event.data or ""
    if len(data) * len("\ndata: ") <= enough:
        return 0
    pairs = data.count("\r\n")
    lines = data.count("\n") + data.count("\r") - pairs
    return len(data) - pairs + lines * len("data: ")
