"""The life of a task, told from its first event to its last."""

from __future__ import annotations

import json

from schemas.tasks import RoutingDecision, TaskState
from tests.streams.tasks.world import World, text_of


def test_submit_assign_complete() -> None:
    world = World()
    world.agent("translation_agent", "translate_content", max_in_flight=2)
    world.command(pattern="translate_content", payload='{"text": "a"}', reply_to="replies.clients", reply_partition=3)
    assert (world.told.kind, world.told.from_state, world.told.to_state) == ("assigned", None, "assigned")
    assert json.loads(world.told.task)["pattern"] == "translate_content"
    decision = RoutingDecision.model_validate_json(world.told.decision)
    assert text_of(decision) == world.told.decision
    assert decision.chosen == "translation_agent"
    (inbox,) = world.of("inbox")
    assert (inbox.task.task_id, inbox.task.epoch, inbox.task.payload) == ("t", 1, '{"text": "a"}')
    assert world.last[1].name == "agents.translation_agent.inbox"

    world.report("completed", result='{"answer": 42}')
    assert [output.topic.name for output in world.last] == ["tasks.events", "tasks.results", "<reply_to>"]
    result = world.of("tasks.results")[0]
    assert (result.status, result.result, result.agent_id) == ("completed", '{"answer": 42}', "translation_agent")
    assert (world.last[2].name, world.last[2].key, world.last[2].partition) == ("replies.clients", "t", 3)
    assert world.row().state is TaskState.COMPLETED
    assert world.row().request == b""
