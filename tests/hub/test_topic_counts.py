"""Counts by topic: exact for the busiest, and bounded."""

from __future__ import annotations

from h3trio.hub import Hub
from h3trio.hub._topic_counts import MAX_COUNTED, TopicCounts


def test_the_lower_half_is_forgotten() -> None:
    """The topics that have more keep their counts."""
    counts = TopicCounts({str(n): n for n in range(MAX_COUNTED)})
    counts.make_room()
    assert len(counts) == MAX_COUNTED // 2
    assert min(counts.values()) == MAX_COUNTED // 2
    assert counts[str(MAX_COUNTED - 1)] == MAX_COUNTED - 1


async def test_many_topics_are_bounded() -> None:
    """A topic for each event makes room at the limit, and not before; the busy one stays."""
    async with Hub() as hub:
        hub._view._counts.update({str(n): 1 for n in range(MAX_COUNTED - 2)})  # noqa: SLF001 - publishing to each takes a second
        for topic in ("busy", "busy", "last that fits"):
            hub.publish_nowait("x", topics=[topic])
        assert hub.statistics().topics == MAX_COUNTED
        hub.publish_nowait("x", topics=["busy", "one more"])
        assert hub.statistics().topics == MAX_COUNTED // 2 + 1
        (busiest,) = hub.busiest_topics(1)
        assert (busiest.topic, busiest.published) == ("busy", 3)
