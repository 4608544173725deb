"""`Template`: a URI template (RFC 6570) as a topic selector.

Of RFC 6570 it understands `{name}`, which stands for one segment, and `{+name}`, which stands for
anything. A text with another expression is a topic like any other, so it gives no other right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final, final

MAX_EXPRESSIONS: Final = 16
"""Expressions of one template. Matching costs their number times the topic's length."""
_EXPRESSION: Final = re.compile(r"\{(\+?)[A-Za-z0-9_.%]+\}")
# RFC 3986 section 2.2: `{name}` never expands to one of these unless it is percent-encoded.
_RESERVED: Final = frozenset(":/?#[]@!$&'()*+,;=")


@final
@dataclass(frozen=True, slots=True, repr=False)
class Template:
    """A URI template as a `TopicMatcher`."""

    text: str
    parts: tuple[str | bool, ...] = field(compare=False)
    """A literal is text; an expression is whether reserved characters may stand in it."""

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

    def matches(self, topic: str, /) -> bool:
        """Whether the template can expand to the topic, each variable to one character or more.

        All ways to divide the topic are followed at once, so none is ever tried twice: a regular
        expression would go back and forth between several `{+name}`.
        """
        places = {0}
        for part in self.parts:
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
