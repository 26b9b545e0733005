"""The ledger judges: what is lost, what came twice, and the times in between."""

from __future__ import annotations

import asyncio

import pytest

from ops.bench.ledger import Ledger, milliseconds, percentile
from ops.bench.report import Report, counts
from schemas.tasks import TaskState

DONE = TaskState.COMPLETED


def kept(tasks: int) -> Ledger:
    """A ledger of tasks submitted one a millisecond, confirmed 1 ms, begun 2 ms and finished 5 ms later."""
    ledger = Ledger(tasks)
    for number in range(tasks):
        at = 1_000_000 + number * 1000
        ledger.submitted[number] = at
        ledger.mark_acked([number], at + 1000)
        ledger.mark_result(number, at + 5000, DONE, at + 2000, "")
    return ledger


def test_all_is_well() -> None:
    found = counts(kept(100), range(100), 1024)
    assert (found.tasks, found.payload_bytes, found.lost, found.duplicate_results) == (100, 1024, 0, 0)
    assert (found.ack_p50_ms, found.handler_p50_ms, found.result_p99_ms) == (1.0, 2.0, 5.0)
    assert found.tasks_per_s == pytest.approx(100 / 0.104, abs=0.1)
    assert found.accepted_per_s == pytest.approx(100 / 0.100, abs=0.1)


def test_only_the_measured_part_counts() -> None:
    ledger = kept(100)
    ledger.ended[3] = 0
    assert counts(ledger, range(50, 100), 1).lost == 0
    assert counts(ledger, range(50), 1).lost == 1


def test_a_confirmed_task_without_outcome_is_lost_and_an_unconfirmed_one_is_not() -> None:
    ledger = Ledger(3)
    ledger.mark_acked([0, 1], 5)
    ledger.mark_result(0, 6, DONE, 5, "")
    assert (ledger.accepted(range(3)), ledger.lost(range(3))) == (2, 1)


def test_a_second_result_is_counted_and_changes_nothing() -> None:
    ledger = kept(2)
    ledger.mark_result(1, 99, DONE, 98, "")
    assert (ledger.duplicates, ledger.finished, ledger.ended[1]) == (1, 2, 1_006_000)


def test_a_dead_letter_is_an_outcome_whichever_of_result_and_letter_is_read_first() -> None:
    ledger = Ledger(2)
    ledger.mark_dead(0, 5, "it broke")
    ledger.mark_result(1, 6, TaskState.DEAD_LETTERED, 0, "it broke")
    ledger.mark_dead(1, 7, "it broke")
    assert (ledger.finished, ledger.duplicates, ledger.not_completed) == (2, 0, 2)
    assert ledger.first_failure == "dead letter: it broke"


def test_a_refusal_is_no_completion() -> None:
    ledger = Ledger(1)
    ledger.mark_result(0, 6, TaskState.REFUSED, 0, "Queue is full")
    assert ledger.first_failure == "refused: Queue is full"


@pytest.mark.parametrize(("share", "value"), [(0.5, 50.0), (0.99, 99.0), (0.999, 100.0), (1.0, 100.0), (0.0, 1.0)])
def test_percentiles_are_by_nearest_rank(share: float, value: float) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == value


def test_of_nothing_there_is_no_percentile() -> None:
    assert percentile([], 0.5) is None
    assert milliseconds([0, 5], [7, 0], range(2)) == []


async def test_a_wait_for_a_change_ends_at_its_limit() -> None:
    ledger = Ledger(1)
    assert not await ledger.changed(0.01)
    asyncio.get_running_loop().call_later(0.01, ledger.announce)
    assert await ledger.changed(5.0)


def test_the_document_has_exactly_the_promised_keys() -> None:
    roles: dict[str, float | None] = {"submitter": 1.0, "coordinator": 2.0, "actors": 3.0, "broker": None}
    hardware = {"cpu": "any", "cores": 2, "memory_gb": 8.0}
    work = {"sleep_ms": 10.0, "cpu_ms": 0.0}
    found = counts(kept(10), range(10), 64)
    report = Report(found, 500, 2, work, roles, roles, None, hardware, {"python": "3"}, {}, [0.1, 0.1, 0.1])
    assert list(report.document()) == [
        "tasks", "payload_bytes", "rate", "accepted_per_s", "tasks_per_s", "lost", "duplicate_results",
        "ack_p50_ms", "ack_p99_ms", "ack_p999_ms", "handler_p50_ms", "handler_p99_ms", "handler_p999_ms",
        "result_p50_ms", "result_p99_ms", "result_p999_ms", "late_p50_ms", "late_p99_ms", "late_p999_ms",
        "in_flight", "coordinators", "handler_work", "cpu_us_per_task", "rss_mb", "log_bytes_per_task", "machine",
        "versions", "durability", "load_average",
    ]  # fmt: skip
    shown = dict(report.rows())
    assert shown["broker: CPU per task, peak memory"] == "unknown us, unknown MiB"
    assert (shown["in flight"], shown["coordinators"]) == ("500", "2")
    assert shown["each handler"] == "sleeps 10 ms"
    assert shown["lost, duplicate results"] == "0, 0"
