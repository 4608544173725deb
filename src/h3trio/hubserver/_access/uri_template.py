"""`Template`: a URI template (RFC 6570) as a topic selector.

Of RFC 6570 it understands `{name}`, which stands for one segment, and `{+name}`, which stands for
anything. A text with another expression is a topic like any other, so it gives no other right.

A template is matched part by part. The places in a topic that one part may end at are the bits of
one number, so a part costs a few operations on numbers, however long the topic is and however many
ways there are to divide it: a regular expression would go back and forth between several `{+name}`.

A grant's rights are asked for each private record and each publish. So its templates are one
matcher, `Templates`, which looks at a topic once for all of them, and keeps its answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_EXPRESSIONS: Final = 16
"""Expressions of one template."""

MAX_ANSWERS: Final = 64
"""Topics whose answer the templates of one grant keep: some KiB, as there may be a grant for each
stream. A hub's busy topics are mostly fewer; another topic costs matching it."""
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
        """Whether the template can expand to the topic, each variable to one character or more."""
        return self.matches_letters(_Letters(topic))

    @property
    def prefix(self) -> str:
        """The literal text that it begins with, maybe none."""
        first = self.parts[0]
        return first if isinstance(first, str) else ""

    def matches_letters(self, letters: _Letters) -> bool:
        """Answer as `matches` for a topic that was looked at."""
        places = 1
        for part in self.parts:
            places = letters.behind(part, places)
            if not places:
                return False
        return places >> letters.size == 1


@final
class Templates:
    """Several templates as one `TopicMatcher`; equal to another of the same ones."""

    __slots__ = ("_answers", "_hash", "_prefixed", "_templates")

    def __init__(self, templates: Iterable[Template]) -> None:
        self._templates = frozenset(templates)
        # Mostly a topic begins as none of them does, and that is quickly seen.
        self._prefixed = [(one.prefix, one) for one in self._templates]
        self._hash = hash(self._templates)
        self._answers: dict[str, bool] = {}

    def __repr__(self) -> str:
        return f"<Templates: {', '.join(sorted(one.text for one in self._templates))}>"

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Templates):
            return NotImplemented
        return self._templates == other._templates

    def __len__(self) -> int:
        return len(self._templates)

    def matches(self, topic: str, /) -> bool:
        """Whether one of the templates can expand to the topic."""
        answer = self._answers.get(topic)
        if answer is None:
            answer = self._ask(topic)
            if len(self._answers) >= MAX_ANSWERS:
                self._answers.clear()
            self._answers[topic] = answer
        return answer

    def _ask(self, topic: str) -> bool:
        some = [one for prefix, one in self._prefixed if topic.startswith(prefix)]
        if not some:
            return False
        letters = _Letters(topic)
        return any(one.matches_letters(letters) for one in some)


@final
class _Letters:
    """A topic as numbers: bit n of the number of a character is set where it is the n-th one."""

    __slots__ = ("_masks", "_unreserved", "size")

    def __init__(self, topic: str) -> None:
        self.size = len(topic)
        masks: dict[str, int] = {}
        for at, char in enumerate(topic):
            masks[char] = masks.get(char, 0) | 1 << at
        self._masks = masks
        self._unreserved = sum(mask for char, mask in masks.items() if char not in _RESERVED)

    def behind(self, part: str | bool, places: int) -> int:  # noqa: FBT001 - see `Template`
        """Return where a part may end that begins at one of some places."""
        if isinstance(part, str):
            for at, char in enumerate(part):
                places &= self._masks.get(char, 0) >> at
            return places << len(part)
        if part:  # everywhere behind the first place
            first = places & -places
            return (1 << self.size + 1) - (first << 1)
        # From each place on as far as the run of unreserved characters goes that it stands in. The
        # addition carries from a run's first place to the end of the run, as in Myers' algorithm
        # (Journal of the ACM 46, 1999).
        runs = self._unreserved
        starts = places & runs
        return ((((starts + runs) ^ runs) | starts) & runs) << 1
