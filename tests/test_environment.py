"""No test depends on the shell that it is started from."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from schemas.failpoint import VARIABLE
from schemas.settings import Settings, load_settings, process_environment

ROOT = Path(__file__).parents[1]
LEAKS = {
    "TROUPE_KAFKA__BOOTSTRAP": "no such setting", "TROUPE_TASKS__TIMEOUT_SECONDS": "1", "TROUPE_DATA_DIR": "/nowhere",
    "KAFKA_BOOTSTRAP_SERVERS": "nowhere:1", "LOG_LEVEL": "debug", VARIABLE: "stepped:1:kill",
}  # fmt: skip


def test_no_setting_is_heard() -> None:
    assert load_settings(process_environment()) == Settings()
    assert VARIABLE not in os.environ


def test_nor_one_of_the_shell_that_started_the_run() -> None:
    this = f"{Path(__file__).relative_to(ROOT)}::{test_no_setting_is_heard.__name__}"
    command = (sys.executable, "-m", "pytest", "-q", this)
    done = subprocess.run(command, cwd=ROOT, env=os.environ | LEAKS, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout
