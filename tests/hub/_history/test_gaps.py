"""`Gaps`: a gap is found per topic, however noisy others are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tables import table

from h3trio.hub._history.gaps import MAX_ANSWER_BYTES, MAX_PURGES, Gaps
from h3trio.hub._history.selection import NOTHING, Selection


class Prefix:
    """Matches topics by their start, and counts how often it is asked."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.asked = 0

    def matches(self, topic: str, /) -> bool:
        """Whether the topic starts so."""
        self.asked += 1
        return topic.startswith(self.prefix)

    def __hash__(self) -> int:
        return hash(self.prefix)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Prefix) and other.prefix == self.prefix


EVERYTHING = Selection(["*"])


def test_without_removals_there_is_no_gap() -> None:
    """Nothing removed, nothing missed, not even from the start."""
    assert not Gaps().has_gap(EVERYTHING, 0)
    assert Gaps().newest(EVERYTHING) == 0


def test_a_gap_is_decided_per_topic() -> None:
    """Noise in one topic is no gap in another."""
    gaps = Gaps()
    for position in range(1, 100):
        gaps.note("noisy", position)
    assert gaps.has_gap(Selection(["noisy"]), 98)
    assert not gaps.has_gap(Selection(["noisy"]), 99)
    assert not gaps.has_gap(Selection(["quiet"]), 0)
    assert gaps.has_gap(Selection(["quiet", "noisy"]), 98)


def test_everything_has_the_newest_mark_of_all() -> None:
    """A subscriber to all topics misses whatever was removed."""
    gaps = Gaps()
    gaps.note("a", 5)
    gaps.note("b", 3)
    assert gaps.newest(EVERYTHING) == 5
    assert gaps.has_gap(EVERYTHING, 4)
    assert not gaps.has_gap(EVERYTHING, 5)


def test_nothing_selected_is_nothing_missed() -> None:
    """An empty selection has no gap, whatever the floor."""
    gaps = Gaps(floor=10)
    gaps.note("a", 50)
    assert gaps.newest(Selection()) == 0
    assert not gaps.has_gap(Selection(), 0)


def test_matchers_have_the_gaps_of_what_they_match() -> None:
    """A pattern's gap is that of the topics it matches, beside exact ones."""
    gaps = Gaps()
    gaps.note("a/1", 5)
    gaps.note("a/2", 3)
    gaps.note("b", 9)
    assert gaps.newest(Selection([Prefix("a/")])) == 5
    assert gaps.newest(Selection([Prefix("c/")])) == 0
    assert gaps.newest(Selection([Prefix("a/"), "b"])) == 9


def test_an_older_position_doesnt_lower_a_mark() -> None:
    """Limits of one topic remove out of order; the newest position counts."""
    gaps = Gaps()
    gaps.note("a", 9)
    gaps.note("a", 4)
    assert gaps.newest(Selection(["a"])) == 9


def test_the_table_is_bounded_and_folds_into_a_floor() -> None:
    """Beyond the limit no gap is missed; only old cursors are told of one they may not have."""
    gaps = Gaps(max_topics=3)
    for position in range(1, 6):
        gaps.note(f"t{position}", position)
    assert gaps.floor == 2
    assert [gaps.newest(Selection([f"t{n}"])) for n in range(1, 6)] == [2, 2, 3, 4, 5]
    assert gaps.has_gap(Selection(["t1"]), 0)
    assert gaps.has_gap(Selection(["never"]), 1)
    assert not gaps.has_gap(Selection(["never"]), 2)


def test_the_table_is_bounded_in_bytes() -> None:
    """Long names are fewer topics; one that is noted again counts once."""
    sizes: list[int] = []
    for length in (10, 1000):
        gaps = Gaps(max_bytes=100_000)
        for position in range(1, 1001):
            gaps.note(f"{position:0{length}}", position)
            gaps.note(f"{position:0{length}}", position)
        sizes.append(1000 - gaps.floor)
    # What a name takes differs from one Python to the next.
    assert sizes == pytest.approx([280, 74], rel=0.1)


