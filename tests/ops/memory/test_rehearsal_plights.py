"""What can go wrong around a rehearsal: waits in vain, crashes, and the world outside."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
import threading
import time
from typing import Any

import pytest

from actors.api import Actor, Context
from actors.runner import BeginAnew
from ops.memory.plight import Stuck
from ops.memory.rehearsal import Rehearsal
from schemas.errors import InvalidInput, OperatorError
from schemas.policies import RetryPolicy
from schemas.settings import Kafka, Settings
from schemas.topics import TASK_EVENTS, TASK_REPORTS
from tests.ops.memory.cast import adder, elapsed, kinds_of, nap, napper, stumbling

# --- waits that would never end


async def test_a_wait_for_an_agent_that_nobody_offers_ends_as_the_coordinator_says() -> None:
    async with Rehearsal([adder()]) as troupe:
        found = await troupe.wait(await troupe.submit("xyz"))
        assert (found.status, found.error and found.error.message) == ("failed", "Unknown pattern 'xyz'")
        assert elapsed(troupe) == 5


async def test_a_handler_that_waits_for_nobody_is_told_at_once() -> None:
    async def forever(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    async with Rehearsal([Actor("deaf", forever, capabilities=["listen"])]) as troupe:
        task = await troupe.submit("listen")
        with pytest.raises(Stuck, match=r"running to agent 'deaf' \(attempt 1\): its handler waits for something") as raised:
            await troupe.wait(task, timeout_s=60)
        assert "comes in 299.75 s" in raised.value.hint
        assert elapsed(troupe) < 1
        found = await troupe.wait(task)
        assert (found.status, found.error and found.error.code) == ("dead_lettered", "timeout")


async def test_names_that_differ_in_case_only_are_refused_as_by_the_host_on_kafka() -> None:
    like = Actor("Adder", nap)
    with pytest.raises(OperatorError, match="Agent 'Adder' differs from agent 'adder' in case only") as raised:
        await Rehearsal([adder(), like]).__aenter__()
    assert raised.value.hint == "give one another name"
    with pytest.raises(OperatorError, match="Agent 'adder' is there twice"):
        await Rehearsal([adder(), adder()]).__aenter__()
    async with Rehearsal([adder()]) as troupe:
        await troupe.crash_actors()
        with pytest.raises(OperatorError, match="Agent 'Adder' differs from agent 'adder' in case only"):
            troupe.restart_actors([like])
        troupe.restart_actors([adder(), napper()])
        assert await troupe.result(await troupe.submit("nap", {})) == {"attempt": 1}


async def test_handlers_that_wear_the_host_out_end_the_rehearsal_with_the_reason() -> None:
    async def swallow(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        for _ in range(2):  # not for good: at the end the test's own loop asks a last time
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(3600)
        return {}

    with pytest.raises(BeginAnew, match="1 cancelled handlers of agent 'deaf' do not end and hold all of its slots"):
        async with Rehearsal([Actor("deaf", swallow, max_in_flight=1, timeout_seconds=5)]) as troupe:
            await troupe.submit(agent_id="deaf")
            await troupe.advance(60)

    async def hoard(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        raise MemoryError

    troupe = Rehearsal([Actor("hoarder", hoard)])
    with pytest.raises(BeginAnew, match="agent 'hoarder' found no memory"):
        async with troupe:
            await troupe.wait(await troupe.submit(agent_id="hoarder"))
    assert sum(troupe.log.end(TASK_REPORTS.name, number) for number in range(2)) == 1, "its failure was reported before"


async def test_a_task_whose_agent_never_came_back_says_so() -> None:
    async with Rehearsal([napper()]) as troupe:
        await troupe.crash_actors()
        await troupe.advance(31)
        task = await troupe.submit("nap")
        with pytest.raises(Stuck, match="is queued, and the agents' host was ended") as raised:
            await troupe.wait(task)
        assert "restart_actors" in raised.value.hint
        troupe.restart_actors()
        assert await troupe.result(task) == {"attempt": 1}


async def test_without_a_coordinator_a_wait_says_so() -> None:
    async with Rehearsal([napper()]) as troupe:
        troupe.crash_coordinator()
        task = await troupe.submit("nap")
        with pytest.raises(Stuck, match="waits for a coordinator, and there is none"):
            await troupe.wait(task)
        troupe.restart_coordinator()
        assert await troupe.result(task) == {"attempt": 1}


async def test_what_an_earlier_submit_came_to_is_no_answer_to_one_that_is_undecided() -> None:
    async with Rehearsal([adder()]) as troupe:
        task = await troupe.submit("sum", {"a": 1, "b": 2}, task_id="mine")
        await troupe.result(task)
        troupe.crash_coordinator()
        somebody = asyncio.create_task(asyncio.sleep(1000))  # who might yet start it again
        await troupe.submit("sum", {"a": 1, "b": 2}, task_id="mine")
        with pytest.raises(Stuck, match="Nothing is known of task 'mine' after 5 s"):
            await troupe.wait("mine", timeout_s=5)
        somebody.cancel()


async def test_an_unknown_task_is_no_wait() -> None:
    async with Rehearsal([napper()]) as troupe:
        with pytest.raises(Stuck, match="'nobody' is not known here"):
            await troupe.wait("nobody")


async def test_a_held_task_is_no_wait() -> None:
    async with Rehearsal([napper()]) as troupe:
        task = await troupe.submit("nap", hold=True)
        with pytest.raises(Stuck, match="is pending: it is held"):
            await troupe.wait(task)


async def test_a_test_that_waits_for_its_own_event_for_ever_is_ended() -> None:
    with pytest.raises(Stuck, match="Nothing can happen any more"):
        async with Rehearsal([napper()]):
            await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_test_that_goes_on_for_ever_is_ended() -> None:
    with pytest.raises(Stuck, match="7200 s of virtual time went by"):
        async with Rehearsal([napper()], longest_seconds=7200):
            while True:  # noqa: ASYNC110 - the point of the test
                await asyncio.sleep(60)


# --- crashes


async def test_a_coordinator_that_crashes_forgets_nothing() -> None:
    async with Rehearsal([napper(), stumbling(2, lambda: RuntimeError("no"))]) as troupe:
        first, second = await troupe.submit("nap", {"seconds": 50}), await troupe.submit("stumble")
        for seconds in (0.0, 0.5, 1.0, 10.0):
            await troupe.advance(seconds)
            troupe.restart_coordinator()
        assert await troupe.result(first) == {"attempt": 1}
        assert await troupe.result(second) == {"attempt": 3}
        assert await kinds_of(troupe, first) == ["assigned", "started", "completed"]


async def test_a_host_that_crashes_gets_its_work_again() -> None:
    async with Rehearsal([napper()]) as troupe:
        task = await troupe.submit("nap", {"seconds": 10})
        await troupe.advance(5)
        await troupe.crash_actors()
        await troupe.advance(3)
        troupe.restart_actors()
        assert await troupe.result(task) == {"attempt": 1}
        assert elapsed(troupe) == 18


async def test_agents_may_come_back_changed() -> None:
    async with Rehearsal([napper()]) as troupe:
        await troupe.crash_actors()
        troupe.restart_actors([napper(timeout_seconds=7)])
        found = await troupe.wait(await troupe.submit("nap", {"seconds": 60}, retry=RetryPolicy(max_retries=0)))
        assert (found.status, elapsed(troupe)) == ("dead_lettered", 7)


async def test_a_lost_agent_s_task_goes_to_another_of_its_host() -> None:
    async with Rehearsal([napper(heartbeat_interval_seconds=2)]) as troupe:
        task = await troupe.submit("nap", {"seconds": 100})
        await troupe.advance(1)
        await troupe.crash_actors()
        await troupe.advance(10)
        status = await troupe.status(task)
        assert status is not None and status.status == "queued"
        troupe.restart_actors([Actor("other", nap, capabilities=["nap"])])
        found = await troupe.wait(task)
        assert (found.status, found.agent) == ("completed", "other")


# --- the world around


async def test_time_stands_still_for_threads() -> None:
    def count(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        time.sleep(0.2)
        return {"thread": threading.current_thread().name}

    async def outside(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        await asyncio.to_thread(time.sleep, 0.2)
        return {}

    actors = [Actor("thread", count, capabilities=["count"]), Actor("pool", outside, capabilities=["pool"])]
    async with Rehearsal(actors) as troupe:
        tasks = await troupe.submit("count"), await troupe.submit("pool")
        for task in tasks:
            assert (await troupe.wait(task)).attempts == 1
        assert elapsed(troupe) == 0


async def test_a_thread_that_hangs_does_not_stop_time_for_ever() -> None:
    gate = threading.Event()

    def hang(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        gate.wait(60)
        return {}

    try:
        async with Rehearsal([Actor("hung", hang, capabilities=["hang"])], patience_seconds=0.2) as troupe:
            task = await troupe.submit("hang", timeout_seconds=30, retry=RetryPolicy(max_retries=0))
            found = await troupe.wait(task)
            assert (found.status, found.error and found.error.code) == ("dead_lettered", "timeout")
            assert elapsed(troupe) == 30
    finally:
        gate.set()


async def test_a_thread_that_nobody_waits_for_any_more_ends_before_its_folder_goes() -> None:
    found: list[bool] = []
    begun = threading.Event()

    def write(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        begun.set()
        time.sleep(0.3)
        found.append(ctx.data_dir.is_dir())
        return {}

    async with Rehearsal([Actor("writer", write, capabilities=["write"])]) as troupe:
        await troupe.submit("write")
        assert await asyncio.to_thread(begun.wait, 10)
    assert found == [True]


async def test_a_handler_may_talk_to_a_server_in_the_same_loop() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def ask(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        async with asyncio.timeout(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"hello\n")
            answer = await reader.readline()
            writer.close()
            return {"answer": answer.decode().strip()}

    async with server, Rehearsal([Actor("asker", ask, capabilities=["ask"])]) as troupe:
        assert await troupe.result(await troupe.submit("ask")) == {"answer": "hello"}
        assert elapsed(troupe) == 0


async def test_time_stands_still_for_a_program_that_a_handler_runs() -> None:
    async def run(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        program = await asyncio.create_subprocess_exec(
            sys.executable, "-c", "import time; time.sleep(0.2); print('done')", stdout=asyncio.subprocess.PIPE
        )
        told, _ = await program.communicate()
        silent = await asyncio.create_subprocess_exec(sys.executable, "-c", "import time; time.sleep(0.2)")
        return {"told": told.decode().strip(), "code": await silent.wait()}

    async with Rehearsal([Actor("runner", run, capabilities=["run"])], patience_seconds=60) as troupe:
        assert await troupe.result(await troupe.submit("run")) == {"told": "done", "code": 0}
        assert elapsed(troupe) == 0


async def test_what_agents_say_is_in_the_log_of_the_test(caplog: pytest.LogCaptureFixture) -> None:
    async def speak(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        ctx.logger.info("assessing", applicant="a-17")
        raise InvalidInput("no such account")

    with caplog.at_level(logging.INFO):
        async with Rehearsal([Actor("speaker", speak, capabilities=["speak"])]) as troupe:
            await troupe.wait(await troupe.submit("speak"))
    assert any("assessing" in line and "applicant='a-17'" in line for line in caplog.messages)


async def test_time_is_real_again_afterwards() -> None:
    loop = asyncio.get_running_loop()
    async with Rehearsal([napper()]) as troupe:
        await troupe.advance(1000)
    before, real = loop.time(), time.monotonic()
    assert before == pytest.approx(real, abs=1)
    await asyncio.sleep(0.05)
    assert loop.time() - before >= 0.05


async def test_a_clock_may_begin_when_the_test_does() -> None:
    async def hurry(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
        return {"left": round(ctx.deadline_at / 1e6 - time.time())}

    async with Rehearsal([Actor("hurry", hurry, capabilities=["hurry"])], start=time.time_ns() // 1000) as troupe:
        left = (await troupe.result(await troupe.submit("hurry", timeout_seconds=600)))["left"]
        assert 500 < left <= 600


async def test_who_still_waits_at_the_end_is_told() -> None:
    async with Rehearsal([napper()]) as troupe:
        task = await troupe.submit("nap", {"seconds": 1000})
        waiting = asyncio.create_task(troupe.wait(task))
        await troupe.advance(1)
    with pytest.raises(RuntimeError, match="the rehearsal is over"):
        await waiting


async def test_one_rehearsal_at_a_time() -> None:
    async with Rehearsal([napper()]):
        with pytest.raises(OperatorError, match="virtual time already"):
            async with Rehearsal([adder()]):
                pass


async def test_outside_of_its_block_a_rehearsal_says_so() -> None:
    troupe = Rehearsal([adder()])
    with pytest.raises(RuntimeError, match="async with Rehearsal"):
        await troupe.submit("sum", {"a": 1, "b": 2})
    async with troupe:
        task = await troupe.submit("sum", {"a": 1, "b": 2})
        await troupe.result(task)
    for again in (troupe.submit("sum"), troupe.wait(task), troupe.advance(1)):
        with pytest.raises(RuntimeError, match="not open"):
            await again
    assert await kinds_of(troupe, task) == ["assigned", "completed"]  # what was seen can still be looked at
    with pytest.raises(RuntimeError, match="held once"):
        async with troupe:
            pass


async def test_an_agent_that_cannot_be_is_an_error_of_the_start() -> None:
    crowded = Actor("napper", nap, config={"inbox_partitions": 1000})
    with pytest.raises(OperatorError, match="inbox_partitions: must be between 1 and 64"):
        async with Rehearsal([crowded]):
            pass


async def test_settings_and_prefix_are_those_given() -> None:
    settings = Settings(kafka=Kafka(topic_prefix="mine.", partitions=3))
    async with Rehearsal([adder()], settings=settings) as troupe:
        await troupe.result(await troupe.submit("sum", {"a": 1, "b": 1}))
        assert troupe.log.topics()["mine." + TASK_EVENTS.name] == 3


async def test_a_repeat_changes_nothing_and_another_body_is_refused() -> None:
    async with Rehearsal([adder()]) as troupe:
        for _ in range(2):
            task = await troupe.submit("sum", {"a": 1, "b": 2}, task_id="mine")
            assert await troupe.result(task) == {"total": 3}
        assert await kinds_of(troupe, "mine") == ["assigned", "completed"]
        found = await troupe.wait(await troupe.submit("sum", {"a": 5, "b": 5}, task_id="mine"))
        assert (found.status, found.error and found.error.code) == ("refused", "task_conflict")
