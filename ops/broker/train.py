"""Train the ahead-of-time cache apart from everything else: `python -m ops.broker.train`.

It is a program of its own because it burns eight seconds of processor time that nobody waits for: whoever started the
broker starts this beside it and forgets about it. It steps aside for all other processes of the machine.
"""

from __future__ import annotations

import asyncio
import os
import sys

from ops.broker.java import train_aot
from schemas.errors import TroupeError

_NICENESS = 10


def main() -> int:
    """Train once; the exit code is 1 if that failed. Prints the cache file, or why there is none."""
    if hasattr(os, "nice"):
        os.nice(_NICENESS)
    try:
        file = asyncio.run(train_aot())
    except TroupeError as error:
        print(f"{error}\n{error.hint}".rstrip(), file=sys.stderr)
        return 1
    print(file or "nothing to do: this Java keeps no such cache, or another process is writing it")
    return 0


if __name__ == "__main__":
    sys.exit(main())
