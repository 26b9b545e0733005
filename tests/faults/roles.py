"""Real role processes under a supervisor of a few lines: started as `troupe up` starts them, killed, started again.

The product's own supervisor is not used, because a test must know of each death, choose what the next start is told,
and be able to leave a process dead or stopped. It must also know which deaths are right: those that were asked for, by a
signal or a failpoint, and those that the fault of the moment explains for this very role. Any other fails the run.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil

from ops.children import ChildSpec
from ops.cli.roles import children
from schemas.settings import Settings

AGENTS = Path(__file__).with_name("agents.py")
READY_S = 60.0
PAUSE_S = 0.2
"""Between a death and the next start."""
STOP_S = 30.0
"""A clean stop's longest time; whoever takes longer is killed, which fails the run."""


@dataclass
class Role:
    """One role. `failpoints` are what the next starts are told, one each. `exits` counts ends by exit code, `odd` those
    of them that nobody asked for and no fault explains.

    takeovers: seconds from each death to the readiness after it. forget: a directory to delete before the next start.
    """

    spec: ChildSpec
    failpoints: list[str] = field(default_factory=list)
    exits: Counter = field(default_factory=Counter)
    odd: Counter = field(default_factory=Counter)
    takeovers: list[float] = field(default_factory=list)
    process: subprocess.Popen | None = None
    keep: bool = True
    died_at: float = 0.0
    was_ready: bool = False
    forget: Path | None = None
    _asked: set[int] = field(default_factory=set)
    _explained: frozenset[int] = frozenset()

    def start(self) -> None:
        """Start it; the next failpoint is armed."""
        if self.forget is not None:
            shutil.rmtree(self.forget, ignore_errors=True)
            self.forget = None
        spec = self.spec
        for path in (spec.ready_file, spec.log_file):
            path.parent.mkdir(parents=True, exist_ok=True)
        spec.ready_file.unlink(missing_ok=True)
        environ, self._asked = dict(spec.environ), set()
        if self.failpoints:
            environ["TROUPE_FAILPOINT"] = self.failpoints.pop(0)
            if environ["TROUPE_FAILPOINT"].endswith(":kill"):
                self._asked.add(-signal.SIGKILL)
        command = [part.replace("{ready}", str(spec.ready_file)) for part in spec.command]
        with spec.log_file.open("ab") as log:
            log.write(f"--- start {environ.get('TROUPE_FAILPOINT', '')}\n".encode())
            self.process = subprocess.Popen(
                command, env=environ, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        self.was_ready = False

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def deaths(self) -> int:
        return sum(self.exits.values())

    @property
    def stopped(self) -> bool:
        """Whether it was stopped by a signal (and not ended)."""
        return self.alive and psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED

    def signal(self, number: int) -> None:
        """Send a signal, if it lives. Who is asked to stop leaves with 0; before it listens it dies of the signal."""
        if self.alive:
            if number == signal.SIGKILL:
                self._asked.add(-number)
            elif number == signal.SIGTERM:
                self._asked |= {0} if self.was_ready else {0, -number}
            with suppress(ProcessLookupError):
                os.kill(self.process.pid, number)

    @contextmanager
    def may_exit(self, *codes: int) -> Iterator[None]:
        """While this lasts, the fault explains these exit codes of this role."""
        before, self._explained = self._explained, self._explained | set(codes)
        try:
            yield
        finally:
            self.look()
            self._explained = before

    def look(self) -> None:
        """What the supervisor sees: ready at last, or dead."""
        if self.process is None:
            return
        if not self.was_ready and self.spec.ready_file.exists():
            self.was_ready = True
            if self.died_at:
                self.takeovers.append(time.monotonic() - self.died_at)
                self.died_at = 0.0
        code = self.process.poll()
        if code is not None:
            self.exits[code] += 1
            self.odd[code] += code not in self._asked | self._explained
            self.died_at = self.died_at or time.monotonic()
            self.process = None
            self.was_ready = False

    def log(self) -> str:
        """All that it said, at all its starts."""
        path = self.spec.log_file
        return path.read_text(errors="replace") if path.exists() else ""


def _as_other(settings: Settings, number: int) -> Settings:
    """The settings of another coordinator: a member of the group with a name and a store of its own."""
    member = settings.coordinator.model_copy(update={"instance": f"coordinator-{number}"})
    return settings.model_copy(update={"coordinator": member, "data_dir": settings.data_dir / f"other-{number}"})


class System:
    """Coordinator and one host of agents on topics of their own. Use as an async context manager.

    `second` and `third` are other coordinators, which run only if a test resumes them.
    """

    def __init__(self, settings: Settings, environ: dict[str, str]) -> None:
        self.settings = settings
        self.ledger = settings.data_dir / "handlers.jsonl"
        given = {**os.environ, "FAULTS_LEDGER": str(self.ledger), **environ}
        specs = children(settings, given, ("coordinator",), (AGENTS,))
        # A role gets exactly the settings of its system; what a test says of the environment comes on top.
        self.coordinator, self.actors = (Role(replace(spec, environ={**spec.environ, **environ})) for spec in specs)
        self.second, self.third = (
            Role(children(_as_other(settings, number), given, ("coordinator",), ())[0], keep=False) for number in (2, 3)
        )
        self._keeper: asyncio.Task | None = None

    async def __aenter__(self) -> System:
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        self.coordinator.start()
        self.actors.start()
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def _keep(self) -> None:
        """Start again whatever ended, as the supervisor does."""
        while True:
            for role in self.roles:
                role.look()
                if role.process is None and role.keep:
                    await asyncio.sleep(PAUSE_S)
                    if role.keep:  # it may have been halted meanwhile
                        role.start()
            await asyncio.sleep(0.02)

    async def ready(self) -> None:
        """Wait until both roles are ready."""
        await self.until(lambda: self.coordinator.was_ready and self.actors.was_ready, READY_S, "ready")

    async def until(self, condition, limit_s: float, what: str) -> None:
        """Wait for something; fails with the ends of the logs."""
        deadline = time.monotonic() + limit_s
        while not condition():
            if time.monotonic() > deadline:
                tails = "\n".join(f"{role.spec.log_file}:\n{role.log()[-3000:]}" for role in self.roles)
                raise AssertionError(f"not {what} within {limit_s:g} s; exits {self.exits()}\n{tails}")
            await asyncio.sleep(0.02)

    @property
    def roles(self) -> tuple[Role, ...]:
        return self.actors, self.coordinator, self.second, self.third

    def exits(self) -> dict[str, int]:
        """How often each role ended, by exit code (-9: killed)."""
        return {f"{name}:{code}": n for name, role in self._named().items() for code, n in role.exits.items()}

    def odd(self) -> dict[str, int]:
        """The ends among them that nobody asked for and no fault explains."""
        return {f"{name}:{code}": n for name, role in self._named().items() for code, n in role.odd.items() if n}

    def _named(self) -> dict[str, Role]:
        return dict(zip(("actors", "coordinator", "second", "third"), self.roles, strict=True))

    async def kill(self, role: Role, number: int = signal.SIGKILL) -> None:
        """End a role and wait until the supervisor has seen it."""
        before = role.deaths
        role.signal(number)
        await self.until(lambda: role.deaths > before, 30, f"dead by signal {number}")

    async def halt(self, role: Role, number: int = signal.SIGKILL) -> None:
        """End a role and leave it dead."""
        role.keep = False
        if role.process is not None:
            await self.kill(role, number)

    def resume(self, role: Role) -> None:
        """Let a halted role be started again; the time in between was not its own."""
        role.died_at = 0.0
        role.keep = True

    def forget_tables(self) -> None:
        """Let the coordinator's next start find no local store, as on a new machine."""
        self.coordinator.forget = self.settings.data_dir / "tables"

    async def stop(self) -> None:
        """End all; asked first, killed when that takes too long."""
        if self._keeper is not None:
            self._keeper.cancel()
            self._keeper = None
        living = [role for role in self.roles if role.alive]
        for role in living:
            role.signal(signal.SIGCONT)
            role.signal(signal.SIGTERM)
        for role in living:
            try:
                await asyncio.to_thread(role.process.wait, STOP_S)
            except subprocess.TimeoutExpired:
                role.process.kill()
                role.process.wait()
        for role in self.roles:
            role.look()
