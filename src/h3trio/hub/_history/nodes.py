"""`Nodes`: the way from a hub to the others that share its history.

A *node* is a hub as these see it: by its name, and by a summary that it tells. The store is where
they meet:

* `meet` leaves a node's summary there for a time (a lease), on the store's clock, and brings back
  those of all. So who died, or lost the store, is a node no more once its time is over, and no two
  machines need the same time of day.
* `ask` brings a question to all others, and their answers back. Nobody is waited for longer than
  who asks wants to; who hasn't answered until then is named.

Questions, answers and summaries are bytes here: what they say is the hubs' affair, so that a store
has no reason to change with it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

MAX_NODES: Final = 64
"""Nodes of one store: each is told the summaries of all, so what they cost grows by the square."""
MAX_QUESTION_BYTES: Final = 16 * 1024
"""Bytes of a question or an answer: room for the longest topic, escaped as JSON."""
MAX_SUMMARY_BYTES: Final = 16 * 1024
"""Bytes of a summary. Those of all nodes are a megabyte."""
MAX_QUESTIONS: Final = 64
"""Questions that may wait at one node; it doesn't answer those beyond."""

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def is_node(name: str) -> bool:
    """Whether this can be the name of a node."""
    return _NAME.fullmatch(name) is not None


def check_node(name: str) -> str:
    """Return the name of a node.

    Raises:
        ValueError: it isn't 1 to 64 letters, digits, `.`, `_` and `-` of ASCII, or begins with one
            of the last three: it is a label in metrics and logs, and a part of keys in a store.
    """
    if not is_node(name):
        raise ValueError(
            f"the name of a node has 1 to 64 letters, digits, '.', '_' and '-', and begins with a "
            f"letter or a digit, not {name!r}"
        )
    return name


@final
@dataclass(frozen=True, slots=True)
class NodeNote:
    """The presence of one node, as a store has it."""

    name: str
    """Its name."""
    summary: bytes
    """What it told last."""
    age: float
    """Seconds since then, by the store's clock."""


@final
@dataclass(frozen=True, slots=True)
class NodeAnswers:
    """The answers to one question."""

    answers: Sequence[tuple[str, bytes]]
    """Those that came in time, each behind the name of its node."""
    silent: Sequence[str]
    """The names of the nodes that gave none."""


class Nodes(ABC):
    """One hub's place among the nodes of a store; `History.join` makes it."""

    @abstractmethod
    async def listen(
        self,
        answer: Callable[[bytes], Awaitable[bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer what others ask, one after the other, until cancelled.

        Started once no question is missed any more: the hub meets the others behind that, so who is
        asked can hear it. The hub runs it again behind an error.

        Args:
            answer: returns the answer to a question; it raises nothing.
            task_status: of `nursery.start`.

        Raises:
            HistoryError: the store can't be reached, or was lost.
        """

    @abstractmethod
    async def meet(self, summary: bytes, *, lease: float) -> Sequence[NodeNote]:
        """Leave a summary for `lease` seconds; return those of all nodes, this one among them.

        A name belongs to the node that came with it last, as one that is started anew may find what
        it left when it died. The other, if it lives, finds that out here, and is no node any more;
        questions it still answers. With `History.aclose` a node leaves at once.

        Raises:
            HistoryError: the store can't be reached; another took the name; or there are
                `MAX_NODES` nodes without this one. The hub tries again next time.
        """

    @abstractmethod
    async def ask(self, question: bytes, *, wait: float, only: str | None = None) -> NodeAnswers:
        """Ask all other nodes, and wait up to `wait` seconds for their answers.

        The nodes that are waited for are those that the store knows in the step that tells them the
        question. If the store is lost meanwhile, the others count as silent.

        Args:
            question: what to ask.
            wait: seconds.
            only: the one node whose answer is of interest. It is silent if it isn't there.

        Raises:
            HistoryError: the store can't be reached; nobody knows whether others were asked.
        """