@pytest.mark.slow
def test_answers_for_matchers_are_bounded() -> None:
    """Selections of many matchers are forgotten sooner: they keep them alive."""
    gaps = Gaps()
    gaps.note("a", 1)
    prefixes = [[Prefix(f"{n}/{m}") for m in range(MAX_ANSWER_BYTES // 1650)] for n in range(9)]
    selections = [Selection(several) for several in prefixes]
    for selection in selections:
        assert gaps.newest(selection) == 0
    for prefix, *_others in prefixes:
        prefix.asked = 0
    for selection in reversed(selections):
        assert gaps.newest(selection) == 0
    assert [prefix.asked for prefix, *_others in prefixes] == [1] * 5 + [0] * 4


def test_what_is_noted_again_is_kept_longest() -> None:
    """A topic that is still being trimmed keeps its own mark."""
    gaps = Gaps(max_topics=2)
    for position, topic in enumerate(["old", "busy", "busy", "old", "new"], start=1):
        gaps.note(topic, position)
    newest = [gaps.newest(Selection([topic])) for topic in ("old", "new", "busy")]
    assert newest == [4, 5, 3]
    assert gaps.floor == 3


def test_a_matcher_is_asked_of_new_removals_only() -> None:
    """Asking again costs what was noted since, not the whole table."""
    gaps = Gaps()
    for position in range(1, 1001):
        gaps.note(f"t/{position}", position)
    prefix = Prefix("x/")
    assert gaps.newest(Selection([prefix])) == 0
    first = prefix.asked
    assert gaps.newest(Selection([prefix])) == 0
    assert prefix.asked == first
    gaps.note("x/1", 1001)
    assert gaps.newest(Selection([prefix])) == 1001
    assert prefix.asked <= first + 2


TOPICS = st.sampled_from(["a/1", "a/2", "b", "c"])
NOTES = st.lists(st.tuples(TOPICS, st.integers(1, 30)), max_size=30)
SELECTIONS = st.sampled_from(
    [
        Selection(["a/1"]),
        Selection(["b", "c"]),
        Selection([Prefix("a/")]),
        Selection([Prefix("a/"), "c"]),
        EVERYTHING,
        Selection(),
    ]
)


@given(st.lists(st.one_of(st.tuples(TOPICS, st.integers(1, 30)), SELECTIONS), max_size=40))
def test_gaps_say_what_a_plain_list_says(steps: list[tuple[str, int] | Selection]) -> None:
    """Whatever is noted and asked in whatever order, the answer is the newest selected note."""
    gaps = Gaps()
    notes: list[tuple[str, int]] = []
    for step in steps:
        if isinstance(step, Selection):
            wanted = [position for topic, position in notes if step.matches_topic(topic)]
            assert gaps.newest(step) == max(wanted, default=0)
        else:
            notes.append(step)
            gaps.note(*step)


@given(NOTES, SELECTIONS, st.integers(0, 30), st.integers(1, 3))
def test_a_bounded_table_never_misses_a_gap(
    notes: list[tuple[str, int]], selection: Selection, after: int, max_topics: int
) -> None:
    """However small the table, a removed record behind a cursor is a gap."""
    gaps = Gaps(max_topics=max_topics)
    for topic, position in notes:
        gaps.note(topic, position)
    if any(position > after and selection.matches_topic(topic) for topic, position in notes):
        assert gaps.has_gap(selection, after)


SECRET = ("a/1", "b")
RIGHTS = [
    (["a/1"], [], 0),
    (["a/1"], ["a/1"], 7),
    (["a/1"], ["b"], 7),
    (["b"], [Prefix("a/")], 7),
    ([Prefix("a/")], ["b", "x"], 7),
    (["a/1"], ["c"], 0),
    (["c"], ["a/1", "c"], 0),
    (["*"], [], 0),
    (["*"], ["b"], 7),
    (["*"], ["*"], 7),
    ([], ["*"], 0),
]


@table("topics, allow, wanted", RIGHTS)
def test_private_removals_are_told_to_whom_their_records_were(
    topics: list[str], allow: list[str], wanted: int
) -> None:
    """One topic is selected and one allowed, be it another one of the record's."""
    gaps = Gaps()
    gaps.note_private(SECRET, 7)
    assert gaps.newest(Selection(topics), Selection(allow)) == wanted
    gaps.note("z", 9)
    gaps.note_private(("y",), 8)
    assert gaps.newest(Selection(topics), Selection(allow)) == (wanted if "*" not in topics else 9)


def test_the_floor_of_private_removals_is_for_who_has_rights() -> None:
    """However many there were, nobody without rights is told of any."""
    gaps = Gaps(max_topics=3)
    for position in range(1, 101):
        gaps.note_private((f"t{position}", "all"), position)
    assert (gaps.floor, gaps.private_floor) == (0, 97)
    for topics in (["t1"], ["t100"], ["all"], ["*"], [Prefix("t")]):
        assert gaps.newest(Selection(topics)) == 0
    assert gaps.newest(Selection(["t1"]), Selection(["x"])) == 97
    assert gaps.newest(Selection(["t99"]), Selection(["all"])) == 99


@pytest.mark.slow
def test_private_marks_are_bounded_in_bytes() -> None:
    """Many topics of one record are as much as many records."""
    kept: list[int] = []
    for topics in (1, 100):
        gaps = Gaps(max_bytes=100_000)
        for position in range(1, 1001):
            gaps.note_private(tuple(f"{position}/{n}" for n in range(topics)), position)
        kept.append(1000 - gaps.private_floor)
    # What a name takes differs from one Python to the next.
    assert kept == pytest.approx([285, 1], rel=0.1)


@given(
    st.lists(
        st.tuples(st.lists(TOPICS, min_size=1, max_size=3, unique=True), st.integers(1, 30)),
        max_size=30,
    ),
    SELECTIONS,
    SELECTIONS,
    st.integers(1, 40),
)
def test_private_gaps_say_what_a_plain_list_says(
    notes: list[tuple[list[str], int]], selection: Selection, allow: Selection, max_topics: int
) -> None:
    """A gap is never missed, and told where the floor or a visible record is behind it alone."""
    gaps = Gaps(max_topics=max_topics)
    for count, (topics, position) in enumerate(notes):
        gaps.note_private(tuple(topics), position)
        seen = [
            p
            for names, p in notes[: count + 1]
            if selection.matches(names) and allow.matches(names)
        ]
        floor = gaps.private_floor if selection and allow else 0
        assert gaps.newest(selection, allow) == max([floor, *seen])
    assert gaps.newest(selection) == 0


def test_a_lost_tail_leaves_no_gap_behind_what_is_left() -> None:
    """Positions are given again; what was in front of it may have lost something too."""
    gaps = Gaps()
    gaps.note("a", 3)
    gaps.note("b", 9)
    gaps.note_private(("c", "d"), 8)
    gaps.raise_floor(2)
    assert gaps.newest(Selection(["b"])) == 9
    gaps.cut(5)
    allow = Selection(["c"])
    seen = [gaps.newest(Selection([topic]), allow) for topic in "abcx"]
    assert seen == [3, 5, 5, 2]
    assert gaps.newest(EVERYTHING, EVERYTHING) == 5
    gaps.note("a", 6)
    assert gaps.newest(Selection(["a", "b"])) == 6


def test_another_table_takes_over_what_is_new() -> None:
    """Of each topic the newest, from a count on; the floors and purges too."""
    one, other = Gaps(), Gaps()
    one.note("a", 1)
    one.note_private(("b", "c"), 2)
    one.note("a", 3)
    other.take_over(one, 0)
    assert list(one.marks_since(0)) == [(("a",), 3, False), (("b", "c"), 2, True)]
    serial = one.serial
    assert list(one.marks_since(serial)) == []
    one.note("d", 4)
    one.raise_private_floor(1)
    one.note_purge("d", 4)
    assert list(one.marks_since(serial)) == [(("d",), 4, False)]
    other.take_over(one, serial)
    for selection in (Selection([topic]) for topic in "abcdx"):
        for allow in (NOTHING, EVERYTHING):
            assert other.newest(selection, allow) == one.newest(selection, allow)
    assert other.purges_since(0) == [("d", 4)]


def test_marks_may_be_noted_while_others_are_read() -> None:
    """Who reads gets what there was when it began."""
    gaps = Gaps()
    for number in range(5):
        gaps.note(str(number), number)
    marks = gaps.marks_since(0)
    first = next(marks)
    gaps.note("new", 9)
    assert [first.topics[0], *(mark.topics[0] for mark in marks)] == list("01234")


def test_purges_are_bounded() -> None:
    """The oldest are forgotten as such; one that comes again counts as new."""
    gaps = Gaps()
    for number in range(MAX_PURGES):
        gaps.note_purge(str(number), number)
    serial = gaps.serial
    gaps.note_purge("0", 5000)
    gaps.note_purge("new", 5001)
    assert gaps.purges_since(serial) == [("0", 5000), ("new", 5001)]
    assert len(gaps.purges_since(0)) == MAX_PURGES
