"""`HEAD_CHECKS`: findings about the head of an answer, for browsers and for proxies on the way.

Strategy: each check is a generator of findings from a `Seen`, without I/O. A fault that browsers
can't take is an error, one that does harm some day a warning, and a fact that is merely good to
know an info. Every finding but a good one says what to do.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, final
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .seen import Head, Seen

    Check = Callable[[Seen], Iterator["Finding"]]

OK: Final = 200
SLOW_HEAD: Final = 2.0  # seconds


@final
class Severity(enum.IntEnum):
    """The weight of a finding."""

    OK = 0
    INFO = 1
    WARNING = 2
    ERROR = 3


@final
@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check, and advice where something is to do."""

    check: str
    text: str
    advice: str = ""
    severity: Severity = field(kw_only=True)


# The table of checks adds the name.
ok = partial(Finding, "", severity=Severity.OK)
info = partial(Finding, "", severity=Severity.INFO)
warning = partial(Finding, "", severity=Severity.WARNING)
error = partial(Finding, "", severity=Severity.ERROR)


def with_head(check: Callable[[Seen, Head], Iterator[Finding]]) -> Check:
    """Make a check that is left out where there is no stream."""
    return lambda seen: check(seen, seen.head) if seen.head and seen.is_stream else iter(())


# -- the answer

_ADVICE: Final = {
    204: "To EventSource 204 means: never come back. Answer 200 while there may be events.",
    401: "Give --token or --header; a page's EventSource can send no header but cookies.",
    403: "Give --token or --header; the server may also refuse by address or origin.",
    404: "See whether the path is right, and passed on by what is in front of the server.",
    405: "It doesn't answer GET here: is this the address to publish to?",
    406: "It refuses `Accept: text/event-stream`, which is what every EventSource sends.",
    429: "Too many streams or requests of this address; see the limits of what answered.",
    502: "A proxy can't reach the server behind it: see whether it runs, and the proxy's log.",
    503: "The server or a proxy before it is full or going down, or its store is away.",
    504: "A proxy gave up waiting for the head: send it, and a first comment, at once.",
}
_GIVES_UP: Final = "EventSource gives up at any status but 200, and doesn't come back."


BUFFER: Final = (
    "Something on the way waits to fill a buffer. nginx: `proxy_buffering off`, or send "
    "`X-Accel-Buffering: no`; Apache: `flushpackets=on`; and no compression of text/event-stream."
)


# As the client's errors name a variable of the environment that is wrong, or that leads elsewhere.
_OF_THE_ENVIRONMENT: Final = re.compile(
    r"^(SSL_CERT_\w+|\w+_proxy): |\((\w+_proxy) names a proxy\)", re.IGNORECASE
)
_OF_A_HUB: Final = (
    "This is a page; a hub has its own here: give the path of a stream, /events/TOPIC."
)


def is_page(head: Head) -> bool:
    """Tell whether an answer is HTML, such as a proxy's own: nothing to show in a line."""
    return (head.get("content-type") or "").lower().startswith("text/html")


def is_front(seen: Seen) -> bool:
    """Tell whether the answer is the page of a site, as whoever gives no path asks for it."""
    return seen.head is not None and is_page(seen.head) and urlsplit(seen.url).path in ("", "/")


def check_answer(seen: Seen) -> Iterator[Finding]:
    """An EventSource wants 200, and soon (WHATWG HTML, 9.2.3)."""
    head = seen.head
    probe = seen.head_probe
    if seen.is_untrusted:
        return
    if seen.is_silent and probe is not None and probe.head is not None:
        # HEAD, which has no more to wait for, gets a head.
        text = f"{seen.problem}, though HEAD is answered at once: the stream is held back"
        yield error(text, BUFFER)
    elif head is None:
        problem = seen.problem or "there was no answer"
        advice = "See whether it runs, and what a firewall or proxy in between does."
        if variable := _OF_THE_ENVIRONMENT.search(problem):
            advice = f"Correct {variable[1] or variable[2]} in the environment, or unset it."
        yield error(problem, advice)
    elif head.status != OK:
        said = f": {seen.text}" if seen.text and not is_page(head) else ""
        later = f" It asks to wait: Retry-After {head.get('retry-after')}." * (
            "retry-after" in dict(head.fields)
        )
        advice = _OF_A_HUB if is_front(seen) else _ADVICE.get(head.status, _GIVES_UP)
        yield error(f"{head.status}{said}", advice + later)
    elif head.seconds > SLOW_HEAD:
        advice = "Send the head and a comment at once; a proxy may be waiting for the first bytes."
        yield warning(f"200, but only after {head.seconds:.1f} s", advice)
    else:
        yield ok(f"200 after {milliseconds(head.seconds)}")


