"""The tests that the README shows are tests: they pass as a user runs them, and fail when the agent is wrong."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[3] / "ops" / "examples"
README = (EXAMPLES.parents[1] / "README.md").read_text(encoding="utf-8")


def run(folder: Path, agent: str) -> str:
    """pytest on the example in a folder of its own, beside the agents that it tests."""
    (folder / "underwriting.py").write_text(agent)
    test = (EXAMPLES / "test_underwriting.py").read_text().replace("from ops.examples.underwriting", "from underwriting")
    (folder / "test_underwriting.py").write_text(test)
    environ = os.environ | {"PYTHONPATH": str(EXAMPLES.parents[1])}
    command = [sys.executable, "-m", "pytest", "-q", "-c", "/dev/null", "-p", "no:cacheprovider", "test_underwriting.py"]
    done = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout + done.stderr


def test_the_example_passes_beside_a_file_of_ones_own(tmp_path: Path) -> None:
    assert "4 passed" in run(tmp_path, (EXAMPLES / "underwriting.py").read_text())


def test_the_example_fails_with_the_agent_it_tests(tmp_path: Path) -> None:
    wrong = (EXAMPLES / "underwriting.py").read_text().replace("Field(gt=0)", "0")
    told = run(tmp_path, wrong)
    assert "1 failed, 3 passed" in told and "DID NOT RAISE" in told


def test_the_example_is_that_of_the_readme() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    shown = next(text for text in blocks if "underwriting_agent" in text)
    assert (EXAMPLES / "underwriting.py").read_text().partition("\n\n")[2] == shown


def test_what_the_readme_shows_of_rehearsals_is_in_the_example() -> None:
    example = (EXAMPLES / "test_underwriting.py").read_text()
    for block in re.findall(r"^```python\n(.*?)^```$", README, re.DOTALL | re.MULTILINE):
        if "Rehearsal(" in block:
            tests = block[block.index("APPLICATION = ") :]
            assert tests.strip() in example
