"""One child process: started, watched, started again when it ends, and never left behind.

A role that stops for a good reason (a fence, a broker that is away) relies on being started again; a role that cannot
work at all must not be started for ever without anybody being told. So ends in a system that was ready once are
answered with growing pauses, ends while it starts are an error after a few tries, and a role that says again and again
that somebody must change something first is left alone, with its reason where `troupe ps` shows it.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ops.broker.process import rotate
from ops.running import FAILED, Birth, Member
from schemas.errors import OperatorError
from streams.runtime.exits import EXIT_FENCED, EXIT_OPERATOR

_REFUSALS = (1, 2, EXIT_OPERATOR)  # of a named error, of wrong use, and of the coordinator: another try ends the same
_POLL_S = 0.05
_TAIL_BYTES = 8000


@dataclass(frozen=True, slots=True)
class Restarts:
    """How ends are answered: pauses in seconds, and how many crashes while the system starts are an error.

    A process that ran for `healthy_s` begins again with the shortest pause. refusals: how often in a row it may end with
    EXIT_OPERATOR in a system that was ready until it is left alone; an end after `sound_s` begins a new row.
    """

    pause_s_initial: float = 0.2
    pause_s_max: float = 5.0
    healthy_s: float = 10.0
    first_ends: int = 3
    refusals: int = 5
    sound_s: float = 60.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """What to run. `{ready}` in the command stands for the path of the ready file.

    ready_s: seconds until it must be ready. grace_s: seconds from the request to end until it is killed.
    """

    role: str
    command: tuple[str, ...]
    environ: Mapping[str, str]
    log_file: Path
    ready_file: Path
    ready_s: float
    grace_s: float


class Child:
    """A supervised process. `changed` is called after each change of its state; `tell` gets a line for people."""

    def __init__(
        self, spec: ChildSpec, changed: Callable[[], None], tell: Callable[[str], None], restarts: Restarts = Restarts()
    ) -> None:
        self.spec = spec
        self._changed = changed
        self._tell = tell
        self._restarts = restarts
        self._process: asyncio.subprocess.Process | None = None
        self._birth: Birth | None = None
        self._state = "starting"
        self._log_start = 0
        self._ready = asyncio.Event()
        self._ends = 0
        self._refusals = 0
        self._why = ""
        self._settled = False
        self._loop = asyncio.create_task(self._keep_running(), name=f"child {spec.role}")

    async def until_ready(self) -> None:
        """Wait for the first readiness."""
        await self._ready.wait()

    async def until_failed(self) -> None:
        """Raise OperatorError with the child's own words once it has ended too often; else wait."""
        await asyncio.shield(self._loop)

    def settle(self) -> None:
        """The whole system is ready: from now on no end is an error."""
        self._settled = True

    def member(self) -> Member | None:
        """The process as others see it, None before its first start."""
        if self._birth is None:
            return None
        return Member(role=self.spec.role, birth=self._birth, state=self._state, why=self._why)

    async def stop(self) -> None:
        """End it for good: asked first, killed after its grace."""
        self._loop.cancel()
        with suppress(asyncio.CancelledError, OperatorError):
            await self._loop
        process = self._process
        if process is None or process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(self.spec.grace_s):
                await process.wait()
        except TimeoutError:
            self._tell(f"{self.spec.role} did not stop within {self.spec.grace_s:g} s and is killed")
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def _keep_running(self) -> None:
        pause_s = self._restarts.pause_s_initial
        while True:
            begun = time.monotonic()
            code, how = await self._run_once()
            self._ends += 1
            if not self._settled and (code in _REFUSALS or self._ends >= self._restarts.first_ends):
                raise failure(f"{self.spec.role} {how} while starting", self.spec.log_file, self._log_start)
            ran_s = time.monotonic() - begun
            if ran_s >= self._restarts.healthy_s:
                pause_s = self._restarts.pause_s_initial
            if self._gives_up(code, ran_s):
                await self._leave_alone(how)
            self._tell(f"{self.spec.role} {how}; it is started again in {pause_s:g} s")
            self._to("restarting")
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._restarts.pause_s_max)

    def _gives_up(self, code: int | None, ran_s: float) -> bool:
        # Two that bear one name fence each other as often as they tell; that is one row.
        if code not in (EXIT_OPERATOR, EXIT_FENCED) or ran_s >= self._restarts.sound_s:
            self._refusals = 0
        self._refusals += code == EXIT_OPERATOR
        return self._refusals >= self._restarts.refusals

    async def _leave_alone(self, how: str) -> None:
        """Say why, and wait for the end of the system; the others go on."""
        error = failure(f"{self.spec.role} {how}, {self._refusals} times by now", self.spec.log_file, self._log_start)
        self._why = f"{error}. {error.hint}"
        self._tell(f"{self._why}. It is not started again; when that is done: `troupe down` and `troupe up`")
        self._to(FAILED)
        await asyncio.Event().wait()

    async def _run_once(self) -> tuple[int | None, str]:
        """Start it and stay until it has ended; returns its exit code and words for it."""
        try:
            process = await self._start()
        except OSError as error:  # no memory, no process left, a full disk: all of them may pass
            return None, f"could not be started ({error})"
        await self._watch_until_ready(process)
        code = await process.wait()
        return code, f"ended with code {code}"

    async def _start(self) -> asyncio.subprocess.Process:
        spec = self.spec
        spec.ready_file.parent.mkdir(parents=True, exist_ok=True)
        spec.ready_file.unlink(missing_ok=True)
        spec.log_file.parent.mkdir(parents=True, exist_ok=True)
        rotate(spec.log_file)
        with spec.log_file.open("ab") as log:
            self._log_start = log.tell()
            self._process = await asyncio.create_subprocess_exec(
                *(part.replace("{ready}", str(spec.ready_file)) for part in spec.command),
                env=dict(spec.environ),
                stdin=subprocess.PIPE,  # the lifeline: closed by the system when this process is gone
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the supervisor, which stops its children in order
            )
        self._birth = Birth.of(self._process.pid) or Birth(pid=self._process.pid, created_s=time.time())
        self._to("starting")
        return self._process

    async def _watch_until_ready(self, process: asyncio.subprocess.Process) -> None:
        """Return when it is ready or has ended; one that is not ready in time is killed."""
        deadline = time.monotonic() + self.spec.ready_s
        while process.returncode is None:
            if self.spec.ready_file.exists():
                self._to("running")
                self._ready.set()
                return
            if time.monotonic() >= deadline:
                self._tell(f"{self.spec.role} was not ready after {self.spec.ready_s:g} s and is killed")
                with suppress(ProcessLookupError):
                    process.kill()
                return
            await asyncio.sleep(_POLL_S)

    def _to(self, state: str) -> None:
        self._state = state
        self._changed()


