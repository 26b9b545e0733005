"""What tools ask a schema registry, answered from a view."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ops.registry.rest import answer
from schemas.registry import SchemaView

FIRST = {"type": "record", "name": "Word", "fields": [{"name": "text", "type": "string"}]}
SECOND = {**FIRST, "fields": [*FIRST["fields"], {"name": "count", "type": "int", "default": 0}]}
OTHER = {"type": "record", "name": "Other", "fields": []}


@pytest.fixture
def view() -> SchemaView:
    made = SchemaView()
    for subject, schema in (("words-value", FIRST), ("words-value", SECOND), ("more/words-value", FIRST)):
        key, value, _ = made.next_entry(subject, schema)
        made.apply(key, value)
    return made


def body(schema: dict[str, Any]) -> bytes:
    return json.dumps({"schema": json.dumps(schema)}).encode()


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/subjects", ["more/words-value", "words-value"]),
        ("/subjects/words-value/versions", [1, 2]),
        ("/subjects/more%2Fwords-value/versions", [1]),
        ("/subjects/words-value/versions/1/schema", FIRST),
        ("/schemas/ids/2/schema?subject=words-value", SECOND),
        ("/schemas/ids/1/subjects", ["more/words-value", "words-value"]),
        (
            "/schemas/ids/1/versions",
            [{"subject": "more/words-value", "version": 1}, {"subject": "words-value", "version": 1}],
        ),
        ("/schemas/types", ["AVRO"]),
        ("/config", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        ("/config/words-value?defaultToGlobal=true", {"compatibilityLevel": "FULL_TRANSITIVE"}),
        ("/mode", {"mode": "READONLY"}),
    ],
)
def test_what_is_there_is_told(view: SchemaView, path: str, document: Any) -> None:
    assert answer(view, "GET", path) == (200, document)


def test_a_version_is_told_by_number_and_as_the_latest(view: SchemaView) -> None:
    status, second = answer(view, "GET", "/subjects/words-value/versions/2?normalize=false")
    assert (status, second["id"], second["version"], second["subject"]) == (200, 2, 2, "words-value")
    assert json.loads(second["schema"]) == SECOND
    assert answer(view, "GET", "/subjects/words-value/versions/latest") == (200, second)
    assert answer(view, "GET", "/subjects/words-value/versions/-1") == (200, second)
    assert json.loads(answer(view, "GET", "/schemas/ids/2").document["schema"]) == SECOND


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/subjects/words/versions", 40401),
        ("/subjects/words/versions/latest", 40401),
        ("/subjects/words-value/versions/3", 40402),
        ("/subjects/words-value/versions/first", 40402),
        ("/schemas/ids/3", 40403),
        ("/schemas/ids/one", 40403),
        ("/schemas/ids/\u0661", 40403),
        ("/elsewhere", 404),
    ],
)
def test_what_is_missing_has_the_registrys_code(view: SchemaView, path: str, code: int) -> None:
    status, document = answer(view, "GET", path)
    assert (status, document["error_code"]) == (404, code)
    assert document["message"]


def test_a_schema_is_looked_up_whatever_its_layout(view: SchemaView) -> None:
    status, found = answer(view, "POST", "/subjects/words-value?deleted=true", body(SECOND))
    assert (status, found["id"], found["version"]) == (200, 2, 2)
    assert answer(view, "POST", "/subjects/words-value", body(OTHER)).document["error_code"] == 40403
    assert answer(view, "POST", "/subjects/words", body(FIRST)).document["error_code"] == 40401
    assert answer(view, "POST", "/subjects/words-value", b"{").document["error_code"] == 42201


def test_registering_what_is_there_gives_its_id_and_anything_new_is_refused(view: SchemaView) -> None:
    assert answer(view, "POST", "/subjects/words-value/versions", body(FIRST)) == (200, {"id": 1})
    status, refused = answer(view, "POST", "/subjects/words-value/versions", body(OTHER))
    assert (status, refused["error_code"]) == (422, 42205)
    assert "troupe topology apply" in refused["message"]
    for method, path in (("PUT", "/config"), ("DELETE", "/subjects/words-value"), ("POST", "/elsewhere")):
        assert answer(view, method, path).status == 405
    assert view.subjects() == ["more/words-value", "words-value"]
