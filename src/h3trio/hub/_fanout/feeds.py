"""`Feeds`: all feeds of a hub, found by the topics of a record.

Exact topics are looked up; feeds with matchers, or for everything, are asked, and their answers
kept per topic in a bounded cache.
"""

from __future__ import annotations

from collections import deque
from sys import getsizeof
from typing import TYPE_CHECKING, Final, final

from .feed import Feed

if TYPE_CHECKING:
    from collections.abc import Collection

    from h3trio.hub._history.record import Record
    from h3trio.hub._history.selection import Selection

    from .feed import Subscriber
    from .sweep import Sweep

MAX_MATCH_BYTES: Final = 4 * 1024 * 1024
"""Memory of the topics whose feeds with matchers are kept, and of the lists of these feeds."""
_STEPS: Final = 8
"""Parts of `FanoutState.max_bytes` after which all windows are looked at."""
_MATCH_BYTES: Final = 100
"""Memory of one of them without its name and its list."""


@final
class Feeds:
    """The feeds of one hub by selection and rights."""

    def __init__(self, sweep: Sweep) -> None:
        self.state = sweep.state
        """The state that all of them share."""
        self._sweep = sweep
        self._by_key: dict[tuple[Selection, Selection], Feed] = {}
        self.topics: dict[str, tuple[Feed] | dict[Feed, None]] = {}
        """The feeds of each topic that somebody ready selected by its name. A single one stands in
        a tuple that all topics of the feed share; several are the keys of a dictionary."""
        self._broad: dict[Feed, None] = {}
        self._matches: dict[str, tuple[Feed, ...]] = {}
        self._match_bytes = 0
        self._bytes = 0
        self._steps: deque[int] = deque(maxlen=_STEPS)
        """The newest positions at the end of each step."""
        self.handed: int = 0
        """Records handed to feeds in total, each as often as there were feeds for it."""

    def __len__(self) -> int:
        return len(self._by_key)

    def count_ready(self, topic: str) -> int:
        """Count the subscribers that are fed a topic's public events live."""
        return sum(len(feed.ready) for feed in self._selected((topic,)))

    def join(self, subscriber: Subscriber) -> None:
        """Put a subscriber that is at the head of the log into its feed."""
        key = (subscriber.selection, subscriber.allow)
        feed = self._by_key.get(key)
        if feed is None:
            feed = self._by_key[key] = Feed(*key, self.state)
            if not feed.selection.is_exact:
                self._broad[feed] = None
                self._forget_matches()
            single = (feed,)
            for topic in feed.selection.topics if feed.selection.is_exact else ():
                feeds = self.topics.setdefault(topic, single)
                if isinstance(feeds, dict):
                    feeds[feed] = None
                elif feeds is not single:
                    self.topics[topic] = dict.fromkeys((*feeds, feed))
        # Equal, and one object less for each subscriber.
        subscriber.selection, subscriber.allow = feed.selection, feed.allow
        feed.add(subscriber)

    def forget_if_empty(self, selection: Selection, allow: Selection) -> None:
        """Drop a feed that nobody stands in."""
        feed = self._by_key.get((selection, allow))
        if feed is None or feed.ready:
            return
        del self._by_key[selection, allow]
        feed.clear()
        if not selection.is_exact:
            del self._broad[feed]
            self._forget_matches()
        for topic in selection.topics if selection.is_exact else ():
            feeds = self.topics[topic]
            if isinstance(feeds, dict) and len(feeds) > 1:
                del feeds[feed]
            else:
                del self.topics[topic]

    def append(self, record: Record) -> None:
        """Hand a committed record to every feed that selected it."""
        feeds = self._selected(record.topics)
        if record.private:
            feeds = [feed for feed in feeds if feed.allows(record)]
        self.handed += len(feeds)
        # All at once: ten thousand subscribers may be as many feeds.
        if feeds and record.frame and (wakened := [feed for feed in feeds if feed.append(record)]):
            self._sweep.add(wakened)
        if record.last:
            self._close(feeds)
        self._bytes += len(record.frame)
        if self._bytes * _STEPS > self.state.max_bytes:
            self._release_late(record.position)
        # Not before: a feed that is full gives its subscribers back, and they lack this record.
        self.state.head = record.position

    def _release_late(self, position: int) -> None:
        """Give those back whose window begins too far behind, counted in steps of bytes."""
        self._bytes = 0
        self._steps.append(position)
        if len(self._steps) == _STEPS:
            for feed in self._sweep.queued():
                if feed.window and feed.window[0].position <= self._steps[0]:
                    feed.release()

    def _close(self, feeds: Collection[Feed]) -> None:
        """Let those who selected a topic by its name look whether it was their last."""
        exact = [feed for feed in feeds if feed.selection.is_exact]
        if wakened := [feed for feed in exact if feed.close_topic()]:
            self._sweep.add(wakened)

    def release(self) -> None:
        """Give all subscribers back to their own tasks, which go on from the log."""
        self._sweep.clear()
        for feed in self._by_key.values():
            feed.release()
            feed.dirty = False

    def cut(self, position: int) -> None:
        """Give all back, and forget what was behind a position: the store has lost it."""
        self.release()
        self.state.cut(position)
        self._steps.clear()

    def _selected(self, topics: tuple[str, ...]) -> Collection[Feed]:
        if len(topics) == 1:
            topic = topics[0]
            exact = self.topics.get(topic, ())
            if not self._broad:
                return exact
            return (*exact, *self._matching(topic))
        found: dict[Feed, None] = {}
        for topic in topics:
            found.update(dict.fromkeys(self.topics.get(topic, ())))
            found.update(dict.fromkeys(self._matching(topic)))
        return found

    def _matching(self, topic: str) -> tuple[Feed, ...]:
        feeds = self._matches.get(topic)
        if feeds is None:
            selects = [(feed, feed.selects(topic)) for feed in self._broad]
            feeds = tuple(feed for feed, answer in selects if answer)
            if any(answer is None for _feed, answer in selects):
                return feeds
            size = _MATCH_BYTES + getsizeof(topic) + getsizeof(feeds)
            if self._match_bytes + size > MAX_MATCH_BYTES:
                self._forget_matches()
            self._match_bytes += size
            self._matches[topic] = feeds
        return feeds

    def _forget_matches(self) -> None:
        self._matches.clear()
        self._match_bytes = 0
