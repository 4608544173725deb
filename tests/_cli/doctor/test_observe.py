"""Deployments that do things to their streams, looked at; the clock jumps, so all is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import httpx2
import pytest
import trio
from doctor_site import FIELDS, OPENING, Site, Way
from scripted import Script, stream

from h3trio._cli.doctor.check_head import Severity
from h3trio._cli.doctor.check_stream import diagnose, exit_status
from h3trio._cli.doctor.observe import (
    MAX_RESUMED,
    DoctorPlan,
    _read_events,
    observe,
)

if TYPE_CHECKING:
    from trio.testing import MockClock

    from h3trio import SSEEvent
    from h3trio._cli.doctor.seen import Seen

URL = "http://site/events/news"
PLAN = DoctorPlan(url=URL, wait=20, timeout=10)
PUBLISHING = replace(PLAN, publish_url=URL)
OK, INFO, WARNING, ERROR = Severity


async def look(site: Site, plan: DoctorPlan = PLAN) -> tuple[Seen, dict[str, tuple[Severity, str]]]:
    """Look at a site; return what was seen, and the worst finding of each check."""
    async with site.client() as client:
        seen = await observe(client, plan, lambda _: None)
    found: dict[str, tuple[Severity, str]] = {}
    for finding in diagnose(seen):
        entry = (finding.severity, finding.text)
        found[finding.check] = max(entry, found.get(finding.check, entry))
    assert site.open_streams == 0
    return seen, found


def problems(found: dict[str, tuple[Severity, str]]) -> set[str]:
    """Return the checks that found a problem."""
    return {check for check, (severity, _) in found.items() if severity >= Severity.WARNING}


async def test_nothing_is_wrong_with_a_good_site(autojump_clock: MockClock) -> None:
    """Events are timed, the heartbeat is seen, what was missed comes, and nothing wants doing."""
    site = Site()
    seen, found = await look(site, PUBLISHING)
    assert problems(found) == set()
    assert exit_status(diagnose(seen)) == 0
    assert found["delivery"][1] == "5 published events came one by one, in 0 ms to 0 ms"
    assert found["heartbeat"] == (Severity.OK, "a comment every 15.0 s of silence")
    assert found["resume"][1] == "Last-Event-ID brings the 4 events that followed it"
    assert autojump_clock.current_time() == pytest.approx(20)


async def test_it_asks_as_browsers_do(autojump_clock: MockClock) -> None:
    """The first request accepts what browsers accept; the second one has the id."""
    site = Site()
    await look(site, replace(PUBLISHING, origin="https://page"))
    first, second = site.asked("GET")
    assert first.headers["accept"] == "text/event-stream"
    assert first.headers["accept-encoding"] == "gzip, deflate, br, zstd"
    assert (first.headers["origin"], second.headers["origin"]) == ("https://page", "https://page")
    assert "last-event-id" not in first.headers
    assert second.headers["last-event-id"] == "e-1"
    assert [request.content for request in site.asked("POST")] == [
        b"h3trio doctor " + site.log[0].split()[-2] + b" %d" % n for n in range(5)
    ]
    assert autojump_clock.current_time() < 24


DEPLOYMENTS = [
    # On the way
    (Way(hold_bytes=100), PUBLISHING, "delivery", ERROR, "published events came tog"),
    (Way(hold_bytes=4096), PUBLISHING, "delivery", ERROR, "none of 5 published events"),
    (Way(hold_bytes=4096), PLAN, "first bytes", WARNING, "none within 20 s"),
    (Way(hold_bytes=26), PLAN, "first bytes", WARNING, "came 15.0 s after the head"),
    (Way(delay=1.5, heartbeat=5), PUBLISHING, "first bytes", WARNING, "came 1.5 s"),
    (Way(head_after=3), PLAN, "answer", WARNING, "200, but only after 3.0 s"),
    (Way(head_after=11), PLAN, "answer", ERROR, "no head within 10 s, though HEAD is"),
    (Way(encoding="gzip"), PUBLISHING, "compression", WARNING, "Content-Encoding: gzip"),
    (
        Way(encoding="gzip", flushes=False),
        PUBLISHING,
        "delivery",
        ERROR,
        "none of 5 published events",
    ),
    (Way(encoding="br"), PUBLISHING, "compression", WARNING, "Content-Encoding: br"),
    (Way(encoding="br"), PUBLISHING, "delivery", OK, "5 published events came one by"),
    # What keeps it alive, and ends it
    (Way(heartbeat=60), PLAN, "heartbeat", WARNING, "nothing came for 20 s"),
    (Way(heartbeat=6), PLAN, "heartbeat", OK, "a comment every 6.0 s of silence"),
    (Way(ends_after=3), PLAN, "end", WARNING, "ended after 3.0 s of silence"),
    (Way(ends_after=3, is_cut=True), PLAN, "end", ERROR, "cut off after 3.0 s"),
    (Way(ends_after=0.1), PLAN, "end", WARNING, "ended after 0.1 s"),
    (Way(ends_after=1), PUBLISHING, "end", WARNING, "ended after 1.0 s"),
    # Coming back
    (Way(numbers=False, opening=b":\n"), PUBLISHING, "ids", WARNING, "5 events without"),
    (Way(resumes=False), PUBLISHING, "resume", WARNING, "the event of the id comes"),
    (Way(opening=b":\n"), PLAN, "retry", INFO, "not set"),
    (Way(opening=b"retry: 1\n\n"), PLAN, "retry", WARNING, "1 ms"),
    # The answer
    (Way(status=401), PLAN, "answer", ERROR, "401"),
    (Way(status=404, text=b" no such \n"), PLAN, "answer", ERROR, "404: no such"),
    (Way(status=204), PLAN, "answer", ERROR, "204"),
    (Way(fields={"Content-Type": "text/html"}), PLAN, "type", ERROR, "text/html"),
    (
        Way(fields=FIELDS | {"Content-Length": "9"}),
        PLAN,
        "framing",
        ERROR,
        "Content-Length: 9: it ends there",
    ),
    (Way(redirects={URL: (307, "/there")}), PLAN, "redirect", INFO, "307 to http://s"),
    (Way(redirects={URL: (307, URL)}), PLAN, "answer", ERROR, "the server answered 307"),
    (Way(refuses_posts="no"), PUBLISHING, "delivery", ERROR, "publishing failed: 403: no"),
    (Way(head_status=405), PLAN, "HEAD", INFO, "is answered 405"),
    (Way(), replace(PLAN, origin="http://p"), "origins", ERROR, "pages of http://p can't"),
    (Way(), replace(PLAN, origin="http://p"), "preflight", WARNING, "OPTIONS is answered"),
    (
        Way(allows="Authorization, Last-Event-ID"),
        replace(PLAN, origin="http://p"),
        "preflight",
        OK,
        "allows authorization, last-event-id",
    ),
]


async def test_what_is_wrong_is_found(autojump_clock: MockClock, subtests: pytest.Subtests) -> None:
    """Each thing that a deployment does wrong shows in the finding that is about it."""
    for way, plan, check, severity, text in DEPLOYMENTS:
        with subtests.test(way=way, plan=plan):
            began = autojump_clock.current_time()
            _, found = await look(Site(way), plan)
            assert found[check][0] is severity
            assert found[check][1].startswith(text)
            assert autojump_clock.current_time() <= began + plan.longest


SECRETS = {"Authorization": "Bearer x", "X-Key": "x", "Cookie": "a=x", "Host": "a"}


@pytest.mark.parametrize("there", ["http://other/", "http://site:81/", "https://site/"])
async def test_secrets_stay_at_the_origin_that_they_are_for(
    autojump_clock: MockClock, there: str
) -> None:
    """After a redirect to another origin no request has the token, cookies or `--header`."""
    site = Site(Way(redirects={URL: (307, there)}, allows=""))
    async with site.client() as client:
        client.headers.update(SECRETS)
        seen = await observe(client, replace(PLAN, origin="http://p"), lambda _: None)
    assert seen.is_stream
    away = [request for request in site.requests if str(request.url) == there]
    assert {request.method for request in away} == {"GET", "HEAD", "OPTIONS"}
    for request in away:
        assert request.headers.keys().isdisjoint({"authorization", "x-key", "cookie"})
        assert request.headers["host"] == request.url.netloc.decode()
    (first, _) = (request for request in site.requests if str(request.url) == URL)
    assert first.headers.items() >= {name.lower(): text for name, text in SECRETS.items()}.items()
    assert autojump_clock.current_time() >= PLAN.wait


@pytest.mark.parametrize("there", [URL, "/there", "http://site:80/there"])
async def test_probes_of_the_same_origin_have_the_token(
    autojump_clock: MockClock, there: str
) -> None:
    """Without a redirect, or with one that stays there, HEAD asks with what the stream needed."""
    site = Site(Way(redirects={} if there == URL else {URL: (307, there)}))
    async with site.client() as client:
        client.headers.update(SECRETS)
        await observe(client, PLAN, lambda _: None)
    (head,) = site.asked("HEAD")
    assert head.headers.items() >= {name.lower(): text for name, text in SECRETS.items()}.items()
    assert autojump_clock.current_time() >= PLAN.wait


async def test_a_flood_after_coming_back_is_enough_to_judge(autojump_clock: MockClock) -> None:
    """Of events that say nothing about the way back no more are kept than it takes to see that."""
    script = Script(stream(*[b"data\n\n" * 100] * 1000, ...))
    response = await script.client.send(script.client.build_request("GET", URL), stream=True)
    came: list[SSEEvent] = []
    await _read_events(response, came, wanted=0)
    await response.aclose()
    assert MAX_RESUMED <= len(came) < MAX_RESUMED + 100
    assert autojump_clock.current_time() == 0


async def test_nobody_answers(autojump_clock: MockClock) -> None:
    """A server that can't be reached is the one finding."""

    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("nobody listens", request=request)

    async with httpx2.AsyncClient(transport=httpx2.MockTransport(refuse)) as client:
        seen = await observe(client, PLAN, lambda _: None)
    (finding,) = diagnose(seen)
    assert finding.severity is Severity.ERROR
    assert finding.text == f"can't reach {URL}: nobody listens"
    assert exit_status([finding]) == 3
    assert autojump_clock.current_time() == 0


