"""Cases that a schema's own judge, or somebody else's, agrees with; and schemas that are refused in so many words."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from actors.api import Context
from actors.catalog.builtin import builtin
from actors.catalog.datasets import DataRef, DatasetWriter
from actors.catalog.generate_tests import TestCase, TestInput, TestResult, generate
from schemas.errors import InvalidInput

LOAN: dict[str, Any] = {
    "type": "object",
    "properties": {
        "applicant_id": {"type": "string", "minLength": 1},
        "loan_amount": {"type": "number", "exclusiveMinimum": 0},
        "credit_score": {"type": "integer", "minimum": 300, "maximum": 850},
    },
    "required": ["applicant_id", "loan_amount", "credit_score"],
}
AVRO: dict[str, Any] = {
    "type": "record",
    "name": "Trade",
    "namespace": "x",
    "fields": [
        {"name": "id", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "size", "type": "int"},
        {"name": "price", "type": ["null", "double"], "default": None},
        {"name": "side", "type": {"type": "enum", "name": "Side", "symbols": ["BUY", "SELL"]}},
        {"name": "raw", "type": ["bytes", "null"]},
        {"name": "hash", "type": {"type": "fixed", "name": "Hash", "size": 4}},
        {"name": "at", "type": {"type": "long", "logicalType": "timestamp-micros"}},
        {"name": "legs", "type": {"type": "array", "items": ["null", "Trade"]}},
        {"name": "tags", "type": {"type": "map", "values": "boolean"}},
        {"name": "other", "type": ["null", "Side", "long"]},
    ],
}
COLUMNS: list[dict[str, Any]] = [
    {"name": "month", "type": "timestamp", "min": 0, "max": 10**15},
    {"name": "jobs", "type": "int", "min": 0},
    {"name": "change", "type": "float", "nullable": True, "min": -10.5, "max": 10.5},
    {"name": "kind", "values": ["farm", "town"]},
    {"name": "note", "max_length": 5},
    {"name": "final", "type": "bool"},
]


DEEP: Any = {}
for _ in range(3_000):
    DEEP = {"properties": {"a": DEEP}}


def run(ctx: Context, schema: Any, **more: Any) -> TestResult:
    return generate(TestInput.model_validate({"schema": schema, **more}), ctx)


def tried(cases: list[TestCase], kind: str) -> set[str]:
    return {case.property for case in cases if case.kind == kind}


def test_ten_cases_by_default_valid_boundary_and_invalid_in_turn(ctx: Context) -> None:
    result = run(ctx, LOAN)
    assert (result.generated, result.run, result.passed, result.failed) == (10, 10, 10, 0)
    assert [case.kind for case in result.cases] == ["valid", "boundary", "invalid"] * 3 + ["valid"]
    assert [case.expected for case in result.cases[:3]] == ["accepted", "accepted", "refused"]
    assert [case.case_id for case in result.cases] == [f"case-{number}" for number in range(1, 11)]
    assert tried(result.cases, "boundary") == {
        "applicant_id: shortest text", "loan_amount: least", "credit_score: least",
    }  # fmt: skip
    assert tried(result.cases, "invalid") == {
        "applicant_id: too short", "loan_amount: too small", "credit_score: too small",
    }  # fmt: skip
    assert [case.row["credit_score"] for case in result.cases[7:9]] == [300, 299]


def test_every_edge_and_fault_has_its_turn(ctx: Context) -> None:
    cases = run(ctx, LOAN, test_count=80).cases
    assert tried(cases, "boundary") == {
        "applicant_id: shortest text", "applicant_id: long text", "applicant_id: text beyond ASCII",
        "loan_amount: least", "loan_amount: far above zero", "credit_score: least", "credit_score: greatest",
    }  # fmt: skip
    assert tried(cases, "invalid") == {
        "applicant_id: too short", "applicant_id: another type", "applicant_id: null", "applicant_id: missing",
        "loan_amount: too small", "loan_amount: another type", "loan_amount: null", "loan_amount: missing",
        "credit_score: too small", "credit_score: too large", "credit_score: a fraction", "credit_score: another type",
        "credit_score: null", "credit_score: missing", "another type", "null",
    }  # fmt: skip


def test_a_seed_makes_the_same_cases_and_another_makes_others(ctx: Context) -> None:
    first = run(ctx, LOAN, seed=1)
    assert first == run(replace(ctx, task_id="other"), LOAN, seed=1)
    assert first.cases != run(ctx, LOAN, seed=2).cases
    own = run(ctx, LOAN)
    assert run(ctx, json.loads(json.dumps(LOAN))) == own == run(ctx, LOAN, seed=own.seed)


def test_all_ways_to_ask(ctx: Context) -> None:
    plain = run(ctx, LOAN, test_count=4, run_tests=False, seed=5)
    assert (plain.generated, plain.run, {case.outcome for case in plain.cases}) == (4, 0, {"not_run"})
    options = {"Schema": LOAN, "TestCount": 4, "RunTests": False, "seed": 5}
    assert generate(TestInput.model_validate({"options": options}), ctx) == plain
    assert run(ctx, json.dumps(LOAN), options={"test_count": 4, "seed": 5}, operation="GenerateTests") == plain
    (actor,) = builtin(["test_generation_agent"])
    assert (actor.agent_type, list(actor.capabilities)) == ("test_generation", ["generate_tests", "test_generation"])


class Leg(BaseModel):
    model_config = ConfigDict(extra="forbid")

    code: str = Field(pattern=r"^[A-Z]{3}-\d{2,4}$")
    weight: float = Field(gt=0, lt=1)
    steps: int = Field(multiple_of=5, ge=-7, le=21)


class Trade(BaseModel):
    trade_id: str = Field(min_length=2, max_length=6)
    side: Literal["buy", "sell"]
    first: Leg
    legs: list[Leg] = Field(default=[], max_length=2)
    note: str | None = None
    amounts: dict[str, float] = {}
    day: date = date(2020, 1, 1)
    children: list[Trade] = []


def test_pydantic_agrees_on_the_schema_of_a_model(ctx: Context) -> None:
    schema = Trade.model_json_schema()
    result = run(ctx, schema, test_count=400)
    assert (result.passed, result.failed) == (400, 0)
    for case in result.cases:
        try:
            Trade.model_validate_json(json.dumps(case.row), strict=True)
            taken = True
        except ValidationError:
            taken = False
        assert taken == (case.expected == "accepted"), (case.property, case.row)
    assert {
        "first.code: text that does not fit the pattern",
        "legs: too many items",
        "first: a field too many",
    } <= tried(result.cases, "invalid")
    assert {"note: null", "children[0].side: last value", "first.steps: greatest"} <= tried(result.cases, "boundary")


@pytest.mark.parametrize("schema", [AVRO, COLUMNS, {"columns": {"a": "int", "b": "str", "c": "float"}}])
def test_other_languages_of_schemas(ctx: Context, schema: Any) -> None:
    result = run(ctx, schema, test_count=300)
    assert (result.passed, result.failed, result.notes) == (300, 0, [])
    assert {case.kind for case in result.cases} == {"valid", "boundary", "invalid"}


def test_avro_keeps_to_its_types(ctx: Context) -> None:
    cases = run(ctx, json.dumps(AVRO), test_count=300).cases
    by_try = {case.property: case.row for case in cases}
    assert by_try["size: too large"]["size"] == 2**31
    assert len(by_try["hash: too long"]["hash"]) == 5
    assert "price" not in by_try["price: left out"]
    assert all(letter <= "\xff" for case in cases if case.kind == "valid" for letter in case.row["hash"])


def test_columns_of_a_data_set_are_learnt(ctx: Context) -> None:
    with DatasetWriter(ctx.data_dir, "source") as dataset:
        dataset.add({"id": 7, "at": "2020-01-02T00:00:00Z", "x": 1, "note": None, "on": True, "void": None})
        dataset.add({"id": 9, "at": "2020-01-01T00:00:00Z", "x": 2.5, "note": "abc", "on": False, "void": None})
        ref = dataset.commit()
    result = generate(TestInput(data_ref=ref, test_count=90), ctx)
    by_try = {case.property: case for case in result.cases}
    assert (result.passed, result.notes) == (
        90,
        ["The columns were learnt from 2 rows: a span is what was seen, not what must be"],
    )
    assert [by_try[f"id: {what}"].row["id"] for what in ("least", "greatest", "too small", "too large")] == [
        7,
        9,
        6,
        10,
    ]
    assert by_try["at: latest"].row["at"] == "2020-01-02T00:00:00Z"
    assert by_try["x: greatest"].row["x"] == 2.5
    assert (by_try["note: null"].row["note"], by_try["note: too long"].expected) == (None, "refused")


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ([], "has no rows to learn columns from"),
        ([{"a": 1}, {"a": "x"}], "Column 'a' holds int and str"),
        ([{"a": [1]}], "holds lists or objects"),
    ],
)
def test_data_sets_that_teach_nothing(ctx: Context, records: list[dict[str, Any]], text: str) -> None:
    with DatasetWriter(ctx.data_dir, "source") as dataset:
        for record in records:
            dataset.add(record)
        ref = dataset.commit()
    with pytest.raises(InvalidInput, match=text):
        generate(TestInput(data_ref=ref), ctx)


def test_spans_of_large_numbers_are_exact(ctx: Context) -> None:
    with DatasetWriter(ctx.data_dir, "source") as dataset:
        for number in (2**62 + 1, 2**62 + 3):
            dataset.add({"n": number})
        ref = dataset.commit()
    result = generate(TestInput(data_ref=ref, test_count=20), ctx)
    rows = {case.property: case.row["n"] for case in result.cases if case.kind == "boundary"}
    assert (rows, result.failed) == ({"n: least": 2**62 + 1, "n: greatest": 2**62 + 3}, 0)


def test_a_data_set_that_changed_is_refused(ctx: Context) -> None:
    with DatasetWriter(ctx.data_dir, "source") as dataset:
        dataset.add({"a": 1})
        ref = dataset.commit()
    with pytest.raises(InvalidInput, match="has changed"):
        generate(TestInput(data_ref=ref.model_copy(update={"sha256": "0" * 64})), ctx)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"properties": {"n": {"type": "integer", "minimum": 5, "maximum": 3}}, "required": ["n"]}, "n is 5, above 3"),
        ({"properties": {"n": {"type": "integer", "enum": ["x"]}}, "required": ["n"]}, "n is x, not integer"),
        (
            {"properties": {"n": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}, "required": ["n"]},
            "fits 2 of the 2",
        ),
        (
            {"properties": {"n": {"type": "string", "pattern": "^[a-z]{3}$", "minLength": 5}}, "required": ["n"]},
            "fewer than 5",
        ),
    ],
)
def test_a_schema_that_contradicts_itself_fails(ctx: Context, schema: dict[str, Any], message: str) -> None:
    result = run(ctx, schema, test_count=30)
    failed = [case for case in result.cases if case.outcome == "failed"]
    assert result.failed == len(failed) > 0
    assert any(message in (case.message or "") for case in failed)


def test_a_schema_that_refuses_nothing_has_fewer_cases(ctx: Context) -> None:
    result = run(ctx, {"type": "object", "properties": {"x": {}}}, test_count=9)
    assert (result.generated, result.failed) == (9, 0)
    assert tried(result.cases, "invalid") == {"another type", "null"}


def test_a_large_result_lists_what_fits(ctx: Context) -> None:
    wide = {"columns": {f"a_rather_long_name_of_column_{number}": "str" for number in range(100)}}
    result = run(ctx, wide, test_count=200)
    assert (result.generated, result.passed) == (200, 200)
    assert len(result.model_dump_json()) < 500_000
    assert result.notes == [f"200 cases were made; {len(result.cases)} are listed, those that failed first"]


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({}, "Give either 'schema' or 'data_ref'"),
        ({"schema": LOAN, "data_ref": {"path": "datasets/x.jsonl"}}, "Give either"),
        ({"data_ref": {"path": "datasets/x.jsonl"}}, "does not exist here"),
        ({"schema": "{"}, "is text and not JSON"),
        ({"schema": "7"}, "The schema is 7, not an object"),
        ({"schema": []}, "has 1 to 2000 columns"),
        ({"schema": [{"name": "a"}, {"name": "a"}]}, "each name once"),
        ({"schema": [{"name": "a", "type": "money"}]}, "wrong at 0.type"),
        ({"schema": {"columns": {}}}, "has 1 to 2000 columns"),
        ({"schema": {"type": "string"}}, "must be of an object"),
        ({"schema": DEEP}, "nested too deeply"),
        ({"schema": [{"name": "a", "type": "int", "min": float("inf")}]}, "finite number"),
        ({"schema": {"properties": {"a": {"type": "number", "maximum": float("nan")}}}}, "not a number within"),
        (
            {"schema": {"type": "record", "fields": [{"name": "a", "type": "no"}], "name": "R"}},
            "Avro schema cannot be read",
        ),
        ({"schema": {"type": "record", "name": "R", "fields": [{"name": "r", "type": "R"}]}}, "without an end"),
        (
            {
                "schema": LOAN | {"properties": {"x": {"type": "array", "minItems": 90_000, "items": LOAN}}},
                "test_count": 99,
            },
            "too large",
        ),
    ],
)
def test_what_the_caller_must_change(ctx: Context, request_: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidInput, match=text):
        generate(TestInput.model_validate(request_), ctx)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"test_count": 0}, "greater than or equal to 1"),
        ({"test_count": 1001}, "less than or equal to 1000"),
        ({"tests": 3}, "Extra inputs"),
        ({"operation": "Guess"}, "Input should be 'GenerateAndRunTests' or 'GenerateTests'"),
    ],
)
def test_words_that_are_wrong(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValidationError, match=text):
        TestInput.model_validate({"schema": LOAN, **options})


def test_what_failed_is_listed_though_not_all_is(ctx: Context) -> None:
    wide = {f"a_rather_long_name_of_field_{number}": {"type": "string"} for number in range(50)}
    schema = {"properties": {**wide, "z": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}, "required": list(wide)}
    result = run(ctx, schema, test_count=400)
    failed = [case for case in result.cases if case.outcome == "failed"]
    assert len(result.cases) < result.generated == 400
    assert len(failed) == result.failed > 0
    assert int(failed[-1].case_id.removeprefix("case-")) > len(result.cases)


def test_a_reference_outside_of_the_data_sets_is_refused(ctx: Context, tmp_path: Path) -> None:
    (tmp_path / "secret.jsonl").write_text('{"a": 1}\n')
    with pytest.raises(InvalidInput, match="lies outside"):
        generate(TestInput(data_ref=DataRef(path="../secret.jsonl")), ctx)
