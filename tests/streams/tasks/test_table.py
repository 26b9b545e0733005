"""Every cell of the state table of a task, as the specification writes it.

Columns: P pending, Q queued, A assigned, R running, T retrying, C completed, F failed, X cancelled, D dead-lettered. A
cell is the state after it, `=` for nothing at all, `late` and `no: code` for what is said without a transition, `stale`
for a wake that finds nothing to do, `.` for what cannot occur. `slot came free` is `agent selected` there.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from schemas.agents import AgentState
from schemas.settings import Settings
from schemas.tasks import TaskError, TaskState
from streams.processor import Change
from streams.tasks.notes import read
from tests.streams.tasks.world import SECOND, START, World

COLUMNS = ("absent", "P", "Q", "A", "R", "T", "C", "F", "X", "D")
STATES = dict(zip(COLUMNS[1:], list(TaskState)[:9], strict=True))

TABLE = """
event                    | absent             | P    | Q    | A    | R    | T    | C    | F    | X    | D
submit                   | A                  | .    | .    | .    | .    | .    | .    | .    | .    | .
submit, no slot          | Q                  | .    | .    | .    | .    | .    | .    | .    | .    | .
submit, hold             | P                  | .    | .    | .    | .    | .    | .    | .    | .    | .
submit, same body        | .                  | =    | =    | =    | =    | =    | =    | =    | =    | =
submit, other body       | .                  | no: task_conflict | no | no | no | no | no | no | no | no
execute                  | no: task_not_found | A    | =    | =    | =    | =    | =    | no: task_finished | no: task_finished | no: task_finished
execute, no slot         | no: task_not_found | Q    | =    | =    | =    | =    | =    | no: task_finished | no | no
assign                   | no: task_not_found | P    | Q    | no: task_assigned | no | T    | no: task_finished | no | no | no
assign, same agent       | no: task_not_found | P    | Q    | =    | =    | T    | no: task_finished | no | no | no
due                      | stale              | A    | stale | stale | stale | stale | stale | stale | stale | stale
slot came free           | .                  | .    | A    | .    | .    | .    | .    | .    | .    | .
started                  | late               | late | late | R    | =    | late | late | late | late | late
progress                 | late               | late | late | progress | progress | late | late | late | late | late
completed                | late               | late | C    | C    | C    | C    | late | late | late | late
completed, epoch unknown | late               | late | late | late | late | late | late | late | late | late
completed, epoch 0       | late               | late | late | late | late | late | late | late | late | late
failed, retry left       | late               | late | late | T    | T    | late | late | late | late | late
failed, none left        | late               | late | late | D    | D    | late | late | late | late | late
failed, for good         | late               | late | late | F    | F    | late | late | late | late | late
failed, old epoch        | late               | late | late | late | late | late | late | late | late | late
attempt timeout          | stale              | stale | stale | T    | T    | stale | stale | stale | stale | stale
timeout, none left       | stale              | stale | stale | D    | D    | stale | stale | stale | stale | stale
agent offline            | .                  | stale | stale | Q    | Q    | stale | stale | stale | stale | stale
agent gone, pinned       | .                  | F    | F    | F    | F    | F    | stale | stale | stale | stale
agent gone, not pinned   | .                  | stale | stale | Q    | Q    | stale | stale | stale | stale | stale
retry delay over         | stale              | stale | stale | stale | stale | A    | stale | stale | stale | stale
cancel                   | no: task_not_found | X    | X    | X    | X    | X    | no: task_finished | no: task_finished | = | no: task_finished
life over                | stale              | F    | F    | F    | F    | F    | stale | stale | stale | stale
redrive                  | redriven           | no: not_redrivable | no | no | no | no | no | no | no | D
discard                  | discarded          | no: not_redrivable | no | no | no | no | no | no | no | discarded
a rule raised            | .                  | D    | D    | D    | D    | D    | =    | =    | =    | =
wake of another version  | stale              | stale | stale | stale | stale | stale | stale | stale | stale | stale
"""  # noqa: E501 - a table


def cells() -> list[tuple[str, str, str]]:
    """(event, column, expected) for every cell that can occur; a bare `no` repeats the code before it in its row."""
    found = []
    for line in TABLE.strip().splitlines()[1:]:
        event, *row = [part.strip() for part in line.split("|")]
        code = ""
        for column, cell in zip(COLUMNS, row, strict=True):
            code = cell if cell.startswith("no:") else code
            if cell != ".":
                found.append((event, column, code if cell == "no" else cell))
    return found


TASK = {"pattern": "dig", "payload": '{"hole": 1}'}
BOOM = TaskError(code="agent_error", message="boom", retryable=True)
REFUSED = TaskError(code="invalid_input", message="no")


def world_in(column: str, event: str) -> World:
    """A world with an agent `a` that is up, and the task `t` in a state."""
    retries = 3 if "none left" not in event else 1 if column == "T" else 0
    world = World(Settings.model_validate({"error_recovery": {"max_retries": retries}}))
    world.agent("a", "dig")
    fields = TASK | ({"agent_id": "a"} if event == "agent gone, pinned" else {})
    if column == "absent":
        return world
    if column == "P":
        world.command(**fields, **({"not_before": START + 5 * SECOND} if event == "due" else {"hold": True}))
        return world
    world.command(**fields)
    if column == "Q":  # queued again after its agent was lost, so there is an epoch behind it
        world.agent("a", "dig", state=AgentState.STOPPED)
        world.wake()
    if column == "R":
        world.report("started")
    if column == "T":
        world.report("failed", error=BOOM)
    if column == "C":
        world.report("completed")
    if column == "F":
        world.report("failed", error=REFUSED)
    if column == "X":
        world.command(kind="cancel")
    if column == "D":
        world.rule_raises()
    return world


def timer(*states: TaskState) -> Callable[[World], object]:
    """The timer of these states runs out; in any other state the row has moved on since it was set."""

    def runs_out(world: World) -> object:
        row = world.rows.get("t")
        if row is None or row.state not in states:
            return world.wake(version=row.version - 1 if row is not None else 1)
        world.now = row.due_at
        return world.wake()

    return runs_out


def life_over(world: World) -> object:
    """The task is a day old."""
    world.now += 86_400 * SECOND
    return world.wake()


def agent(state: AgentState | None) -> Callable[[World], object]:
    """The agent changes, None: it is unregistered; and the task is woken, as `ready` would have it."""

    def changes(world: World) -> object:
        if state is None:
            world.unregister("a")
        else:
            world.agent("a", "dig", state=state)
        return world.wake()

    return changes


def without_slot(kind: str, **fields: str) -> Callable[[World], object]:
    """A command while the agent has no slot left."""

    def commanded(world: World) -> object:
        world.agent("a", "dig", max_in_flight=1)
        world.command("other", **TASK)
        return world.command(kind=kind, **fields)

    return commanded


def assign(agent_id: str) -> Callable[[World], object]:
    """Pin the task to an agent that is there."""

    def assigned(world: World) -> object:
        world.agent(agent_id, "dig")
        return world.command(kind="assign", agent_id=agent_id)

    return assigned


FLIGHT = (TaskState.ASSIGNED, TaskState.RUNNING)
EVENTS: dict[str, Callable[[World], object]] = {
    "submit": lambda w: w.command(**TASK),
    "submit, no slot": without_slot("submit", **TASK),
    "submit, hold": lambda w: w.command(hold=True, **TASK),
    "submit, same body": lambda w: w.command(**TASK, hold=w.row().state is TaskState.PENDING),
    "submit, other body": lambda w: w.command(**(TASK | {"payload": '{"hole": 2}'})),
    "execute": lambda w: w.command(kind="execute"),
    "execute, no slot": without_slot("execute"),
    "assign": assign("b"),
    "assign, same agent": assign("a"),
    "due": timer(TaskState.PENDING),
    "slot came free": agent(AgentState.UP),
    "started": lambda w: w.report("started"),
    "progress": lambda w: w.report("progress", progress=0.5),
    "completed": lambda w: w.report("completed", result="{}"),
    "completed, epoch unknown": lambda w: w.report("completed", epoch=9, result="{}"),
    "completed, epoch 0": lambda w: w.report("completed", epoch=0, result="{}"),
    "failed, retry left": lambda w: w.report("failed", error=BOOM),
    "failed, none left": lambda w: w.report("failed", error=BOOM),
    "failed, for good": lambda w: w.report("failed", error=REFUSED),
    "failed, old epoch": lambda w: w.report("failed", epoch=0, error=BOOM),
    "attempt timeout": timer(*FLIGHT),
    "timeout, none left": timer(*FLIGHT),
    "agent offline": agent(AgentState.OFFLINE),
    "agent gone, pinned": agent(None),
    "agent gone, not pinned": agent(None),
    "retry delay over": timer(TaskState.RETRYING),
    "cancel": lambda w: w.command(kind="cancel"),
    "life over": life_over,
    "redrive": lambda w: w.command(kind="redrive", redriven_as="t~1"),
    "discard": lambda w: w.command(kind="discard"),
    "a rule raised": lambda w: w.rule_raises(),
    "wake of another version": lambda w: w.wake(version=99),
}


@pytest.mark.parametrize(("event", "column", "expected"), cells())
def test_cell(event: str, column: str, expected: str) -> None:
    world = world_in(column, event)
    before = world.rows.get("t")
    if column != "absent":
        assert before is not None
        assert before.state is STATES[column]
    check(expected, EVENTS[event](world), before, world)


def check(expected: str, decided: object, before: object, world: World) -> None:
    """Compare a decision with a cell."""
    if expected in ("=", "stale"):
        assert decided is None
        return
    assert decided is not None
    if expected in STATES:
        assert isinstance(decided, Change)
        assert decided.row.state is STATES[expected]
        assert (world.told.to_state, world.told.version) == (STATES[expected], decided.row.version)
        return
    assert not isinstance(decided, Change)
    assert world.rows.get("t") is before
    said = read(decided)  # type: ignore[arg-type]
    assert world.told.to_state == (world.told.from_state or TaskState.UNKNOWN)
    if expected.startswith("no: "):
        assert said.kind == "refused"
        assert said.fault is not None
        assert said.fault.code == expected[4:]
        assert world.told.error.code == expected[4:]
    else:
        assert said.kind == {"late": "late_report"}.get(expected, expected)
