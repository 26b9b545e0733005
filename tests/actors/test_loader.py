"""A user's file is loaded, or the error says which line to mend."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.catalog.builtin import builtin
from actors.loader import load_agents
from schemas.errors import OperatorError

GOOD = """
from __future__ import annotations

from pydantic import BaseModel
from actors import Actor, Context

class Application(BaseModel):
    amount: float

class Risk(BaseModel):
    grade: str

async def assess(application: Application, ctx: Context) -> Risk:
    return Risk(grade="A")

def agents() -> list[Actor]:
    return [Actor("underwriting_agent", assess, capabilities=["risk_assessment"], max_in_flight=16)]
"""


def write(folder: Path, text: str, name: str = "mine.py") -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_the_file_of_the_readme(tmp_path: Path) -> None:
    (actor,) = load_agents(write(tmp_path, GOOD))
    assert (actor.agent_id, actor.capabilities, actor.max_in_flight) == ("underwriting_agent", ["risk_assessment"], 16)


def test_it_may_import_its_neighbours(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "neighbour_of_mine.py")
    (actor,) = load_agents(write(tmp_path, "from neighbour_of_mine import agents\n"))
    assert actor.agent_id == "underwriting_agent"


def test_two_files_of_one_name_are_two_modules(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    load_agents(write(tmp_path / "a", GOOD))
    (actor,) = load_agents(write(tmp_path / "b", GOOD.replace("underwriting_agent", "other")))
    assert actor.agent_id == "other"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "has no function agents()"),
        ("agents = [1]\n", "has no function agents()"),
        ("import there_is_no_such_module\n", "ModuleNotFoundError: No module named 'there_is_no_such_module' (line 1)"),
        ("a = 1\nraise ValueError('odd')\n", "ValueError: odd (line 2)"),
        ("a = 1\n\ndef f(:\n", "(line 3)"),
        ("raise SystemExit(2)\n", "SystemExit: 2 (line 1)"),
        ("def agents():\n    return 1 / 0\n", "ZeroDivisionError: division by zero (line 2)"),
        ("def agents():\n    return None\n", "returned NoneType instead of a list of Actor"),
        ("def agents():\n    return [1]\n", "returned list with int instead of a list of Actor"),
        ("def agents():\n    return 'actor'\n", "returned str instead of a list of Actor"),
        ("def agents():\n    return []\n", "returned no actor"),
        (GOOD.replace("max_in_flight=16)", "max_in_flight=16)] * 2").replace("] * 2]", "] * 2"), "more than once"),
        (GOOD.replace("underwriting_agent", "a.b"), "Actor 'a.b': agent_id"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OperatorError) as raised:
        load_agents(write(tmp_path, text))
    assert message in str(raised.value)
    assert "mine.py" in str(raised.value)
    assert raised.value.hint


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"nowhere\.py' does not exist"):
        load_agents(tmp_path / "nowhere.py")


def test_the_builtin_agents_can_be_narrowed() -> None:
    everyone = [actor.agent_id for actor in builtin()]
    assert len(everyone) == len(set(everyone)) >= 2
    assert [actor.agent_id for actor in builtin(everyone[1:2])] == everyone[1:2]
    with pytest.raises(OperatorError, match="no built-in agent 'nobody'"):
        builtin(["nobody"])
