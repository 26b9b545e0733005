"""Starting the supervisor in the background, and staying until it is ready or has failed."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ops.children import failure
from ops.cli.roles import LOGS, READY_FILES, environ_with_sources, troupe_command
from schemas.errors import OperatorError
from schemas.settings import Settings, process_environment

_POLL_S = 0.05
_BROKER_S = 60.0  # what an embedded Kafka may take to be ready
_STOP_S = 60.0  # what a supervisor may take to stop all it started


def detach(settings: Settings, arguments: Sequence[str]) -> dict[str, Any]:
    """Run `troupe up` with these arguments in a session of its own; return what it reports once it is ready.

    Raises OperatorError with its own words when it fails or is not ready in time; nothing is left running then.
    """
    ready_file = settings.data_dir / READY_FILES / "up.ready"
    log_file = settings.data_dir / LOGS / "up.log"
    try:
        for file in (ready_file, log_file):
            file.parent.mkdir(parents=True, exist_ok=True)
        ready_file.unlink(missing_ok=True)
        with log_file.open("ab") as log:
            start = log.tell()
            process = subprocess.Popen(
                troupe_command("up", *arguments, "--ready-file", str(ready_file)),
                env=environ_with_sources(process_environment()),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        raise OperatorError(f"The system cannot be started: {error}", hint="choose another --data") from error
    try:
        return _report(process, ready_file, log_file, start, settings)
    except BaseException:
        _end(process)
        raise


def _report(
    process: subprocess.Popen[bytes], ready_file: Path, log_file: Path, start: int, settings: Settings
) -> dict[str, Any]:
    limit_s = _BROKER_S + 2 * settings.kafka.metadata_timeout_seconds + settings.coordinator.ready_seconds
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline:
        if ready_file.exists():
            found: dict[str, Any] = json.loads(ready_file.read_text(encoding="utf-8"))
            return found
        if process.poll() is not None:
            raise failure("The system did not start", log_file, start)
        time.sleep(_POLL_S)
    raise failure(f"The system was not ready after {limit_s:g} s", log_file, start)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
