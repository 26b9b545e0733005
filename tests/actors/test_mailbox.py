"""Order per task, slots, repeats, cancels and deadlines, without Kafka, clock or event loop."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from actors.api import Context
from actors.handlers import Operations
from actors.ledger import Ledger
from actors.mailbox import Mailbox, Past, Stage, Work
from schemas.inbox import AssignedTask

NOW = 1_000


async def echo(payload: dict, ctx: Context) -> dict:  # type: ignore[type-arg]
    return payload


def mailbox(slots: int = 10) -> Mailbox:
    return Mailbox("echo", slots, Operations(echo), Past(), {0: Ledger(0)})


def deliver(box: Mailbox, offset: int, task_id: str, epoch: int = 1, deadline: int = 10**9) -> Work:
    task = AssignedTask(task_id=task_id, attempt=epoch, epoch=epoch, deadline_at=deadline)
    work = Work(box, task, f"inbox.0.{offset}", [(0, offset)])
    box.ledgers[0].take(offset)
    box.accept(work)
    return work


def cancel(box: Mailbox, offset: int, task_id: str, epoch: int = 1) -> Work | None:
    box.ledgers[0].take(offset)
    return box.cancel(task_id, epoch, (0, offset))


def started(box: Mailbox) -> list[str]:
    return [work.task.task_id for work in box.next(NOW)]


def test_different_tasks_run_side_by_side_up_to_the_limit() -> None:
    box = mailbox(slots=2)
    first, *_ = [deliver(box, n, f"t{n}") for n in range(4)]
    assert started(box) == ["t0", "t1"]
    assert started(box) == []
    box.finish(first)
    assert started(box) == ["t2"]
    assert (box.running, box.load) == (2, 4)


def test_attempts_of_one_task_run_one_after_the_other() -> None:
    box = mailbox()
    first = deliver(box, 0, "t", epoch=1)
    second = deliver(box, 1, "t", epoch=2)
    third = deliver(box, 2, "t", epoch=3)
    assert list(box.next(NOW)) == [first]
    box.finish(first)
    assert list(box.next(NOW)) == [second]
    box.finish(second)
    assert list(box.next(NOW)) == [third]


def test_an_offset_is_finished_when_the_report_is_acknowledged() -> None:
    box = mailbox()
    work = deliver(box, 0, "t")
    assert list(box.next(NOW)) == [work]
    assert box.finish(work)
    assert box.ledgers[0].unsaved() is None
    assert box.load == 1
    box.settle(work)
    assert box.ledgers[0].unsaved() == (1, "")
    assert box.load == 0


def test_a_second_delivery_in_hand_is_one_work_with_two_places() -> None:
    box = mailbox()
    work = deliver(box, 0, "t")
    deliver(box, 1, "t")
    assert list(box.next(NOW)) == [work]
    box.finish(work)
    box.settle(work)
    assert box.ledgers[0].unsaved() == (2, "")


def test_a_second_delivery_after_the_report_is_finished_at_once() -> None:
    box = mailbox()
    work = deliver(box, 0, "t")
    list(box.next(NOW))
    box.finish(work)
    box.settle(work)
    deliver(box, 1, "t")
    assert started(box) == []
    assert box.ledgers[0].unsaved() == (2, "")


def test_what_is_cancelled_before_it_starts_never_starts() -> None:
    box = mailbox()
    deliver(box, 0, "t")
    assert cancel(box, 1, "t") is None
    assert started(box) == []
    assert (box.load, box.running) == (0, 0)
    assert box.ledgers[0].unsaved() == (2, "")


def test_a_cancel_that_comes_first_holds() -> None:
    box = mailbox()
    cancel(box, 0, "t", 2)
    assert box.ledgers[0].unsaved() == (1, "")
    deliver(box, 1, "t", epoch=1)
    deliver(box, 2, "t", epoch=2)
    works = list(box.next(NOW))
    assert [work.task.epoch for work in works] == [1]


def test_a_running_work_that_is_cancelled_reports_nothing_but_keeps_its_slot() -> None:
    box = mailbox(slots=1)
    work = deliver(box, 0, "t")
    deliver(box, 1, "u")
    list(box.next(NOW))
    assert cancel(box, 2, "t") is work
    assert started(box) == []
    assert box.ledgers[0].unsaved() is None  # a host that begins anew now must learn of the cancel again
    assert not box.finish(work)
    assert started(box) == ["u"]
    assert box.ledgers[0].unsaved() == (1, "1;1+1")


def test_the_next_attempt_waits_for_a_cancelled_one_to_end() -> None:
    box = mailbox()
    old = deliver(box, 0, "t", epoch=1)
    list(box.next(NOW))
    cancel(box, 1, "t")
    new = deliver(box, 2, "t", epoch=2)
    assert started(box) == []
    box.finish(old)
    assert list(box.next(NOW)) == [new]


def test_what_is_past_its_deadline_never_starts() -> None:
    box = mailbox()
    deliver(box, 0, "late", deadline=NOW)
    deliver(box, 1, "early", deadline=NOW + 1)
    assert started(box) == ["early"]
    assert box.ledgers[0].unsaved() == (0 + 1, "")


def test_a_revoked_partition_keeps_what_runs_and_leaves_what_waits() -> None:
    box = mailbox(slots=1)
    runs = deliver(box, 0, "t", epoch=1)
    deliver(box, 1, "t", epoch=2)
    deliver(box, 2, "u")
    list(box.next(NOW))
    box.revoke(0)
    assert (box.load, box.running, box.waiting) == (1, 1, 0)
    box.ledgers[0] = Ledger(0)
    again = [deliver(box, 0, "t", epoch=1), deliver(box, 1, "t", epoch=2), deliver(box, 2, "u")]
    box.finish(runs)
    box.settle(runs)
    assert started(box) == ["u"]
    box.finish(again[2])
    box.settle(again[2])
    assert list(box.next(NOW)) == [again[1]]
    assert box.ledgers[0].unsaved() == (1, "1;1+1")


def test_the_memory_of_finished_assignments_is_bounded() -> None:
    box = Mailbox("echo", 10, Operations(echo), Past(100), {0: Ledger(0)})
    for n in range(105):
        cancel(box, n, f"t{n}")
    assert len(box.past._known) == 100
    assert ("t4", 1) not in box.past
    assert ("t5", 1) in box.past


@given(st.lists(st.integers(0, 6)), st.integers(0, 4))
def test_the_last_ones_that_were_new_are_remembered(numbers: list[int], remembered: int) -> None:
    past = Past(remembered)
    order: list[int] = []
    for number in numbers:
        past.add((f"t{number}", 1))
        if number not in order:
            order = [*order, number][-remembered:] if remembered else []
        assert [each for each in range(7) if (f"t{each}", 1) in past] == sorted(order)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 4), st.sampled_from("dfc")), max_size=40), st.data())
def test_any_history_ends_with_nothing_in_hand(steps: list[tuple[str, int, str]], data: st.DataObject) -> None:
    """Deliver, finish, cancel in any order: never two of one task at once, and every offset is finished in the end."""
    box = mailbox(slots=2)
    running: list[Work] = []
    offset = 0
    for task_id, epoch, what in steps:
        if what == "d":
            deliver(box, offset, task_id, epoch)
            offset += 1
        elif what == "c":
            cancel(box, offset, task_id, epoch)
            offset += 1
        elif running:
            work = running.pop(data.draw(st.integers(0, len(running) - 1)))
            if box.finish(work):
                box.settle(work)
        running += box.next(NOW)
        assert len(running) == box.running <= 2
        assert len({work.task.task_id for work in running}) == len(running)
    while running:
        work = running.pop()
        if box.finish(work):
            assert work.stage is Stage.FINISHED
            box.settle(work)
        running += box.next(NOW)
    assert (box.load, box.running, box.waiting) == (0, 0, 0)
    assert box.ledgers[0].unsaved() in ((offset, ""), None)
    assert not box._behind
