"""An agent that grades loan applications: the example of the README, run with `troupe run underwriting.py`."""

from pydantic import BaseModel, Field

from actors import Actor, Context


class Application(BaseModel):
    applicant_id: str
    loan_amount: float = Field(gt=0)
    credit_score: int = Field(ge=300, le=850)


class Risk(BaseModel):
    grade: str
    reason: str


async def assess(application: Application, ctx: Context) -> Risk:
    ctx.logger.info("assessing", applicant=application.applicant_id, attempt=ctx.attempt)
    if application.credit_score >= 740:
        return Risk(grade="A", reason=f"score {application.credit_score} is 740 or more")
    per_point = application.loan_amount / application.credit_score
    return Risk(grade="B" if per_point < 100 else "C", reason=f"{per_point:.0f} of loan per point of score")


def agents() -> list[Actor]:
    return [Actor("underwriting_agent", assess, capabilities=["risk_assessment"], max_in_flight=16)]
