"""Anonymous rights over HTTP, as a proxy, a web page or a rebound name would try them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from e2e.process import ServeProcess, connect, fetch

if TYPE_CHECKING:
    import trio

FOREIGN = {
    "a foreign name": {"Host": "example.com"},
    "RFC 7239": {"Forwarded": "for=192.0.2.1"},
    "what most proxies add": {"X-FORWARDED-FOR": "192.0.2.1"},
    "its relatives": {"X-Forwarded-Host": "localhost"},
    "a proxy's name": {"Via": "1.1 proxy"},
    "another site": {"Origin": "http://example.com"},
    "another port": {"Origin": "http://localhost:1"},
    "a sandboxed page": {"Origin": "null"},
}


async def statuses(served: ServeProcess, headers: dict[str, str]) -> tuple[int, int, int]:
    """Return what publishing, subscribing and asking for the page are answered."""
    published = await fetch(served.port, "POST", "/events/news", headers=headers, body=b"hi")
    async with await connect(served.port) as connection:
        head = await connection.ask("GET", "/events/news", headers=headers)
        if published.status == 403:
            flag = b"--cors-origin" if "Origin" in headers else b"--allow-anonymous-publish"
            assert flag in published.body
        if head.status_code == 403:
            assert b"--allow-anonymous-subscribe" in await connection.piece()
    page = await fetch(served.port, headers=headers)
    assert (page.status == 403) is (b"--allow-anonymous-operate" in page.body)
    return published.status, head.status_code, page.status


async def test_only_this_machine_may(nursery: trio.Nursery) -> None:
    """A program on this machine may do everything; what may come from elsewhere is 403."""
    served = await ServeProcess.start(nursery)
    host = f"localhost:{served.port}"
    for local in ({}, {"Host": host}, {"Host": host, "Origin": f"http://{host}"}):
        assert await statuses(served, local) == (200, 200, 200)
    for headers in FOREIGN.values():
        assert await statuses(served, headers) == (403, 403, 403), headers


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--allow-anonymous-publish", (200, 403, 403)),
        ("--allow-anonymous-subscribe", (403, 200, 403)),
        ("--allow-anonymous-operate", (403, 403, 200)),
    ],
)
async def test_each_flag_gives_one_right(
    nursery: trio.Nursery, flag: str, expected: tuple[int, int, int]
) -> None:
    """The flag that the refusal names gives that right to anyone, and no other.

    Only that another site's page has a browser publish takes a word about that site.
    """
    served = await ServeProcess.start(nursery, flag)
    for headers in FOREIGN.values():
        published = 403 if "Origin" in headers else expected[0]
        assert await statuses(served, headers) == (published, *expected[1:]), headers


@pytest.mark.parametrize(
    ("flags", "environ"),
    [
        (("--cors-origin", "https://a.example", "--cors-origin", "https://b.example"), {}),
        (("--cors-origin", "https://a.example,https://b.example"), {}),
        ((), {"H3TRIO_CORS_ORIGINS": "https://a.example, https://b.example"}),
    ],
    ids=["repeated", "by commas", "from the environment"],
)
async def test_a_cors_origin(
    nursery: trio.Nursery, flags: tuple[str, ...], environ: dict[str, str]
) -> None:
    """Pages of these origins may do what this machine may, and read the answer."""
    served = await ServeProcess.start(nursery, *flags, environ=environ)
    for name, expected in (("a", 200), ("b", 200), ("c", 403)):
        origin = f"https://{name}.example"
        assert await statuses(served, {"Origin": origin}) == (expected,) * 3
        answer = await fetch(served.port, headers={"Origin": origin})
        allowed = answer.headers.get("access-control-allow-origin")
        assert allowed == (origin if expected == 200 else None)
        assert "Origin" in answer.headers["vary"]


async def test_a_cors_origin_that_is_none(nursery: trio.Nursery) -> None:
    """What no browser sends as its origin is one line, and status 2."""
    for origin in ("https://a.example/", "*,https://a.example"):
        served = await ServeProcess.launch(nursery, "--cors-origin", origin)
        assert await served.wait() == 2
        (line,) = served.log
        assert "--cors-origin" in line


async def test_an_allowed_origin(nursery: trio.Nursery) -> None:
    """The page of an origin that was allowed may, another one may not."""
    allowed = "https://a.example, https://b.example"
    served = await ServeProcess.start(nursery, "--allow-origin", allowed)
    assert await statuses(served, {"Origin": "https://b.example"}) == (200, 200, 200)
    assert await statuses(served, {"Origin": "https://c.example"}) == (403, 403, 403)
