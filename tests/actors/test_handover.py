"""Which commits count for an inbox, and what several of them say together."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.handover import Commit, merged, works_for
from actors.ledger import Ledger, pack


@pytest.mark.parametrize(
    ("group", "prefix", "counts"),
    [
        ("actors.main", "", True),
        ("actors.x.y", "", True),
        ("agents.echo", "", True),
        ("agents.echo.x", "", False),
        ("agents.other", "", False),
        ("coordinator", "", False),
        ("console-17", "", False),
        ("actors", "", False),
        ("prod.actors.main", "", False),
        ("prod.actors.main", "prod.", True),
        ("prod.agents.echo", "prod.", True),
        ("actors.main", "prod.", False),
        ("agents.echo", "prod.", False),
    ],
)
def test_the_groups_that_may_have_worked(group: str, prefix: str, counts: bool) -> None:
    assert works_for(group, prefix, "echo") is counts


@pytest.mark.parametrize(
    ("commits", "begin", "done"),
    [
        ([], 0, set()),
        ([(0, "")], 0, set()),
        ([(-1, "")], 0, set()),
        ([(4, "1;1+2")], 4, {5, 6}),
        ([(4, ""), (7, "")], 7, set()),
        ([(7, ""), (4, "")], 7, set()),
        ([(7, ""), (4, "1;1+1,5+1")], 7, {9}),
        ([(7, "1;1+1"), (4, "1;5+1")], 7, {8, 9}),
        ([(4, "1;3+2"), (4, "1;1+1")], 4, {5, 7, 8}),
        ([(7, "of somebody else"), (4, "")], 7, set()),
        ([(10, "")], 10, set()),
        ([(11, ""), (4, "1;1+1")], 4, {5}),
        ([(11, "1;1+1")], 0, set()),
        ([(8, "1;1+4")], 8, {9}),
    ],
    ids=[
        "nobody", "the start", "no commit", "our own", "another is further", "our own is further", "beyond the furthest",
        "both beyond", "at one offset", "of another origin", "all is done", "one of another log", "only of another log",
        "done beyond the end",
    ],
)  # fmt: skip
def test_what_any_of_them_says_is_done(commits: list[Commit], begin: int, done: set[int]) -> None:
    assert merged(commits, end=10) == (begin, done)


COMMITS = st.lists(st.tuples(st.integers(0, 12), st.sets(st.integers(1, 8))), max_size=4)


@given(COMMITS)
def test_it_is_their_union(said: list[tuple[int, set[int]]]) -> None:
    """A record needs work if and only if no commit that can be of this log says that it is done."""
    end = 10
    commits = [(offset, pack(offset, {offset + each for each in beyond})) for offset, beyond in said]
    ledger = Ledger(*merged(commits, end))
    for record in range(end):
        told = any(record < at or record - at in beyond for at, beyond in said if at <= end)
        assert ledger.wants(record) is not told


@given(COMMITS)
def test_handing_on_loses_nothing(said: list[tuple[int, set[int]]]) -> None:
    """What the next one commits at once says as much as all that were before, in whatever order they are read."""
    commits = [(offset, pack(offset, {offset + each for each in beyond})) for offset, beyond in said]
    begin = merged(commits, end=10)
    commit = Ledger(*begin, saved=(0, "")).unsaved() or (0, "")
    assert merged([commit], end=10) == begin == merged([*reversed(commits), commit], end=10)


def test_our_own_commit_that_says_it_all_is_not_written_again() -> None:
    own = (4, "1;1+2")
    assert Ledger(*merged([own, (3, "")], end=10), saved=own).unsaved() is None
    assert Ledger(*merged([own, (5, "")], end=10), saved=own).unsaved() == (5, "1;0+2")
