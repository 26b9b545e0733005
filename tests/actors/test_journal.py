"""The journal counts starts whose process ended, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.api import Context
from actors.handlers import Operations
from actors.journal import Journal
from actors.mailbox import Mailbox, Past, Work
from schemas.inbox import AssignedTask

NOW, LATER = 1_000, 10**15


async def echo(payload: dict, ctx: Context) -> dict:  # type: ignore[type-arg]
    return payload


def work(task_id: str, epoch: int = 1, deadline: int = LATER) -> Work:
    task = AssignedTask(task_id=task_id, attempt=epoch, epoch=epoch, deadline_at=deadline)
    return Work(Mailbox("echo", 10, Operations(echo), Past()), task, "inbox.0.0", [(0, 0)])


def killed(path: Path, *works: Work, ended: tuple[Work, ...] = ()) -> None:
    """A process that begins these, ends some, and dies."""
    journal = Journal(path, NOW)
    journal.begin(works)
    if ended:
        journal.end(ended)


def test_what_ran_when_the_process_died_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    for times in range(1, 4):
        killed(path, work("t"), work("u"), ended=(work("u"),))
        journal = Journal(path, NOW)
        assert journal.starts(("t", 1)) == times
        assert journal.starts(("u", 1)) == 0
        assert journal.starts(("t", 2)) == 0


def test_an_end_forgets_all_starts(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    killed(path, work("t"))
    killed(path, work("t"), ended=(work("t"),))
    assert Journal(path, NOW).starts(("t", 1)) == 0


def test_a_clean_stop_forgets_what_still_ran(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", NOW)
    journal.begin([work("t")])
    journal.close(clean=True)
    assert Journal(tmp_path / "journal", NOW).starts(("t", 1)) == 0


def test_an_unclean_stop_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", NOW)
    journal.begin([work("t")])
    journal.close(clean=False)
    assert Journal(tmp_path / "journal", NOW).starts(("t", 1)) == 1


def test_entries_past_their_deadline_leave(tmp_path: Path) -> None:
    killed(tmp_path / "journal", work("t", deadline=NOW))
    assert Journal(tmp_path / "journal", NOW).starts(("t", 1)) == 0


@pytest.mark.parametrize("tail", ["+ 1 99", "+ 1 9999999999999999 torn", "nonsense\n", "\x00\x00\n", "= 1 9 x y\n"])
def test_a_torn_or_foreign_line_is_no_entry(tmp_path: Path, tail: str) -> None:
    path = tmp_path / "journal"
    killed(path, work("t"))
    with path.open("a") as file:
        file.write(tail)
    journal = Journal(path, NOW)
    assert journal.starts(("t", 1)) == 1
    assert journal.starts(("torn", 1)) == 0


def test_the_file_stays_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.journal.REWRITE_BYTES", 2_000)
    path = tmp_path / "journal"
    killed(path, work("old"))
    journal = Journal(path, NOW)
    journal.begin([work("long")])
    for n in range(500):
        journal.begin([work(f"t{n}")])
        journal.end([work(f"t{n}")])
    assert path.stat().st_size < 4_000
    again = Journal(path, NOW)
    assert (again.starts(("old", 1)), again.starts(("long", 1)), again.starts(("t7", 1))) == (1, 1, 0)


def test_it_is_empty_when_nothing_runs(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal", NOW)
    journal.begin([work("t"), work("u")])
    journal.end([work("t")])
    journal.end([work("u")])
    assert (tmp_path / "journal").stat().st_size == 0
