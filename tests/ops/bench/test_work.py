"""The tasks of a bench are what they claim: unique, of the right size, random, spread over pools and routes."""

from __future__ import annotations

import asyncio
import json
import zlib
from collections import Counter
from typing import Any, cast

import pytest

from actors.handlers import result_text
from ops.bench import agents as bench_agents
from ops.bench.work import LEAST_PAYLOAD_BYTES, Work, payload


@pytest.mark.parametrize("size", [LEAST_PAYLOAD_BYTES, LEAST_PAYLOAD_BYTES + 1, 100, 1024, 100_000])
def test_a_payload_is_a_json_object_of_exactly_its_size(size: int) -> None:
    text = payload(size)
    assert len(text.encode()) == size
    assert list(json.loads(text)) == ["text"]


def test_a_payload_cannot_be_compressed_below_its_six_bits_a_letter() -> None:
    text = payload(10_000).encode()
    assert len(zlib.compress(text, 9)) > len(text) * 0.74
    assert payload(1024) != payload(1024)


def test_ids_are_unique_and_lead_back_to_their_number() -> None:
    work = Work("ab12cd34", 100)
    assert len({work.task_id(number) for number in range(1000)}) == 1000
    assert work.number(work.task_id(7)) == 7
    for other in ("", "zz-000000007", "ab12cd34-x", "ab12cd34"):
        assert work.number(other) is None


def test_half_goes_by_pattern_and_half_by_capability_and_all_pools_get_the_same() -> None:
    work = Work("ab12cd34", 100)
    commands = [work.command(number) for number in range(120)]
    assert Counter(command.pattern for command in commands if command.pattern) == {f"pool{n}": 10 for n in range(6)}
    asked = Counter(command.required_capabilities[0] for command in commands if not command.pattern)
    assert asked == {f"pool{n}": 10 for n in range(6)}


def test_there_are_18_agents_in_6_pools_of_3_and_each_answers_in_100_bytes() -> None:
    agents = bench_agents.agents()
    assert Counter(word for agent in agents for word in agent.capabilities) == {f"pool{n}": 3 for n in range(6)}
    assert len({agent.agent_id for agent in agents}) == 18
    answer = asyncio.run(bench_agents.nothing("{}", cast(Any, None)))
    assert len(result_text(answer)) == bench_agents.RESULT_BYTES
    assert answer["at"] > 1_600_000_000_000_000
