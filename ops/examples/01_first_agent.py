"""01: work for an agent of one's own, and what comes back.

`underwriting.py` beside this file is the agent: a function with a model for its input. This is its customer. It shows
that a result is a plain value, that the same id is never worked on twice, and that what does not fit the model is told
to the caller and never reaches the function.

    troupe up --detach --data data                      # once, for all examples
    troupe run ops/examples/underwriting.py             # in another terminal
    python ops/examples/01_first_agent.py

prints

    ann: grade A, score 780 is 740 or more
    bob: grade C, 362 of loan per point of score
    bob again, with the same id: grade C, 1 attempt
    cat: failed, invalid_input: loan_amount: Input should be greater than 0
"""

from __future__ import annotations

import uuid

from ops.cli.options import running_settings
from ops.client import Client, TaskFailed
from ops.examples.start import start

ANN = {"applicant_id": "ann", "loan_amount": 9_000, "credit_score": 780}
BOB = {"applicant_id": "bob", "loan_amount": 250_000, "credit_score": 690}
CAT = {"applicant_id": "cat", "loan_amount": 0, "credit_score": 700}
LIMIT_S = 15.0


async def main() -> None:
    async with Client(running_settings()) as client:
        task = await client.submit(pattern="risk_assessment", payload=ANN)
        risk = await client.result(task, LIMIT_S)
        print(f"ann: grade {risk['grade']}, {risk['reason']}")

        mine = f"bob-{uuid.uuid4()}"  # an id of one's own: a submit that was not confirmed can be made again
        await client.submit(pattern="risk_assessment", payload=BOB, task_id=mine)
        risk = await client.result(mine, LIMIT_S)
        print(f"bob: grade {risk['grade']}, {risk['reason']}")
        await client.submit(pattern="risk_assessment", payload=BOB, task_id=mine)
        found = await client.wait(mine, timeout_s=LIMIT_S)
        assert found is not None
        print(f"bob again, with the same id: grade {risk['grade']}, {found.attempts} attempt")

        task = await client.submit(pattern="risk_assessment", payload=CAT)
        try:
            await client.result(task, LIMIT_S)
        except TaskFailed as failed:
            print(f"cat: {failed.status.status}, {failed.code}: {failed}")


if __name__ == "__main__":
    start(main, "troupe run ops/examples/underwriting.py")
