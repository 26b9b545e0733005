"""What one record does: decided once, said again byte for byte, never twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.changelog import WakeRecord
from schemas.errors import DecodeError
from schemas.partitioning import home
from streams.runtime.rule import RULE_FAILED
from streams.runtime.wire import ORIGIN
from tests.streams.runtime.tally import ASKED, MORE, PARTITIONS, SPEC, Stand, Wish, keys_at

K, L, M = keys_at(0, 3, home)
START = {topic.name: 0 for topic in SPEC.reads}


async def test_a_change_is_a_row_a_header_and_an_output(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, amount=5)))
    assert stand.row(K).total == 5 and stand.row(K).cause == "p.asked.0.0"
    assert [message.key for message in stand.changelog[0]] == [K.encode(), b"\x00header"]
    header = stand.header()
    assert (header.base, header.count, header.instance) == (0, 1, "me")
    assert {each.topic: each.offset for each in header.inputs} == {"asked": 0}
    assert stand.said() == ["1: 5 open at 1000"]
    assert stand.tally.indexed[K].total == 5
    assert stand.covered == ["asked.0.0"]


async def test_a_record_at_its_rows_cause_says_the_same_bytes_again(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, amount=5)))
    stand.clock = 9_999  # another process at another time
    stand.recover(START)
    await stand.take(stand.arrival(0, Wish(key=K, amount=5)))
    first, second = stand.outputs
    assert first == second
    assert stand.row(K).version == 1 and len(stand.changelog[0]) == 2
    assert stand.owner.counts.re_emitted == 1


async def test_a_record_below_the_header_that_is_no_cause_is_dropped(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=K)))
    stand.recover(START)
    before = list(stand.outputs)
    await stand.take(stand.arrival(0, Wish(key=K)))
    assert stand.outputs == before and stand.owner.counts.dropped == 1
    await stand.take(stand.arrival(1, Wish(key=K)))
    assert stand.outputs[len(before) :] == before[-1:]
    assert stand.row(K).version == 2


async def test_a_note_is_said_again_with_its_first_time_and_number(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=K, kind="refuse")))
    (note,) = stand.header().notes
    assert (note.kind, note.error, note.offset, note.position) == ("refused", "no 1", 1, "p.asked.0.1")
    stand.clock = 77
    stand.recover(START)
    said = list(stand.outputs)
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=K, kind="refuse")))
    assert stand.outputs[2:] == said


async def test_notes_alone_write_their_header_alone(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="refuse")))
    assert [message.key for message in stand.changelog[0]] == [b"\x00header"]
    assert stand.header().count == 0


async def test_nothing_decided_leaves_no_append(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="nothing")))
    assert 0 not in stand.changelog and stand.covered == ["asked.0.0"]
    await stand.take(stand.arrival(1, Wish(key=K)))
    assert {each.topic: each.offset for each in stand.header().inputs} == {"asked": 1}


async def test_one_transition_per_key_and_flush(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)), stand.arrival(1, Wish(key=L)), stand.arrival(2, Wish(key=K)))
    assert [len(flush.covered) for flush in stand.flushes] == [2, 1]
    assert stand.row(K).total == 2
    assert [message.key.decode() for message in stand.changelog[0]] == [K, L, "\x00header", K, "\x00header"]


async def test_a_full_batch_closes_the_flush(tmp_path: Path) -> None:
    stand = Stand(tmp_path, batch_bytes=60_400)  # room for the header row and two rows
    stand.own()
    keys = keys_at(0, 6, home)
    await stand.take(*(stand.arrival(n, Wish(key=key)) for n, key in enumerate(keys)))
    assert len(stand.flushes) > 1
    assert [stand.row(key).total for key in keys] == [1] * 6
    assert [handle for flush in stand.flushes for handle in flush.covered] == [f"asked.0.{n}" for n in range(6)]


async def test_the_header_keeps_few_enough_notes(stand: Stand) -> None:
    stand.own()
    await stand.take(*(stand.arrival(n, Wish(key=f"{K}", kind="refuse")) for n in range(700)))
    assert [len(flush.parts[0].notes) for flush in stand.flushes] == [200, 200, 200, 100]


# --- homes and origins


async def test_a_record_outside_its_home_is_re_produced_and_does_nothing_else(stand: Stand) -> None:
    away = keys_at(2, 1, home)[0]
    stand.own()
    await stand.take(stand.arrival(7, Wish(key=away)))
    (copy,) = stand.outputs
    assert (copy.topic, copy.partition, copy.key) == ("p.tally.repartition", 2, away.encode())
    assert dict(copy.headers)[ORIGIN] == b"p.asked.0.7@10007"
    assert 0 not in stand.changelog and stand.owner.counts.stepped == 0


async def test_it_is_re_produced_again_at_or_below_the_header(stand: Stand) -> None:
    away = keys_at(2, 1, home)[0]
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=away)), stand.arrival(1, Wish(key=K)))
    stand.recover(START)
    first = list(stand.outputs)
    await stand.take(stand.arrival(0, Wish(key=away)))
    assert stand.outputs[len(first) :] == [each for each in first if each.partition == 2]


async def test_a_users_own_origin_header_is_replaced(stand: Stand) -> None:
    away = keys_at(2, 1, home)[0]
    stand.own()
    arrival = stand.arrival(7, Wish(key=away))
    forged = arrival.delivery.__class__(
        ASKED, 0, 7, None, arrival.delivery.value, 1, ((ORIGIN, b"p.asked.3.999@1"), ("mine", b"1")), "h"
    )
    await stand.take(arrival._replace(delivery=forged))
    assert stand.outputs[0].headers == (("mine", b"1"), (ORIGIN, b"p.asked.0.7@10007"))


async def test_a_copys_position_is_its_origin(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K), SPEC.repartition, origin="p.asked.3.17"))
    assert stand.row(K).cause == "p.asked.3.17"
    assert [(each.topic, each.partition, each.offset) for each in stand.header().origins] == [("p.asked", 3, 17)]


async def test_a_second_copy_does_nothing_also_after_a_crash(stand: Stand) -> None:
    stand.own()
    copy = stand.arrival(0, Wish(key=K), SPEC.repartition, origin="p.asked.3.17")
    again = stand.arrival(1, Wish(key=K), SPEC.repartition, origin="p.asked.3.17")
    await stand.take(copy, again)
    assert stand.row(K).total == 1 and stand.owner.counts.copies == 1
    stand.recover(START)
    await stand.take(copy, again, stand.arrival(2, Wish(key=K), SPEC.repartition, origin="p.asked.3.18"))
    assert stand.row(K).total == 2 and stand.row(K).cause == "p.asked.3.18"
    assert stand.outputs[0] == stand.outputs[1]


async def test_two_copies_say_the_same_bytes_when_both_are_read_again(stand: Stand) -> None:
    """Both lie at or below the header then, and the row's cause is the origin of both."""
    stand.own()
    copies = [stand.arrival(n, Wish(key=K), SPEC.repartition, now=9_000 + n, origin="p.asked.3.17") for n in range(2)]
    await stand.take(*copies, stand.arrival(0, Wish(key=L)))
    stand.recover(START)
    await stand.take(*copies)
    assert [each for each in stand.outputs if K.encode() == each.key] == [stand.outputs[0]] * 3
    assert stand.row(K).version == 1


