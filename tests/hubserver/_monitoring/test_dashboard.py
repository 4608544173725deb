"""The dashboard as files: how they are served, what they name, and what their policy allows."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import trio
from helpers import Head, connect, request

from h3trio.hub import Hub
from h3trio.hubserver import AccessControl, create_app
from h3trio.hubserver._monitoring.dashboard import PAGE, PAGE_HEADERS, static_files

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from h3trio import H3Event
    from h3trio.hubserver import Grant

    Get = Callable[..., Awaitable[tuple[Head, bytes]]]

FILES = static_files()
NAMES = sorted(FILES)
SCRIPTS = [name for name in NAMES if name.endswith(".js")]


def text_of(name: str) -> str:
    """Read one of the files."""
    return FILES[name].body.decode()


def path_of(name: str) -> str:
    """Name the path at which a file is served."""
    return "/" if name == PAGE else f"/static/{name}"


@pytest.fixture
async def get(nursery: trio.Nursery) -> AsyncGenerator[Get]:
    """Ask a running hub for a path."""

    async def get_(path: str, *lines: str, method: str = "GET") -> tuple[Head, bytes]:
        client = connect(nursery, app)
        await client.send(
            request(path, *lines, method=method).replace(b"Host: test", b"Host: localhost")
        )
        return (await client.head(), b"") if method == "HEAD" else await client.response()

    async with Hub() as hub:
        app = create_app(hub)
        yield get_
        nursery.cancel_scope.cancel()


async def test_each_file_is_served(subtests: pytest.Subtests, get: Get) -> None:
    """Every file comes whole, with its type, to be asked for again each time."""
    for name in NAMES:
        with subtests.test(name=name):
            types = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
            head, body = await get(path_of(name))
            assert (head.status, body) == (200, FILES[name].body)
            ending = name.rpartition(".")[2]
            assert head.headers["content-type"] in (
                f"{types.get(ending)}; charset=utf-8",
                "image/svg+xml",
            )
            assert head.headers["x-content-type-options"] == "nosniff"
            assert head.headers["cache-control"] == "no-cache"
            assert head.headers["etag"] == FILES[name].etag
            same = (await get(path_of(name), method="HEAD"))[0]
            assert (same.status, {**same.headers, "date": ""}) == (
                200,
                {**head.headers, "date": ""},
            )


CONDITIONS = [
    (["If-None-Match: {}"], 304),
    (["If-None-Match: W/{}"], 304),
    (['If-None-Match: "other", {}'], 304),
    (['If-None-Match: "other"', "If-None-Match: {}"], 304),
    (["If-None-Match: *"], 304),
    (['If-None-Match: "other"'], 200),
    (["If-None-Match: "], 200),
]


async def test_what_a_browser_holds_isnt_sent_again(subtests: pytest.Subtests, get: Get) -> None:
    """A browser that holds this very file gets a 304, and what it needs to go on using it."""
    for lines, status in CONDITIONS:
        with subtests.test(lines=lines, status=status):
            etag = FILES[PAGE].etag
            head, body = await get("/", *(line.format(etag) for line in lines))
            assert head.status == status
            assert bool(body) is (status == 200)
            assert head.headers["etag"] == etag
            assert head.headers["content-security-policy"]


def test_another_text_has_another_tag() -> None:
    """No two files have the same ETag, so an update is seen."""
    assert len({file.etag for file in FILES.values()}) == len(FILES)


async def test_it_is_for_this_machine(subtests: pytest.Subtests, get: Get) -> None:
    """Through a proxy the page and its files are a 403 that names the flag."""
    for name in NAMES:
        with subtests.test(name=name):
            head, body = await get(path_of(name), "X-Forwarded-For: 10.0.0.1")
            assert head.status == 403
            assert b"--allow-anonymous-operate" in body


async def test_with_tokens_the_refusal_takes_one(nursery: trio.Nursery) -> None:
    """With tokens a refusal is the page for a browser, to enter one, and words for programs."""

    async def nobody(_event: H3Event) -> Grant | None:
        await trio.lowlevel.checkpoint()
        return None

    async with Hub() as hub:
        app = create_app(hub, access=AccessControl(authenticator=nobody))
        for path, accept, status, shown in (
            ("/", "text/html,application/xhtml+xml,*/*;q=0.8", 403, FILES[PAGE].body),
            ("/", "*/*", 403, b"--allow-anonymous-operate"),
            ("/static/stream.js", "*/*", 200, FILES["stream.js"].body),
            ("/statistics", "text/html", 401, b"--allow-anonymous-operate"),
        ):
            client = connect(nursery, app)
            lines = ("X-Forwarded-For: 10.0.0.1", f"Accept: {accept}")
            await client.send(request(path, *lines))
            head, body = await client.response()
            assert (head.status, shown in body) == (status, True)
            assert (head.headers.get("vary") == "accept") is (path == "/")
            if shown is FILES[PAGE].body:
                assert head.headers["content-security-policy"]
                assert head.headers["cache-control"] == "no-store"
        nursery.cancel_scope.cancel()


OTHER_PATHS = [
    "/static/",
    "/static/index.html",
    "/static/../_app.py",
    "/static/%2e%2e/_app.py",
    "/static/..%2f_app.py",
    "/static//etc/passwd",
]


async def test_nothing_else_is_served(subtests: pytest.Subtests, get: Get) -> None:
    """A path that is no file of the dashboard is 404, whatever it looks like."""
    for path in OTHER_PATHS:
        with subtests.test(path=path):
            assert (await get(path))[0].status == 404


def test_the_policy_allows_what_is_there_and_nothing_else() -> None:
    """Scripts, styles, pictures and requests of the hub itself; no inline code; no frames."""
    policy = dict(
        directive.split(" ", 1) for directive in PAGE_HEADERS["Content-Security-Policy"].split("; ")
    )
    assert policy == {
        "default-src": "'none'",
        "script-src": "'self'",
        "style-src": "'self'",
        "connect-src": "'self'",
        "img-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
        "require-trusted-types-for": "'script'",
        "trusted-types": "'none'",
    }


def test_the_page_has_no_code_of_its_own() -> None:
    """The page has no inline script or style, which the policy would keep from working."""
    page = text_of(PAGE)
    assert re.findall(r"<script(?![^>]* src=)", page) == []
    assert re.findall(r"<style| style=| on\w+=|javascript:", page) == []


def test_nothing_comes_from_elsewhere(subtests: pytest.Subtests) -> None:
    """No file names a host; what a file names is there too, by a relative path."""
    for name in NAMES:
        with subtests.test(name=name):
            text = text_of(name).replace("http://www.w3.org/2000/svg", "")
            assert re.findall(r"https?://|\b(?:src|href)=\"/|url\(", text) == []
            named = re.findall(r'\b(?:src|href)="([^"#]+)"', text)
            imported = re.findall(r'(?:from|import\() ?"\./([^"]+)"', text)
            assert {*(path.removeprefix("static/") for path in named), *imported} <= set(NAMES)


def test_no_script_makes_markup_of_text(subtests: pytest.Subtests) -> None:
    """Events are only ever shown as text."""
    for name in SCRIPTS:
        with subtests.test(name=name):
            forbidden = (
                r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function"
            )
            assert re.findall(forbidden, text_of(name)) == []
            assert text_of(name).startswith("// @ts-check\n")


def test_every_file_is_used() -> None:
    """The page leads to each file, directly or through others."""
    found, new = set[str](), {PAGE}
    while new:
        found |= new
        texts = " ".join(map(text_of, new))
        new = {name for name in NAMES if f'/{name}"' in texts} - found
    assert found == set(NAMES)


# -- colours

PAIRS = [
    *((text, back) for text in ("text", "quiet", "accent") for back in ("page", "surface")),
    *((text, "surface") for text in ("good", "warn", "bad")),
    *((text, "page") for text in ("good", "warn", "bad")),
    ("on-accent", "accent"),
    ("warn", "gap"),
]


def luminance(colour: str) -> float:
    """Compute the relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_text_can_be_read(subtests: pytest.Subtests) -> None:
    """Every colour of text has a contrast of 4.5 to what is behind it (WCAG 2.2, 1.4.3)."""
    for scheme in [0, 1]:
        for text, back in PAIRS:
            with subtests.test(scheme=scheme, text=text, back=back):
                blocks = re.findall(r":root \{(.*?)\}", text_of("dashboard.css"), re.DOTALL)
                colours = [dict(re.findall(r"--([\w-]+): (#\w+);", block)) for block in blocks]
                assert colours[0].keys() == colours[1].keys()
                light, dark = sorted(
                    (luminance(colours[scheme][name]) for name in (text, back)), reverse=True
                )
                assert (light + 0.05) / (dark + 0.05) >= 4.5
