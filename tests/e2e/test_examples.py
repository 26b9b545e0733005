"""Every example is run as its first lines say, against one running system, and prints what they say it prints."""

from __future__ import annotations

import ast
import json
import re
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.e2e.conftest import Visitor, running

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

EXAMPLES = Path(__file__).resolve().parents[2] / "ops" / "examples"
FILES = sorted(EXAMPLES.glob("[0-9][0-9]_*.py"))
LINES_MAX = 120


def header(file: Path) -> str:
    """What the example says of itself."""
    return ast.get_docstring(ast.parse(file.read_text())) or ""


def promised(text: str) -> list[str]:
    """The output that a header promises: the indented block after `prints`."""
    found = re.search(r"^prints\n\n((?: {4}.*\n?|\n)+)", text, re.MULTILINE)
    assert found is not None, "a header says what its example prints"
    return [line.removeprefix("    ") for line in found[1].rstrip().splitlines()]


def test_there_are_five_and_each_is_short() -> None:
    assert [file.name[:3] for file in FILES] == ["01_", "02_", "03_", "04_", "05_"]
    assert {file.name: lines for file in FILES if (lines := len(file.read_text().splitlines())) >= LINES_MAX} == {}


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """A system as anybody starts it; on a busy machine its agents need some of their time to appear."""
    made = Visitor(tmp_path_factory.mktemp("examples") / "visitor")
    made.troupe("up", "--detach", "--data", "data")
    yield made
    made.troupe("down")
    assert made.left() == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_prints_what_it_says(everything: Visitor, file: Path) -> None:
    text = header(file)
    assert f"python ops/examples/{file.name}" in text
    hosted = re.search(r"troupe run ops/examples/(\S+)", text)
    with running(everything, str(EXAMPLES / hosted[1])) if hosted else nullcontext():
        printed = everything.call(sys.executable, str(file))
    assert printed.splitlines() == promised(text)


def test_the_dead_letter_of_the_third_holds_its_request(everything: Visitor) -> None:
    (line,) = everything.troupe("topics", "tail", "tasks.deadletters", "--json", "--limit", "1").splitlines()
    assert json.loads(line)["value"]["error"]["message"] == "ZeroDivisionError: division by zero"
