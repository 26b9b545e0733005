"""The shape of the code is a promise to its readers, so it is checked: small files, small functions, no hidden imports.

Each limit is one of the habits in CONTRIBUTING. A test that names the file and the line is kinder than a review remark.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("actors", "ops", "schemas", "streams")
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60
TOP_LEVEL = {
    "actors", "ops", "schemas", "streams", "tests",
    "topology.py", "README.md", "LICENSE", "pyproject.toml", "docker-compose.yml",
}  # fmt: skip


def files(*below: str) -> list[Path]:
    """Every Python file of these packages."""
    return [path for part in below for path in sorted((ROOT / part).rglob("*.py"))]


OURS = [ROOT / "topology.py", *files(*SOURCES)]
ALL = [*OURS, *files("tests")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def ignored(entry: str) -> bool:
    """Whether git is told to leave this entry of the top level alone."""
    patterns = (line.strip("/") for line in (ROOT / ".gitignore").read_text().splitlines())
    return any(fnmatch(entry, pattern) for pattern in patterns if pattern)


def test_files_are_short() -> None:
    long = {name(path): lines for path in ALL if (lines := len(path.read_text().splitlines())) > FILE_LINES_MAX}
    assert long == {}


def test_functions_are_short() -> None:
    long = {
        f"{name(path)}:{node.lineno} {node.name}": lines
        for path in ALL
        for node in functions(ast.parse(path.read_text()))
        if (lines := (node.end_lineno or node.lineno) - node.lineno + 1) > FUNCTION_LINES_MAX
    }
    assert long == {}


def test_every_module_says_why_it_exists() -> None:
    silent = [name(path) for path in OURS if path.read_text() and not ast.get_docstring(ast.parse(path.read_text()))]
    assert silent == []


def test_the_top_level_holds_what_a_newcomer_expects_and_nothing_else() -> None:
    found = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert {entry for entry in found if not ignored(entry)} == TOP_LEVEL


def test_our_own_modules_are_imported_at_the_top() -> None:
    hidden = [
        f"{name(path)}:{node.lineno}"
        for path in OURS
        for function in functions(ast.parse(path.read_text()))
        for node in ast.walk(function)
        for module in _imported(node)
        if module.split(".")[0] in (*SOURCES, "topology")
    ]
    assert hidden == []


def test_the_wiring_knows_no_edge() -> None:
    tree = ast.parse((ROOT / "topology.py").read_text())
    assert [module for node in ast.walk(tree) for module in _imported(node) if module.split(".")[0] == "ops"] == []


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []


def test_the_layers_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_package_is_installed() -> None:
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    present = {".".join(path.parent.relative_to(ROOT).parts) for path in files(*SOURCES)}
    assert listed == present


@pytest.mark.parametrize("file", ["ops/demo", "ops/test", ".ci/run"])
def test_the_commands_can_be_run(file: str) -> None:
    assert (ROOT / file).stat().st_mode & 0o111 == 0o111


def test_nothing_is_put_off() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX)\b")
    found = [name(path) for path in OURS if marks.search(path.read_text())]
    assert found == []
