"""JSON on `tasks.requests`: every name and form is taken, and whatever two readers could read differently
is not.
"""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import DecodeError
from schemas.json_requests import ALIASES, INSTANT_FIELDS, JSON_FIELDS, parse_request
from schemas.tasks import TaskCommand

POSITION = "tasks.requests.1.42"
ENVELOPE = {"event_id": POSITION, "occurred_at": 1, "source": "json"}


def parsed(**fields: Any) -> dict[str, Any]:
    return parse_request(json.dumps({"task_id": "t-1", **fields}).encode(), POSITION)


def test_the_least_request_is_a_submit_with_an_id_from_its_position() -> None:
    first, again = parse_request(b"{}", POSITION), parse_request(b"{}", POSITION)
    assert first == again
    assert first["kind"] == "submit"
    assert UUID(first["task_id"]).version == 5
    assert first["task_id"] != parse_request(b"{}", "tasks.requests.1.43")["task_id"]


def test_a_full_request_is_a_task_command() -> None:
    fields = parsed(
        pattern="upload_pdf", payload={"b": 1, "a": [1.5, None, "ü"]}, context={"k": {}}, priority=5,
        required_capabilities=["ocr"], hold=True, not_before="2026-11-21T12:00:00Z", ttl_seconds=60,
        retry={"max_retries": 1, "retry_delay": 2}, admission="reject", reply_to="replies.clients", reply_partition=0,
    )  # fmt: skip
    command = TaskCommand.model_validate(ENVELOPE | fields)
    assert command.payload == '{"a":[1.5,null,"ü"],"b":1}'
    assert command.context == '{"k":{}}'
    assert command.metadata == "{}"
    assert command.not_before == 1_795_262_400_000_000
    assert command.retry is not None and command.retry.retry_delay == 2.0
    assert command.hold and command.admission == "reject"


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_aliases(alias: str, name: str) -> None:
    value: Any = {"payload": {"x": 1}, "type": "ocr", "timeout_seconds": 30}[name]
    assert parsed(**{alias: value}) == parsed(**{name: value})
    with pytest.raises(DecodeError, match=f"'{name}' is given twice"):
        parsed(**{alias: value, name: value})


def test_field_lists_name_fields_of_the_command() -> None:
    assert {*JSON_FIELDS, *INSTANT_FIELDS, *ALIASES.values()} <= set(TaskCommand.model_fields)


@pytest.mark.parametrize(
    ("given_", "micros"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T01:00:00.000001+01:00", 1),
        ("1969-12-31T23:59:59.999999Z", -1),
        (1_700_000_000_000_000, 1_700_000_000_000_000),
    ],
)
def test_instants(given_: Any, micros: int) -> None:
    assert parsed(not_before=given_)["not_before"] == micros