@pytest.mark.parametrize("origin", ["", "p.asked.0.1", "p.asked.0.x@5", "@", "p.asked.0.1@x"])
def test_a_bad_origin_is_an_unreadable_record(stand: Stand, origin: str) -> None:
    delivery = stand.arrival(0, Wish(key=K), SPEC.repartition).delivery
    with pytest.raises(DecodeError, match=ORIGIN):
        stand.wire.source(delivery._replace(headers=((ORIGIN, origin.encode()),)), is_copy=True)
    with pytest.raises(DecodeError, match=ORIGIN):
        stand.wire.source(delivery, is_copy=True)


# --- what a rule raises


@pytest.mark.parametrize("kind", ["raise", "raise_early", "raise_output", "skip_version"])
async def test_a_rule_that_raises_leaves_a_dead_letter_and_an_ended_row(stand: Stand, kind: str) -> None:
    stand.own()
    bad = stand.arrival(1, Wish(key=K, kind=kind))
    await stand.take(stand.arrival(0, Wish(key=K, amount=3)), bad, stand.arrival(2, Wish(key=L)))
    row = stand.row(K)
    assert (row.version, row.state, row.total, row.cause) == (2, "broken", 3, "p.asked.0.1")
    assert stand.row(L).total == 1, "the record after it flows"
    (letter,) = stand.letters()
    assert letter.original_value == bad.delivery.value and letter.offset == 1
    assert letter.source_topic == "p.asked" and letter.error.message
    ids = [each.key for each in stand.outputs]
    assert len(stand.said()) == 3 and len(ids) == 4
    stand.recover(START)
    before = list(stand.outputs)
    await stand.take(bad)
    assert sorted(stand.outputs[len(before) :], key=str) == sorted(
        [each for each in before if b"p.asked.0.1" in each.value], key=str
    ), "broken row and dead letter are said again, byte for byte"


