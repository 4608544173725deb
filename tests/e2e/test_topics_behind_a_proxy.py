"""Topics of any text through nginx, which rewrites the path of a request: commands, dashboard, hub.

With `proxy_pass http://hub/;` below a location, nginx decodes a path, joins its slashes, resolves
its dots and writes it anew. The query it passes on as it is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING
from urllib.parse import quote

import pytest
import trio
from e2e.fronts import NGINX_MAIN, Site, run_front
from e2e.process import ServeProcess, fetch
from e2e.test_cli_publish_tail import Command, run
from tools import require_tool

if TYPE_CHECKING:
    from pathlib import Path

TOPICS = ("https://example.com/books/1", "./a/../b", "..", "a%2Fb", "é a+b&c#d?e", "100%;")


@pytest.fixture
async def through(nursery: trio.Nursery, tmp_path: Path) -> tuple[int, str]:
    """Start a hub behind nginx; return the hub's port, and its address through nginx."""
    flags = ("--allow-anonymous-publish", "--allow-anonymous-subscribe")
    served = await ServeProcess.start(nursery, *flags)
    site = Site(tmp_path, f"127.0.0.1:{served.port}")
    where = f"location /hub/ {{ proxy_pass http://{site.hub}/; proxy_buffering off; }}"
    (tmp_path / "h3trio.conf").write_text(f"server {{ listen 127.0.0.1:{site.port}; {where} }}")
    (tmp_path / "nginx.conf").write_text(NGINX_MAIN.format(user="", folder=tmp_path))
    paths = ("-p", str(tmp_path), "-c", str(tmp_path / "nginx.conf"), "-e", "stderr")
    await run_front(nursery, [require_tool("nginx"), *paths], site)
    return served.port, f"http://127.0.0.1:{site.port}/hub"


async def test_an_event_goes_to_the_topic_that_was_named(
    nursery: trio.Nursery, through: tuple[int, str]
) -> None:
    """`publish` and `tail` mean the same topic, whatever it holds and whatever nginx rewrites."""
    _, url = through
    for topic in TOPICS:
        tail = await Command.tail(nursery, topic, "--url", url, "--count", "1")
        assert await run("publish", "--quiet", "--url", url, topic, topic) == (0, "", "")
        with trio.fail_after(10):
            assert await tail.out.next() == topic
        # By `--first` the query is made anew.
        again = ("--url", url, "--count", "1", "--quiet", "--first", "oldest")
        assert await run("tail", topic, *again) == (0, f"{topic}\n", "")
    nursery.cancel_scope.cancel()


async def test_one_event_for_all_of_them(nursery: trio.Nursery, through: tuple[int, str]) -> None:
    """`--topic` adds topics to an event, and `tail` of several of them prints it once."""
    port, url = through
    first, *others = TOPICS
    more = [word for topic in others for word in ("-t", topic)]
    status, out, err = await run("publish", "--url", url, first, "x", *more)
    assert (status, err) == (0, "")
    counted = ("--url", url, "--first", "oldest", "--count", "1", "--quiet", "--json")
    status, printed, err = await run("tail", *TOPICS, *counted)
    assert (status, err, json.loads(printed)["id"]) == (0, "", out.strip())
    answer = await fetch(port, "GET", "/statistics", headers={"Accept": "application/json"})
    assert json.loads(answer.body)["hub"]["published"] == 1
    nursery.cancel_scope.cancel()


async def test_purging_through_a_proxy(nursery: trio.Nursery, through: tuple[int, str]) -> None:
    """DELETE by the query removes the events of the topics that were named, and no others."""
    port, url = through
    for topic in TOPICS:
        await run("publish", "--quiet", "--url", url, topic, "x")
    proxy = int(url.removesuffix("/hub").rpartition(":")[2])
    for topic in TOPICS:
        path = f"/events?topic={quote(topic, safe='')}"
        answer = await fetch(proxy, "DELETE", f"/hub{path}")
        assert json.loads(answer.body) == {"purged": 1}, topic
        assert json.loads((await fetch(port, "DELETE", path)).body) == {"purged": 0}
    nursery.cancel_scope.cancel()