def check_certificate(seen: Seen) -> Iterator[Finding]:
    """Browsers refuse a certificate that they don't trust, and there is no answer then."""
    head = seen.head
    if seen.is_untrusted:
        advice = "Send the chain; --ca-file or --insecure to go on."
        yield error(seen.problem, f"Browsers refuse it without asking. {advice}")
    elif seen.is_trusting and head is not None and urlsplit(head.url).scheme == "https":
        yield warning("not checked", "Leave out --insecure to have it checked.")


def check_redirects(seen: Seen) -> Iterator[Finding]:
    """EventSource follows redirects; what is lost on the way is the origin, and with it secrets."""
    for hop in seen.hops:
        here, there = urlsplit(hop.url), urlsplit(hop.target)
        text = f"{hop.status} to {hop.target}"
        if (here.scheme, there.scheme) == ("https", "http"):
            yield error(text, "Browsers block plain HTTP in a page that came by HTTPS.")
        elif here.netloc != there.netloc:
            advice = "Another origin: it needs CORS, and cookies and tokens don't go along."
            yield warning(text, advice)
        else:
            yield info(text, "Name the final address: each reconnect takes both steps.")


def check_type(seen: Seen) -> Iterator[Finding]:
    """Anything but text/event-stream makes EventSource give up (WHATWG HTML, 9.2.3)."""
    if seen.head is None or seen.head.status != OK:
        return
    value = seen.head.get("content-type")
    if not seen.is_stream:
        advice = "Send `Content-Type: text/event-stream`, or EventSource gives up."
        advice = _OF_A_HUB if is_front(seen) else advice
        yield error(value or "no Content-Type", advice)
        return
    charset = (value or "").lower().partition("charset=")[2].strip(' "')
    if charset and charset not in ("utf-8", "utf8"):
        yield warning(value or "", "Event streams are UTF-8 whatever a charset says: leave it out.")
    else:
        yield ok(value or "")


# -- what is between


def check_caching(_seen: Seen, head: Head) -> Iterator[Finding]:
    """A cache that keeps a stream waits for its end first."""
    control = head.members("cache-control")
    stored = [f"Age: {head.get('age')}"] if (head.get("age") or "0") != "0" else []
    stored += [f"{name}: {value}" for name, value in head.fields if is_hit(name, value)]
    if stored:
        advice = "A cache answered. Send `Cache-Control: no-cache`, and exempt the path there."
        yield error(", ".join(stored), advice)
    text = head.get("cache-control") or "no Cache-Control"
    if not control & {"no-cache", "no-store"}:
        yield warning(text, "Send `Cache-Control: no-cache, no-transform`.")
    elif "no-transform" not in control:
        advice = "Add `no-transform`: some CDNs and mobile networks compress what may be changed."
        yield info(text, advice)
    else:
        yield ok(text)


def is_hit(name: str, value: str) -> bool:
    """Tell whether a field says that a cache answered, as various ones call it."""
    return name in ("x-cache", "cf-cache-status", "x-cache-status") and "hit" in value.lower()


def check_accel(_seen: Seen, head: Head) -> Iterator[Finding]:
    """Some proxies read X-Accel-Buffering, and nginx keeps it to itself."""
    match head.get("x-accel-buffering"):
        case None:
            text = "no X-Accel-Buffering: it isn't sent, or an nginx has taken it"
            yield info(text, "Send `X-Accel-Buffering: no`: nginx obeys it.")
        case "no":
            yield ok("X-Accel-Buffering: no")
        case other:
            advice = "Send `X-Accel-Buffering: no`, so that nginx passes on each event at once."
            yield warning(f"X-Accel-Buffering: {other}", advice)


def check_framing(_seen: Seen, head: Head) -> Iterator[Finding]:
    """A stream has no length; chunks tell its end from a cut (RFC 9112, 6.3)."""
    length = head.get("content-length")
    if length is not None:
        advice = "Whatever made a length had all of it first: turn its buffering off."
        yield error(f"Content-Length: {length}: it ends there", advice)
    elif "chunked" in head.members("transfer-encoding"):
        yield ok(f"{head.version}, chunked")
    else:
        advice = "Let what is in front speak HTTP/1.1: a cut looks like an end here."
        yield info(f"{head.version}, until the connection closes", advice)