async def test_everything_has_an_end(autojump_clock: MockClock) -> None:
    """Without any answer it is over in bounded time all the same, and says so."""

    class Deaf(httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            if request.method == "GET" and not hasattr(self, "opened"):
                self.opened = True
                body = Site(Way(opening=OPENING, heartbeat=1))
                return await body.handle_async_request(request)
            await trio.sleep_forever()
            raise AssertionError

    async with httpx2.AsyncClient(transport=Deaf()) as client:
        seen = await observe(client, PUBLISHING, lambda _: None)
    found = {finding.check: finding for finding in diagnose(seen)}
    assert found["HEAD"].text == "HEAD isn't answered within 10 s"
    assert found["delivery"].text == "nothing could be published in time"
    assert found["resume"].text == "no head within 10 s"
    assert autojump_clock.current_time() == pytest.approx(30)


async def test_the_whole_is_bounded_too(autojump_clock: MockClock) -> None:
    """Steps that take their time one after the other are stopped as a whole."""
    plan = replace(PLAN, wait=1, timeout=1)
    hops = {f"http://site/{n}": (307, f"http://site/{n + 1}") for n in range(20)}
    way = Way(redirects=hops, head_after=100)
    async with Site(way).client() as client:
        seen = await observe(client, replace(plan, url="http://site/0"), lambda _: None)
    assert len(seen.hops) == 11
    assert autojump_clock.current_time() < plan.longest
