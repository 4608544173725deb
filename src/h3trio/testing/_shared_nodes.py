"""`SharedMemoryNodes`: one hub's place among those that share a `SharedMemoryStore`.

The reference for the nodes of shared stores. It goes the way of its history: calls take as long,
a connection that is cut is lost for it too, and while the history is held it answers nobody. A hub
that died is one that is cut and held.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar, final

import trio

from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.nodes import NodeAnswers, Nodes

from ._shared_store import Question

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from typing import Protocol

    from h3trio.hub._history.nodes import NodeNote

    from ._shared_store import Connection, SharedMemoryStore

    _T = TypeVar("_T")

    class Ask(Protocol):
        """Lets the store do a step; the way there and back takes its time."""

        async def __call__(self, step: Callable[[SharedMemoryStore], _T], /) -> _T: ...


@final
class SharedMemoryNodes(Nodes):
    """One hub among those of a store.

    Args:
        name: of the hub.
        number: grows from each place in the store to the next.
        ask: the way to the store.
        connect: returns the connection.
        released: waits while the history is held.
    """

    def __init__(
        self,
        name: str,
        number: int,
        *,
        ask: Ask,
        connect: Callable[[], Awaitable[Connection]],
        released: Callable[[], Awaitable[None]],
    ) -> None:
        self._name = name
        self._number = number
        self._ask = ask
        self._connect = connect
        self._released = released

    def leave(self, store: SharedMemoryStore) -> None:
        """Be no node any more."""
        store.leave(self._name, self._number)

    async def listen(
        self,
        answer: Callable[[bytes], Awaitable[bytes]],
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Answer what others ask; see `Nodes.listen`."""
        connection = await self._connect()
        with connection.listening() as questions:
            task_status.started()
            async for question in questions:
                await self._released()
                await self._ask(partial(self._tell, question, await answer(question.data)))
        raise HistoryError("the connection was lost")

    async def meet(self, summary: bytes, *, lease: float) -> Sequence[NodeNote]:
        """Leave a summary; return those of all; see `Nodes.meet`."""
        await self._released()
        return await self._ask(
            lambda store: store.meet(self._name, self._number, summary, lease=lease)
        )

    async def ask(self, question: bytes, *, wait: float, only: str | None = None) -> NodeAnswers:
        """Ask the others; see `Nodes.ask`."""
        connection = await self._connect()
        asked = Question(question)
        known = await self._ask(lambda store: store.ask(asked, connection, self._number, only))
        with trio.move_on_after(wait):
            await asked.is_answered.wait()
        unknown = [] if only is None or known else [only]
        return NodeAnswers(tuple(asked.answers), (*asked.expected.values(), *unknown))

    def _tell(self, question: Question, answer: bytes, _store: SharedMemoryStore) -> None:
        question.take(self._name, self._number, answer)