def check_compression(_seen: Seen, head: Head) -> Iterator[Finding]:
    """A compressor holds what doesn't fill its block, unless each event is flushed."""
    encodings = head.members("content-encoding") - {"identity"}
    if encodings:
        advice = (
            "Turn it off for text/event-stream, unless each event is flushed; `Cache-Control: "
            "no-transform` forbids it to proxies."
        )
        yield warning(f"Content-Encoding: {', '.join(sorted(encodings))}", advice)
    else:
        yield ok("none, though it was offered")


# -- pages of other origins


def check_origin(seen: Seen, head: Head) -> Iterator[Finding]:
    """Pages of another origin may read it only if it says so (Fetch, CORS check)."""
    allowed = head.get("access-control-allow-origin")
    with_cookies = (head.get("access-control-allow-credentials") or "") == "true"
    if allowed is None and seen.origin is None:
        text = "only pages of its own origin can read it"
        yield info(text, "If others shall, allow them by CORS, and try --origin.")
    elif allowed == "*" and with_cookies:
        advice = "Browsers refuse * together with credentials: name the origin."
        yield error("any origin, with credentials", advice)
    elif seen.origin is not None and allowed not in ("*", seen.origin):
        text = f"pages of {seen.origin} can't read it"
        found = "is missing" if allowed is None else f"says {allowed}"
        yield error(text, f"Access-Control-Allow-Origin {found}.")
    elif allowed != "*" and not head.members("vary") & {"origin", "*"}:
        advice = "Add `Vary: Origin`: a cache may give this answer to another origin."
        yield warning(f"{allowed}, but no Vary: Origin", advice)
    else:
        cookies = ", with cookies" if with_cookies else ", without cookies"
        yield ok("any" + cookies if allowed == "*" else f"{allowed}{cookies}")


def check_preflight(seen: Seen) -> Iterator[Finding]:
    """EventSource asks nothing before; `fetch` with headers of one's own does (Fetch, 4.9)."""
    probe = seen.preflight
    if probe is None:
        return
    advice = "Only clients made with `fetch` need it: answer OPTIONS, and allow these headers."
    if probe.head is None:
        yield warning(probe.problem, advice)
        return
    allowed = probe.head.members("access-control-allow-headers")
    missing = {"authorization", "last-event-id"} - allowed
    if not 200 <= probe.head.status < 300:  # noqa: PLR2004 - successful
        yield warning(f"OPTIONS is answered {probe.head.status}", advice)
    elif missing:
        yield warning(f"it doesn't allow {' and '.join(sorted(missing))}", advice)
    else:
        yield ok(f"allows {', '.join(sorted(allowed))}")


def check_method_head(seen: Seen) -> Iterator[Finding]:
    """Monitors and link checkers ask with HEAD: they want the head, and an end."""
    probe = seen.head_probe
    if probe is None:
        return
    advice = "Answer HEAD with the head alone: monitors and link checkers ask with it."
    if probe.head is None:
        yield warning(probe.problem, advice)
    elif probe.head.status == OK:
        yield ok("answered, without a body")
    else:
        yield info(f"is answered {probe.head.status}", advice)


# -- connections

_SIX: Final = (
    "browsers open at most six connections to an origin over HTTP/1.1, all tabs together: the "
    "seventh stream waits"
)


def check_connections(seen: Seen, head: Head) -> Iterator[Finding]:
    """Browsers speak HTTP/2 only over TLS, where ALPN chose it (RFC 9113, 3.2)."""
    if seen.offered == "h2":
        yield ok("HTTP/2 is offered: a hundred streams go over one connection")
        return
    if urlsplit(head.url).scheme == "https":
        advice = "Offer HTTP/2 at what ends TLS; or send many topics over one stream."
    else:
        advice = "Put a proxy with TLS and HTTP/2 in front; or send many topics over one stream."
    yield info(_SIX, advice)


def milliseconds(seconds: float) -> str:
    """Write a short time."""
    return f"{max(seconds, 0) * 1000:.0f} ms"


HEAD_CHECKS: Final[Mapping[str, Check]] = {
    "redirect": check_redirects,
    "answer": check_answer,
    "certificate": check_certificate,
    "type": check_type,
    "caching": with_head(check_caching),
    "proxy buffers": with_head(check_accel),
    "framing": with_head(check_framing),
    "compression": with_head(check_compression),
    "origins": with_head(check_origin),
    "preflight": check_preflight,
    "HEAD": check_method_head,
    "connections": with_head(check_connections),
}
