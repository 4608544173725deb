"""Private events, for who has no right to them: two hubs that differ by these alone look alike.

Positions differ, as they count everything; so ids aren't compared, but for those of publishers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import trio
from hub_helpers import FakeSink
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from h3trio import SSEEvent
from h3trio.hub import Hub

if TYPE_CHECKING:
    from collections.abc import Sequence

TOPICS = st.sampled_from(["a", "b"])
OWN_IDS = st.sampled_from([None, None, "x", "y"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("publish"), TOPICS, OWN_IDS),
        st.tuples(st.just("secret"), TOPICS, OWN_IDS),
        st.tuples(st.just("purge"), st.just("p"), st.none()),
        st.tuples(st.just("first"), TOPICS, st.sampled_from(["oldest", 1, 3])),
        st.tuples(st.just("come back"), TOPICS, st.sampled_from([0, 1, 2, "x", "y"])),
    ),
    max_size=30,
)


async def look(hub: Hub, topic: str, **start: Any) -> object:  # noqa: ANN401 - of `locate`
    """Return what a reader without rights sees of a stream, its head and its events."""
    place, sink = await hub.locate([topic], **start), FakeSink()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(hub.subscribe, sink, place)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    events = [
        (e.event, json.loads(e.data or "")["reason"] if e.event == "reset" else e.data)
        for e in sink.events
    ]
    return place.truncated, place.unknown, events


async def see(steps: Sequence[tuple[str, str, Any]], *, secrets: bool) -> list[object]:
    """Return what readers without rights see on the way."""
    seen: list[object] = []
    ids: list[str] = []
    async with Hub() as hub:
        for number, (what, topic, value) in enumerate(steps):
            if what == "publish":
                ids.append(await hub.publish(SSEEvent(str(number), id=value), topics=[topic]))
            elif what == "secret" and secrets:
                await hub.publish(SSEEvent("s", id=value), topics=[topic, "p"], private=True)
            elif what == "purge":
                await hub.purge(topic)
            elif what == "first":
                seen.append(await look(hub, topic, first=value))
            elif what == "come back" and (isinstance(value, str) or value < len(ids)):
                back = value if isinstance(value, str) else ids[value]
                seen.append(await look(hub, topic, last_event_id=back))
    return seen


@given(STEPS)
def test_private_events_are_seen_by_nobody_without_the_right(
    steps: list[tuple[str, str, Any]],
) -> None:
    """Neither while they are there nor when they are gone, by no way into the history."""

    async def main() -> None:
        assert await see(steps, secrets=True) == await see(steps, secrets=False)

    trio.run(main)
