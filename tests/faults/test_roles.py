"""The harness judges ends: right are those that were asked for, and those that the fault of the moment explains."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from ops.children import ChildSpec
from tests.faults.roles import Role

LIMIT_S = 20.0
LISTENS = "import pathlib, signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit({code})); "
LISTENS += "pathlib.Path('ready').touch(); time.sleep(60)"


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Starts a role that runs a program in a directory where it says `ready`."""
    monkeypatch.chdir(tmp_path)

    def start(program: str, failpoint: str = "") -> Role:
        command = (sys.executable, "-c", program)
        role = Role(ChildSpec("any", command, {}, tmp_path / "log", tmp_path / "ready", LIMIT_S, LIMIT_S))
        role.failpoints += [failpoint] if failpoint else []
        role.start()
        return role

    return start


def until(condition) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(role: Role) -> Role:
    until(lambda: not role.alive)
    role.look()
    return role


def ready(role: Role) -> Role:
    def said() -> bool:
        role.look()
        return role.was_ready

    until(said)
    return role


def test_an_end_that_nobody_asked_for_is_odd(started) -> None:
    for program, code in (("import sys; sys.exit(70)", 70), ("", 0)):
        assert ended(started(program)).odd == {code: 1}


def test_a_fault_explains_its_codes_while_it_lasts(started) -> None:
    role = started("import sys; sys.exit(72)")
    with role.may_exit(70), role.may_exit(72):
        until(lambda: not role.alive)
    assert role.exits == {72: 1} and role.odd.total() == 0, "seen at the end of the phase"
    role.start()
    with role.may_exit(70):
        until(lambda: not role.alive)
    assert role.odd == {72: 1}, "another fault does not explain it"
    role.start()
    assert ended(role).odd == {72: 2}, "nor one that is over"


def test_who_is_asked_to_stop_leaves_with_0(started) -> None:
    for code, odd in ((0, {}), (75, {75: 1})):
        role = ready(started(LISTENS.replace("{code}", str(code))))
        role.signal(signal.SIGTERM)
        assert {code: n for code, n in ended(role).odd.items() if n} == odd


def test_before_it_is_ready_it_may_die_of_the_wish_to_stop_and_only_then(started) -> None:
    deaf = "import time; time.sleep(60)"
    role = started(deaf)
    role.signal(signal.SIGTERM)
    assert ended(role).odd.total() == 0
    role = ready(started(f"import pathlib; pathlib.Path('ready').touch(); {deaf}"))
    role.signal(signal.SIGTERM)
    assert ended(role).odd == {-signal.SIGTERM: 1}


def test_a_kill_is_right_if_we_did_it_or_armed_it_for_this_very_start(started) -> None:
    suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert ended(started(suicide, "stepped:1:kill")).odd.total() == 0
    assert ended(started(suicide, "stepped:1:stop")).odd == {-signal.SIGKILL: 1}
    role = started(LISTENS.replace("{code}", "0"))
    role.signal(signal.SIGKILL)
    assert ended(role).odd.total() == 0
    role.spec = started(suicide).spec
    role.start()
    assert ended(role).odd == {-signal.SIGKILL: 1}, "not for the next start too"
