"""What of an inbox is done already, whoever did it: an agent may go on in another consumer group than it was in.

Kafka keeps commits by group, and ours are named after hosts: an agent that is hosted from another file, under another
name, or in a group of its own comes to a group without a commit, or with an old one, and would do again all that the inbox
still holds. So what any group that does an agent's work has committed counts as done. Such a group commits only what was
reported and acknowledged, and no two of them live on one inbox. Groups of other names look on, and say nothing.
A commit that is set back by hand, to have work done again, therefore counts only where no other group has come further.
"""

from __future__ import annotations

from collections.abc import Iterable

from actors.ledger import unpack

Commit = tuple[int, str]
"""Offset and metadata."""


def works_for(group: str, prefix: str, agent_id: str) -> bool:
    """Whether this group is one in which the agent's inbox may have been worked on."""
    return group == f"{prefix}agents.{agent_id}" or group.startswith(f"{prefix}actors.")


def merged(commits: Iterable[Commit], end: int) -> tuple[int, set[int]]:
    """Where to begin in a partition that ends at `end`, and the offsets from there on that are done: all that any of the
    commits says. One beyond the end speaks of another log and is not believed; neither is a done offset beyond it.
    """
    believed = [commit for commit in commits if 0 <= commit[0] <= end]
    begin = max((offset for offset, _ in believed), default=0)
    done = {each for offset, metadata in believed for each in unpack(offset, metadata)}
    return begin, {each for each in done if begin <= each < end}
