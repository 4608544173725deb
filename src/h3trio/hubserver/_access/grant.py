"""`Grant`: what a request may do, as an `Authenticator` says.

An `Authenticator` turns a request into a `Grant`, or into `None` if the request doesn't say who
sent it. Routes, limits and the end of a stream know grants only, so a program can bring an
authenticator of its own: sessions of a web framework, client certificates, an API key.

Topics are given as Mercure's selectors: `*` for all, a topic, or a URI template.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from h3trio.hub import Selection

from .uri_template import Template, Templates

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from h3trio import H3Event
    from h3trio.hub import TopicMatcher

NO_TOPICS: Final = Selection()
ALL_TOPICS: Final = Selection(["*"])


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The rights of a request, and their end."""

    publish: Selection = NO_TOPICS
    """Topics it may publish to, and purge; none unless given."""
    subscribe: Selection | None = None
    """Topics whose private events it may see. `None`: it may not subscribe; an
    empty selection: to public events only."""
    operate: bool = False
    """Whether it may see the page, the health, the statistics and the metrics."""
    relay: bool = False
    """Whether it may read the whole log, with private events and the names of all topics."""
    expires: float | None = None
    """Unix time in seconds at which all of it ends, streams too; `None` for never."""
    subject: str = ""
    """The sender's name, for limits, for `Hub.kick` and for the log; `""` if it isn't known."""


class Authenticator(Protocol):
    """`await authenticator(event)`: tell what a request may do.

    It is asked before the answer begins and, for a stream, again every
    `Limits.recheck_interval`. `None` is for a request that doesn't say who sent it, which
    has the rights of `AnonymousAccess`.

    Raises:
        HTTPError: 401 for credentials that aren't good, 400 for what can't be read.
    """

    async def __call__(self, event: H3Event, /) -> Grant | None: ...


def selection_of(selectors: Iterable[str]) -> Selection:
    """Gather topic selectors: `*`, topics, and URI templates."""
    texts = list(selectors)
    templates = [found for found in map(Template.parse, texts) if found is not None]
    return Selection([*texts, Templates(templates)] if templates else texts)


def members(selection: Selection) -> Sequence[str | TopicMatcher]:
    """List what a selection was made of, as `Hub.subscribe` takes it."""
    return ("*",) if selection.everything else (*selection.topics, *selection.matchers)
