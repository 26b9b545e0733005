"""The thread between a role and its supervisor.

A role must not outlive its supervisor. With `--lifeline` its standard input is a pipe that the supervisor holds open
and never writes to: whatever ends the supervisor, kill -9 too, closes the pipe, on any system, and the role ends as if
it had been asked to.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Annotated

import typer

ReadyFile = Annotated[Path | None, typer.Option("--ready-file", help="Written when the role is ready.")]
Lifeline = Annotated[bool, typer.Option("--lifeline", help="End when standard input is closed.")]


def end_with_supervisor(grace_s: float) -> None:
    """Ask this process to stop when its standard input is closed, and end it `grace_s` seconds later if it has not."""

    def watch() -> None:
        # Not through sys.stdin: its lock, held here, would stop the interpreter at its end.
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        print("the supervisor is gone and the role did not stop in time", file=sys.stderr, flush=True)
        os._exit(1)

    threading.Thread(target=watch, name="lifeline", daemon=True).start()