async def test_what_was_decided_on_a_row_that_broke_is_decided_again(stand: Stand) -> None:
    """K's outputs cannot be made: its row ends, and what came after it in the group is taken anew, in order."""
    stand.own()
    await stand.take(
        stand.arrival(0, Wish(key=L, amount=2)), stand.arrival(1, Wish(key=K, kind="raise_output")),
        stand.arrival(2, Wish(key=L, amount=5)), stand.arrival(3, Wish(key=K, amount=7)), stand.arrival(4, Wish(key=M)),
    )  # fmt: skip
    assert stand.covered == [f"asked.0.{n}" for n in range(5)]
    assert (stand.row(L).total, stand.row(K).total, stand.row(M).total) == (7, 7, 1)
    assert stand.owner.counts.broken == 1 and len(stand.letters()) == 1
    assert {key: row.total for key, row in stand.owner.partitions[0].open.items()} == {L: 7, K: 7, M: 1}


async def test_a_rule_that_raises_without_a_row_leaves_the_dead_letter_alone(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="raise")))
    assert stand.row(K) is None and len(stand.letters()) == 1 and not stand.said()
    assert stand.header().notes[0].kind == RULE_FAILED


async def test_bytes_that_are_no_record_leave_a_dead_letter_where_they_lay(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, b"\xff\xffnonsense"))
    (letter,) = stand.letters()
    assert letter.original_value == b"\xff\xffnonsense" and (letter.partition, letter.offset) == (0, 0)
    stand.recover(START)
    await stand.take(stand.arrival(0, b"\xff\xffnonsense"))
    assert stand.outputs[0] == stand.outputs[1], "the same letter, byte for byte"
    assert stand.owner.counts.poison == 0 and stand.owner.counts.re_emitted == 1


async def test_a_key_that_is_no_text_stays_in_the_dead_letter(stand: Stand) -> None:
    stand.own()
    for offset, key in enumerate((b"\xff\xfe", None)):
        arrival = stand.arrival(offset, b"\xff")
        await stand.take(arrival._replace(delivery=arrival.delivery._replace(key=key)))
    assert [letter.original_key for letter in stand.letters()] == [b"\xff\xfe", None]


# --- wakes as records


async def test_a_wake_whose_version_moved_on_does_nothing(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K)))
    await stand.take(stand.arrival(0, WakeRecord(key=K, version=1), SPEC.wakes))
    await stand.take(stand.arrival(1, WakeRecord(key=K, version=1), SPEC.wakes))
    assert stand.row(K).total == 101 and stand.row(K).cause == "p.tally.wakes.0.0"


async def test_an_inbox_is_asked_for_before_its_records(stand: Stand) -> None:
    stand.own()
    await stand.take(stand.arrival(0, Wish(key=K, kind="inbox")))
    assert [each.name for each in stand.topics] == [f"inbox.{K}"]
    stand.recover(START)
    await stand.take(stand.arrival(0, Wish(key=K, kind="inbox")))
    assert len(stand.topics) == 2, "asked for again with the re-emission"


def test_homes_are_those_of_all_inputs() -> None:
    assert {home(f"k{n}", PARTITIONS) for n in range(100)} == set(range(PARTITIONS))
    assert ASKED.key == MORE.key
