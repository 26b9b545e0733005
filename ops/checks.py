"""What `ops/test` runs: style, types, layers, then every test.

All of them run even if one fails, because whoever waits for minutes wants the whole list. The tests come last, so that
their summary is what a reader sees at the end; one line after it names the checks that failed.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LONG = "--long"
IN_PARALLEL = ("-n", "2", "--dist", "loadfile")
"""Two worker processes, each with a Kafka of its own: most of the time a test waits for one. `-n 0` turns it off."""


def checks() -> dict[str, tuple[str, ...]]:
    """Name and command of each check, in order; the commands are those of this environment."""
    bin_dir = Path(sys.executable).parent
    return {
        "ruff": (str(bin_dir / "ruff"), "check", "."),
        "mypy": (str(bin_dir / "mypy"),),
        "lint-imports": (str(bin_dir / "lint-imports"), "--no-logo"),
    }


def main(arguments: Sequence[str]) -> int:
    """Run the checks, then pytest with these arguments; returns 0 only if all went well."""
    failed = [name for name, command in checks().items() if not _passed(name, command)]
    rest = [argument for argument in arguments if argument != LONG]
    if LONG in arguments:
        rest += ["-m", "long or not long"]
    print("== pytest", flush=True)
    code = subprocess.run([sys.executable, "-m", "pytest", *IN_PARALLEL, *rest], cwd=ROOT, check=False).returncode
    if failed:
        print(f"failed before the tests: {', '.join(failed)}", flush=True)
    return code or (1 if failed else 0)


def _passed(name: str, command: Sequence[str]) -> bool:
    print(f"== {name}", flush=True)
    begun = time.monotonic()
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    print(f"   {'ok' if code == 0 else f'FAILED (code {code})'} in {time.monotonic() - begun:.1f} s", flush=True)
    return code == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
