"""The tasks of a bench: unique ids, payloads that no compression can shrink, routes that use every pool alike.

A payload is new for each task. With a repeated one, a compressing broker or a cache anywhere on the way would look
faster than it is.
"""

from __future__ import annotations

import binascii
import os
import time
from dataclasses import dataclass

from ops.bench.agents import POOLS, word
from schemas.tasks import TaskCommand
from streams.tasks.rows import evolve

SOURCE = "bench"
_FRAME = '{"text":"%s"}'
LEAST_PAYLOAD_BYTES = len(_FRAME % "")
_BLANK = TaskCommand(event_id="", occurred_at=0, source=SOURCE, task_id="none")
"""Copied without validation: the submitter shares two cores with what is measured."""


def payload(size: int) -> str:
    """A JSON object of exactly `size` bytes with random text in it, 6 bits to the letter."""
    length = size - LEAST_PAYLOAD_BYTES
    return _FRAME % binascii.b2a_base64(os.urandom(length * 3 // 4 + 3), newline=False)[:length].decode()


@dataclass(frozen=True, slots=True)
class Work:
    """The tasks of one run, by number from 0. `run` is in every id, `payload_bytes` is the size of each payload."""

    run: str
    payload_bytes: int

    def task_id(self, number: int) -> str:
        """The id of a task."""
        return f"{self.run}-{number:09d}"

    def number(self, task_id: str) -> int | None:
        """Which task an id names, None if it is not one of this run."""
        run, _, digits = task_id.rpartition("-")
        return int(digits) if run == self.run and digits.isdecimal() else None

    def command(self, number: int) -> TaskCommand:
        """The submit of a task: even ones ask by pattern, odd ones by capability; pools take turns."""
        pool = word(number // 2 % POOLS)
        by_pattern = number % 2 == 0
        task_id = self.task_id(number)
        return evolve(
            _BLANK,
            {
                "event_id": f"{task_id}.submit",
                "occurred_at": time.time_ns() // 1000,
                "task_id": task_id,
                "pattern": pool if by_pattern else None,
                "required_capabilities": [] if by_pattern else [pool],
                "payload": payload(self.payload_bytes),
            },
        )
