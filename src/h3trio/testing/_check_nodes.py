"""The rules for the way from one hub to the others that share its store: `History.join`."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, final

import trio

from h3trio.hub._history.errors import HistoryError
from h3trio.hub._history.nodes import (
    MAX_NODES,
    MAX_QUESTION_BYTES,
    MAX_QUESTIONS,
    MAX_SUMMARY_BYTES,
)

from ._drive_history import driven, expect

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from h3trio.hub._history.history import History
    from h3trio.hub._history.nodes import Nodes

_LONG: Final = 60.0
_SHORT: Final = 0.01
_PATIENCE: Final = 10.0
"""Seconds for a lease that lasts and for many answers, for a lease that is over soon, and for an
answer."""


@final
class _Two:
    """The places of two hubs."""

    def __init__(
        self, one: Nodes, other: Nodes, join: Callable[[str], Nodes], nursery: trio.Nursery
    ) -> None:
        self.one = one
        self.other = other
        self.heard: list[bytes] = []
        self.may_answer = trio.Event()
        self.may_answer.set()
        self._join = join
        self._nursery = nursery

    async def later(self, name: str) -> Nodes:
        """Let another node come, which hears and doesn't answer."""
        node = self._join(name)
        await self._nursery.start(node.listen, _hear)
        return node

    async def answer(self, question: bytes) -> bytes:
        """Answer with the question, turned round."""
        self.heard.append(question)
        await self.may_answer.wait()
        return question[::-1]

    async def meet(self) -> None:
        """Let both be there."""
        await self.one.meet(b"", lease=_LONG)
        await self.other.meet(b"", lease=_LONG)


async def nodes_meet_and_answer(
    make_history: Callable[[], History], share: Callable[[History], History]
) -> None:
    """Run the rules, each with two hubs on a store of their own."""
    for rule in _RULES:
        history = make_history()
        async with driven(history):
            sharing = share(history)
            async with driven(sharing):
                one, two = history.join("one"), sharing.join("two")
                if one is None or two is None:
                    return
                await _run(rule, one, two, partial(_joined, history))
    await _who_is_closed_is_gone(make_history(), share)


async def _run(
    rule: Callable[[_Two], Awaitable[None]], one: Nodes, two: Nodes, join: Callable[[str], Nodes]
) -> None:
    async with trio.open_nursery() as nursery:
        both = _Two(one, two, join, nursery)
        for node in (one, two):
            await nursery.start(node.listen, both.answer)
        await rule(both)
        nursery.cancel_scope.cancel()


async def _hear(_question: bytes) -> bytes:
    await trio.sleep_forever()
    raise AssertionError


def _joined(history: History, name: str) -> Nodes:
    nodes = history.join(name)
    assert nodes is not None, "it has a way to the others"
    return nodes


