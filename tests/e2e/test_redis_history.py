"""`RedisHistory` on a real server: the suite of every history, and of those that hubs share."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from e2e.redis_server import redis_server

from h3trio.hub import History, RedisHistory
from h3trio.testing import check_history

if TYPE_CHECKING:
    from pathlib import Path

    from e2e.redis_server import RedisServer


class Histories:
    """Makes histories of one server, each under a prefix of its own unless it is shared."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._numbers = count(1)
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
