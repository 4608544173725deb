"""The site beside a hub: it logs users in, and its page reads the hub on a neighbouring name.

    pip install '.[hub,auth]'
    (umask 077; openssl rand -hex 32 > hub.key)
    export H3TRIO_CORS_ORIGINS=http://app.shop.localhost:8000
    python -m h3trio serve --jwt-key-file hub.key
    python -m h3trio serve examples/hub_browser.py:app --port 8000

http://app.shop.localhost:8000/ shows what is published: log in there as alice. In another shell:

    export H3TRIO_TOKEN=$(python -m h3trio token --publish '*' --key-file hub.key)
    python -m h3trio publish orders '{"order": 7}' --event paid --private

Browsers know that names below `localhost` are this machine. The cookie with the token is for both,
`app.shop.localhost` and `hub.shop.localhost`; elsewhere they are names like `app.example.com`.

The page shows the last 20 events, then those that come. When the token ends the page asks to log in
again, and goes on behind the last event it had. What is kept until then is bounded: by default
10,000 events. If some are gone the hub says so, and the page begins anew.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import jwt

from h3trio import App, H3Event, HTTPError, Response

SITE = os.environ.get("SITE", "http://app.shop.localhost:8000")
HUB = os.environ.get("HUB", "http://hub.shop.localhost:3000")
DOMAIN = "shop.localhost"
KEY = Path(os.environ.get("HUB_KEY", "hub.key")).read_text("ascii").strip()
SECONDS = int(os.environ.get("TOKEN_SECONDS", "600"))
PAGE = Path(__file__).with_suffix(".html").read_text(encoding="utf-8")

# In an application, a table of its database: where a user may publish, and the topics whose private
# events it may see.
USERS = {"alice": {"publish": ["news"], "subscribe": ["orders", "users/alice/{+rest}"]}}

app = App()


@app.get("/")
async def page(_event: H3Event) -> Response:
    """Show the page, which is told where the hub is."""
    return Response.html(PAGE.replace("http://hub.shop.localhost:3000", HUB))


@app.post("/login")
async def login(event: H3Event) -> Response:
    """Give a user a token for the hub, in a cookie that the page's scripts can't read."""
    if event.headers.get("origin") != SITE:
        raise HTTPError(403, "only the page may")
    user = (await event.form()).get("user", "")
    if user not in USERS:
        raise HTTPError(401, "there is no such user")
    claims = {"sub": user, "exp": int(time.time()) + SECONDS, "mercure": USERS[user]}
    token = jwt.encode(claims, KEY, "HS256")
    response = Response("welcome\n")
    # `domain` has the browser send it to the hub too; `http_only` and `secure` are the defaults.
    response.set_cookie(
        "mercureAuthorization", token, domain=DOMAIN, max_age=SECONDS, same_site="strict"
    )
    return response


@app.post("/logout")
async def logout(event: H3Event) -> Response:
    """Take the cookie back; a stream that is open goes on until its token ends."""
    if event.headers.get("origin") != SITE:
        raise HTTPError(403, "only the page may")
    response = Response("bye\n")
    response.delete_cookie("mercureAuthorization", domain=DOMAIN)
    return response
