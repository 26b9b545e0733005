"""An armed point fires at its pass and nowhere else; a wrong spec is refused."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from schemas.errors import OperatorError
from schemas.failpoint import Failpoints


def test_it_kills_at_the_nth_pass() -> None:
    code = (
        "from schemas.failpoint import Failpoints\n"
        "points = Failpoints('here:2:kill')\n"
        "for n in (1, 2, 3):\n"
        "    points.hit('there')\n"
        "    print(n, flush=True)\n"
        "    points.hit('here')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"1\n2\n")


def test_nothing_armed_does_nothing() -> None:
    points = Failpoints()
    points.hit("here")
    points.hit("")
    assert not points.armed("here")


@pytest.mark.parametrize("spec", ["here", "here:1", "here:0:kill", "here:x:kill", ":1:kill", "here:1:burn"])
def test_a_wrong_spec_is_refused(spec: str) -> None:
    with pytest.raises(OperatorError, match="is no failpoint"):
        Failpoints(spec)
