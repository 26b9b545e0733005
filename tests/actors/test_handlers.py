"""Signatures are checked when the actor is made; inputs, answers and failures are told in the words of the spec."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import pytest
import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict
from typing_extensions import TypedDict

from actors.api import Actor, Context
from actors.handlers import MESSAGE_CHARS, NoSuchOperation, Operations, WrongResult, failure, result_text
from schemas.errors import InvalidInput, Overloaded, PayloadTooLarge, Permanent, Retryable


class Loan(BaseModel):
    applicant_id: str
    amount: float


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")
    amount: float


@dataclass
class Point:
    x: float


async def assess(loan: Loan, ctx: Context) -> dict[str, Any]:
    return {}


def count(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return {}


def plain(payload: dict, ctx: Context) -> dict:  # type: ignore[type-arg]
    return {}


async def text(payload: str, ctx: Context) -> dict[str, Any]:
    return {}


async def strict(request: Strict, ctx: Context) -> dict[str, Any]:
    return {}


async def point(request: Point, ctx: Context) -> dict[str, Any]:
    return {}


class Callable:
    async def __call__(self, loan: Loan, ctx: Context) -> dict[str, Any]:
        return {}


def parsed(handler: Any, payload: str) -> Any:
    return Operations(handler).pick(payload)[1]


def test_the_annotation_decides_what_the_handler_gets() -> None:
    assert parsed(assess, '{"applicant_id": "a", "amount": 2}') == Loan(applicant_id="a", amount=2.0)
    assert parsed(count, '{"a": 1}') == {"a": 1}
    assert parsed(plain, '{"a": 1}') == {"a": 1}
    assert parsed(text, ' {"a": 1}') == ' {"a": 1}'
    assert parsed(point, '{"x": 1}') == Point(1.0)
    assert parsed(Callable(), '{"applicant_id": "a", "amount": 2}').amount == 2.0
    assert parsed(functools.partial(assess), '{"applicant_id": "a", "amount": 2}').amount == 2.0


@pytest.mark.parametrize(
    ("handler", "is_async"), [(assess, True), (count, False), (Callable(), True), (functools.partial(assess), True)]
)
def test_coroutines_are_told_from_plain_functions(handler: Any, is_async: bool) -> None:
    assert Operations(handler).pick('{"applicant_id": "a", "amount": 2}')[0].is_async is is_async


@pytest.mark.parametrize(
    ("handler", "payload", "message"),
    [
        (assess, '{"applicant_id": "a"}', "amount: Field required"),
        (assess, "{}", "applicant_id: Field required (and 1 more)"),
        (assess, '{"applicant_id": "a", "amount": "x"}', "amount: Input should be a valid number"),
        (assess, "[", "payload: Invalid JSON"),
        (plain, "[1]", "payload: a JSON object is due, this is list"),
        (plain, "{", "payload: not valid JSON"),
        (plain, '{"a": NaN}', "payload: not valid JSON"),
        (count, '"x"', "payload: Input should be an object"),
    ],
)
def test_a_wrong_input_names_the_field(handler: Any, payload: str, message: str) -> None:
    with pytest.raises(InvalidInput) as raised:
        parsed(handler, payload)
    assert str(raised.value).startswith(message)
    error = failure(raised.value, "a", 1)
    assert (error.code, error.retryable) == ("invalid_input", False)


def test_the_payload_picks_the_operation_and_the_first_is_the_default() -> None:
    operations = Operations({"assess": strict, "count": count})
    assert operations.pick('{"amount": 1}')[0].name == "assess"
    assert operations.pick('{"operation": "count", "amount": 1}')[0].name == "count"
    assert operations.pick('{"operation": "assess", "amount": 1}')[1] == Strict(amount=1.0)
    for payload in ('{"operation": "burn"}', '{"operation": 7}'):
        with pytest.raises(NoSuchOperation, match="is none of assess, count") as raised:
            operations.pick(payload)
        assert failure(raised.value, "a", 1).code == "unsupported"


async def one(loan: Loan) -> None: ...
async def three(loan: Loan, ctx: Context, more: int) -> None: ...
async def bare(loan, ctx): ...  # type: ignore[no-untyped-def]
async def odd(loan: object(), ctx: Context) -> None: ...  # type: ignore[valid-type]
async def number(count: int, ctx: Context) -> None: ...
async def many(loans: list[Loan], ctx: Context) -> None: ...
async def perhaps(word: str | None, ctx: Context) -> None: ...
async def word(how: Literal["so"], ctx: Context) -> None: ...


class Row(NamedTuple):
    a: int


class Dear(TypedDict):
    a: int


def first(value: Any) -> Any:
    return value["a"]


async def row(of: Row, ctx: Context) -> None: ...
async def dear(of: Dear, ctx: Context) -> None: ...
async def either(of: int | Loan | Dear, ctx: Context) -> None: ...
async def own(of: Annotated[int, BeforeValidator(first)], ctx: Context) -> None: ...
async def whatever(of: object, ctx: Context) -> None: ...


@pytest.mark.parametrize(
    ("handler", "value"), [(row, Row(1)), (dear, Dear(a=1)), (either, Dear(a=1)), (own, 1), (whatever, {"a": 1})]
)
def test_whatever_pydantic_makes_of_an_object_is_an_input(handler: Any, value: Any) -> None:
    assert parsed(handler, '{"a": 1}') == value


@pytest.mark.parametrize(
    ("handler", "message"),
    [
        (one, "handler 'one' must take \\(input, ctx\\)"),
        (three, "handler 'three' must take \\(input, ctx\\)"),
        (bare, "annotate 'loan' with a pydantic model, dict or str"),
        (odd, "handler 'odd': input of type"),
        (number, "a JSON object, and no int; annotate 'count' with a pydantic model, dict or str"),
        (many, "a JSON object, and no list\\[.*Loan\\]; annotate 'loans' with"),
        (perhaps, "a JSON object, and no str | None; annotate 'word' with"),
        (word, "a JSON object, and no Literal"),
        ("assess", "a handler is a function of \\(input, ctx\\), not str"),
    ],
)
def test_a_wrong_signature_is_found_when_the_actor_is_made(handler: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"Actor 'x': .*{message}"):
        Actor("x", handler)


def test_an_input_class_that_nobody_can_look_up_is_explained() -> None:
    class Local(BaseModel):
        a: int

    async def handler(local: Local, ctx: Context) -> None: ...

    with pytest.raises(TypeError, match="define its input class at the top of a module"):
        Actor("x", handler)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"agent_id": "a.b"}, "agent_id"),
        ({"weight": -1.0}, "weight"),
        ({"handler": {}}, "at least one handler"),
    ],
)
def test_impossible_limits_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Actor(**{"agent_id": "x", "handler": count} | wrong)


def test_the_definition_is_equal_for_equal_actors() -> None:
    make = functools.partial(Actor, "x", count, capabilities=["b", "a"], config={"z": 1, "a": 2})
    assert make().definition() == make().definition()
    assert make().definition().config == '{"a": 2, "z": 1}'


def test_answers_become_json_objects() -> None:
    assert result_text(Loan(applicant_id="a", amount=1)) == '{"applicant_id":"a","amount":1.0}'
    assert result_text({"of": Strict(amount=1), "word": "NaN"}) == '{"of":{"amount":1.0},"word":"NaN"}'


@pytest.mark.parametrize("result", [None, [1], "text", 3, {"a": float("nan")}, {"a": object()}])
def test_a_wrong_answer_is_never_retried(result: Any) -> None:
    with pytest.raises(WrongResult) as raised:
        result_text(result)
    error = failure(raised.value, "a", 1)
    assert (error.code, error.retryable) == ("agent_error", False)


@pytest.mark.parametrize(
    ("error", "code", "retryable", "message"),
    [
        (InvalidInput("no such file"), "invalid_input", False, "no such file"),
        (InvalidInput("bad JSON", code="invalid_request"), "invalid_input", False, "bad JSON"),
        (Overloaded("later"), "overloaded", True, "later"),
        (Permanent("never", code="unsupported"), "unsupported", False, "never"),
        (Permanent("never"), "agent_error", False, "never"),
        (Retryable("again", code="provider_unavailable"), "provider_unavailable", True, "again"),
        (PayloadTooLarge(9, 8), "payload_too_large", False, "Payload of 9 bytes exceeds 8 bytes"),
        (ValueError("odd"), "agent_error", True, "ValueError: odd"),
        (KeyError(), "agent_error", True, "KeyError"),
        (SystemExit(3), "agent_error", True, "SystemExit: 3"),
        (ValueError("x" * 9999), "agent_error", True, ("ValueError: " + "x" * 9999)[:MESSAGE_CHARS]),
    ],
)
def test_failures(error: BaseException, code: str, retryable: bool, message: str) -> None:
    told = failure(error, "a", 2)
    assert (told.code, told.retryable, told.message) == (code, retryable, message)
    assert (told.agent_id, told.attempt) == ("a", 2)


def test_the_key_of_an_effect_is_the_same_at_every_attempt() -> None:
    first, second = context(attempt=1), context(attempt=2)
    assert first.key() == second.key() == "t"
    assert first.key("mail") == second.key("mail") == "t/mail"
    with pytest.raises(ValueError, match="may not contain '/'"):
        first.key("a/b")
    assert not first.cancelled


def context(attempt: int) -> Context:
    place = Path("data")
    return Context("t", attempt, attempt, 0, False, structlog.get_logger(), place, place, lambda fraction, note: None)
