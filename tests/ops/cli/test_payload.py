"""Payloads from the command line, a file and standard input."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from ops.cli.errors import WrongUse, report
from ops.cli.payload import read_payload
from schemas.errors import InvalidInput, OperatorError, PayloadTooLarge


def test_the_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, "ü"]}', encoding="utf-8")
    monkeypatch.setattr("sys.stdin", io.StringIO('{"b": 2}'))
    assert read_payload(None) == {}
    assert read_payload('{"a": 1}') == {"a": 1}
    assert read_payload(f"@{tmp_path / 'a.json'}") == {"a": [1, "ü"]}
    assert read_payload("-") == {"b": 2}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "",
        "{'a': 1}",
        '{"a": NaN}',
        '{"a": 1, "a": 2}',
        "[" * 100_000,
        "@/nowhere.json",
        "5",
        "null",
        '"text"',
        "[1]",
    ],
)
def test_what_is_no_payload_is_wrong_use(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(WrongUse) as caught:
        read_payload(text)
    assert report(caught.value) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(":")[0] for line in err.splitlines()] == ["Error", "Hint"]


def test_failures_have_a_cause_a_hint_and_code_one(capsys: pytest.CaptureFixture[str]) -> None:
    for error in (OperatorError("a", hint="b"), PayloadTooLarge(2, 1), InvalidInput("x", code="invalid_request")):
        assert report(error) == 1
        assert [line.split(":")[0] for line in capsys.readouterr().err.splitlines()] == ["Error", "Hint"]
