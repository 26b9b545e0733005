"""The way from a fresh clone to an environment: what makes it stale, and what is said when it cannot be made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ops import bootstrap

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with an environment whose Python runs, stamped for the demo."""
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    monkeypatch.setattr(bootstrap, "ROOT", tmp_path)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(bootstrap, "STAMP", tmp_path / ".venv" / "troupe-stamp")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to(sys.executable)
    bootstrap.STAMP.write_text(f"{bootstrap._fingerprint()} local\n")
    return tmp_path


def test_a_stamped_environment_is_used_as_it_is(checkout: Path) -> None:
    assert bootstrap._is_fresh(("local",))


def test_other_extras_are_missing(checkout: Path) -> None:
    assert not bootstrap._is_fresh(("local", "dev"))


def test_a_changed_list_of_dependencies_is_noticed(checkout: Path) -> None:
    (checkout / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    assert not bootstrap._is_fresh(("local",))


def test_an_environment_without_its_python_is_made_anew(checkout: Path) -> None:
    (checkout / ".venv" / "bin" / "python").unlink()
    assert not bootstrap._is_fresh(("local",))


def test_a_half_made_environment_is_not_taken_for_one(checkout: Path) -> None:
    bootstrap.STAMP.unlink()
    assert not bootstrap._is_fresh(("local",))
    bootstrap.STAMP.write_text("")
    assert not bootstrap._is_fresh(("local",))


def test_what_pip_said_is_shown_when_it_fails(checkout: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pip = checkout / ".venv" / "bin" / "python"
    pip.unlink()
    pip.write_text('#!/bin/sh\n[ "$1" = -c ] && exit 0\necho no such package\nexit 3\n')
    pip.chmod(0o755)
    assert not bootstrap._install(("local",))
    told = capfd.readouterr().err
    assert "no such package" in told
    assert "Error: the packages cannot be installed (pip ended with code 3)" in told
    assert "Hint: " in told
    assert not bootstrap._is_fresh(("local", "dev"))


@pytest.mark.parametrize("command", ["ops/demo", "ops/test"])
def test_a_machine_without_python_is_told_what_to_install(tmp_path: Path, command: str) -> None:
    dirname = shutil.which("dirname")
    assert dirname is not None
    (tmp_path / "dirname").symlink_to(dirname)
    (tmp_path / "python3").symlink_to("/bin/false")
    done = subprocess.run(
        ["/bin/sh", str(ROOT / command)], env={**os.environ, "PATH": str(tmp_path)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Error: troupe needs Python 3.11, 3.12 or 3.13" in done.stderr
    assert "Hint: " in done.stderr
