"""When a finished row may leave, as its changelog record says it: a header, so that nobody must decode the row for it."""

from __future__ import annotations

import struct
from typing import Any

FINISHED_HEADER = "finished"
"""Header of a changelog record whose row is finished: when it may leave, 8 bytes of microseconds."""

TIME = struct.Struct(">Q")


def expiry_bytes(expires: int) -> bytes:
    """The value of the `finished` header."""
    return TIME.pack(max(0, expires))


def expiry_of(headers: Any) -> int | None:
    """When a changelog record's row may leave, None while it is open."""
    pairs = headers.items() if isinstance(headers, dict) else headers or ()
    for name, value in pairs:
        if name == FINISHED_HEADER:
            expires: int = TIME.unpack(value)[0]
            return expires
    return None
