"""From a fresh clone to a running command with nothing but Python: the environment that `ops/demo` and `ops/test` need.

This file runs before anything is installed, so it uses the standard library alone and imports nothing of ours. The
environment is `.venv` beside this checkout; a stamp in it says from which `pyproject.toml` it was made, so that the
second run asks nobody and a changed list of dependencies is never forgotten.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
STAMP = VENV / "troupe-stamp"
EXTRAS = {"demo": ("local",), "test": ("local", "dev")}
COMMANDS = {"demo": ("-P", "-m", "ops.cli.main", "demo"), "test": ("-P", "-m", "ops.checks")}
_POLL_S = 0.2
_INSTALL_S_MAX = 1800.0  # a slow network is patient work, a hanging one is an error
_TAIL_LINES = 20


def main() -> NoReturn:
    """Make the environment for the verb in the first argument, then become the command."""
    verb, arguments = sys.argv[1], sys.argv[2:]
    with _alone():
        if not _is_fresh(EXTRAS[verb]) and not _install(EXTRAS[verb]):
            sys.exit(1)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    sys.stdout.flush()
    os.execve(_python(), [str(_python()), *COMMANDS[verb], *arguments], environ)


def _python() -> Path:
    return VENV / "bin" / "python"


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the checkout's directory locked: two first runs at once would install into each other's environment."""
    directory = os.open(ROOT, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)


def _fingerprint() -> str:
    """What the environment depends on: the declared dependencies, and where this checkout lies."""
    return hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + str(ROOT).encode()).hexdigest()


def _stamped() -> set[str]:
    """The extras that are installed from the present `pyproject.toml`."""
    try:
        made_from, *extras = STAMP.read_text(encoding="utf-8").split()
    except (OSError, ValueError):
        return set()
    return set(extras) if made_from == _fingerprint() else set()


def _is_fresh(extras: tuple[str, ...]) -> bool:
    if not set(extras) <= _stamped():
        return False
    return _works()


def _works() -> bool:
    """Whether the environment's Python runs: it is gone when the system's was upgraded or the checkout moved."""
    try:
        return subprocess.run([_python(), "-c", ""], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def _install(extras: tuple[str, ...]) -> bool:
    """Make or bring up to date; say on stderr what happens, and why it failed if it did."""
    if not _works():
        print(f"making {VENV} with Python {sys.version.split()[0]}", file=sys.stderr)
        venv.create(VENV, clear=True, with_pip=True)
    wanted = sorted(set(extras) | _stamped())
    target = f"{ROOT}[{','.join(wanted)}]"
    command = [str(_python()), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--editable", target]
    with tempfile.TemporaryFile("w+b") as output:
        code = _watched(command, output.fileno(), f"installing {', '.join(wanted)} into {VENV} (minutes when new)")
        if code != 0:
            output.seek(0)
            lines = output.read().decode(errors="replace").splitlines()
            print("\n".join(lines[-_TAIL_LINES:]), file=sys.stderr)
            print(f"Error: the packages cannot be installed (pip ended with code {code})", file=sys.stderr)
            print("Hint: check the network and the settings of pip, then run this again", file=sys.stderr)
            return False
    STAMP.write_text(" ".join([_fingerprint(), *wanted]) + "\n", encoding="utf-8")
    return True


def _watched(command: list[str], output: int, what: str) -> int:
    """Run a command with its words kept aside; a line that counts the seconds shows that it lives."""
    begun, live = time.monotonic(), sys.stderr.isatty()
    print(what, end="" if live else "\n", file=sys.stderr, flush=True)
    process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            if time.monotonic() - begun > _INSTALL_S_MAX:
                process.kill()
            if live:
                print(f"\r{what}: {time.monotonic() - begun:.0f} s", end="", file=sys.stderr, flush=True)
            time.sleep(_POLL_S)
    except BaseException:
        process.kill()
        process.wait()
        raise
    ended = f"{what}: {time.monotonic() - begun:.0f} s" if live else f"installed in {time.monotonic() - begun:.0f} s"
    print(f"\r{ended}" if live else ended, file=sys.stderr)
    return process.returncode


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