def failure(what: str, log_file: Path, start: int) -> OperatorError:
    """The error for a process that failed, in the last words that it wrote to its log after byte `start`."""
    lines = tail(log_file, start)
    hints = [line.removeprefix("Hint: ") for line in lines if line.startswith("Hint: ")]
    hints = hints or [hint for line in lines if (hint := str(_fields(line).get("hint", "")))]
    return OperatorError(f"{what}: {_last_words(lines)}", hint=hints[-1] if hints else f"read {log_file}")


def _last_words(lines: list[str]) -> str:
    """The last `Error:` line, else the last error in a JSON line, else the last line (of a traceback, say)."""
    said = [line.removeprefix("Error: ") for line in lines if line.startswith("Error: ")]
    return (
        said[-1] if said else next(filter(None, map(_logged_error, reversed(lines))), lines[-1] if lines else "no word")
    )


def _logged_error(line: str) -> str:
    fields = _fields(line)
    if fields.get("level") not in ("error", "critical"):
        return ""
    error = fields.get("error")
    why = error.get("message") if isinstance(error, dict) else error or fields.get("why")
    return f"{fields.get('event')}: {why}" if why else str(fields.get("event"))


def _fields(line: str) -> dict[str, Any]:
    try:
        fields = json.loads(line)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def tail(log_file: Path, start: int = 0) -> list[str]:
    """The last lines of a log that were written after byte `start`."""
    try:
        with log_file.open("rb") as log:
            size = log.seek(0, 2)
            log.seek(max(start, size - _TAIL_BYTES))
            lines = log.read(_TAIL_BYTES).decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line for line in lines if line.strip()]
