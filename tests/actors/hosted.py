"""A host as a process of its own, for the tests that kill it: `python -m tests.actors.hosted FILE READY_FILE`.

Settings and failpoint come from the environment, as for the role that the product starts.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from actors.loader import load_agents
from ops.logs import configure_logging
from ops.roles.actors import run_actors
from schemas.settings import load_settings, process_environment


def main() -> int:
    settings = load_settings(process_environment())
    configure_logging(settings.monitoring.log_level)
    return asyncio.run(run_actors(settings, load_agents(Path(sys.argv[1])), Path(sys.argv[2])))


if __name__ == "__main__":
    sys.exit(main())