async def _all_are_told_what_each_tells(both: _Two) -> None:
    first = await both.one.meet(b"1", lease=_LONG)
    expect([note.name for note in first] == ["one"], "a node meets itself", first)
    await both.other.meet(b"\x00\n\xff" * (MAX_SUMMARY_BYTES // 3), lease=_LONG)
    found = {note.name: note for note in await both.one.meet(b"2", lease=_LONG)}
    expect(sorted(found) == ["one", "two"], "and all others", found)
    expect(found["one"].summary == b"2", "a summary takes the place of the last", found["one"])
    size = len(found["two"].summary)
    expect(size == MAX_SUMMARY_BYTES // 3 * 3, "summaries are bytes, and come whole", size)
    ages = [note.age for note in found.values()]
    expect(all(0 <= age < _LONG for age in ages), "their age is told", ages)


async def _a_lease_ends(both: _Two) -> None:
    await both.one.meet(b"", lease=_SHORT)
    names = ["one", "two"]
    with trio.move_on_after(_PATIENCE):
        while names != ["two"]:
            await trio.sleep(2 * _SHORT)
            names = [note.name for note in await both.other.meet(b"", lease=_LONG)]
    expect(names == ["two"], "who isn't heard for its lease is no node", names)


async def _a_question_comes_to_all_others(both: _Two) -> None:
    await both.meet()
    question = b"\x00\n\xff" * (MAX_QUESTION_BYTES // 3)
    found = await both.one.ask(question, wait=_PATIENCE)
    expect(both.heard == [question], "the others are asked, and who asks isn't", both.heard)
    answers = list(found.answers)
    expect(answers == [("two", question[::-1])], "their answers come whole", answers)
    expect(not found.silent, "and nobody else is waited for", found.silent)


async def _questions_at_once_have_their_own_answers(both: _Two) -> None:
    await both.meet()
    answers: dict[int, bytes] = {}

    async def ask(number: int) -> None:
        node = both.one if number % 2 else both.other
        found = await node.ask(b"%d." % number, wait=_PATIENCE)
        answers[number] = b"".join(answer for _name, answer in found.answers)

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(partial(ask, number))
    right = {number: b".%d" % number for number in range(10)}
    expect(answers == right, "each question gets its own answers", answers)


async def _one_alone_is_waited_for(both: _Two) -> None:
    await both.meet()
    gone = await both.later("gone")
    await gone.meet(b"", lease=_LONG)
    with trio.move_on_after(_PATIENCE / 2) as scope:
        found = await both.one.ask(b"1", wait=_PATIENCE, only="two")
        expect(not found.silent, "with `only` nobody else is waited for", found)
        found = await both.one.ask(b"1", wait=_PATIENCE, only="nobody")
        expect(list(found.silent) == ["nobody"], "who isn't there is silent", found)
    expect(not scope.cancelled_caught, "and that is known at once", "it waited")


async def _who_does_not_answer_is_silent(both: _Two) -> None:
    await both.meet()
    gone = await both.later("gone")
    await gone.meet(b"", lease=_LONG)
    found = await both.other.ask(b"12", wait=1.0)
    expect(list(found.silent) == ["gone"], "who doesn't answer is named", found)
    expect(list(found.answers) == [("one", b"21")], "and the others count", found)


async def _so_many_questions_wait(both: _Two) -> None:
    await both.meet()
    both.may_answer = trio.Event()
    async with trio.open_nursery() as nursery:
        for _ in range(4 * MAX_QUESTIONS):
            nursery.start_soon(partial(both.one.ask, b"1", wait=_SHORT))
    # Behind its questions, if they come by one way.
    await both.other.meet(b"", lease=_LONG)
    both.may_answer.set()
    # While the others wait it may not be heard, and then it stands behind them.
    found, wait = await both.one.ask(b"12", wait=_SHORT), _SHORT
    while not found.answers and wait < _LONG:
        wait *= 2
        found = await both.one.ask(b"12", wait=wait)
    expect(list(found.answers) == [("two", b"21")], "who was asked too much goes on", found)
    heard = both.heard.count(b"1")
    # Some may have been on their way.
    expect(heard <= 2 * MAX_QUESTIONS, "a node takes only so many questions at once", heard)


async def _a_name_is_of_who_came_last(both: _Two) -> None:
    await both.meet()
    newer = await both.later("two")
    notes = await newer.meet(b"newer", lease=_LONG)
    told = [(note.name, note.summary) for note in notes if note.name == "two"]
    expect(told == [("two", b"newer")], "who comes with a name has it", told)
    refused = await _is_refused(both.other, b"older")
    expect(refused, "who had it before is told that it is gone", notes)
    found = [note.summary for note in await both.one.meet(b"", lease=_LONG)]
    expect(b"newer" in found and b"older" not in found, "and tells no more", found)


async def _there_are_not_too_many(both: _Two) -> None:
    await both.meet()
    for number in range(MAX_NODES - 2):
        node = await both.later(f"n{number}")
        await node.meet(b"", lease=_LONG)
    refused = await _is_refused(await both.later("late"), b"")
    expect(refused, "one more than there may be is refused", MAX_NODES)
    notes = await both.one.meet(b"", lease=_LONG)
    expect(len(notes) == MAX_NODES, "and those that are there stay", len(notes))


async def _is_refused(node: Nodes, summary: bytes) -> bool:
    try:
        await node.meet(summary, lease=_LONG)
    except HistoryError:
        return True
    return False


async def _who_is_closed_is_gone(history: History, share: Callable[[History], History]) -> None:
    async with driven(history):
        one = _joined(history, "one")
        async with trio.open_nursery() as nursery:
            await nursery.start(one.listen, _hear)
            async with share(history) as other:
                two = _joined(other, "two")
                async with trio.open_nursery() as inner:
                    await inner.start(two.listen, _hear)
                    await two.meet(b"", lease=_LONG)
                    inner.cancel_scope.cancel()
            names = [note.name for note in await one.meet(b"", lease=_LONG)]
            expect(names == ["one"], "who is closed is a node no more", names)
            nursery.cancel_scope.cancel()


_RULES: Final[tuple[Callable[[_Two], Awaitable[None]], ...]] = (
    _all_are_told_what_each_tells,
    _a_lease_ends,
    _a_question_comes_to_all_others,
    _questions_at_once_have_their_own_answers,
    _one_alone_is_waited_for,
    _who_does_not_answer_is_silent,
    _so_many_questions_wait,
    _a_name_is_of_who_came_last,
    _there_are_not_too_many,
)
