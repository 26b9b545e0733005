"""The test agent: rows that a receiver must take and rows that it must refuse, made from the schema it goes by.

No language model is asked: a schema already says where its edges are, and what is made twice from the same seed is the
same. Running a case means that the schema itself judges the row, by other code than made it; a schema that contradicts
itself shows there. With a `target` each row that the schema agrees on also becomes a task, and the receiver's answer is
the outcome: rows that fit must complete, the others must be refused and not just break. The handler runs in a thread.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from actors.api import Actor, Context
from actors.catalog.asking import Answer, Ask, Wish
from actors.catalog.avro_shape import AvroSchema
from actors.catalog.cases import Kind, Trial, trials
from actors.catalog.column_shape import ColumnSchema, learnt_columns
from actors.catalog.datasets import DataRef, named, shown
from actors.catalog.json_judge import violation
from actors.catalog.json_schema import shape_of, unchecked_formats
from actors.catalog.shapes import Shape, words_of
from schemas.errors import InvalidInput

CASES_MAX = 1_000
LISTED_BYTES_MAX = 400_000
"""JSON text of the cases in a result; a result must stay a record."""

Expected = Literal["accepted", "refused"]
Judge = Callable[[Any], str | None]

_AGENT_ID = "test_generation_agent"
_OWN = ("generate_tests", "test_generation")
_REFUSALS = frozenset({"invalid_input", "invalid_request", "unsupported"})
_MARGIN_S = 5.0  # of the attempt's time, for the report
_STEM_CHARS = 96  # a task id has at most 128

_WORDS = {"Schema": "schema", "TestCount": "test_count", "RunTests": "run_tests"}


class TestInput(BaseModel):
    """What to make tests from: a `schema` (JSON Schema, Avro schema of a record, or columns: a list of
    `{name, type, …}` or `{"columns": {name: type}}`; an object or its JSON text), or the columns of `data_ref`.

    The other fields may also come inside `options`, and as `Schema`, `TestCount`, `RunTests`. target: a pattern; each
    row becomes a task of it.
    """

    __test__ = False  # a name that pytest would take for its own
    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    operation: Literal["GenerateAndRunTests", "GenerateTests"] = "GenerateAndRunTests"
    given: dict[str, Any] | list[Any] | str | None = Field(default=None, alias="schema")
    data_ref: DataRef | None = None
    test_count: int = Field(default=10, ge=1, le=CASES_MAX)
    run_tests: bool = True
    seed: int | None = Field(default=None, ge=0, lt=2**53)
    target: str | None = Field(default=None, min_length=1, max_length=256)

    @model_validator(mode="before")
    @classmethod
    def _one_level(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        options = given.get("options")
        if options is not None and not isinstance(options, dict):
            return given
        inner = {_WORDS.get(name, name): value for name, value in (options or {}).items()}
        outer = {_WORDS.get(name, name): value for name, value in given.items() if name != "options"}
        return inner | outer


class TestCase(BaseModel):
    """One row: `property` is what it tries, `expected` what the schema says of it, `message` why it failed."""

    __test__ = False

    case_id: str
    row: Any
    kind: Kind
    property: str
    expected: Expected
    outcome: Literal["passed", "failed", "not_run"] = "not_run"
    message: str | None = None


class TestResult(BaseModel):
    """How many cases were made, run, passed and failed; `cases` in order, failed ones first if there is no room."""

    __test__ = False

    generated: int
    run: int
    passed: int
    failed: int
    cases: list[TestCase]
    seed: int
    degraded: bool = False
    notes: list[str]


def generate(request: TestInput, ctx: Context, ask: Ask | None = None) -> TestResult:
    """Make the cases and run them; `ask` has the target do its tasks. Raises InvalidInput for what the caller must change."""
    try:
        return _generate(request, ctx, ask)
    except RecursionError:
        raise InvalidInput("The schema is nested too deeply") from None


def _generate(request: TestInput, ctx: Context, ask: Ask | None) -> TestResult:
    notes: list[str] = []
    _check(request, ask)
    schema = _schema(request, ctx, notes)
    shape, judge = _read(schema, notes)
    if words_of(shape) != {"object"}:
        raise InvalidInput("The schema must be of an object, as the payload of a task is one")
    seed = _seed(schema) if request.seed is None else request.seed
    cases = [_case(number, trial) for number, trial in enumerate(trials(shape, request.test_count, seed), 1)]
    if len(cases) < request.test_count:
        notes.append(f"The schema refuses no object that could be tried; {request.test_count - len(cases)} cases less")
    if request.run_tests and request.operation != "GenerateTests":
        for case in cases:
            _run(case, judge)
        if request.target is not None and ask is not None:
            _run_on_target([case for case in cases if case.outcome == "passed"], request.target, ctx, ask)
    outcomes = [case.outcome for case in cases]
    return TestResult(
        generated=len(cases),
        run=len(cases) - outcomes.count("not_run"),
        passed=outcomes.count("passed"),
        failed=outcomes.count("failed"),
        cases=_listed(cases, notes),
        seed=seed,
        notes=notes,
    )


def agent(ask: Ask | None = None) -> Actor:
    """The test agent of the catalogue; without `ask` it cannot take a target."""
    return Actor(_AGENT_ID, partial(generate, ask=ask), agent_type="test_generation", capabilities=_OWN)


def _check(request: TestInput, ask: Ask | None) -> None:
    if (request.given is None) == (request.data_ref is None):
        raise InvalidInput("Give either 'schema' or 'data_ref'")
    if request.target is not None and ask is None:
        raise InvalidInput("'target' needs a running system to ask, and this host has none", code="unsupported")
    if request.target in _OWN:
        raise InvalidInput("'target' cannot be the test agent itself")


def _schema(request: TestInput, ctx: Context, notes: list[str]) -> Any:
    if request.data_ref is not None:
        columns, rows = learnt_columns(ctx.data_dir, request.data_ref)
        notes.append(f"The columns were learnt from {rows} rows: a span is what was seen, not what must be")
        return list(columns)
    if not isinstance(request.given, str):
        return request.given
    try:
        return json.loads(request.given)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"The schema is text and not JSON: {shown(str(error))}") from None


def _read(schema: Any, notes: list[str]) -> tuple[Shape, Judge]:
    """The shape of a schema in whatever language, and its judge."""
    if isinstance(schema, list) or (isinstance(schema, dict) and schema.keys() == {"columns"}):
        columns = ColumnSchema(schema["columns"] if isinstance(schema, dict) else schema)
        return columns.shape(), columns.violation
    if not isinstance(schema, dict):
        raise InvalidInput(f"The schema is {shown(schema)}, not an object or a list of columns")
    if "fields" in schema and schema.get("type") in ("record", "error"):
        avro = AvroSchema(schema)
        return avro.shape(), avro.violation
    shape = shape_of(schema)
    if strange := sorted(set(unchecked_formats(schema))):
        notes.append(f"Rows are not held to the formats {named(strange)}")
    return shape, lambda row: violation(schema, row)


def _seed(schema: Any) -> int:
    """The same for the same schema, so that a second run of a task gives the same."""
    text = json.dumps(schema, sort_keys=True, default=str)
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:6], "big")


def _case(number: int, trial: Trial) -> TestCase:
    expected: Expected = "refused" if trial.kind == "invalid" else "accepted"
    return TestCase(case_id=f"case-{number}", row=trial.row, kind=trial.kind, property=trial.tries, expected=expected)


def _run(case: TestCase, judge: Judge) -> None:
    wrong = judge(case.row)
    case.outcome = "passed" if (wrong is not None) == (case.expected == "refused") else "failed"
    if case.outcome == "failed":
        case.message = f"The schema refuses it: {wrong}" if wrong else "The schema takes it"


def _run_on_target(cases: list[TestCase], target: str, ctx: Context, ask: Ask) -> None:
    """The cases as tasks: what the target makes of each is the outcome."""
    stem = ctx.task_id if len(ctx.task_id) <= _STEM_CHARS else hashlib.sha256(ctx.task_id.encode()).hexdigest()
    stem = stem.replace("~", ".")  # no task id of one's own may have it
    wishes = [Wish(f"{stem}.{case.case_id}", target, case.row) for case in cases]
    seconds = ctx.deadline_at / 1e6 - time.time() - _MARGIN_S
    for case, answer in zip(cases, ask(wishes, ctx.task_id, seconds), strict=True):
        case.message = _disagreement(case.expected, answer)
        case.outcome = "failed" if case.message else "passed"


def _disagreement(expected: Expected, answer: Answer | None) -> str | None:
    if answer is None:
        return "The target had no outcome in time"
    if expected == "accepted":
        return None if answer.completed else f"The target: {answer.status}, {answer.code}: {shown(answer.message, 300)}"
    if answer.completed:
        return "The target takes it"
    if answer.code in _REFUSALS:
        return None
    return f"The target breaks instead of refusing it: {answer.status}, {answer.code}: {shown(answer.message, 300)}"


def _listed(cases: list[TestCase], notes: list[str]) -> list[TestCase]:
    """As many cases as a result holds, those that failed first."""
    sizes = {case.case_id: len(case.model_dump_json()) for case in cases}
    left, kept = LISTED_BYTES_MAX, set()
    for case in sorted(cases, key=lambda case: case.outcome != "failed"):
        left -= sizes[case.case_id]
        if left < 0:
            break
        kept.add(case.case_id)
    if len(kept) < len(cases):
        notes.append(f"{len(cases)} cases were made; {len(kept)} are listed, those that failed first")
    return [case for case in cases if case.case_id in kept]
