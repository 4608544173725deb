"""`RedisHistory` on a real server: the suite of every history, and of those that hubs share."""

from __future__ import annotations

import itertools
import random
from typing import TYPE_CHECKING, Any

from e2e.redis_load import command, count
from e2e.redis_server import redis_server

from h3trio import SSEEvent
from h3trio.hub import History, Hub, RedisHistory, Selection, Update
from h3trio.testing import check_history

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.redis_server import RedisServer


class Histories:
    """Makes histories of one server, each under a prefix of its own unless it is shared."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._numbers = itertools.count(1)
        self._urls: dict[int, str] = {}

    def make(self, **options: Any) -> RedisHistory:  # noqa: ANN401 - those of the history
        """Make one whose keys nobody else has."""
        return self._of(f"{self._server.url}?prefix=test{next(self._numbers)}", **options)

    def small(self, events: int) -> RedisHistory:
        """Make one that keeps a few events."""
        return self.make(max_events=events)

    def share(self, history: History) -> RedisHistory:
        """Make another one with the same keys."""
        return self._of(self._urls[id(history)])

    def _of(self, url: str, **options: Any) -> RedisHistory:  # noqa: ANN401 - as above
        history = RedisHistory(url, **options)
        self._urls[id(history)] = url
        return history


async def test_many_topics_come_in_bounded_steps(tmp_path: Path) -> None:
    """As all hubs wait meanwhile: a step looks for 100 topics at most, and finds 100 records."""
    names = [f"t{number}" for number in range(600)]
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url, tail_events=1)
        async with Hub(history) as hub:
            for _ in range(3):
                await history.append([Update(SSEEvent(name), [name]) for name in names])
            await hub.publish("end", topics=["end"])
            for selected in (names, names[:1]):
                await command(server.port, "CONFIG", "RESETSTAT")
                found: list[str] = []
                after, more = 0, True
                while more:
                    page = await history.read(
                        after, selection=Selection(selected), max_records=1000, max_bytes=10**7
                    )
                    found += [record.topics[0] for record in page.records]
                    after, more = page.last, page.more
                assert found == selected * 3
                calls = await command(server.port, "INFO", "commandstats")
                steps = called(calls, "eval") + called(calls, "evalsha")
                assert called(calls, "xrange") <= 101 * steps
                assert called(calls, "zrangebyscore") <= 200 * steps
                assert steps >= len(selected) / 100


def called(stats: str, name: str) -> int:
    """Return how often a command was called since the numbers were reset."""
    return int(stats.partition(f"cmdstat_{name}:calls=")[2].partition(",")[0] or 0)


async def test_an_id_that_many_have_is_searched_in_bounded_steps(tmp_path: Path) -> None:
    """The newest public event of each topic counts, behind however many private ones."""
    names = ["a", "b", "c", "d", "e"]
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url, tail_events=1)
        async with Hub(history) as hub:
            await history.append([Update(SSEEvent("x", id="i"), [name]) for name in names])
            for name in names:
                update = Update(SSEEvent("x", id="i"), [name], private=True)
                await history.append([update] * 700)
            await hub.publish("end", topics=["end"])
            await command(server.port, "CONFIG", "RESETSTAT")
            found = await history.find("i", selection=Selection(names), allow=Selection([]))
            assert found == 1
            calls = await command(server.port, "INFO", "commandstats")
            assert called(calls, "xrange") == 3505
            assert called(calls, "zrevrangebylex") == 5
            assert called(calls, "eval") + called(calls, "evalsha") >= 3


async def test_topics_are_merged_as_if_all_was_gone_through(tmp_path: Path) -> None:
    """Forward and backward, in pages of any size, whichever topics share records."""
    chance = random.Random(1)  # noqa: S311 - the same each time
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url, tail_events=1)
        names = [f"t{number}" for number in range(250)]
        weights = [chance.choice([1, 1, 20, 300]) for _ in names]
        chosen = [set(chance.choices(names, weights, k=chance.randint(1, 3))) for _ in range(600)]
        async with Hub(history) as hub:
            for topics in chosen:
                await history.append([Update(SSEEvent("x"), topics)])
            await hub.publish("end", topics=["end"])
            for _ in range(20):
                selection = Selection(chance.sample(names, chance.randint(1, len(names))))
                wanted = [at for at, topics in enumerate(chosen, 1) if selection.matches([*topics])]
                found: list[int] = []
                after, more = 0, True
                while more:
                    sizes = {"max_records": chance.choice([1, 7, 99]), "max_bytes": 999}
                    page = await history.read(after, selection=selection, **sizes)
                    found += [record.position for record in page.records]
                    after, more = page.last, page.more
                assert found == wanted
                for last in (1, 5, 50, 400):
                    before = await history.position_before_last(
                        last, selection=selection, allow=Selection()
                    )
                    assert before == (wanted[-last] - 1 if len(wanted) >= last else 0)


async def test_marks_are_bounded(tmp_path: Path) -> None:
    """Beyond 16 MiB of memory those noted longest ago are folded into a floor, for all topics."""
    async with redis_server(tmp_path) as server:
        history, other = (RedisHistory(server.url, max_events=10) for _ in range(2))
        async with Hub(history):
            topics = (f"{'x' * 990}{number}" for number in range(18_000))
            while batch := list(itertools.islice(topics, 500)):
                await history.append([Update(SSEEvent("x"), [topic]) for topic in batch])
            assert await count(server.port, "HLEN", "{h3trio}:marks") < 13_500
        async with other:
            assert 4000 < other.gaps.floor < 6000
            assert other.gaps.has_gap(Selection(["any"]), other.gaps.floor - 1)
            assert not other.gaps.has_gap(Selection(["any"]), other.gaps.floor)


async def test_bytes_are_bounded(tmp_path: Path) -> None:
    """In all and of one topic; the newest stays, however large."""
    async with redis_server(tmp_path) as server:
        history = RedisHistory(server.url, max_bytes=1000, max_topic_bytes=500)
        async with Hub(history) as hub:
            for number in range(30):
                await hub.publish("x" * 100, topics=[f"t{number % 3}"])
            kept = history.statistics()
            assert 700 < kept.bytes <= 1000
            for _ in range(9):
                await hub.publish("x" * 100, topics=["t0"])
            of_topic = await history.read(
                0, selection=Selection(["t0"]), max_records=99, max_bytes=99_999
            )
            assert 300 < sum(len(record.frame) for record in of_topic.records) <= 500
            await hub.publish("x" * 5000, topics=["t0"])
            assert history.statistics().events == 1


async def test_it_passes_the_suite(tmp_path: Path) -> None:
    """It keeps every rule of a history that several hubs share."""
    async with redis_server(tmp_path) as server:
        histories = Histories(server)
        await check_history(
            histories.make,
            make_small=histories.small,
            reopen=histories.share,
            share=histories.share,
        )
