"""A second writer by hand, and topics that are not what they were: ignored, or refused with cause and remedy."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from streams.runtime.exits import EXIT_FENCED, EXIT_KAFKA, EXIT_OPERATOR
from tests.faults.by_hand import make_anew, meddle, set_config
from tests.faults.harness import Run, run
from topology import config_of, troupe

pytestmark = [pytest.mark.kafka, pytest.mark.faults, pytest.mark.timeout(900)]

KINDS = ("rows", "garbage", "copy", "transaction")
Endured = Callable[[dict], None]


def _changelogs(made: Run) -> list[str]:
    return [made.settings.kafka.topic_prefix + spec.changelog.name for spec in troupe().processors]


@pytest.mark.parametrize(
    ("running", "stopped"),
    [(("rows",), ("garbage", "transaction")), pytest.param(KINDS * 3, KINDS * 3, marks=pytest.mark.long)],
    ids=["short", "all"],
)
async def test_a_second_writer_by_hand(
    broker: str, tmp_path: Path, endured: Endured, running: tuple[str, ...], stopped: tuple[str, ...]
) -> None:
    """While the owner runs its next batch is fenced; while it is stopped its next start ignores what it finds."""
    async with run("a second writer by hand", broker, tmp_path, seed=101) as made:
        system, coordinator = made.system, made.system.coordinator
        tasks, agents = _changelogs(made)
        await system.ready()
        await made.submitter.feed(60)
        await made.done(0.5)
        for kind in running:
            await system.until(lambda: coordinator.was_ready, 40, "ready again")
            fenced = coordinator.exits[EXIT_FENCED]
            load = asyncio.create_task(made.submitter.feed(40, 60))
            with coordinator.may_exit(EXIT_FENCED):
                await meddle(broker, tasks, kind)
                await system.until(
                    lambda fenced=fenced: coordinator.exits[EXIT_FENCED] > fenced, 20, f"fenced by {kind}"
                )
            await load
        assert "something else wrote to its changelog" in coordinator.log()
        await system.until(lambda: coordinator.was_ready, 40, "ready")
        for n, kind in enumerate(stopped):
            await system.halt(coordinator, signal.SIGTERM)
            for name in (tasks, agents):
                await meddle(broker, name, kind)
            heard = len(coordinator.log())
            if n % 2 == 1:
                system.forget_tables()
            system.resume(coordinator)
            await system.until(lambda: coordinator.was_ready, 40, f"ready after {kind}")
            ignored = coordinator.log()[heard:].count("strays_ignored")
            # Without the store the log is read from its begin, and what was ignored before is met once more.
            assert ignored == 2 or (n % 2 == 1 and ignored >= 2), kind
        await made.submitter.feed(60)
        await made.verdict()
        endured(made.row)
        assert made.row["strays"] >= len(running) + 2 * len(stopped)


@pytest.mark.long
async def test_topics_that_are_not_what_they_were(broker: str, tmp_path: Path) -> None:
    """Each ends a start with 73, the cause and the remedy; what is put right again starts."""
    async with run("topics made anew", broker, tmp_path, seed=102) as made:
        system, coordinator = made.system, made.system.coordinator
        prefix, (changelog, _) = made.settings.kafka.topic_prefix, _changelogs(made)
        await system.ready()
        await made.submitter.feed(40)
        await made.done(1.0)
        await asyncio.sleep(1.0)  # and is committed
        await system.halt(coordinator, signal.SIGTERM)
        await set_config(broker, changelog, cleanup_policy="delete")
        await _refused(made, f"Changelog '{changelog}' has cleanup.policy=delete", "cleanup.policy=compact")
        await set_config(broker, changelog, cleanup_policy="compact")
        system.resume(coordinator)
        await system.until(lambda: coordinator.was_ready, 40, "ready with the policy put right")
        await system.halt(coordinator, signal.SIGTERM)
        requests = prefix + "tasks.requests"
        await make_anew(broker, requests, 2, config_of(troupe().processors[0].inputs[0], made.settings))
        await _refused(made, f"{requests}.", "was emptied or made anew", "another kafka.topic_prefix")
        await make_anew(broker, changelog, 3, {"cleanup.policy": "compact"})
        await _refused(made, f"Topic '{changelog}' has 3 partitions, the settings say 2", "kafka.partitions")
        await make_anew(broker, changelog, 2, {"cleanup.policy": "compact"})
        await _refused(made, f"Changelog '{changelog}.", "is empty, but records of", "start over")


@pytest.mark.long
@pytest.mark.parametrize("topic", ["tasks.results", "coordinator-tasks-changelog"])
async def test_an_output_that_is_refused_for_good(broker: str, tmp_path: Path, endured: Endured, topic: str) -> None:
    """The process stops without a commit and names the topic; its next starts see what is wrong, until it is mended."""
    async with run(f"{topic} refuses", broker, tmp_path, seed=103) as made:
        system, coordinator = made.system, made.system.coordinator
        name = made.settings.kafka.topic_prefix + topic
        policy = "compact" if "changelog" in topic else "delete"
        await system.ready()
        with coordinator.may_exit(EXIT_KAFKA):
            await set_config(broker, name, cleanup_policy=policy, max_message_bytes="10")
            await made.submitter.feed(60)
            await system.until(lambda: coordinator.exits[EXIT_KAFKA] > 0, 60, "stopped")
        assert f"Kafka refused a batch for {name}." in coordinator.log()
        assert "MessageSizeTooLargeError" in coordinator.log()
        with coordinator.may_exit(EXIT_OPERATOR):
            await system.until(lambda: coordinator.exits[EXIT_OPERATOR] > 1, 60, "refused at two starts")
            assert f"Topic '{name}' takes 10 bytes at once (max.message.bytes)" in coordinator.log()
            assert f"--entity-name {name} --add-config max.message.bytes=" in coordinator.log()
            await set_config(broker, name, cleanup_policy=policy, max_message_bytes=str(4 << 20))
            await made.done()
        assert coordinator.exits[EXIT_KAFKA] == 1
        await made.verdict()
        endured(made.row)


async def _refused(made: Run, *words: str) -> None:
    """Start the coordinator, which must refuse in these words and with its code, and leave it dead."""
    system, coordinator = made.system, made.system.coordinator
    before, heard = coordinator.exits[EXIT_OPERATOR], len(coordinator.log())
    with coordinator.may_exit(EXIT_OPERATOR):
        system.resume(coordinator)
        await system.until(lambda: coordinator.exits[EXIT_OPERATOR] > before, 40, f"refused: {words[0]}")
        await system.halt(coordinator)
    said = coordinator.log()[heard:]
    for word in words:
        assert word in said, said
