"""What the README says exists: its commands, files and settings; a newcomer must not be the first to find out."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ops.cli.main import Verbs, app
from ops.commands import command_of
from schemas.agents import AgentState
from schemas.errors import DecodeError, InvalidInput
from schemas.json_requests import parse_request
from schemas.settings import Group, Settings

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
CALL = re.compile(r"\btroupe ([a-z]+)(?: ([a-z]+))?((?: [^`#\n|]*)?)")
GROUPS = {"topics", "schemas", "topology", "bench", "role"}


def calls() -> set[tuple[str, ...]]:
    """Every call of `troupe` in a shell block or between backticks: verb, sub-verb, options."""
    shell = [text for language, text in FENCE.findall(README) if language == "sh"]
    prose = re.findall(r"`(troupe [^`]+)`", FENCE.sub("", README))
    found: set[tuple[str, ...]] = set()
    for verb, second, rest in CALL.findall("\n".join([*shell, *prose])):
        words = (verb, second) if verb in GROUPS and second else (verb,)
        found |= {(*words, option) for option in re.findall(r"--[a-z-]+", f"{second} {rest}")} | {words}
    return found


@pytest.mark.parametrize("words", sorted(calls()), ids=" ".join)
def test_every_command_of_the_readme_exists(words: tuple[str, ...]) -> None:
    *verbs, last = words
    option = last if last.startswith("--") else None
    told = CliRunner().invoke(app, [*verbs, *([] if option else [last]), "--help"], terminal_width=200)
    assert told.exit_code == 0, told.output
    assert option is None or re.search(rf"{option}(?![-\w])", told.output)


def test_the_readme_shows_the_usual_verbs() -> None:
    assert {verb for verb, *_ in calls()} >= set(Verbs.table) - {"role", "demo"}


def settings_rows() -> list[str]:
    """The README's table of settings, as the settings are."""
    rows: list[str] = []
    for name, info in Settings.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, Group):
            fields = {f"{name}.{key}": field for key, field in kind.model_fields.items()}
        else:
            fields = {name: info}
        rows += [f"| `{path}` | {_shown(field.default)} | {field.description} |" for path, field in fields.items()]
    return rows


def _shown(value: object) -> str:
    if value is None:
        return "unset"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    return f"`{text}`" if text else "empty"


def test_every_setting_is_listed() -> None:
    section = README.split("\n## Settings\n")[1].split("\n## ")[0]
    found = [line for line in section.splitlines() if re.match(r"\| `[a-z_]+(\.[a-z_]+)?` \| .* \| .* \|$", line)]
    assert found == settings_rows()


def test_a_task_id_may_be_what_the_readme_says() -> None:
    (row,) = [line for line in README.splitlines() if line.startswith("| `task_id` |")]
    plain, derived = (int(most) for most in re.findall(r"at most (\d+)", row))
    for good in ("aZ0._-", "x" * plain):
        assert parse_request(json.dumps({"task_id": good}).encode(), "tasks.requests.0.0")["task_id"] == good
    for bad in ("a~1", "a b", "x" * (plain + 1)):
        with pytest.raises(DecodeError, match="task_id"):
            parse_request(json.dumps({"task_id": bad}).encode(), "tasks.requests.0.0")
    for good in ("aZ0._-~", "x" * derived):
        assert command_of("cli", {"task_id": good}).task_id == good
    for bad in ("a b", "x" * (derived + 1)):
        with pytest.raises(InvalidInput, match="task_id"):
            command_of("cli", {"task_id": bad})


def test_the_words_for_agents_are_explained() -> None:
    (text,) = re.findall(r"^In `troupe agents --json`.*?\n\n", README, re.MULTILINE | re.DOTALL)
    states, status = text.split("`status` sums up")
    words = set(AgentState) - {AgentState.ABSENT, AgentState.UNKNOWN}  # of those there is no row
    assert set(re.findall(r"`([a-z]+)`", states)) - {"state"} == {str(word) for word in words}
    assert set(re.findall(r"`([a-z]+)`", status.split(". An agent")[0])) == {
        "running", "retrying", "completed", "failed", "idle",
    }  # fmt: skip


def test_the_files_of_the_map_exist() -> None:
    table = README.split("| where | what |")[1].split("\n\n")[0]
    missing = [path for path in re.findall(r"`([a-z_./]+)`", table) if "/" in path and not (ROOT / path).exists()]
    assert missing == []


def test_the_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    titles = [title.lower() for title in re.findall(r"^#+ (.*)$", README, re.MULTILINE)]
    anchors = {"#" + re.sub(r"[^a-z -]", "", title).replace(" ", "-") for title in titles}
    wrong = [
        link
        for link in links
        if not link.startswith("https://") and link not in anchors and not (ROOT / link.split("#")[0]).is_file()
    ]
    assert wrong == []


@pytest.mark.parametrize("code", [text for language, text in FENCE.findall(README) if language == "python"])
def test_python_of_the_readme_is_python(code: str) -> None:
    compile(code, "README.md", "exec")
