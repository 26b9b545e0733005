"""How the agents of `underwriting.py` are tested: each in a whole system that lives in the test, without a Kafka."""

import pytest

from actors import Actor, Context
from ops.examples.underwriting import Application, Risk, agents, assess
from ops.memory.rehearsal import Rehearsal, Stuck, TaskFailed
from schemas.errors import Overloaded

APPLICATION = {"applicant_id": "a-17", "loan_amount": 250_000, "credit_score": 690}

pytestmark = pytest.mark.asyncio


async def test_an_application_is_graded() -> None:
    async with Rehearsal(agents()) as troupe:
        task = await troupe.submit("risk_assessment", APPLICATION)
        assert await troupe.result(task) == {"grade": "C", "reason": "362 of loan per point of score"}


async def test_a_loan_of_nothing_is_the_callers_mistake() -> None:
    async with Rehearsal(agents()) as troupe:
        task = await troupe.submit("risk_assessment", APPLICATION | {"loan_amount": 0})
        with pytest.raises(TaskFailed, match="loan_amount: Input should be greater than 0"):
            await troupe.result(task)
        assert (await troupe.wait(task)).attempts == 1


async def test_a_busy_bureau_is_asked_again_after_1_2_and_4_seconds() -> None:
    async def busy_at_first(application: Application, ctx: Context) -> Risk:
        if ctx.attempt < 4:
            raise Overloaded("the bureau does not answer")
        return await assess(application, ctx)

    async with Rehearsal([Actor("underwriting_agent", busy_at_first, capabilities=["risk_assessment"])]) as troupe:
        began = troupe.now
        task = await troupe.submit("risk_assessment", APPLICATION)
        found = await troupe.wait(task)
        assert (found.status, found.attempts, (troupe.now - began) / 1e6) == ("completed", 4, 7)


async def test_no_application_is_lost_while_nobody_is_there() -> None:
    async with Rehearsal(agents()) as troupe:
        troupe.crash_coordinator()
        await troupe.crash_actors()
        task = await troupe.submit("risk_assessment", APPLICATION)
        with pytest.raises(Stuck, match="waits for a coordinator, and there is none"):
            await troupe.wait(task)
        troupe.restart_coordinator()
        troupe.restart_actors()
        assert (await troupe.result(task))["grade"] == "C"
