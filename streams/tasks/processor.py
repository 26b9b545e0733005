"""The life of a task as one rule: what each record, timer and change of an agent does to it.

This file only tells records apart and keeps the indexes. The decisions are beside it: `commands` and `submit` for what
users wish, `reports` for what agents say, `timers` for what is due, `dispatch` for who gets a task, `failures` for what
follows a failed attempt, `outputs` for what the world learns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from heapq import merge
from itertools import chain

from schemas.base import Record
from schemas.changelog import WakeRecord
from schemas.settings import Settings
from schemas.task_row import TaskRow
from schemas.tasks import IN_FLIGHT, TERMINAL, CommandKind, TaskCommand, TaskReport, TaskState
from schemas.topics import (
    AGENT_HEALTH,
    AGENT_REGISTRY,
    DEAD_LETTERS,
    INBOX,
    REPLY_TO,
    TASK_EVENTS,
    TASK_REPORTS,
    TASK_REQUESTS,
    TASK_RESULTS,
    Topic,
)
from streams.processor import Change, Decided, Decision, EnsureTopic, Event, Headers, Note, Output, Share, Views
from streams.tasks import failures
from streams.tasks.body import Body, examine
from streams.tasks.commands import command
from streams.tasks.knowledge import Decode, knowledge
from streams.tasks.outputs import of_note, of_row
from streams.tasks.queue import Place
from streams.tasks.reports import report
from streams.tasks.rows import SECOND, due_at
from streams.tasks.timers import woken

LIMBO_AT_ONCE = 1000
"""Tasks without a route that one change of an agent brings back to be looked at, per call."""


class TasksProcessor:
    """Implements `Processor[TaskRow]`; one instance per assignment."""

    name = "tasks"
    row = TaskRow
    inputs: tuple[Topic, ...] = (TASK_REQUESTS, TASK_REPORTS)
    outputs_to: tuple[Topic, ...] = (INBOX, TASK_EVENTS, TASK_RESULTS, REPLY_TO, DEAD_LETTERS)
    views: tuple[Topic, ...] = (AGENT_REGISTRY, AGENT_HEALTH)
    answers: tuple[Topic, ...] = (TASK_REPORTS,)

    def __init__(self, settings: Settings, share: Share, decode_request: Decode, version: str) -> None:
        """`decode_request` turns a request's raw value and position into its command; `version` is the code's."""
        self._know = knowledge(settings, share, decode_request, version)
        self._kept = settings.tasks.keep_finished_seconds * SECOND
        self._gone: tuple[int, dict[str, int]] = (0, {})
        self._looked = 0

    # --- decisions

    def prepare(self, record: Record, value: bytes, headers: Headers) -> Body | None:
        """The body of a submit, checked and hashed."""
        if isinstance(record, TaskCommand) and record.kind is CommandKind.SUBMIT:
            return examine(record, value, headers, self._know.settings.limits.max_record_bytes)
        return None

    def step(self, row: TaskRow | None, event: Event, views: Views) -> Decision[TaskRow]:
        """Raises TypeError for a record that is none of its inputs'."""
        know = self._know
        know.refresh(views)
        record = event.record
        if isinstance(record, TaskReport):
            return report(know, row, event, record)
        if isinstance(record, TaskCommand):
            return command(know, row, event, record)
        if isinstance(record, WakeRecord):
            if row is None or row.version != record.version:
                return None
            if row.task_id in know.queues.limbo:
                know.queues.limbo[row.task_id] = know.directory.generation
            return woken(know, row, event)
        raise TypeError(f"no task record: {type(record).__name__}")

    def outputs(self, decided: Decided[TaskRow], event: Event) -> Iterable[Output | EnsureTopic]:
        """A function of row or note and event alone."""
        if isinstance(decided, Note):
            return of_note(self._know, decided, event)
        return of_row(self._know, decided.row, event)

    def broken(self, row: TaskRow, event: Event, error: Exception) -> Change[TaskRow] | None:
        """An open row ends as a dead letter; a finished one stays as it is."""
        if row.state in TERMINAL:
            return None
        return Change(failures.broken(row, event, json.dumps({"raised": type(error).__name__})))

    def due(self, row: TaskRow) -> int | None:
        """Microseconds."""
        return due_at(row)

    def expires(self, row: TaskRow) -> int | None:
        """Microseconds; a finished row is kept for `tasks.keep_finished_seconds`."""
        return row.completed_at + self._kept if row.state in TERMINAL else None

    def published(self, row: TaskRow) -> Iterable[Output]:
        """Nothing: tasks have no compacted topic."""
        return ()

    # --- indexes

    def index(self, before: TaskRow | None, after: TaskRow | None) -> None:
        """Follow a row from one state to the next."""
        if before is not None:
            self._forget(before)
        if after is not None:
            self._enter(after)

    def _forget(self, row: TaskRow) -> None:
        know, key = self._know, row.task_id
        if row.state in TERMINAL:
            return
        if row.state is TaskState.QUEUED:
            know.queues.remove(row.pool, (row.created_at, key))
        elif row.state in IN_FLIGHT and row.agent_id is not None:
            know.load.take(row.agent_id, key, know.directory.limit(row.agent_id))
        if row.pinned_agent_id is not None and row.pool is not None:
            know.load.unpin(row.pinned_agent_id, key)

    def _enter(self, row: TaskRow) -> None:
        know, key = self._know, row.task_id
        if row.state in TERMINAL:
            return
        if row.state is TaskState.QUEUED:
            know.queues.add(row.pool, (row.created_at, key), know.directory.generation)
        elif row.state in IN_FLIGHT and row.agent_id is not None:
            know.load.give(row.agent_id, key, know.directory.limit(row.agent_id))
            if row.pool is not None:
                know.turns.took(row.pool, row.agent_id)
        if row.pinned_agent_id is not None and row.pool is not None:
            know.load.pin(row.pinned_agent_id, key)

    def view_changed(self, topic: Topic, key: str) -> None:
        """The agent is read again at the next step."""
        self._know.directory.dirty.add(key)

    # --- what could move

    def ready(self, now: int, views: Views) -> Iterator[str]:
        """Those that could start, oldest first, at most one per free slot."""
        self._know.refresh(views)
        yield from self._startable()
        yield from self._limbo()

    def stranded(self, now: int, views: Views) -> Iterator[tuple[int, Iterable[str]]]:
        """Tasks of agents that went away: they are given to others when all is read that came before that.

        Of an agent whose host has said goodbye the last reports lie there, a moment older; in another topic, so they may be
        unread when the goodbye is known.
        """
        know = self._know
        know.refresh(views)
        if self._gone[0] != know.directory.generation:
            self._gone = know.directory.generation, self._gone_since(now)
        for agent_id, since in self._gone[1].items():
            held = know.load.held.get(agent_id, {})
            pinned = know.load.pinned.get(agent_id, {}) if know.directory.get(agent_id) is None else {}
            if held or pinned:
                yield since, chain(held, (key for key in pinned if key not in held))

    def _gone_since(self, now: int) -> dict[str, int]:
        """Agents with tasks that are not up, and the first moment after they last were something else.

        When one was removed is not known here, only when that was seen first.
        """
        know, before = self._know, self._gone[1]
        found = {}
        for agent_id in sorted({*know.load.held, *know.load.pinned}):
            agent = know.directory.get(agent_id)
            if agent is None:
                found[agent_id] = before.get(agent_id, now)
            elif not know.directory.up(agent_id):
                found[agent_id] = agent.updated_at + 1
        return found

    def _startable(self) -> Iterator[str]:
        """Heads of the queues, merged by age, while the agents of their pools have free slots."""
        know = self._know
        if not know.queues.pools:
            return
        taken: dict[str, int] = {}
        heads: list[list[tuple[Place, str]]] = []
        for pool, queue in know.queues.pools.items():
            free = self._free(pool, taken)
            if free:
                heads.append([(place, pool) for place in queue.first(free)])
        single = len(heads) == 1
        for place, pool in merge(*heads):
            if single or self._take(pool, taken):
                yield place[1]

    def _free(self, pool: str, taken: dict[str, int]) -> int:
        counts = self._know.load.counts
        return sum(
            max(0, agent.limit - counts.get(agent.agent_id, 0) - taken.get(agent.agent_id, 0))
            for agent in self._know.directory.pool(pool).open.values()
        )

    def _take(self, pool: str, taken: dict[str, int]) -> bool:
        """Promise a slot, so that two pools with one agent are not both promised the same."""
        counts = self._know.load.counts
        for agent in self._know.directory.pool(pool).open.values():
            if counts.get(agent.agent_id, 0) + taken.get(agent.agent_id, 0) < agent.limit:
                taken[agent.agent_id] = taken.get(agent.agent_id, 0) + 1
                return True
        return False

    def _limbo(self) -> Iterator[str]:
        """Tasks without a route, once for each change of the agents."""
        limbo, generation = self._know.queues.limbo, self._know.directory.generation
        if limbo and self._looked != generation:
            behind = [key for key, seen in limbo.items() if seen != generation]
            if not behind:
                self._looked = generation
            yield from behind[:LIMBO_AT_ONCE]
