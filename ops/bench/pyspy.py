"""Where the coordinator's time goes: py-spy looks at it from outside while it works, and the leaves are counted.

The profiler stops the process for each look, so a profiled run is slower; its figures are not to be published.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from schemas.errors import OperatorError

SAMPLES_PER_S = 200
_START_S = 1.0  # py-spy reads the process's symbols before it looks the first time
_STOP_S = 30.0
_WAITING = ("select (selectors.py", ".watch (ops/cli/lifeline.py")
"""Leaves that only wait, which py-spy cannot always tell: between two system calls the thread looks busy."""


@asynccontextmanager
async def profiled(pid: int, file: Path) -> AsyncIterator[None]:
    """Profile a process inside of this block; `file` then holds its stacks, one a line with its number of samples.

    The format is that of flamegraph.pl and speedscope. Raises OperatorError if py-spy is missing or may not look.
    """
    command = [_executable(), "record", "--pid", str(pid), "--output", str(file)]
    command += ["--format", "raw", "--rate", str(SAMPLES_PER_S), "--function"]
    spy = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,  # Ctrl-C must not end it before us
    )
    try:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_S):
                await spy.wait()
        if spy.returncode is not None:
            raise await _failed(spy)
        yield
        if spy.returncode is None:
            spy.send_signal(signal.SIGINT)  # it writes its file then
        try:
            async with asyncio.timeout(_STOP_S):
                await spy.wait()
        except TimeoutError:
            raise OperatorError(f"py-spy did not end within {_STOP_S:g} s", hint="run the bench again") from None
        if not file.is_file():
            raise await _failed(spy)
    finally:
        if spy.returncode is None:
            spy.kill()
            await spy.wait()


def self_time(file: Path, most: int) -> list[tuple[str, float]]:
    """The functions in which most samples fell, callees not counted, with their share of all samples, 0 to 1.

    Samples of threads that wait for a socket or a pipe are left out.
    """
    samples: Counter[str] = Counter()
    for line in file.read_text(encoding="utf-8").splitlines():
        stack, _, count = line.rpartition(" ")
        leaf = stack.rpartition(";")[2]
        if count.isdecimal() and not any(each in leaf for each in _WAITING):
            samples[leaf] += int(count)
    total = samples.total()
    return [(name, count / total) for name, count in samples.most_common(most)]


def _executable() -> str:
    beside = Path(sys.executable).parent / "py-spy"  # an environment that is not activated is not on the PATH
    found = str(beside) if beside.is_file() else shutil.which("py-spy")
    if found is None:
        raise OperatorError("--profile needs py-spy, which is not installed", hint='pip install "troupe[dev]"')
    return found


async def _failed(spy: asyncio.subprocess.Process) -> OperatorError:
    said = (await spy.stderr.read()).decode(errors="replace").strip() if spy.stderr else ""
    return OperatorError(
        f"py-spy cannot profile the coordinator: {said.splitlines()[-1] if said else 'it said nothing'}",
        hint="it needs the right to trace other processes: run as root, or set kernel.yama.ptrace_scope to 0",
    )
