"""What a request may do: the value that every way of telling who asks comes to.

An `Authenticator` turns a request into a `Grant`, or into `None` where the
request says nothing of who asks. Everything behind it (routes, limits, the end
of a stream) knows grants only, so a program can bring an authenticator of its
own: sessions of a web framework, client certificates, an API key.

Topics are given as Mercure's selectors: `*` for all, a topic, or a URI template.
Of RFC 6570 templates understand `{name}`, which stands for one segment, and
`{+name}`, which stands for anything. Another expression makes a text a topic
like any other, so what isn't understood gives no right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, final

from h3trio.hub import Selection

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from h3trio import H3Event
    from h3trio.hub import TopicMatcher

NO_TOPICS: Final = Selection()
ALL_TOPICS: Final = Selection(["*"])

MAX_EXPRESSIONS: Final = 16
"""Expressions of one template. Matching costs their number times the topic's length."""

_EXPRESSION: Final = re.compile(r"\{(\+?)[A-Za-z0-9_.%]+\}")
# RFC 3986 section 2.2: what `{name}` never expands to unless percent-encoded.
_RESERVED: Final = frozenset(":/?#[]@!$&'()*+,;=")


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What whoever sent a request may do, until when."""

    publish: Selection = NO_TOPICS
    """Topics it may publish to, and purge."""
    subscribe: Selection | None = None
    """Topics whose private events it may see. `None`: it may not subscribe; an
    empty selection: to public events only."""
    operate: bool = False
    """Whether it may see the page, the health, the statistics and the metrics."""
    expires: float | None = None
    """Unix time in seconds at which all of it ends, streams too; `None` for never."""
    subject: str = ""
    """Who it is, for limits, for `Hub.kick` and for the log; `""` if that isn't known."""


class Authenticator(Protocol):
    """`await authenticator(event)`: tell what a request may do.

    It is asked before the answer begins and, for a stream, again every
    `Limits.recheck_interval`. `None` is for a request that doesn't say who
    asks; what anyone may do is then up to `Rights`.

    Raises:
        HTTPError: 401 for credentials that aren't good, 400 for what can't be read.
    """

    async def __call__(self, event: H3Event, /) -> Grant | None: ...


def selection_of(selectors: Iterable[str]) -> Selection:
    """Gather topic selectors: `*`, topics, and URI templates."""
    found: list[str | TopicMatcher] = []
    for text in selectors:
        found.append(text)
        if (template := Template.parse(text)) is not None:
            found.append(template)
    return Selection(found)


def members(selection: Selection) -> Sequence[str | TopicMatcher]:
    """List what a selection was made of, as `Hub.subscribe` takes it."""
    return ("*",) if selection.everything else (*selection.topics, *selection.matchers)


@final
class Template:
    """A URI template as a `TopicMatcher`."""

    __slots__ = ("_parts", "text")

    def __init__(self, text: str, parts: tuple[str | bool, ...]) -> None:
        self.text = text
        # A literal is text; an expression is whether reserved characters may stand in it.
        self._parts = parts

    @classmethod
    def parse(cls, text: str) -> Template | None:
        """Read a template; `None` if a text has no expression, one too many, or another kind."""
        parts: list[str | bool] = []
        at = 0
        for found in _EXPRESSION.finditer(text):
            parts += [text[at : found.start()], found[1] == "+"]
            at = found.end()
        parts.append(text[at:])
        count = len(parts) // 2
        literal = "".join(part for part in parts if isinstance(part, str))
        if not 0 < count <= MAX_EXPRESSIONS or "{" in literal or "}" in literal:
            return None
        return cls(text, tuple(part for part in parts if part != ""))

    def __repr__(self) -> str:
        return f"<Template: {self.text}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and self.text == other.text

    def __hash__(self) -> int:
        return hash((Template, self.text))

    def matches(self, topic: str, /) -> bool:
        """Whether the template can expand to the topic, each variable to one character or more.

        All ways to divide the topic are followed at once, so none is ever tried twice: a regular
        expression would go back and forth between several `{+name}`.
        """
        places = {0}
        for part in self._parts:
            places = _behind(part, topic, places)
        return len(topic) in places


def _behind(part: str | bool, topic: str, places: set[int]) -> set[int]:  # noqa: FBT001 - see `Template`
    """Return where a part may end that begins at one of some places."""
    if isinstance(part, str):
        return {at + len(part) for at in places if topic.startswith(part, at)}
    ends: set[int] = set()
    inside = False
    for at, char in enumerate(topic):
        inside = (inside or at in places) and (part or char not in _RESERVED)
        if inside:
            ends.add(at + 1)
    return ends
