"""`add_dashboard`: the routes of the dashboard, a page of plain files that reads the hub's streams.

The files lie in `static/`, are read once and kept: no text of a request becomes a file name, so
there is no path to escape from. They aren't built, and name nothing outside of the hub. Each has an
`ETag` of its content and is asked for again each time (`no-cache`): after an update a browser never
runs files of two versions, and without one a 304 is short.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final, final

from h3trio import HTTPError, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from h3trio import App, H3Event

    Check = Callable[[H3Event], Awaitable[object]]
    Send = Callable[[H3Event], Awaitable[Response]]

PAGE: Final = "index.html"
_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",  # RFC 9239 section 6
    ".svg": "image/svg+xml",
}
PAGE_HEADERS: Final = {
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'none'",
            *(f"{name} 'self'" for name in ("script-src", "style-src", "connect-src", "img-src")),
            *(f"{name} 'none'" for name in ("base-uri", "form-action", "frame-ancestors")),
            # What is published is shown as text: no script of ours makes markup of a string.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    ),
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}
"""Headers of the page, beside those of every answer."""


@final
@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file as it is sent."""

    body: bytes
    content_type: str
    etag: str


@cache
def static_files() -> Mapping[str, StaticFile]:
    """Read the files of the dashboard, by name."""
    found: dict[str, StaticFile] = {}
    for entry in files("h3trio.hubserver").joinpath("static").iterdir():
        if (content_type := _TYPES.get(entry.name[entry.name.rfind(".") :])) is not None:
            etag = f'"{hashlib.sha256(body := entry.read_bytes()).hexdigest()[:32]}"'
            found[entry.name] = StaticFile(body, content_type, etag)
    return found


def add_dashboard(app: App, check: Check, *, takes_tokens: bool) -> None:
    """Route the page at `/`, and what it loads below `/static/`.

    Args:
        app: where to.
        check: raises `HTTPError` for a request that may not see it.
        takes_tokens: whether a token may allow what is refused without one. A browser asks for a
            page without a token, and the page is where one is entered: so the page itself is the
            body of its refusal to a browser, and its files, which are no secret, come to anyone.
            Programs get a refusal in words.
    """
    for name, file in static_files().items():
        if name == PAGE:
            app.get("/")(_make_send(file, check, shows_refusal=takes_tokens))
        else:
            app.get(f"/static/{name}")(_make_send(file, None if takes_tokens else check))


def _make_send(file: StaticFile, check: Check | None, *, shows_refusal: bool = False) -> Send:
    is_page = file.content_type == _TYPES[".html"]
    headers = {"ETag": file.etag, "Cache-Control": "no-cache", **(PAGE_HEADERS if is_page else {})}

    async def send(event: H3Event) -> Response:
        if shows_refusal:
            event.response_headers["Vary"] = "Accept"
        try:
            if check is not None:
                await check(event)
        except HTTPError as refusal:
            # Programs ask for `*/*`; only a browser names HTML.
            if not shows_refusal or "text/html" not in event.headers.get("accept", "").lower():
                raise
            status = refusal.status
            own = {**PAGE_HEADERS, **refusal.headers, "Cache-Control": "no-store"}
            return Response(file.body, status=status, content_type=file.content_type, headers=own)
        if _has(event, file.etag):
            return Response(status=304, headers=headers)
        return Response(file.body, content_type=file.content_type, headers=headers)

    return send


def _has(event: H3Event, etag: str) -> bool:
    """Whether the client holds this very file (RFC 9110 section 13.1.2, compared weakly)."""
    asked = ",".join(event.headers.get_list("if-none-match")).split(",")
    return any(tag.strip().removeprefix("W/") in (etag, "*") for tag in asked)