@pytest.mark.parametrize("field", JSON_FIELDS)
def test_objects_may_be_given_as_the_text_that_the_records_carry(field: str) -> None:
    assert parsed(**{field: '{"b": 1, "a": {}}'}) == parsed(**{field: {"a": {}, "b": 1}})


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("hello", 'payload: expected an object, not "hello"'),
        ("[1]", "payload: expected an object, not"),
        ("", "payload: expected an object, not"),
        ('{"a": 1', "payload: Expecting ',' delimiter"),
        ('{"a": 1, "a": 2}', "payload: key 'a' is given twice"),
        ('{"a": NaN}', "payload: NaN is not a finite number"),
        ('{"a": "\\ud800"}', "payload: .* is not valid text"),
        ('{"a":' * 70 + "1" + "}" * 70, "payload: nested more than 64 levels deep"),
    ],
)
def test_text_that_holds_no_sound_object_is_refused_by_its_field(text: str, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        parsed(payload=text)


def test_a_printed_record_can_be_submitted_again() -> None:
    command = TaskCommand.model_validate(ENVELOPE | parsed(pattern="x", payload={"a": [1]}, not_before=5))
    printed = json.dumps(command.model_dump(mode="json")).encode()
    assert TaskCommand.model_validate(parse_request(printed, POSITION)) == command


@pytest.mark.parametrize("task_id", ["a b", "a~b", "", "x" * 129, "ü"])
def test_an_id_that_nobody_may_choose_is_refused_in_words(task_id: str) -> None:
    with pytest.raises(DecodeError, match="task_id: 1 to 128 letters, digits"):
        parsed(task_id=task_id)


def test_derived_ids_are_known_where_they_are_not_chosen() -> None:
    assert parsed(task_id="t-1~2", kind="cancel")["task_id"] == "t-1~2"
    assert parsed(task_id="t-1~2", redrive_of="t-1")["task_id"] == "t-1~2"
    assert parsed(task_id="x" * 128)["task_id"] == "x" * 128


def test_null_counts_as_absent() -> None:
    assert parsed(pattern=None, payload=None, description=None) == parsed()


def test_unknown_fields_go_to_metadata_extra() -> None:
    fields = parsed(metadata={"source": "web", "extra": {"kept": 1}}, colour="red", nested={"a": None})
    assert json.loads(fields["metadata"]) == {
        "source": "web", "extra": {"kept": 1, "colour": "red", "nested": {"a": None}},
    }  # fmt: skip
    with pytest.raises(DecodeError, match=r"metadata\.extra: expected an object"):
        parsed(metadata={"extra": 3}, colour="red")


def test_retry_by_letter_and_by_the_other_names() -> None:
    assert parsed(retry="A")["retry"]["retry_delay"] == 2.0
    assert parsed(retry={"MaxRetries": 1, "InitialDelay": 0.5, "BackoffMultiplier": 3, "MaxDelay": 9})["retry"] == {
        "max_retries": 1, "retry_delay": 0.5, "backoff_multiplier": 3, "max_delay": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "JSON request"),
        (b"[]", "expected one object"),
        (b"{", "JSON request"),
        (b"{} {}", "Extra data"),
        (b'{"a": "\xff"}', "not UTF-8 at byte 7"),
        (b'{"pattern": "a", "pattern": "a"}', "'pattern' is given twice"),
        (b'{"payload": {"x": {"y": 1, "y": 2}}}', "'y' is given twice"),
        (b'{"payload": {"x": NaN}}', "not a finite number"),
        (b'{"payload": {"x": -Infinity}}', "not a finite number"),
        (b'{"payload": {"x": 1e999}}', "not a finite number"),
        (b'{"payload": {"x": "\\ud800"}}', "not valid text"),
        (b'{"payload": {"\\udfff": 1}}', "not valid text"),
        (b'{"x": ' + b"9" * 5000 + b"}", "JSON request"),
        (b'{"payload": ' + b'{"x": ' * 70 + b"1" + b"}" * 71, "nested more than 64"),
        (b'{"payload": ' + b"[" * 100_000, "nested more than 64"),
        (b'{"description": "' + b"x" * 1_000_000 + b'"}', "exceeds 1000000 bytes"),
    ],
)
def test_text_that_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(DecodeError, match=reason):
        parse_request(text, POSITION)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"payload": [1]}, "payload"),
        ({"context": "words"}, "context"),
        ({"metadata": 3}, "metadata"),
        ({"pattern": 3}, "pattern"),
        ({"priority": "5"}, "priority"),
        ({"priority": True}, "priority"),
        ({"priority": 2.0}, "priority"),
        ({"priority": 2**31}, "priority"),
        ({"ttl_seconds": 2**63}, "ttl_seconds"),
        ({"hold": 1}, "hold"),
        ({"required_capabilities": "ocr"}, "required_capabilities"),
        ({"required_capabilities": ["ocr", 3]}, r"required_capabilities\.1"),
        ({"kind": "explode"}, "kind"),
        ({"kind": "unknown"}, "kind"),
        ({"kind": ["submit"]}, "kind"),
        ({"admission": "maybe"}, "admission"),
        ({"not_before": "tomorrow"}, "not_before"),
        ({"not_before": "2026-11-21T12:00:00"}, "not_before"),
        ({"not_before": 1.5}, "not_before"),
        ({"retry": "C"}, "retry"),
        ({"retry": {"max_retries": "3"}}, r"retry\.max_retries"),
        ({"retry": {"max_tries": 3}}, r"retry\.max_tries"),
        ({"retry": {"MaxRetries": 3, "max_retries": 3}}, r"retry\.max_retries"),
    ],
)
def test_wrong_types_name_their_field(fields: dict[str, Any], path: str) -> None:
    with pytest.raises(DecodeError, match=f"^{path}: "):
        parsed(**fields)


numbers = st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_payloads_keep_their_meaning_whatever_the_order_of_keys(payload: dict[str, Any]) -> None:
    text = parsed(payload=payload)["payload"]
    # Canonical JSON knows doubles only, and writes 1e16 without an exponent.
    assert json.loads(text, parse_int=float) == json.loads(json.dumps(payload), parse_int=float)
    assert parsed(payload=dict(reversed(payload.items())))["payload"] == text


@given(st.dictionaries(st.sampled_from([*TaskCommand.model_fields, *ALIASES]), values, max_size=6))
def test_anything_is_read_or_refused(fields: dict[str, Any]) -> None:
    try:
        found = parse_request(json.dumps(fields).encode(), POSITION)
    except DecodeError as refused:
        assert str(refused)
    else:
        assert set(found) <= set(TaskCommand.model_fields)


@given(st.binary(max_size=100))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        parse_request(b"{" + data, POSITION)
    except DecodeError as refused:
        assert str(refused)


def test_large_integers_keep_every_digit() -> None:
    parsed = parse_request(b'{"payload": {"id": 12345678901234567890}}', "t.0.1")
    assert parsed["payload"] == '{"id":12345678901234567890}'
