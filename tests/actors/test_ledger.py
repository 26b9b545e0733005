"""The committed offset is the finished prefix; what is finished beyond it survives in the metadata."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.ledger import METADATA_CHARS, Ledger, pack, unpack


def test_only_the_contiguous_prefix_is_committed() -> None:
    ledger = Ledger(10)
    for offset in (10, 11, 12, 13):
        ledger.take(offset)
    ledger.done(11)
    ledger.done(13)
    assert ledger.unsaved() == (10, "1;1+1,3+1")
    ledger.done(10)
    assert ledger.unsaved() == (12, "1;1+1")
    ledger.done(12)
    assert ledger.unsaved() == (14, "")


def test_nothing_is_committed_twice() -> None:
    ledger = Ledger(0)
    assert ledger.unsaved() is None
    ledger.take(0)
    ledger.done(0)
    commit = ledger.unsaved()
    assert commit == (1, "")
    ledger.saved(commit)
    assert ledger.unsaved() is None


def test_what_the_metadata_names_is_not_wanted_again() -> None:
    ledger = Ledger(10, unpack(10, "1;1+1,3+1"))
    wanted = []
    for offset in (10, 11, 12, 13, 14):
        if ledger.wants(offset):
            wanted.append(offset)
        ledger.take(offset)
    assert wanted == [10, 12, 14]
    for offset in wanted:
        ledger.done(offset)
    assert ledger.unsaved() == (15, "")


def test_offsets_that_are_not_there_do_not_hold_the_commit_back() -> None:
    """Transaction markers and expired records leave gaps."""
    ledger = Ledger(5, {7})
    ledger.take(9)
    ledger.done(9)
    assert ledger.unsaved() == (10, "")


def test_a_second_delivery_is_not_wanted() -> None:
    ledger = Ledger(0)
    ledger.take(0)
    assert not ledger.wants(0)


def test_the_metadata_is_bounded() -> None:
    text = pack(0, range(0, 100_000, 2))
    assert len(text) <= METADATA_CHARS
    assert min(unpack(0, text)) == 0


def test_foreign_metadata_is_no_metadata() -> None:
    for text in (None, "", "hello", "1;x", "1;3", "1;1+-4", "1;1+99999999999", "2;1+1"):
        assert unpack(0, text) == set()


@given(base=st.integers(0, 10**12), offsets=st.sets(st.integers(1, 300)))
def test_pack_and_unpack_are_inverse(base: int, offsets: set[int]) -> None:
    there = {base + offset for offset in offsets}
    assert unpack(base, pack(base, there)) == there


@given(st.data())
def test_any_order_of_finishing_loses_and_repeats_nothing(data: st.DataObject) -> None:
    """Finish in any order, crash at any point, redeliver from the last commit: each offset is done exactly once."""
    offsets = list(range(20))
    order = data.draw(st.permutations(offsets))
    crash = data.draw(st.integers(0, 20))
    ledger = Ledger(0)
    for offset in offsets:
        ledger.take(offset)
    for offset in order[:crash]:
        ledger.done(offset)
    start, metadata = ledger.unsaved() or (0, "")
    again = Ledger(start, unpack(start, metadata))
    repeated = [offset for offset in offsets[start:] if again.wants(offset)]
    assert sorted([*order[:crash], *repeated]) == offsets
