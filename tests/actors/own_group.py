"""An agent with a group of its own, and one in its host's."""

from __future__ import annotations

import os
from typing import Any

from actors import Actor, Context


async def who(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    return {"pid": os.getpid()}


def agents() -> list[Actor]:
    own = Actor("own", who, config={"own_group": True, "inbox_partitions": 4})
    both = [own, Actor("shared", who)]
    return [each for each in both if os.environ.get("ONLY", each.agent_id) == each.agent_id]
