"""Policies and definitions check themselves: an impossible one cannot be made."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.agents import AgentDefinition
from schemas.policies import POLICY_A, POLICY_B, Jitter, RateLimit, RetryPolicy


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        (RetryPolicy, {"max_retries": -1}),
        (RetryPolicy, {"max_retries": 2**31}),
        (RetryPolicy, {"retry_delay": -0.1}),
        (RetryPolicy, {"retry_delay": float("inf")}),
        (RetryPolicy, {"backoff_multiplier": 0.5}),
        (RetryPolicy, {"max_delay": float("nan")}),
        (RetryPolicy, {"jitter": "unknown"}),
        (RetryPolicy, {"jitter": "some"}),
        (RateLimit, {"rate": 0.0}),
        (RateLimit, {"rate": 1.0, "burst": 0.5}),
        (AgentDefinition, {"agent_id": "a", "agent_type": "t", "max_in_flight": 0}),
        (AgentDefinition, {"agent_id": "a", "agent_type": "t", "heartbeat_interval_seconds": 0}),
        (AgentDefinition, {"agent_id": "a", "agent_type": "t", "timeout_seconds": 0}),
        (AgentDefinition, {"agent_id": "a", "agent_type": "t", "weight": 0.0}),
        (AgentDefinition, {"agent_id": "a.b", "agent_type": "t"}),
        (AgentDefinition, {"agent_id": "a~b", "agent_type": "t"}),
        (AgentDefinition, {"agent_id": "x" * 65, "agent_type": "t"}),
    ],
)
def test_impossible_values_are_refused(model: Any, fields: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        model(**fields)


def test_the_named_policies_wait_as_the_specification_says() -> None:
    assert [POLICY_B.delay_seconds(n) for n in (1, 2, 3)] == [1.0, 2.0, 4.0]
    assert [POLICY_A.delay_seconds(n) for n in (1, 2, 3)] == [2.0, 4.0, 8.0]


@given(st.floats(0, 1000), st.floats(1, 10), st.floats(0, 1000), st.integers(1, 10_000))
def test_a_delay_never_falls_and_never_passes_its_cap(first: float, factor: float, cap: float, retry: int) -> None:
    policy = RetryPolicy(retry_delay=first, backoff_multiplier=factor, max_delay=cap)
    assert policy.delay_seconds(retry) <= policy.delay_seconds(retry + 1) <= cap


@given(st.floats(0, 1))
def test_full_jitter_takes_a_part_of_the_delay(spread: float) -> None:
    assert RetryPolicy(jitter=Jitter.FULL).delay_seconds(2, spread) == pytest.approx(2.0 * spread)


def test_retries_count_from_one() -> None:
    with pytest.raises(ValueError, match="count from 1"):
        POLICY_B.delay_seconds(0)
