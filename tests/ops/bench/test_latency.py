"""The open loop, small and whole: its times are counted from the plan, and a stall in between is not hidden."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import pytest

from actors.loader import load_agents
from ops.bench import agents as bench_agents
from ops.bench.ledger import Ledger
from ops.bench.pace import Pacer, punctual_loop
from ops.bench.report import counts
from ops.bench.traffic import SUBJECTS, producing
from ops.bench.work import Work
from ops.cli.roles import environ_with_sources, troupe_command
from ops.codecs import load_codecs
from ops.topics import apply
from schemas.errors import OperatorError
from schemas.settings import Settings, process_environment
from topology import troupe


def bench(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environ = environ_with_sources(process_environment()) | {"XDG_STATE_HOME": str(state)}
    command = troupe_command("bench", "latency", *arguments)
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=150, check=False)


@pytest.mark.kafka
def test_a_small_run_at_a_rate(broker: str, tmp_path: Path) -> None:
    arguments = ["--rate", "50", "--seconds", "3", "--warmup", "30", "--payload-bytes", "200", "--handler-ms", "40"]
    ended = bench(tmp_path, *arguments, "--broker", broker, "--set", "kafka.partitions=2", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert (found["tasks"], found["rate"], found["payload_bytes"]) == (150, 50.0, 200)
    assert (found["lost"], found["duplicate_results"]) == (0, 0)
    assert found["handler_work"] == {"sleep_ms": 40.0, "cpu_ms": 0.0}
    assert found["accepted_per_s"] == pytest.approx(50, rel=0.2)
    for what in ("ack", "handler", "result"):
        assert 0 < found[f"{what}_p50_ms"] <= found[f"{what}_p99_ms"] <= found[f"{what}_p999_ms"]
    assert found["result_p50_ms"] > found["handler_p50_ms"] + 35  # the handler slept


@pytest.mark.kafka
def test_several_runs_are_one_document(broker: str, tmp_path: Path) -> None:
    sizes = ["--rate", "100", "--seconds", "0.5", "--warmup", "20", "--payload-bytes", "100", "--runs", "2"]
    ended = bench(tmp_path, *sizes, "--broker", broker, "--set", "kafka.partitions=2", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert [run["tasks"] for run in found["runs"]] == [50, 50]
    assert found["least"]["result_p50_ms"] <= found["median"]["result_p50_ms"] <= found["most"]["result_p50_ms"]
    assert found["median"]["lost"] == 0


def test_a_handler_does_one_thing(tmp_path: Path) -> None:
    ended = bench(tmp_path, "--handler-ms", "1", "--handler-cpu-ms", "1")
    assert ended.returncode == 2
    assert "sleeps or computes" in ended.stderr


def test_handlers_take_their_time(tmp_path: Path) -> None:
    context = cast(Any, None)
    before = time.monotonic()
    slept = asyncio.run(cast(Any, bench_agents.sleeping(20))("{}", context))
    assert time.monotonic() - before >= 0.02
    spent = time.thread_time()
    computed = cast(Any, bench_agents.computing(20))("{}", context)
    assert time.thread_time() - spent >= 0.02
    for answer in (slept, computed):
        assert len(json.dumps(answer, separators=(",", ":"))) == bench_agents.RESULT_BYTES


@pytest.mark.parametrize(("sleep_ms", "cpu_ms"), [(10.0, 0.0), (0.0, 5.0)])
def test_other_agents_come_from_a_file(tmp_path: Path, sleep_ms: float, cpu_ms: float) -> None:
    file = bench_agents.write_agents(tmp_path, sleep_ms, cpu_ms)
    made = load_agents(file)
    assert [actor.agent_id for actor in made] == [actor.agent_id for actor in bench_agents.agents()]
    assert (made[0].max_in_flight == bench_agents.COMPUTING_IN_FLIGHT) is bool(cpu_ms)
    assert bench_agents.write_agents(tmp_path, 0, 0).read_text() == Path(bench_agents.__file__).read_text()


def paced(settings: Settings, tasks: int, rate: float, blocked_s: float, stall_s: float = 30.0) -> Ledger:
    """The ledger of a run during which this whole process stands still for a while."""

    async def run() -> Ledger:
        codecs, topic = await load_codecs(settings, troupe(), SUBJECTS), settings.kafka.topic_prefix + "tasks.requests"
        async with producing(settings) as producer:
            pacer, ledger = Pacer(producer, topic, 2, codecs, Work("run", 64)), Ledger(tasks)
            asyncio.get_running_loop().call_later(0.2, time.sleep, blocked_s)
            await pacer.run(range(tasks), rate, ledger, stall_s)
            return ledger

    with asyncio.Runner(loop_factory=punctual_loop) as runner:
        return runner.run(run())


@pytest.fixture
def ready(settings: Settings) -> Settings:
    asyncio.run(apply(settings, troupe()))
    return settings


@pytest.mark.kafka
def test_each_task_has_its_moment_and_a_stall_counts_for_all_that_it_held_up(ready: Settings) -> None:
    ledger = paced(ready, 100, 200, blocked_s=0.3)
    assert {later - earlier for earlier, later in pairwise(ledger.submitted)} == {5000}
    assert ledger.accepted(range(100)) == 100
    found = counts(ledger, range(100), 64, 200)
    assert found.late_p99_ms is not None and found.late_p99_ms > 250
    assert found.ack_p99_ms is not None and found.ack_p99_ms > 250
    held_up = [n for n in range(100) if ledger.sent[n] - ledger.submitted[n] > 50_000]
    assert len(held_up) >= 40  # a closed loop would have seen one slow task


@pytest.mark.kafka
def test_a_plan_that_cannot_be_kept_ends_with_a_word(ready: Settings) -> None:
    with pytest.raises(OperatorError, match=r"s behind its plan of 200 tasks/s") as caught:
        paced(ready, 200, 200, blocked_s=1.5, stall_s=1.0)
    assert "--rate" in caught.value.hint
